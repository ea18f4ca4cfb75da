"""Decode any image file safely into RGB, or say in one sentence why not.

Pixels are as stored: EXIF orientation is ignored unless asked for, which is COCO's convention. Grey, CMYK, palette and
1-bit images become RGB, 16 bits a channel become 8 (the high byte), transparency is dropped (the colours stay as
stored), of an animation the first frame is taken.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from tood.errors import ToodError

MAX_PIXELS = 200_000_000
"""Larger images are refused before they are decoded (a decompression bomb costs gigabytes of memory)."""

_HEADER_BYTES = 1 << 16
_ORIENTATION_TAG = 0x0112
# Start-of-frame markers of JPEG: C0..CF but Huffman tables (C4), extensions (C8) and arithmetic tables (CC).
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
# What Pillow's many decoders raise at broken bytes.
_DECODE_ERRORS = (
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


@dataclass(frozen=True)
class ImageHeader:
    """What the first bytes of an image file say: kind (`jpeg`, `png`, `other`), size in pixels, number of channels."""

    kind: str
    width: int
    height: int
    channels: int


def read_image(
    source: str | Path | bytes,
    *,
    exif: bool = False,
    max_pixels: int = MAX_PIXELS,
    expected_size: tuple[int, int] | None = None,
    reduction: int = 1,
    name: str | None = None,
) -> NDArray[np.uint8]:
    """Decode an image.

    Args:
        source: path of a file, or the bytes of one.
        exif: turn the picture as its EXIF orientation says, instead of giving the pixels as stored.
        max_pixels: refuse a larger image before decoding it.
        expected_size: (width, height) of the stored pixels as the annotations have it; refuse anything else.
        reduction: 2, 4 or 8 decode a JPEG at that part of its size, sides rounded up, with the scaling that libjpeg
            does in its cosine transform: sooner done than all pixels, and free of aliases. Other files come whole.
        name: what to call the image in errors, where `source` is bytes.

    Returns:
        [H, W, 3] uint8 RGB.

    Raises:
        ToodError: missing, empty, truncated, broken, too large or not an image, or not of the expected size.
        ValueError: a reduction that there is not.
    """
    if reduction not in _REDUCED:
        raise ValueError(f"reduction is {reduction}: there are {', '.join(map(str, _REDUCED))}")
    data, told = _bytes_of(source, name)
    header = _checked_header(data, told, max_pixels)
    if expected_size is not None and (header.width, header.height) != expected_size:
        raise ToodError(_size_sentence(told, (header.width, header.height), expected_size))
    pixels = _decode(data, header, told, reduction)
    shapes = ((header.height, header.width), reduced_shape(header.height, header.width, reduction))
    if pixels.shape[:2] not in shapes:
        raise ToodError(
            f"{told}: the file says {header.width}x{header.height} pixels, but holds "
            f"{pixels.shape[1]}x{pixels.shape[0]}"
        )
    return _upright(pixels, orientation(data)) if exif else pixels


def reduced_shape(height: int, width: int, reduction: int) -> tuple[int, int]:
    """Height, width of a JPEG that `read_image` decodes at that part of its size."""
    return -(-height // reduction), -(-width // reduction)


def image_size(source: str | Path | bytes, *, exif: bool = False, name: str | None = None) -> tuple[int, int]:
    """(width, height) in pixels from the file's header, without decoding it; errors as for `read_image`."""
    if isinstance(source, bytes):
        start, told = source, name or "image"
    else:
        told = str(source)
        start = _read(Path(source), told, _HEADER_BYTES)
    header = _parse_header(start)
    if header is None or exif:
        # The header of a rare format, or one behind long metadata.
        data, told = _bytes_of(source, name)
        header = _header(data, told)
        if exif and orientation(data) >= 5:
            return header.height, header.width
    return header.width, header.height


def image_header(source: str | Path | bytes, *, name: str | None = None) -> ImageHeader:
    """Kind, stored size and channels of an image; errors as for `read_image`."""
    data, told = _bytes_of(source, name)
    return _header(data, told)


