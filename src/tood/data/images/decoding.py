"""Decode any image file safely into RGB, or say in one sentence why not.

Pixels are as stored: EXIF orientation is ignored unless asked for, which is COCO's convention. Grey, CMYK, palette and
1-bit images become RGB, 16 bits a channel become 8 (the highest of those that the file uses), transparency is dropped
(the colours stay as stored), of an animation the first frame is taken. A JPEG of which a part is gone is decoded as far
as it goes, if nearly all of its rows are there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from tood.data.images.cut_jpeg import decode_cut_jpeg
from tood.data.images.decoded import DecodedImage
from tood.data.images.depth import from_sixteen_bits
from tood.data.images.foreign import what_it_is
from tood.data.images.headers import ImageHeader, Read, ends_well, file_reader, parse_header, read_header
from tood.data.images.jpeg_scans import jpeg_scans
from tood.data.images.limit import pixel_limit, too_large
from tood.data.images.opencv import REDUCTIONS, TELLS_MISSING, decode_everyday, decode_unended
from tood.data.images.orientation import (
    is_tiff,
    opened_orientation,
    orientation,
    turned_size,
    upright,
    without_tiff_orientation,
)
from tood.data.images.pillow import (
    DECODE_ERRORS,
    deep_colours,
    picture_pixels,
    pillow_quiet,
    stored_size,
    sure_tiff,
)
from tood.data.images.png import pixel_chunks, significant_bits_told
from tood.data.images.whole_tiff import decode_whole_tiff, tiff_header
from tood.errors import PictureError, ToodError, one_line

ROWS_NEEDED = 0.9
"""Of a JPEG of which a part is gone, the share of its rows that must be there."""


def read_image(
    source: str | Path | bytes,
    *,
    exif: bool = False,
    max_pixels: int | None = None,
    expected_size: tuple[int, int] | None = None,
    reduction: int = 1,
    name: str | None = None,
) -> NDArray[np.uint8]:
    """The pixels of `decode_image`, [H, W, 3] uint8 RGB; arguments and errors are the same."""
    decoded = decode_image(
        source, exif=exif, max_pixels=max_pixels, expected_size=expected_size, reduction=reduction, name=name
    )
    return decoded.pixels


def decode_image(
    source: str | Path | bytes,
    *,
    exif: bool = False,
    max_pixels: int | None = None,
    expected_size: tuple[int, int] | None = None,
    reduction: int = 1,
    name: str | None = None,
    whole: bool = False,
) -> DecodedImage:
    """Decode an image.

    Args:
        source: path of a file, or the bytes of one.
        exif: turn the picture as its EXIF orientation says, instead of giving the pixels as stored.
        max_pixels: refuse a larger image before decoding it; None takes the environment's `TOOD_MAX_PIXELS`, else
            200 million.
        expected_size: (width, height) of the picture as the annotations have it. One that is of this size when it is
            turned as its EXIF orientation says, but not as stored, is turned; anything else is refused.
        reduction: 2, 4 or 8 decode a JPEG at that part of its size, sides rounded up, with the scaling that libjpeg
            does in its cosine transform: sooner done than all pixels, and free of aliases. Other files come whole.
        name: what to call the image in errors, where `source` is bytes.
        whole: this file was decoded before, and nothing lacked: then it is not looked for. It takes a twentieth of the
            time of decoding, of a progressive JPEG more than the decoding.

    Raises:
        ToodError: missing, empty, truncated, broken, too large or not an image, or not of the expected size.
        ValueError: a reduction that there is not.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction is {reduction}: there are {', '.join(map(str, REDUCTIONS))}")
    data, told = _bytes_of(source, name)
    limit = pixel_limit(max_pixels)
    header = _checked_header(data, told, limit)
    stored = (header.width, header.height)
    unlike = expected_size is not None and stored != expected_size
    turn = orientation(data) if exif or unlike else 1
    if expected_size is not None and turned_size(stored, turn) != expected_size:
        raise PictureError(told, _size_sentence(stored, expected_size))
    data = without_tiff_orientation(data) if is_tiff(data) else data
    decoded = _decode(data, header, told, reduction, limit, whole)
    pixels = decoded.pixels
    shapes = ((header.height, header.width), reduced_shape(header.height, header.width, reduction))
    if pixels.shape[:2] not in shapes:
        raise PictureError(
            told, f"the file says {header.width}x{header.height} pixels, but holds {pixels.shape[1]}x{pixels.shape[0]}"
        )
    return decoded if turn == 1 else replace(decoded, pixels=upright(pixels, turn))


