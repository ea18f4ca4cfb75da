"""Pictures by Pillow, which reads every kind of file, strictly: quietly, and by the limit of this package."""

from __future__ import annotations

import logging
import re
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tood.data.images.decoded import DecodedImage
from tood.data.images.depth import bits_told, from_sixteen_bits
from tood.data.images.orientation import INVERSE, picture_orientation, upright
from tood.errors import PictureError

# What Pillow's many decoders raise at broken bytes.
DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
    OverflowError,
    struct.error,
    MemoryError,
    RuntimeError,
    NotImplementedError,
    Image.DecompressionBombError,
)

# TIFF tags.
_WIDTH, _HEIGHT, _BITS_PER_SAMPLE, _PHOTOMETRIC = 256, 257, 258, 262
_MAX_SAMPLE_VALUE, _PLANAR_CONFIGURATION, _SAMPLE_FORMAT = 281, 284, 339
# Of those tags.
_WHITE_IS_ZERO, _SIGNED = 0, 2


@dataclass
class _Quiet:
    """How many threads are inside Pillow, and what was before the first of them came: its limit, its log's silence."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    inside: int = 0
    limit: int | None = None
    silent: bool = False


_quiet = _Quiet()
# Where it says as an error that a TIFF has more bands than it knows.
_TIFF_LOG = logging.getLogger("PIL.TiffImagePlugin")
# As `warnings` keeps it: what is said by Pillow's own modules.
_IGNORED = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


@contextmanager
def pillow_quiet(limit: int) -> Iterator[None]:
    """Pillow without its warnings, and with this limit of pixels in the place of its own; for any number of threads.

    All are settings of the whole process. The limit and the log are as they were when the last thread has left; the
    filter stays, as each change of Python's filters makes it forget which warnings of other modules were shown already.
    """
    # It refuses what is more than twice its limit.
    half = (limit + 1) // 2
    with _quiet.lock:
        if _quiet.inside == 0:
            _quiet.limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, half
            _quiet.silent, _TIFF_LOG.disabled = _TIFF_LOG.disabled, True
            if warnings.filters[:1] != [_IGNORED]:
                warnings.filterwarnings("ignore", module=_IGNORED[3].pattern)
        else:
            Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, half)
        _quiet.inside += 1
    try:
        yield
    finally:
        with _quiet.lock:
            _quiet.inside -= 1
            if _quiet.inside == 0:
                Image.MAX_IMAGE_PIXELS = _quiet.limit
                _TIFF_LOG.disabled = _quiet.silent


def decode_picture(image: Image.Image, told: str, exif: bool) -> DecodedImage:
    """A Pillow picture that may not be loaded yet, turned or as stored.

    Args:
        image: the picture.
        told: what to call it in errors.
        exif: turn it as its EXIF orientation says. A TIFF is turned by Pillow itself when it is loaded, which is undone
            otherwise; of one that was loaded before, the pixels as stored are not known any more.

    Raises:
        ToodError: as for `picture_pixels`.
    """
    before = picture_orientation(image)
    image.load()
    after = picture_orientation(image)
    decoded = picture_pixels(image, told)
    if exif:
        return replace(decoded, pixels=upright(decoded.pixels, after))
    if before == after:
        return decoded
    return replace(decoded, pixels=upright(decoded.pixels, INVERSE.get(before, before)))  # turned by Pillow


def picture_pixels(image: Image.Image, told: str) -> DecodedImage:
    """A loaded Pillow picture of any mode, as it lies, by the rules of this room.

    Args:
        image: the picture.
        told: what to call it in errors.

    Raises:
        ToodError: pixels that are floating-point numbers, or whole numbers of more than 16 bits, or CIELab; a TIFF
            that Pillow misreads.
    """
    problem = _tiff_problem(image)
    if problem is not None:
        raise PictureError(told, problem)
    if image.mode.startswith("I"):
        deep = np.asarray(image).astype(np.int64)  # [H, W], 16 bits
        if deep.min() < 0 or deep.max() > 0xFFFF:
            raise PictureError(told, "holds 32-bit whole numbers a pixel; save it with 8 or 16 bits")
        decoded = from_sixteen_bits(deep, _bits_told(image))
        inverted = _WHITE_IS_ZERO in _numbers(image, _PHOTOMETRIC)  # of 8 bits Pillow has done it
        return replace(decoded, pixels=255 - decoded.pixels) if inverted else decoded
    if image.mode == "F":
        raise PictureError(told, "holds floating-point pixels; save it with 8 or 16 bits a channel")
    if image.mode in ("P", "PA"):
        # By way of RGBA, as Pillow asks for: a palette may have transparent entries.
        image = image.convert("RGBA")
    if image.mode in ("RGBA", "RGBa", "RGBX"):
        return DecodedImage(np.ascontiguousarray(np.asarray(image)[:, :, :3]))
    if image.mode in ("LA", "La"):
        return DecodedImage(np.repeat(np.asarray(image)[:, :, :1], 3, axis=2))
    return DecodedImage(np.array(image.convert("RGB")))


def stored_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of a Pillow picture as its file has it: of a TIFF Pillow tells that of the turned picture."""
    tags = getattr(image, "tag_v2", {})
    return tags.get(_WIDTH, image.width), tags.get(_HEIGHT, image.height)


