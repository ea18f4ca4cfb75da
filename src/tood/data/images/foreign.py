"""Files that are no pictures, or pictures that nothing here reads: what they are, and what helps."""

from __future__ import annotations

_SAVE_AS = "save it as JPEG or PNG"
_VIDEO = "is a video: `tood video` looks at it; as pictures, save its frames as JPEG or PNG"
_AGAIN = "saved in the place of the picture: fetch the picture again"
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "a HEIC picture"),
    **dict.fromkeys((b"avif", b"avis"), "an AVIF picture"),
    b"crx ": "a camera's raw picture",
    b"jxl ": "a JPEG XL picture",
}
_STARTS = {
    b"\xff\x0a": f"is a JPEG XL picture, which is not read: {_SAVE_AS}",
    b"\0\0\0\x0cJXL ": f"is a JPEG XL picture, which is not read: {_SAVE_AS}",
    b"FUJIFILMCCD-RAW": f"is a camera's raw picture, which is not read: {_SAVE_AS}",
    b"%PDF-": f"is a PDF document, not an image: {_SAVE_AS}",
    b"PK\3\4": "is a zip archive: unpack it",
    b"\x1f\x8b": "is packed by gzip: unpack it",
    b"\x1a\x45\xdf\xa3": _VIDEO,
    b"\x93NUMPY": f"is a NumPy array: {_SAVE_AS}",
    b"\0\5\x16\7": "is a side file of macOS, not the picture itself: copy the file of its name without ._",
}


def what_it_is(data: bytes) -> str:
    """What to say of the bytes of a file that no decoder knows, as the end of a sentence that begins with its name."""
    if data[4:8] == b"ftyp":
        kind = _BRANDS.get(data[8:12])
        return f"is {kind}, which is not read: {_SAVE_AS}" if kind else _VIDEO
    for start, said in _STARTS.items():
        if data.startswith(start):
            return said
    if data[128:132] == b"DICM":
        return f"is a DICOM file, which is not read: {_SAVE_AS}"
    text = data[:1024].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(b"version https://git-lfs.github.com/spec/"):
        return (
            "is a pointer of git-lfs, not the image itself, which was not fetched: run `git lfs pull` in its repository"
        )
    if b"<svg" in text and text.startswith(b"<"):
        return f"is an SVG drawing, which is not read: {_SAVE_AS}"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<script")):
        return f"is not an image but a web page, {_AGAIN}"
    if text.startswith((b"<?xml", b"<error", b"{", b"[")):
        return f"is not an image but a text, perhaps a server's answer, {_AGAIN}"
    if data and not data.strip(b"\0"):
        return "holds nothing but zero bytes: its content was lost, copy it again"
    return "is not an image, or too broken to be recognised as one"