def image_damage(path: Path) -> str | None:
    """What is wrong with an image file, in a sentence; None if it seems whole.

    A JPEG or PNG that begins and ends as it should is not decoded for it, so this takes little longer than opening the
    file; damage in its middle is found by decoding alone (`read_image`).
    """
    try:
        with path.open("rb") as file:
            header = _parse_header(file.read(_HEADER_BYTES))
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8))
            if header is not None and _ends_well(file.read(), header):
                return None
        read_image(path)
    except ToodError as error:
        return str(error)
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror or error})"
    return None


def orientation(data: bytes) -> int:
    """EXIF orientation of an image's bytes: 1 (upright) to 8, 1 where there is none or it makes no sense."""
    if b"Exif" not in data and b"eXIf" not in data and not data.startswith((b"II*\0", b"MM\0*")):
        return 1
    try:
        with Image.open(BytesIO(data)) as image:
            value = image.getexif().get(_ORIENTATION_TAG, 1)
    except _DECODE_ERRORS:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _bytes_of(source: str | Path | bytes, name: str | None) -> tuple[bytes, str]:
    """The bytes of an image and what to call it."""
    if isinstance(source, bytes):
        return source, name or "image"
    return _read(Path(source), name or str(source), None), name or str(source)


def _read(path: Path, told: str, limit: int | None) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read() if limit is None else file.read(limit)
    except FileNotFoundError:
        raise ToodError(f"{told}: no such image file") from None
    except IsADirectoryError:
        raise ToodError(f"{told}: is a folder, not an image") from None
    except (OSError, ValueError) as error:
        raise ToodError(f"{told}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


def _checked_header(data: bytes, told: str, max_pixels: int) -> ImageHeader:
    header = _header(data, told)
    if header.width < 1 or header.height < 1:
        raise ToodError(f"{told}: an image of {header.width}x{header.height} pixels holds nothing")
    if header.width * header.height > max_pixels:
        raise ToodError(
            f"{told}: {header.width}x{header.height} pixels are more than the limit of {max_pixels:,}; "
            "make it smaller, or raise the limit if you trust it"
        )
    return header


def _header(data: bytes, told: str) -> ImageHeader:
    if not data:
        raise ToodError(f"{told}: is empty (zero bytes)")
    header = _parse_header(data)
    if header is not None:
        return header
    try:
        # Pillow reads the header only; it warns of, or refuses, what it deems too large.
        with Image.open(BytesIO(data)) as image:
            return ImageHeader("other", image.width, image.height, len(image.getbands()))
    except Image.DecompressionBombError:
        raise ToodError(f"{told}: is too large to be decoded safely") from None
    except UnidentifiedImageError:
        raise ToodError(f"{told}: is not an image, or too broken to be recognised as one") from None
    except _DECODE_ERRORS as error:
        raise ToodError(f"{told}: is not a readable image ({_one_line(error)})") from None


def _parse_header(data: bytes) -> ImageHeader | None:
    """Header of a JPEG or PNG from its first bytes; None for anything else."""
    if data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR" and len(data) >= 26:
        width, height = struct.unpack(">II", data[16:24])
        return ImageHeader("png", width, height, {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}.get(data[25], 3))
    if not data.startswith(b"\xff\xd8"):
        return None
    at = 2
    while at + 10 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _JPEG_FRAMES:
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return ImageHeader("jpeg", width, height, data[at + 9]) if height else None
        elif marker == 0x01 or 0xD0 <= marker <= 0xD9:  # markers that stand alone
            at += 2
        else:
            at += 2 + int(struct.unpack(">H", data[at + 2 : at + 4])[0])
    return None


def _decode(data: bytes, header: ImageHeader, told: str, reduction: int) -> NDArray[np.uint8]:
    """[H, W, 3] RGB: OpenCV for the whole everyday files, where it is fast; Pillow for the rest, where it is strict."""
    # Four channels are CMYK in a JPEG, where Pillow knows Adobe's inverted inks.
    cmyk = header.kind == "jpeg" and header.channels == 4
    if _ends_well(data[-8:], header) and not cmyk:
        pixels = _decode_opencv(data, reduction if header.kind == "jpeg" else 1)
        if pixels is not None:
            return pixels
    return _decode_pillow(data, told)


def _ends_well(end: bytes, header: ImageHeader) -> bool:
    """Whether a file's last 8 bytes are what its format wants: those of a truncated one, which OpenCV may decode half
    grey, are not.
    """
    if header.kind == "jpeg":
        return end[-2:] == b"\xff\xd9"
    return header.kind == "png" and end[:4] == b"IEND"


def _decode_opencv(data: bytes, reduction: int) -> NDArray[np.uint8] | None:
    try:
        # Scales 16 bits to 8, spreads grey and palette to three channels, drops alpha.
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), _REDUCED[reduction] | cv2.IMREAD_IGNORE_ORIENTATION)
        if bgr is None or bgr.ndim != 3:
            return None
        rgb: NDArray[np.uint8] = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    except (cv2.error, MemoryError):
        return None
    return rgb


