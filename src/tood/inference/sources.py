"""Whatever a person may call an image, read as RGB pixels."""

from __future__ import annotations

import glob
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tood.data.files import IMAGE_SUFFIXES, find_images, passed_over_line
from tood.data.images import DecodedImage, decode_image, decode_picture, from_sixteen_bits
from tood.errors import ToodError, require_local
from tood.web import OneDeadline, SafeRedirects, UnsafeRedirectError, is_web_address

Content: TypeAlias = "str | Path | bytes | NDArray[np.uint8] | Image.Image"
Source: TypeAlias = "Content | ImageSource"

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class SourceConfig:
    """How images are fetched and read.

    Attributes:
        exif: turn photographs as their EXIF orientation says; by default pixels are taken as stored, as COCO does.
        url_timeout: seconds without an answer after which a download is given up.
        url_deadline: seconds after which a download is given up, wherever it is: looking up names, connecting,
            following redirects, or with bytes that still trickle in.
        url_max_bytes: a larger download is given up.
    """

    exif: bool = False
    url_timeout: float = 20.0
    url_deadline: float = 300.0
    url_max_bytes: int = 64 << 20


@dataclass(frozen=True, eq=False)
class ImageSource:
    """One image that is not read yet.

    Attributes:
        name: path, URL, or a word for what has neither; for messages and results.
        content: path, URL, bytes, array or picture.
        decoded: its pixels, where they were taken already.
    """

    name: str
    content: Content
    decoded: DecodedImage | None = None

    @property
    def path(self) -> str | None:
        """Path or URL, None for an image out of memory."""
        return self.name if isinstance(self.content, (str, Path)) else None

    def taken(self, config: SourceConfig) -> ImageSource:
        """The same image, whatever its owner does with an array or a picture next: fill it anew, or close its file."""
        if isinstance(self.content, np.ndarray):
            return replace(self, content=self.content.copy())
        if isinstance(self.content, Image.Image):
            try:
                return replace(self, decoded=self.decode(config))
            except ToodError:  # raised where it is read
                return self
        return self

    def read(self, config: SourceConfig) -> NDArray[np.uint8]:
        """[H, W, 3] uint8 RGB; errors as for `decode`."""
        return self.decode(config).pixels

    def decode(self, config: SourceConfig) -> DecodedImage:
        """The pixels, and what was found in decoding them.

        Raises:
            ToodError: if it cannot be fetched, is no image, or an array of another kind.
        """
        content = self.content
        if self.decoded is not None:
            return self.decoded
        if isinstance(content, np.ndarray):
            return _from_array(content)
        if isinstance(content, Image.Image):
            return _from_picture(content, config.exif)
        if isinstance(content, str) and is_url(content):
            content = download(content, config)
        return decode_image(content, exif=config.exif, name=self.name)


_SINGLE = (str, Path, bytes, bytearray, memoryview, np.ndarray, Image.Image)


def is_many(sources: object) -> bool:
    """Whether any number of images is meant: by a folder, a glob pattern, or an iterable of sources."""
    if not isinstance(sources, (str, Path)):
        return isinstance(sources, Iterable) and not isinstance(sources, _SINGLE)
    if isinstance(sources, str) and is_url(sources):
        return False
    path = _local(sources)
    return path.is_dir() or _is_pattern(path)


def is_url(source: str) -> bool:
    """Whether a text is a web address."""
    return source.lower().startswith(("http://", "https://"))


