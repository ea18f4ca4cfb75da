"""Pictures of any size read by windows, so that no more of them is in memory than is looked at.

TIFF files of every kind that tifffile reads: tiled and striped, BigTIFF, planar, of 8 and 16 bits, GeoTIFF, and
whole-slide pictures with their smaller copies. Any other picture is decoded whole and then cut. A file is open while a
window of it is read, and at no other time.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from tood.data.images.cut_tiff import ends_too_early, require_end
from tood.data.images.decoding import decode_image
from tood.data.images.depth import eight_bits, significant_bits
from tood.data.images.limit import pixel_limit
from tood.data.images.orientation import INVERSE, file_orientation, turn_boxes, turned_size, upright
from tood.data.images.tiff_colours import as_rgb, colour_problem
from tood.errors import PictureError, ToodError, first_line

# Bytes of decoded pieces that are kept for the next window.
_CACHE = 192 << 20
# Bytes of one piece of a file, decoded; a picture in one compressed piece cannot be read by windows.
_LARGEST_PIECE = 512 << 20
# Of a picture that is read smaller, the pixels held at once.
_BAND = 8 << 20
# A piece of so many bytes is read row by row, where that can be.
_LARGE_PIECE = 8 << 20
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# TIFF's number for it.
_UNCOMPRESSED = 1
_LIBRARY = "pip install 'tood[big]'"
_DAMAGED = "the file may be damaged: copy or download it again"


class Windows(Protocol):
    """A picture that is read by windows.

    Attributes:
        name: for messages.
        height, width: in pixels.
    """

    name: str
    height: int
    width: int

    def read(self, top: int, left: int, height: int, width: int, reduction: int = 1) -> NDArray[np.uint8]:
        """The pixels of a window as [h, w, 3] uint8 RGB.

        Args:
            top, left: of the window, in the picture's pixels.
            height, width: of the window, inside of the picture.
            reduction: its sides divided by this, rounded down; pixels are means.

        Raises:
            PictureError: if that part of the file is broken.
        """


def is_tiff_file(path: Path) -> bool:
    """Whether a file begins as a TIFF or BigTIFF does."""
    try:
        with path.open("rb") as file:
            return file.read(4) in _MAGIC
    except OSError:
        return False


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
                raise PictureError(str(path), f"pictures of this size are read by tifffile: {_LIBRARY}") from None
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


def tiff_pixels(path: Path) -> int:
    """Number of pixels of a TIFF's first picture, by its header; 0 where that cannot be read.

    By tifffile, where that is installed, if Pillow does not know how its channels are stored.
    """
    from PIL import Image

    previous, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with Image.open(path) as image:
            return int(image.width) * int(image.height)
    except Exception:
        return _tifffile_pixels(path)
    finally:
        Image.MAX_IMAGE_PIXELS = previous


def _tifffile_pixels(path: Path) -> int:
    try:
        import tifffile

        with tifffile.TiffFile(path) as file:
            page = _first_page(file.series[0].levels[0])
            return int(page.imagelength) * int(page.imagewidth)
    except Exception:  # whatever a broken file leads it to
        return 0


class ArrayWindows:
    """A picture in memory, [H, W, 3] uint8 RGB."""

    def __init__(self, name: str, pixels: NDArray[np.uint8]) -> None:
        self.name, self._pixels = name, pixels
        self.height, self.width = pixels.shape[:2]

    def read(self, top: int, left: int, height: int, width: int, reduction: int = 1) -> NDArray[np.uint8]:
        """As of `Windows`."""
        return reduced(self._pixels[top : top + height, left : left + width], reduction)


class TurnedWindows:
    """A picture as an EXIF orientation of 2..8 turns it."""

    def __init__(self, stored: Windows, value: int) -> None:
        self.name, self._stored, self._value = stored.name, stored, value
        self.width, self.height = turned_size((stored.width, stored.height), value)

    def read(self, top: int, left: int, height: int, width: int, reduction: int = 1) -> NDArray[np.uint8]:
        """As of `Windows`."""
        # What a reduction leaves out lies right and below here, anywhere in the file.
        height, width = (side // reduction * reduction or side for side in (height, width))
        window = np.array([[left, top, left + width, top + height]], np.float32)
        there = turn_boxes(window, (self.width, self.height), INVERSE.get(self._value, self._value))
        x1, y1, x2, y2 = map(int, there[0])
        return upright(self._stored.read(y1, x1, y2 - y1, x2 - x1, reduction), self._value)


def reduced(pixels: NDArray[np.uint8], reduction: int) -> NDArray[np.uint8]:
    """[h, w, 3] at a whole part of its size, each pixel the mean of its square."""
    if reduction == 1:
        return np.ascontiguousarray(pixels)
    height, width = (max(1, side // reduction) for side in pixels.shape[:2])
    whole = np.ascontiguousarray(pixels[: height * reduction, : width * reduction])
    smaller: NDArray[np.uint8] = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
    return smaller


class TiffWindows:
    """The first picture of a TIFF file, and its smaller copies, where it has any.

    Args:
        path: of the file.

    Raises:
        PictureError: if it is of a kind that is no photograph, or cannot be read by windows.
    """

    def __init__(self, path: Path) -> None:
        import tifffile

        self.name = str(path)
        self._lock = threading.Lock()
        try:
            with tifffile.TiffFile(path) as file:
                levels = [_first_page(level) for level in file.series[0].levels]
                problems = [self._problem(page) for page in levels]
                # tifffile reads it when it is asked for first, and keeps it.
                _ = [page.colormap for page in levels]
        except Exception as error:  # whatever a broken file leads it to
            raise PictureError(self.name, f"is no TIFF that can be read ({first_line(error)})") from error
        if problems[0] is not None:
            raise PictureError(self.name, problems[0])
        page = levels[0]
        self.height, self.width = int(page.imagelength), int(page.imagewidth)
        smaller = zip(levels[1:], problems[1:], strict=True)
        self._pages = [page, *(other for other, problem in smaller if problem is None and _is_alike(other, page))]
        self._cache: OrderedDict[tuple[int, int], NDArray[Any] | None] = OrderedDict()
        self._held = 0
        self._bits: int | None = None
        # A row of windows needs a row of pieces; of strips each is as wide as the picture.
        row = self.width * page.samplesperpixel * page.dtype.itemsize
        self._limit = _CACHE if page.is_tiled else min(max(_CACHE, 2048 * row), 4 * _CACHE)

    def _problem(self, page: Any) -> str | None:
        """Why a page is not read by windows, as the end of a sentence."""
        if page.dtype not in (np.uint8, np.uint16):
            return f"holds {page.dtype} values: convert it to 8 or 16 bits a channel"
        if self._piece_bytes(page) > _LARGEST_PIECE and (page.is_tiled or not page.is_memmappable):
            return (
                f"is compressed in pieces of {self._piece_bytes(page) / 2**20:,.0f} MiB: write it in tiles, such as by "
                "tiffcp -t"
            )
        return colour_problem(page)

    @staticmethod
    def _piece_bytes(page: Any) -> int:
        height, width = _piece_size(page)
        return height * width * int(page.samplesperpixel) * int(page.dtype.itemsize)

    def read(self, top: int, left: int, height: int, width: int, reduction: int = 1) -> NDArray[np.uint8]:
        """As of `Windows`; of a smaller copy in the file, where one is not too small."""
        if reduction == 1:
            return self._pixels(0, top, left, height, width)
        number, factor = self._copy_for(reduction)
        rest = reduction // factor
        high, wide = height // reduction, width // reduction
        result: NDArray[np.uint8] = np.empty((high, wide, 3), np.uint8)
        band = max(1, _BAND // (wide * rest * rest))
        for row in range(0, high, band):
            rows = min(band, high - row)
            window = (top // factor + row * rest, left // factor, rows * rest, wide * rest)
            result[row : row + rows] = reduced(self._pixels(number, *window), rest)
        return result

    def _copy_for(self, reduction: int) -> tuple[int, int]:
        """The smallest copy from which a reduction can be made, and its own."""
        best = (0, 1)
        for number, page in enumerate(self._pages[1:], 1):
            factor = round(self.width / int(page.imagewidth))
            exact = self.height // factor <= page.imagelength and self.width // factor <= page.imagewidth
            if factor > best[1] and reduction % factor == 0 and exact:
                best = (number, factor)
        return best

    def _pixels(self, number: int, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        """A window of one of the copies, as RGB of 8 bits."""
        page = self._pages[number]
        try:
            with self._open(page):
                values = self._values(number, page, top, left, height, width)
        except PictureError:
            raise
        except Exception as error:
            advice = f"a package is missing: {_LIBRARY}" if "imagecodecs" in str(error) else _DAMAGED
            raise PictureError(self.name, f"cannot be read at {left},{top} ({first_line(error)}); {advice}") from error
        if page.dtype == np.uint16:
            bits = self._sixteen_bits()
            # The means that the bits were found in may be less than the brightest pixel.
            values = eight_bits(np.minimum(values, (1 << bits) - 1), bits)
        return as_rgb(values, page)

    @contextmanager
    def _open(self, page: Any) -> Iterator[None]:
        """The page's file for one thread at a time, open so long only: of thousands of pictures none keeps one open."""
        handle = page.parent.filehandle
        with self._lock:
            handle.open()
            try:
                yield
            finally:
                handle.close()

    def _sixteen_bits(self) -> int:
        """How many bits the whole picture uses: the smallest copy is looked through, which has its means."""
        if self._bits is None:
            number = len(self._pages) - 1
            page = self._pages[number]
            largest = 0
            step = max(1, _BAND // int(page.imagewidth))
            for top in range(0, int(page.imagelength), step):
                rows = min(step, int(page.imagelength) - top)
                with self._open(page):
                    largest = max(largest, int(self._values(number, page, top, 0, rows, int(page.imagewidth)).max()))
            self._bits = significant_bits(np.array([[largest]], np.uint16))
        return self._bits

    def _values(self, number: int, page: Any, top: int, left: int, height: int, width: int) -> NDArray[Any]:
        """[h, w, S] as stored, S samples a pixel."""
        planes = int(page.samplesperpixel) if page.planarconfig == 2 else 1
        samples = int(page.samplesperpixel)
        result = np.zeros((height, width, samples), page.dtype)
        high, wide = _piece_size(page)
        rows, columns = -(-int(page.imagelength) // high), -(-int(page.imagewidth) // wide)
        by_rows = not page.is_tiled and self._piece_bytes(page) > _LARGE_PIECE and page.is_memmappable
        for plane in range(planes):
            channels = slice(plane, plane + 1) if planes > 1 else slice(0, samples)
            if by_rows:
                self._copy_rows(page, plane, result[:, :, channels], top, left)
                continue
            for row in range(top // high, -(-(top + height) // high)):
                for column in range(left // wide, -(-(left + width) // wide)):
                    piece = self._piece(number, page, (plane * rows + row) * columns + column)
                    if piece is not None:
                        _paste(result[:, :, channels], piece, row * high - top, column * wide - left)
        return result

    def _copy_rows(self, page: Any, plane: int, target: NDArray[Any], top: int, left: int) -> None:
        """Of a picture that lies uncompressed in one row: only what is wanted is read."""
        height, width, samples = target.shape
        kind = np.dtype(page.dtype).newbyteorder(page.parent.byteorder)
        pixel = samples * kind.itemsize
        start = int(page.dataoffsets[0]) + plane * int(page.imagelength) * int(page.imagewidth) * pixel
        handle = page.parent.filehandle
        for row in range(height):
            place = start + ((top + row) * int(page.imagewidth) + left) * pixel
            handle.seek(place)
            data = handle.read(width * pixel)
            if len(data) < width * pixel:
                raise ends_too_early(self.name, int(handle.size), place + width * pixel)
            target[row] = np.frombuffer(data, kind).reshape(width, samples)

    def _piece(self, number: int, page: Any, index: int) -> NDArray[Any] | None:
        """A tile or strip [h, w, s], None for one that the file leaves out; the last ones used are kept."""
        key = (number, index)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        handle = page.parent.filehandle
        count = int(page.databytecounts[index])
        piece = None
        if count:
            place = int(page.dataoffsets[index])
            handle.seek(place)
            data = handle.read(count)
            cut = ends_too_early(self.name, int(handle.size), place + count) if len(data) < count else None
            if cut is not None and page.compression != _UNCOMPRESSED:
                raise cut  # half a JPEG is decoded without a word
            tables = {} if page.jpegtables is None else {"jpegtables": page.jpegtables}
            try:
                decoded, _, shape = page.decode(data, index, **tables)
            except Exception:
                if cut is not None:
                    raise cut from None
                raise
            piece = None if decoded is None else decoded[0, : shape[1], : shape[2]]
        self._cache[key] = piece
        self._held += 0 if piece is None else piece.nbytes
        while self._held > self._limit and len(self._cache) > 1:
            _, old = self._cache.popitem(last=False)
            self._held -= 0 if old is None else old.nbytes
        return piece


def _first_page(level: Any) -> Any:
    page = level.pages[0]
    return page if page is not None and hasattr(page, "decode") else level.keyframe


def _piece_size(page: Any) -> tuple[int, int]:
    """Height and width of a file's tiles or strips."""
    if page.is_tiled:
        return int(page.tilelength), int(page.tilewidth)
    return min(int(page.rowsperstrip), int(page.imagelength)), int(page.imagewidth)


def _is_alike(page: Any, first: Any) -> bool:
    return bool(page.dtype == first.dtype and page.samplesperpixel == first.samplesperpixel)


def _paste(target: NDArray[Any], piece: NDArray[Any], top: int, left: int) -> None:
    """Puts a piece where it lies in a window, as far as it is inside."""
    height, width = target.shape[:2]
    bottom, right = min(height, top + piece.shape[0]), min(width, left + piece.shape[1])
    first_row, first_column = max(0, top), max(0, left)
    if bottom > first_row and right > first_column:
        target[first_row:bottom, first_column:right] = piece[
            first_row - top : bottom - top, first_column - left : right - left
        ]


def starts(length: int, size: int, overlap: int) -> Sequence[int]:
    """Where windows of a size begin along a side, so that each shares at least `overlap` with the next and the last
    ends where the side does."""
    if length <= size:
        return [0]
    count = -(-(length - overlap) // (size - overlap))
    return [round(number * (length - size) / (count - 1)) for number in range(count)]
