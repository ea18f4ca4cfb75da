"""The chunks of a PNG file: those that pixels need, whole, for a decoder that prints what it thinks of others."""

from __future__ import annotations

import zlib

# Pixels and frames. Others (colour profiles, times, texts) change no pixel here, but libpng prints its complaints about
# them on the terminal; transparency is dropped anyway.
_NEEDED = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT"})
_SIGNATURE_BYTES = 8

TEXT_CHUNKS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_PROFILE_KEY = b"Raw profile type exif"
# A JPEG has room for 64 KiB of EXIF: twice that in hexadecimal digits, and line ends.
_LONGEST_TEXT = 1 << 18


def raw_profile(name: bytes, body: bytes) -> bytes | None:
    """The EXIF in a text chunk, as ImageMagick writes it in hexadecimal digits; None of any other text.

    Args:
        name: of the chunk, one of `TEXT_CHUNKS`.
        body: what is in it.
    """
    key, _, text = body.partition(b"\0")
    if key != _PROFILE_KEY:
        return None
    packed = name == b"zTXt"
    if packed:
        text = text[1:]
    elif name == b"iTXt":
        packed = text[:1] == b"\1"
        # A language and a translated key come before the text.
        text = text[2:].split(b"\0", 2)[-1]
    try:
        if packed:
            text = zlib.decompressobj().decompress(text, _LONGEST_TEXT)
        # An empty line, the word `exif` and the number of bytes come before the digits.
        return bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii"))
    except (zlib.error, ValueError):
        return None


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