def _bits_told(image: Image.Image) -> int | None:
    """How many of 16 bits a picture's file says that it uses; None where it says nothing."""
    if image.format == "PPM":  # its largest value is in its header: Pillow has scaled it to 16 bits
        return 16
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return None
    return bits_told(tags.get(_MAX_SAMPLE_VALUE), tags.get(_BITS_PER_SAMPLE))


def sure_tiff(image: Image.Image, told: str, data: bytes) -> DecodedImage | None:
    """A TIFF that Pillow has opened, as stored; None of a kind that neither it nor OpenCV surely reads rightly.

    Args:
        image: the picture, not loaded yet.
        told: what to call it in errors.
        data: the file that it came from: of 16-bit colours Pillow drops the low bits, OpenCV does not.

    Raises:
        PictureError: as for `picture_pixels`.
    """
    deep = image.mode in ("RGB", "RGBA") and 16 in _numbers(image, _BITS_PER_SAMPLE)
    # Of planes of 16 bits OpenCV gives memory that nobody has written, and some with two planes Pillow calls broken.
    if _is_planar(image) and (deep or image.mode in ("LA", "La")):
        return None
    image.load()
    if not deep:
        return picture_pixels(image, told)
    colours = deep_colours(data, (image.height, image.width))
    return None if colours is None else from_sixteen_bits(colours, _bits_told(image))


def _tiff_problem(image: Image.Image) -> str | None:
    """Why the pixels of a Pillow picture are not what its TIFF holds, as the end of a sentence; None if they are."""
    if image.mode == "LAB":
        return "is of the colour space CIELAB: convert it to RGB"
    if image.mode == "L" and _SIGNED in _numbers(image, _SAMPLE_FORMAT):
        return "holds signed 8-bit numbers a pixel; save it with 8 or 16 bits, unsigned"
    if image.mode in ("RGB", "RGBA") and _is_planar(image) and 16 in _numbers(image, _BITS_PER_SAMPLE):
        return "has its colours plane by plane, 16 bits each, which Pillow misreads: give the file itself"
    return None


def _is_planar(image: Image.Image) -> bool:
    return 2 in _numbers(image, _PLANAR_CONFIGURATION)


def _numbers(image: Image.Image, tag: int) -> tuple[object, ...]:
    """What a TIFF says of one or of all channels; nothing of another picture."""
    value = getattr(image, "tag_v2", {}).get(tag, ())
    return value if isinstance(value, tuple) else (value,)


def deep_colours(data: bytes, shape: tuple[int, int]) -> NDArray[np.uint16] | None:
    """[H, W, 3] uint16 RGB of a file of 16 bits a channel, grey ones too; None if OpenCV cannot give it."""
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except (cv2.error, MemoryError):
        return None
    if pixels is None or pixels.dtype != np.uint16 or pixels.shape[:2] != shape:
        return None
    if pixels.ndim == 2:
        return np.repeat(pixels[:, :, None], 3, axis=2)
    return np.ascontiguousarray(pixels[:, :, 2::-1]) if pixels.shape[2] >= 3 else None
