"""Who may ask: keys in a file, one a line."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from pathlib import Path

from tood.errors import ToodError

_SHORTEST = 16


class Keys:
    """Keys, of which hashes are kept.

    Args:
        keys: the keys themselves; none lets everybody in.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._hashes = [_hashed(key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def admit(self, key: str | None) -> bool:
        """Whether this key is one of them; takes as long for every wrong key."""
        given = _hashed(key or "")
        # All are compared: how long it takes says nothing of which was near.
        return any([hmac.compare_digest(given, known) for known in self._hashes])  # noqa: C419


def read_keys(path: Path) -> tuple[str, ...]:
    """The keys of a file: one a line, empty lines and those that begin with # aside.

    Raises:
        ToodError: if there is none, or a short one.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ToodError(f"the file of keys {path} cannot be read: {getattr(error, 'strerror', error)}") from error
    keys = tuple(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))
    if not keys:
        raise ToodError(f"the file of keys {path} holds none: write one a line, such as `openssl rand -hex 24` makes")
    if any(len(key) < _SHORTEST or not key.isascii() or " " in key for key in keys):
        raise ToodError(
            f"a key in {path} has a blank, or fewer than {_SHORTEST} letters: `openssl rand -hex 24` makes one"
        )
    return keys


def _hashed(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
