"""Files from the web, fetched once into a cache folder: resumed, checked by hash, and safe from a second process."""

from __future__ import annotations

import http.client
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from filelock import FileLock, Timeout
from rich.console import Console

from tood.errors import ToodError, one_line
from tood.progress_bar import progress_bar
from tood.web import SafeRedirects, UnsafeRedirectError, is_web_address
from tood.whole_file import sha256_of

CACHE_VARIABLE = "TOOD_CACHE"
BLOCK_BYTES = 1 << 20

# Answers that another attempt may better: too slow, too many, and the server's own troubles.
_PASSING = frozenset({408, 429, 500, 502, 503, 504})

# Called with the bytes that are there and those that there will be, if that is known.
_Report = Callable[[int, "int | None"], None]


@dataclass(frozen=True)
class FetchConfig:
    """How patient a download is.

    Attributes:
        timeout: seconds without a byte after which a connection counts as cut.
        attempts: connections in a row that bring nothing new before the download is given up.
        pause: seconds before the second of them; each further pause is twice as long.
    """

    timeout: float = 30.0
    attempts: int = 5
    pause: float = 1.0


class _CutError(Exception):
    """The connection broke off, or the server asked for patience: another attempt may go on from there."""


class _RefusedError(Exception):
    """There is no use in trying again now."""


