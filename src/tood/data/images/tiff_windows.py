"""TIFF files of any size, read by windows.

Of every kind that tifffile reads: tiled and striped, BigTIFF, planar, of 8 and 16 bits, GeoTIFF, and whole-slide
pictures with their smaller copies. A file is open while a window of it is read, and at no other time.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tood.data.images.cut_tiff import ends_too_early
from tood.data.images.depth import eight_bits, significant_bits
from tood.data.images.tiff_colours import as_rgb, colour_problem, samples_problem
from tood.data.images.tiff_pieces import UNCOMPRESSED, piece_bytes, piece_problem, piece_size
from tood.data.images.whole_tiff import LIBRARY
from tood.data.images.windows import reduced
from tood.errors import PictureError, first_line

# Bytes of decoded pieces that are kept for the next window.
_CACHE = 192 << 20
# Of a picture that is read smaller, the pixels held at once.
_BAND = 8 << 20
# A piece of so many bytes is read row by row, where that can be.
_LARGE_PIECE = 8 << 20
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_DAMAGED = "the file may be damaged: copy or download it again"


def is_tiff_file(path: Path) -> bool:
    """Whether a file begins as a TIFF or BigTIFF does."""
    try:
        with path.open("rb") as file:
            return file.read(4) in _MAGIC
    except OSError:
        return False


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
        return samples_problem(page) or colour_problem(page) or piece_problem(page, int(page.samplesperpixel))

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
            advice = f"a package is missing: {LIBRARY}" if "imagecodecs" in str(error) else _DAMAGED
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
        high, wide = piece_size(page)
        rows, columns = -(-int(page.imagelength) // high), -(-int(page.imagewidth) // wide)
        by_rows = (
            not page.is_tiled and piece_bytes(page, int(page.samplesperpixel)) > _LARGE_PIECE and page.is_memmappable
        )
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
            if cut is not None and page.compression != UNCOMPRESSED:
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
