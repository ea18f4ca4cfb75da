"""Numbers of things in sentences for people."""

from __future__ import annotations


def counted(number: int, one: str, many: str | None = None) -> str:
    """So many of a thing, such as "1 class" or "1,024 boxes".

    Args:
        number: how many.
        one: what one is called.
        many: what several or none are called; left out, `one` with an s.
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