def reduced_shape(height: int, width: int, reduction: int) -> tuple[int, int]:
    """Height, width of a JPEG that `read_image` decodes at that part of its size."""
    return -(-height // reduction), -(-width // reduction)


@dataclass(frozen=True)
class FileFacts:
    """What the headers of an image file say.

    Attributes:
        size: (width, height) in pixels as stored.
        orientation: by its EXIF, 1 (upright) to 8.
    """

    size: tuple[int, int]
    orientation: int


def file_facts(path: Path) -> FileFacts:
    """Size and orientation of a file that is opened once, and of which the headers alone are read.

    Raises:
        ToodError: as for `read_image`.
    """
    with _opened(path, str(path)) as file:
        read = file_reader(file)
        header = _header_of(file, read, str(path))
        return FileFacts((header.width, header.height), opened_orientation(file, read))


def image_size(source: str | Path | bytes, *, exif: bool = False, name: str | None = None) -> tuple[int, int]:
    """(width, height) in pixels from the file's header, without decoding it; errors as for `read_image`."""
    if isinstance(source, bytes):
        header = _header(source, name or "image", pixel_limit())
        turn = orientation(source) if exif else 1
    else:
        with _opened(Path(source), name or str(source)) as file:
            read = file_reader(file)
            header = _header_of(file, read, name or str(source))
            turn = opened_orientation(file, read) if exif else 1
    return turned_size((header.width, header.height), turn)


def image_header(source: str | Path | bytes, *, name: str | None = None) -> ImageHeader:
    """Kind, stored size and channels of an image; errors as for `read_image`."""
    data, told = _bytes_of(source, name)
    return _header(data, told, pixel_limit())


def image_damage(path: Path) -> str | None:
    """Why an image file cannot be read, in a sentence; None if it seems that it can.

    A JPEG or PNG that begins and ends as it should is not decoded for it, so this takes little longer than opening the
    file; damage in its middle is found by decoding alone (`read_image`).
    """
    try:
        with path.open("rb", buffering=0) as file:
            header = read_header(file_reader(file))
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8))
            if header is not None and ends_well(file.read(), header):
                return None
        read_image(path)
    except ToodError as error:
        return str(error)
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror or error})"
    return None


def _bytes_of(source: str | Path | bytes, name: str | None) -> tuple[bytes, str]:
    """The bytes of an image and what to call it."""
    if isinstance(source, bytes):
        return source, name or "image"
    return _read(Path(source), name or str(source)), name or str(source)


def _read(path: Path, told: str) -> bytes:
    with _opened(path, told) as file:
        return file.read()


@contextmanager
def _opened(path: Path, told: str) -> Iterator[BinaryIO]:
    """The file without a buffer; what goes wrong in reading it is a sentence."""
    try:
        with path.open("rb", buffering=0) as file:
            yield file
    except FileNotFoundError:
        raise PictureError(told, "no such image file") from None
    except IsADirectoryError:
        raise PictureError(told, "is a folder, not an image") from None
    except ToodError:
        raise
    except (OSError, ValueError) as error:
        raise PictureError(told, f"cannot be read ({getattr(error, 'strerror', None) or error})") from None


def _checked_header(data: bytes, told: str, limit: int) -> ImageHeader:
    header = _header(data, told, limit)
    if header.width < 1 or header.height < 1:
        raise PictureError(told, f"an image of {header.width}x{header.height} pixels holds nothing")
    if header.width * header.height > limit:
        raise too_large(told, limit, (header.width, header.height))
    return header


def _header(data: bytes, told: str, limit: int) -> ImageHeader:
    if not data:
        raise PictureError(told, "is empty (zero bytes)")
    return parse_header(data) or _rare_header(BytesIO(data), told, limit)


def _header_of(file: BinaryIO, read: Read, told: str) -> ImageHeader:
    """The same of a file that is open."""
    if not read(0, 1):
        raise PictureError(told, "is empty (zero bytes)")
    header = read_header(read)
    if header is not None:
        return header
    file.seek(0)
    return _rare_header(file, told, pixel_limit())


def _rare_header(file: BinaryIO, told: str, limit: int) -> ImageHeader:
    """Of any kind of file, by Pillow, which reads the header only."""
    try:
        with pillow_quiet(limit), Image.open(file) as image:
            return ImageHeader("other", *stored_size(image), len(image.getbands()))
    except Image.DecompressionBombError:
        raise too_large(told, limit, None) from None
    except UnidentifiedImageError:
        file.seek(0)
        header = tiff_header(file, told) if is_tiff(file.read(8)) else None
        if header is not None:
            return header
        raise PictureError(told, what_it_is(_whole(file))) from None
    except DECODE_ERRORS as error:
        raise PictureError(told, f"is not a readable image ({one_line(error)[:200]})") from None


