"""The chunks of a PNG file: those that pixels need, whole, for a decoder that prints what it thinks of others."""

from __future__ import annotations

import zlib

# Pixels and frames. Others (colour profiles, times, texts) change no pixel here, but libpng prints its complaints about
# them on the terminal; transparency is dropped anyway.
_NEEDED = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT"})
_SIGNATURE_BYTES = 8


def pixel_chunks(data: bytes) -> bytes | None:
    """A PNG file with the chunks alone that its pixels need; None if one of those is damaged.

    Damage is told by the checksum of each chunk, which costs a fortieth of the decoding.
    """
    view = memoryview(data)
    kept: list[memoryview] = []
    at = begin = _SIGNATURE_BYTES
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(view[at : at + 4], "big")
        kind = bytes(view[at + 4 : at + 8])
        if end > len(data):
            return None
        if kind in _NEEDED:
            if zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
                return None
        else:
            kept.append(view[begin:at])
            begin = end
        at = end
        if kind == b"IEND":
            break
    if not kept:
        return data
    return b"".join([data[:_SIGNATURE_BYTES], *kept, view[begin:]])


def significant_bits_told(data: bytes) -> int | None:
    """How many bits of a channel its maker used, by the sBIT chunk; None where there is none before the pixels."""
    at = _SIGNATURE_BYTES
    while at + 12 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind == b"IDAT":
            return None
        if kind == b"sBIT" and 0 < length <= 4:
            return max(data[at + 8 : at + 8 + length])
        at += 12 + length
    return None