def _decode_pillow(data: bytes, told: str) -> NDArray[np.uint8]:
    try:
        with Image.open(BytesIO(data)) as image:
            image.load()
            return picture_pixels(image, told)
    except ToodError:
        raise
    except Image.DecompressionBombError:
        raise ToodError(f"{told}: is too large to be decoded safely") from None
    except _DECODE_ERRORS as error:
        raise ToodError(f"{told}: the image is truncated or broken ({_one_line(error)})") from None


def picture_pixels(image: Image.Image, told: str) -> NDArray[np.uint8]:
    """[H, W, 3] uint8 RGB of a Pillow picture of any mode, by the rules of this module.

    Args:
        image: the picture; EXIF orientation is ignored.
        told: what to call it in errors.

    Raises:
        ToodError: pixels that are floating-point numbers, or whole numbers of more than 16 bits.
    """
    if image.mode.startswith("I"):
        deep = np.asarray(image).astype(np.int64)  # [H, W], 16 bits
        if deep.min() < 0 or deep.max() > 0xFFFF:
            raise ToodError(f"{told}: holds 32-bit whole numbers a pixel; save it with 8 or 16 bits")
        grey = (deep >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise ToodError(f"{told}: holds floating-point pixels; save it with 8 or 16 bits a channel")
    if image.mode in ("P", "PA"):
        # By way of RGBA, as Pillow asks for: a palette may have transparent entries.
        image = image.convert("RGBA")
    if image.mode in ("RGBA", "RGBa", "RGBX"):
        return np.ascontiguousarray(np.asarray(image)[:, :, :3])
    if image.mode in ("LA", "La"):
        return np.repeat(np.asarray(image)[:, :, :1], 3, axis=2)
    return np.array(image.convert("RGB"))


def _upright(pixels: NDArray[np.uint8], value: int) -> NDArray[np.uint8]:
    """Undo an EXIF orientation of 1..8."""
    if value in (2, 4, 5, 7):
        pixels = pixels[:, ::-1] if value in (2, 5, 7) else pixels[::-1]
    # Quarter turns counter-clockwise that remain after the mirroring above.
    turns = {3: 2, 5: 1, 6: 3, 7: 3, 8: 1}.get(value, 0)
    return np.ascontiguousarray(np.rot90(pixels, turns))


def _size_sentence(told: str, stored: tuple[int, int], expected: tuple[int, int]) -> str:
    sentence = f"{told}: is {stored[0]}x{stored[1]} pixels, but its annotations are for {expected[0]}x{expected[1]}"
    if stored == expected[::-1]:
        sentence += " (they were perhaps made on the picture turned by its EXIF orientation)"
    return sentence


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