def _whole(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


def _decode(data: bytes, header: ImageHeader, told: str, reduction: int, limit: int, whole: bool) -> DecodedImage:
    """As stored: OpenCV for the whole everyday files, where it is fast; Pillow for the rest, where it is strict."""
    decoded = None
    if header.kind == "jpeg":
        decoded = _decode_jpeg(data, header, told, reduction, limit, whole)
    elif header.kind == "png" and ends_well(data[-8:], header):
        decoded = _decode_png(data, header)
    elif is_tiff(data):
        decoded = _decode_tiff(data, told, limit)
    return _decode_pillow(data, told, limit) if decoded is None else decoded


def _decode_jpeg(
    data: bytes, header: ImageHeader, told: str, reduction: int, limit: int, whole: bool
) -> DecodedImage | None:
    """A JPEG, as far as it goes; None where Pillow must say what it is.

    OpenCV gets those only that it has nothing to remark on: it prints that, naming no file.
    """
    cmyk = header.channels == 4  # where Pillow knows Adobe's inverted inks
    if whole and not cmyk and ends_well(data[-8:], header):
        pixels = decode_everyday(data, reduction)
        return None if pixels is None else DecodedImage(pixels)
    scans = jpeg_scans(data)
    if scans is None:
        return None
    if scans.plain and not cmyk and TELLS_MISSING:
        # Without its end it is decoded only if nothing lacks before.
        pixels = decode_unended(data, scans.scans[0].end, reduction)
        if pixels is not None:
            return DecodedImage(pixels)
    cut = decode_cut_jpeg(data, scans, told, limit)
    if cut is None:
        if scans.ended and scans.complete:
            return None
        raise PictureError(told, "the image is truncated or broken: not all of its rows are there")
    if cut.rows < ROWS_NEEDED * header.height:
        raise PictureError(told, f"the image is truncated: {cut.rows} of its {header.height} rows are there")
    if cut.rows < header.height:
        return DecodedImage(cut.pixels, rows=cut.rows)
    if reduction > 1 and scans.ended and not cmyk:
        pixels = decode_everyday(data, reduction)
        return None if pixels is None else DecodedImage(pixels)
    return DecodedImage(cut.pixels)


def _decode_png(data: bytes, header: ImageHeader) -> DecodedImage | None:
    whole = pixel_chunks(data)
    if whole is None:
        return None
    if header.bits <= 8:
        pixels = decode_everyday(whole)
        return None if pixels is None else DecodedImage(pixels)
    deep = deep_colours(whole, (header.height, header.width))
    if deep is None:
        return None
    return from_sixteen_bits(deep, significant_bits_told(data))


def _decode_tiff(data: bytes, told: str, limit: int) -> DecodedImage:
    """By what surely reads its kind: Pillow or OpenCV, else tifffile."""
    with suppress(UnidentifiedImageError), _pillow(data, told, limit) as image:
        decoded = sure_tiff(image, told, data)
        if decoded is not None:
            return decoded
    return decode_whole_tiff(data, told)


def _decode_pillow(data: bytes, told: str, limit: int) -> DecodedImage:
    with _pillow(data, told, limit) as image:
        image.load()
        return picture_pixels(image, told)


@contextmanager
def _pillow(data: bytes, told: str, limit: int) -> Iterator[Image.Image]:
    """A file opened by Pillow; what goes wrong in reading it is a sentence, but of a TIFF that Pillow does not know."""
    try:
        with pillow_quiet(limit), Image.open(BytesIO(data)) as image:
            yield image
    except ToodError:
        raise
    except UnidentifiedImageError as error:
        if is_tiff(data):
            raise
        raise PictureError(told, f"the image is truncated or broken ({one_line(error)[:200]})") from None
    except Image.DecompressionBombError:
        raise too_large(told, limit, None) from None
    except DECODE_ERRORS as error:
        raise PictureError(told, f"the image is truncated or broken ({one_line(error)[:200]})") from None


def _size_sentence(stored: tuple[int, int], expected: tuple[int, int]) -> str:
    sentence = f"is {stored[0]}x{stored[1]} pixels, but its annotations are for {expected[0]}x{expected[1]}"
    if stored == expected[::-1]:
        sentence += " (they were perhaps made on the picture turned by an EXIF orientation that it has no more)"
    return sentence