def expand(source: object) -> Iterator[ImageSource]:
    """The images that a source stands for.

    A folder stands for all images in it and in its sub-folders (hidden ones aside), told by their suffix, in order of
    their paths; a glob pattern (`*`, `?`, `[..]`, `**` for any depth) for the files that it matches.

    Raises:
        ToodError: if there is no such thing, or no image in it.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        yield ImageSource("image from bytes", bytes(source))
    elif isinstance(source, np.ndarray):
        yield ImageSource("image from an array", source)
    elif isinstance(source, Image.Image):
        yield ImageSource("image from PIL", source)
    elif isinstance(source, ImageSource):
        yield source
    elif isinstance(source, str) and is_url(source):
        yield ImageSource(source, source)
    elif isinstance(source, (str, Path)):
        for path in _files(source):
            yield ImageSource(str(path), path)
    else:
        raise ToodError(
            f"an image cannot be read from a {type(source).__name__}: give a path, a URL, bytes, a uint8 array "
            "[H, W, 3] or [H, W], or a PIL image"
        )


def expand_all(sources: object) -> Iterator[ImageSource]:
    """The images of one source or of several."""
    if isinstance(sources, Iterable) and not isinstance(sources, _SINGLE):
        for source in sources:
            yield from expand(source)
    else:
        yield from expand(sources)


def passed_over(source: str | Path) -> str | None:
    """One line on the files of a folder that it does not stand for, though a person may think so; None without any."""
    if is_url(str(source)):
        return None
    path = _local(source)
    found = find_images(path) if path.is_dir() else None
    return passed_over_line(found.passed_over) if found is not None and found.images else None


def _local(source: str | Path) -> Path:
    """The path, with a home folder for `~`."""
    try:
        return Path(source).expanduser()
    except RuntimeError:  # no user of that name: the file itself is called so
        return Path(source)


def _is_pattern(source: str | Path) -> bool:
    # A file may have a bracket in its name.
    return glob.has_magic(str(source)) and not Path(source).exists()


def _files(source: str | Path) -> Iterator[Path]:
    if source == "":
        raise ToodError("an empty text names no image: give a path")
    path = _local(source)
    try:
        is_folder = path.is_dir()
    except OSError as error:
        raise ToodError(f"there is no image file or folder {str(path)[:80]}...: {error.strerror}") from error
    if is_folder:
        found = find_images(path)
        if not found.images:
            sentence = f"there is no image in the folder {path}: looked for {', '.join(sorted(IMAGE_SUFFIXES))}"
            line = passed_over_line(found.passed_over)
            raise ToodError(f"{sentence}; {line}" if line else sentence)
        yield from found.images
    elif _is_pattern(path):
        matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207 - absolute too
        files = [match for match in matches if match.is_file()]
        if not files:
            raise ToodError(f"no file matches {path}: check the pattern")
        yield from files
    elif path.exists():
        yield path
    else:
        require_local(path)
        raise ToodError(f"there is no image file or folder {path}: check the path")


def _from_array(array: NDArray[Any]) -> DecodedImage:
    if array.dtype not in (np.uint8, np.uint16):
        raise ToodError(f"the image array is {array.dtype}: give uint8, 0..255")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3) or 0 in array.shape:
        raise ToodError(f"the image array has shape {list(array.shape)}: give [H, W, 3] RGB or [H, W] grey")
    if array.dtype == np.uint16:
        return from_sixteen_bits(array)
    return DecodedImage(np.repeat(array[:, :, None], 3, axis=2) if array.ndim == 2 else np.ascontiguousarray(array))


def _from_picture(picture: Image.Image, exif: bool) -> DecodedImage:
    try:
        return decode_picture(picture, "the PIL image", exif)
    except (OSError, ValueError, SyntaxError) as error:
        raise ToodError(f"the PIL image cannot be read: {error}") from error


def _opener(latest: float) -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(OneDeadline(latest), SafeRedirects)


def download(
    url: str,
    config: SourceConfig,
    opener: Callable[[float], urllib.request.OpenerDirector] = _opener,
    arrived: Callable[[int], object] = lambda count: None,
) -> bytes:
    """The bytes at a web address.

    Args:
        url: http or https.
        config: patience and the most bytes.
        opener: what connects, with a `OneDeadline` of that time, where it is to be stricter than `SafeRedirects`.
        arrived: told of each piece's bytes; what it raises ends the download.

    Raises:
        ToodError: if it cannot be fetched, says why.
    """
    if not is_web_address(url):
        raise ToodError(f"{url} is not a complete web address")
    request = urllib.request.Request(url, headers={"User-Agent": "tood", "Accept": "image/*,*/*;q=0.5"})
    latest = time.monotonic() + config.url_deadline
    content = bytearray()
    try:
        with opener(latest).open(request, timeout=config.url_timeout) as answer:
            while len(content) <= config.url_max_bytes and (block := answer.read1(_BLOCK_BYTES)):
                arrived(len(block))
                content += block
            missing = answer.length or 0
    except UnsafeRedirectError as error:
        raise ToodError(f"{url} cannot be fetched: {error}") from error
    except urllib.error.HTTPError as error:
        raise ToodError(f"{url} cannot be fetched: the server answered {error.code} {error.reason}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            whole = f"not whole within {config.url_deadline:g} seconds"
            reason = whole if time.monotonic() >= latest else f"no answer within {config.url_timeout:g} seconds"
        raise ToodError(f"{url} cannot be fetched: {reason}") from error
    if len(content) > config.url_max_bytes:
        raise ToodError(f"{url} is larger than the limit of {config.url_max_bytes / 2**20:g} MiB")
    if missing:
        cut = http.client.IncompleteRead(bytes(content), missing)
        raise ToodError(f"{url} cannot be fetched: the connection ended {missing} bytes early") from cut
    return bytes(content)