def cache_folder() -> Path:
    """Where fetched files are kept: $TOOD_CACHE, else the system's place for caches.

    That is $XDG_CACHE_HOME/tood or ~/.cache/tood; on macOS ~/Library/Caches/tood; on Windows tood/Cache in
    %LOCALAPPDATA%.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    try:
        if chosen:
            return Path(chosen).expanduser().absolute()
        if sys.platform == "win32":
            return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "tood" / "Cache"
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "tood"
        # The specification has relative paths ignored.
        shared = os.environ.get("XDG_CACHE_HOME", "")
        return (Path(shared) if Path(shared).is_absolute() else Path.home() / ".cache") / "tood"
    except RuntimeError as error:
        raise ToodError(f"there is no home folder to keep weights in ({error}): set {CACHE_VARIABLE}") from error


def cache_path(url: str) -> Path:
    """Where `fetch` keeps the file of that address, and looks for one that was put there by hand."""
    return cache_folder() / "weights" / _file_name(url)


def fetch(url: str, sha256_prefix: str, config: FetchConfig = FetchConfig()) -> Path:
    """The file of that address, from the cache or from the web.

    A download that was cut goes on where it stopped, in this call or in a later one. Of several processes one fetches
    and the others wait. Proxies are those of the environment (`https_proxy` and the like). A bar on stderr shows the
    progress where there is a terminal.

    Args:
        url: http or https; the last part of its path is the file's name in the cache.
        sha256_prefix: first hexadecimal digits of the whole file's SHA-256.
        config: patience.

    Returns:
        Path of a file of that hash.

    Raises:
        ToodError: if the address is none, cannot be reached, has no such file, gives another file than expected, or the
            cache cannot be written. The sentence says where a file fetched by hand is looked for.
    """
    if not is_web_address(url) or _file_name(url) in ("", ".", ".."):
        raise ToodError(f"{url} is not the web address of a file: expected http:// or https://, a server and a path")
    target = cache_path(url)
    try:
        if target.is_file() and sha256_of(target).startswith(sha256_prefix):
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(target):
            if target.exists():
                _require_hash(target, url, sha256_prefix)
            else:
                _fetch_whole(url, target, sha256_prefix, config)
    except _RefusedError as error:
        raise ToodError(
            f"{url} cannot be fetched: {error}; a copy of the file that you put at {target} will be used"
        ) from error
    except OSError as error:
        raise ToodError(
            f"{url} cannot be kept in {target}: {error.strerror or error}; make room there, or let {CACHE_VARIABLE} "
            "name another folder"
        ) from error
    return target


def _fetch_whole(url: str, target: Path, sha256_prefix: str, config: FetchConfig) -> None:
    """Fetches into `target`.part, which takes the name of `target` when it is whole, on the disk and checked."""
    part = _Part(target)
    left_over = part.size > 0
    try:
        with progress_bar(target.name, in_bytes=True) as report:
            _download(url, part, config, report)
            if left_over and not sha256_of(part.path).startswith(sha256_prefix):
                # What an earlier run left behind may have been the beginning of another file.
                part.discard()
                _download(url, part, config, report)
        _require_hash(part.path, url, sha256_prefix)
        part.path.replace(target)
        part.discard()
        _sync_folder(target.parent)
    except ToodError:
        part.discard()
        raise
    except OSError:
        # Of a full disk; nothing of ours shall keep it full.
        part.discard()
        raise


class _Part:
    """A file on its way, and what its server calls this version of it."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self._validator = target.with_name(f"{target.name}.part.version")

    @property
    def size(self) -> int:
        """Bytes of the file that are here already."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    @property
    def validator(self) -> str:
        """The ETag or date of the file that it is the beginning of, empty if not known."""
        try:
            return self._validator.read_text(encoding="latin-1")
        except FileNotFoundError:
            return ""

    @validator.setter
    def validator(self, value: str) -> None:
        self._validator.write_text(value, encoding="latin-1")

    def discard(self) -> None:
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
        with suppress(OSError):
            self._validator.unlink(missing_ok=True)


def _download(url: str, part: _Part, config: FetchConfig, report: _Report) -> None:
    """Connects as often as it takes to have all bytes of the file in `part`."""
    opener = urllib.request.build_opener(SafeRedirects)
    failures = 0
    most = part.size
    started = False
    while True:
        try:
            _transfer(opener, url, part, config, report)
            return
        except urllib.error.URLError as error:
            # Nobody there at the first try: most likely there is no network at all, and waiting will not bring it.
            if not started:
                raise _RefusedError(_reason(error, config)) from error
            cut: Exception = _CutError(_reason(error, config))
        except _CutError as error:
            cut = error
        started = True
        failures = 1 if part.size > most else failures + 1
        most = max(most, part.size)
        if failures >= config.attempts:
            raise _RefusedError(f"{cut} ({failures} attempts in a row)") from cut
        time.sleep(config.pause * 2 ** (failures - 1))


def _transfer(
    opener: urllib.request.OpenerDirector, url: str, part: _Part, config: FetchConfig, report: _Report
) -> None:
    """One connection: appends to `part` if the server has the same file still and gives its rest, else begins anew."""
    offset = part.size
    # Without this a server may compress, and a range would be one of the compressed bytes.
    headers = {"User-Agent": "tood", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if part.validator:
            headers["If-Range"] = part.validator
    try:
        answer = opener.open(urllib.request.Request(url, headers=headers), timeout=config.timeout)
    except UnsafeRedirectError as error:
        raise _RefusedError(str(error)) from error
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and offset:
                if _content_range(error.headers) == (None, offset):
                    return  # all of it was there already
                part.discard()
                raise _CutError("the server's file is shorter than what was fetched of it") from error
            sentence = f"the server answered {error.code} {error.reason}".rstrip()
            raise (_CutError if error.code in _PASSING else _RefusedError)(sentence) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise _CutError(_reason(error, config)) from error
        raise
    except (http.client.HTTPException, OSError) as error:
        raise _CutError(_reason(error, config)) from error
    with answer:
        if answer.status == 206 and _content_range(answer.headers)[0] != offset:
            part.discard()
            raise _CutError("the server sent another part of the file than it was asked for")
        if answer.status != 206:
            offset = 0
            part.discard()  # first, so that no other file's bytes ever lie beside this one's ETag
            part.validator = _strong_validator(answer.headers)
        length = answer.headers.get("Content-Length", "")
        total = offset + int(length) if length.isdecimal() else None
        with part.path.open("ab" if offset else "wb") as file:
            done = _copy(answer, file, offset, total, config, report)
            file.flush()
            os.fsync(file.fileno())
    if total is not None and done < total:
        raise _CutError(f"the connection ended {total - done:,} bytes early")


def _copy(
    answer: http.client.HTTPResponse,
    file: IO[bytes],
    done: int,
    total: int | None,
    config: FetchConfig,
    report: _Report,
) -> int:
    """Writes what comes until the answer ends; returns the size of the file."""
    report(done, total)
    while total is None or done < total:
        try:
            # What has arrived, so that nothing of it is lost if the connection breaks.
            block = answer.read1(BLOCK_BYTES)
        except (OSError, http.client.HTTPException) as error:
            file.flush()
            raise _CutError(_reason(error, config)) from error
        if not block:
            break
        file.write(block)
        done += len(block)
        report(done, total)
    return done


def _file_name(url: str) -> str:
    return unquote(urlsplit(url).path).rpartition("/")[2]


def _reason(error: Exception, config: FetchConfig) -> str:
    cause = getattr(error, "reason", None) or error
    if isinstance(cause, TimeoutError):
        return f"no answer within {config.timeout:g} seconds"
    if isinstance(cause, http.client.IncompleteRead):
        return "the connection ended early"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return one_line(cause)


def _content_range(headers: Message) -> tuple[int | None, int | None]:
    """First byte and size of the whole file, as in "bytes 200-999/1000" or "bytes */1000"; None what is not said."""
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", headers.get("Content-Range", "").strip())
    if match is None:
        return None, None
    return (int(match[1]) if match[1] else None), (int(match[2]) if match[2] != "*" else None)


def _strong_validator(headers: Message) -> str:
    """What `If-Range` may carry (RFC 9110, section 13.1.5): an ETag that is not weak, else the date of change."""
    etag: str = headers.get("ETag", "")
    if etag and not etag.startswith("W/"):
        return etag
    return str(headers.get("Last-Modified", ""))


def _require_hash(path: Path, url: str, sha256_prefix: str) -> None:
    """Removes the file and raises if it is another one than expected."""
    got = sha256_of(path)
    if got.startswith(sha256_prefix):
        return
    path.unlink()
    raise ToodError(
        f"{path} is not the file that {url} should be: expected a SHA-256 that begins with {sha256_prefix}, got "
        f"{got[: max(len(sha256_prefix), 8)]}; it was removed, and the next call fetches it anew"
    )


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Keeps other processes from fetching the same file at the same time."""
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        console = Console(stderr=True)
        if console.is_terminal:
            console.print(f"waiting for another process, which is fetching {target.name}", highlight=False)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _sync_folder(folder: Path) -> None:
    """Makes a new name in it last through a power cut, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
