"""Which pictures are read by windows: TIFF files; any other is decoded whole and then cut."""

from __future__ import annotations

from pathlib import Path

from tood.data.images.cut_tiff import require_end
from tood.data.images.decoding import decode_image
from tood.data.images.limit import pixel_limit
from tood.data.images.orientation import file_orientation
from tood.data.images.tiff_windows import TiffWindows, is_tiff_file, tiff_pixels
from tood.data.images.whole_tiff import LIBRARY
from tood.data.images.windows import ArrayWindows, TurnedWindows, Windows
from tood.errors import PictureError, ToodError


def open_windows(source: str | Path, *, exif: bool = False) -> Windows:
    """A picture in a file, to be read by windows.

    Args:
        source: the file.
        exif: turn the picture as its EXIF orientation says.

    Raises:
        PictureError: if it cannot be read; if it is no TIFF that is read by windows, and larger than what is decoded
            whole.
    """
    path = Path(source)
    if is_tiff_file(path):
        try:
            import tifffile  # noqa: F401
        except ImportError:
            if tiff_pixels(path) > pixel_limit():
                raise PictureError(str(path), f"pictures of this size are read by tifffile: {LIBRARY}") from None
        else:
            return _tiff_windows(path, exif)
    return ArrayWindows(str(path), decode_image(path, exif=exif).pixels)


def _tiff_windows(path: Path, exif: bool) -> Windows:
    """By windows, or decoded whole if it is of a kind that is read so alone, and not too large."""
    require_end(path)
    try:
        picture = TiffWindows(path)
    except PictureError as error:
        if not 0 < tiff_pixels(path) <= pixel_limit():
            raise
        try:
            return ArrayWindows(str(path), decode_image(path, exif=exif).pixels)
        except ToodError:
            raise error from None
    turned = file_orientation(path) if exif else 1
    return picture if turned == 1 else TurnedWindows(picture, turned)
