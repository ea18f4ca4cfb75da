"""Requests that nobody should send, made by chance from a seed."""

from __future__ import annotations

import base64
import json
import random
import socket
import struct
import time
import zlib
from collections.abc import Callable
from functools import cache
from io import BytesIO
from typing import TypeAlias

from PIL import Image
from server_process import picture_bytes, post, spoken

Attack: TypeAlias = Callable[[random.Random, int, str], int | None]
"""Given chance, the server's port and the address of a server that redirects, the status that came back."""

HUNG_UP = 499
"""Stands for: the attacker left first, so that there is no answer to look at."""

_SMALL = picture_bytes(3)


def _png(width: int, height: int, pixels: bytes, *more: tuple[bytes, bytes]) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + b"".join(chunk(*one) for one in more)
        + chunk(b"IDAT", pixels)
        + chunk(b"IEND", b"")
    )


@cache
def _wide_tiff() -> bytes:
    out = BytesIO()
    Image.new("1", (20_000, 10_000)).save(out, "TIFF", compression="group4")
    return out.getvalue()


def _bomb(chance: random.Random) -> bytes:
    """A small file that says it is, or becomes, very large."""
    zeros = zlib.compress(bytes(8 << 20), 9)
    kind = chance.randrange(8)
    if kind == 0:
        return _png(chance.randint(20_000, 2**31 - 1), chance.randint(20_000, 2**31 - 1), zeros)
    if kind == 1:
        return _png(100_000, 1000, zeros)
    if kind == 2:  # within the limit, but most of its pixels lack
        return _png(2000, 2000, zeros[: chance.randint(10, 200)])
    if kind == 3:
        packed = zlib.compress(bytes(64 << 20), 9)
        return _png(2000, 2000, zeros, (b"zTXt", b"a\0\0" + packed), (b"iCCP", b"a\0\0" + packed))
    if kind == 4:
        return _wide_tiff()
    if kind == 5:
        return b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\x80\0\0" + bytes(6) + b",\0\0\0\0\xff\xff\xff\xff\0\2"
    if kind == 6:
        return b"BM" + struct.pack("<IHHIIIIHHIIIIII", 54, 0, 0, 54, 40, 2**31 - 1, 2**31 - 1, 1, 24, 0, 0, 0, 0, 0, 0)
    jpeg = bytearray(picture_bytes(1, kind="JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 65000, 65000)
    return bytes(jpeg)


def bomb(chance: random.Random, port: int, _: str) -> int | None:
    body = _bomb(chance)
    if chance.random() < 0.3:
        told = json.dumps({"pictures": [{"base64": base64.b64encode(body).decode()}] * chance.choice([1, 3])})
        return spoken(port, post(told.encode(), "application/json"))
    return spoken(port, post(body, "image/png"))


def packed_body(chance: random.Random, port: int, _: str) -> int | None:
    body = zlib.compress(bytes(8 << 20), 9)
    return spoken(
        port, post(body, "image/png", "/detect", f"Content-Encoding: {chance.choice(['gzip', 'deflate', 'br'])}")
    )


def broken_form(chance: random.Random, port: int, _: str) -> int | None:
    boundary = chance.choice(["x", "-" * 70, "a b", "é", "x" * 300, ""])
    parts = [
        f"--{boundary}\r\n".encode(),
        b'Content-Disposition: form-data; name="a"; filename="../../../../tmp/x.png"\r\n',
        b"Content-Type: image/png\r\n",
        b"A: " + b"b" * chance.choice([1, 10_000]) + b"\r\n",
        b"\r\n",
        b"not a picture" + bytes(chance.randrange(256) for _ in range(50)),
        b"\r\n",
        f"--{boundary}--\r\n".encode(),
    ]
    for _ in range(chance.randint(1, 3)):
        action = chance.randrange(4)
        at = chance.randrange(len(parts))
        if action == 0:
            del parts[at]
        elif action == 1:
            parts.insert(at, chance.choice(parts))
        elif action == 2:
            parts[at] = parts[at][: chance.randint(0, len(parts[at]))]
        else:
            parts[at] = bytes(chance.randrange(256) for _ in range(20))
    kind = "multipart/form-data" + chance.choice([f"; boundary={boundary}", "; boundary=other", "", '; boundary="'])
    return spoken(port, post(b"".join(parts), kind.encode().decode("latin-1")))


def many_parts(chance: random.Random, port: int, _: str) -> int | None:
    part = b'--x\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n1\r\n'
    return spoken(port, post(part * chance.randint(33, 5000) + b"--x--\r\n", "multipart/form-data; boundary=x"))


def wrong_bytes(chance: random.Random, port: int, _: str) -> int | None:
    body = chance.choice(
        [
            b"",
            b"GIF89a",
            b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/tmp/owned) (w) file closefile",
            b"%PDF-1.4",
            b"PK\3\4" + bytes(50),
            b"\x7fELF" + bytes(99),
            _SMALL[: chance.randint(1, len(_SMALL) - 60)],
            bytes(chance.randrange(256) for _ in range(chance.randint(1, 3000))),
            bytes(1000),
            b"/etc/passwd",
            b"\x93NUMPY\1\0",
        ]
    )
    kind = chance.choice(["image/png", "image/jpeg", "image/svg+xml", "application/octet-stream", ""])
    return spoken(port, post(body, kind))


def damaged_picture(chance: random.Random, port: int, _: str) -> int | None:
    """A picture whose header or length is destroyed, in several formats."""
    body = bytearray(picture_bytes(2, kind=chance.choice(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])))
    body[: chance.randint(4, 30)] = bytes(chance.randrange(256) for _ in range(chance.randint(4, 30)))
    return spoken(port, post(bytes(body), "image/png"))


def wrong_kind(chance: random.Random, port: int, _: str) -> int | None:
    kind = chance.choice(
        [
            "text/plain",
            "application/xml",
            "application/x-www-form-urlencoded",
            "video/mp4",
            "\x7f",
            ";;;",
            "text/html;image/png",
            "a" * 5000,
        ]
    )
    return spoken(port, post(_SMALL, kind))


def wrong_json(chance: random.Random, port: int, _: str) -> int | None:
    body = chance.choice(
        [
            b"null",
            b"[]",
            b"{",
            b'{"pictures": 1}',
            b'{"pictures": [1]}',
            b'{"pictures": [{"base64": 1}]}',
            b'{"pictures": [{"base64": "AA", "url": "http://a"}]}',
            b'{"pictures": [{"base64": "\\ud800"}]}',
            b'{"pictures": [{"path": "/etc/passwd"}]}',
            b'{"pictures": [{"name": "' + b"a" * 100_000 + b'", "base64": "?"}]}',
            b"[" * 100_000,
            b'{"a":' * 50_000,
            b"\xff\xfe" + '{"pictures": []}'.encode("utf-16-le"),
            b'{"pictures": [' + b'{"base64": "AA"},' * 5000 + b'{"base64": "AA"}]}',
            b'{"pictures": [{"base64": "' + b"A" * 101 + b'"}]}',
            b"1e999999",
            b"9" * 100_000,
        ]
    )
    return spoken(port, post(body, "application/json"))


def wrong_parameter(chance: random.Random, port: int, _: str) -> int | None:
    query = chance.choice(
        [
            "threshold=nan",
            "threshold=-1",
            "threshold=1e400",
            "threshold=%00",
            "threshold=inf",
            "threshold=",
            "exif=perhaps",
            "model=",
            "model=../../etc/passwd",
            "model=%2e%2e%2f",
            "model=__class__",
            "model=" + "a" * 8000,
        ]
    )
    return spoken(port, post(_SMALL, "image/png", f"/detect?{query}"))


def huge_header(chance: random.Random, port: int, _: str) -> int | None:
    kind = chance.randrange(4)
    if kind == 0:
        return spoken(port, post(_SMALL, "image/png", "/detect", "X: " + "a" * chance.randint(70_000, 3_000_000)))
    if kind == 1:
        return spoken(port, post(_SMALL, "image/png", "/detect", *[f"X{i}: {'b' * 50}" for i in range(5000)]))
    if kind == 2:
        return spoken(port, post(_SMALL, "image/png", "/" + "c" * 200_000))
    return spoken(port, b"GET / HTTP/1.1\r\n" + b"A" * 1_000_000)


def path_trick(chance: random.Random, port: int, _: str) -> int | None:
    target = chance.choice(
        [
            r"/page/../app.py",
            r"/page/..%2fapp.py",
            r"/page/%2e%2e/app.py",
            r"/page//etc/passwd",
            r"/page/..\app.py",
            "/../../etc/passwd",
            "/page/%00",
            "/page/main.js%00.png",
            "//evil/page",
            "/page/....//app.py",
            "/page/%252e%252e/app.py",
            "/%ff%fe",
            "/page/.",
            "/page",
            "/page/con",
            "/static/x",
            "/.git/config",
            "/detect/../models/x",
            "/openapi.json/..",
            "/page/" + "a" * 5000,
        ]
    )
    return spoken(port, f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())


def wrong_method(chance: random.Random, port: int, _: str) -> int | None:
    method = chance.choice(["PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "GET", "PROPFIND", "A" * 100])
    return spoken(port, f"{method} /detect HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())


def broken_http(chance: random.Random, port: int, _: str) -> int | None:
    start = b"POST /detect HTTP/1.1\r\nHost: a\r\n"
    request = chance.choice(
        [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(60) + b"\r\n\r\n",
            b"GET\r\n\r\n",
            b"GET / HTTP/1.10\r\nHost: a\r\n\r\n",
            b"\0\0\0\0\r\n\r\n",
            start + b"Content-Length: -1\r\n\r\n",
            start + b"Content-Length: 1e3\r\n\r\n",
            start + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
            start + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\nzz\r\n",
            start + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
            start + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
            start + b"Transfer-Encoding: gzip\r\n\r\n",
            start + b"A\0B: c\r\n\r\n",
            start + b"A: b\r\n c\r\n: d\r\n\r\n",
            b"POST /detect HTTP/1.1\r\n\r\n",
            b"GET /detect HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n\r\n",
            bytes(chance.randrange(256) for _ in range(300)) + b"\r\n\r\n",
        ]
    )
    return spoken(port, request)


def forbidden_url(chance: random.Random, port: int, elsewhere: str) -> int | None:
    own = f"http://{elsewhere}"
    url = chance.choice(
        [
            "http://127.0.0.1/",
            f"http://127.0.0.1:{port}/health",
            "http://169.254.169.254/latest/meta-data/",
            "http://[::1]/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://0/",
            "http://localhost/",
            "http://[::ffff:127.0.0.1]/",
            "file:///etc/passwd",
            "ftp://127.0.0.1/",
            "gopher://127.0.0.1/",
            "data:image/png;base64,AA",
            "/etc/passwd",
            "http://" + "a" * 5000,
            "http://a\r\nHost: b/",
            f"http://{elsewhere}@169.254.169.254/",
            f"http://169.254.169.254#@{elsewhere}/",
            f"{own}/to?http://127.0.0.1:{port}/health",
            f"{own}/to?http://169.254.169.254/",
            f"{own}/to?file:///etc/passwd",
            f"{own}/to?//localhost:{port}/",
            f"{own}/to?/to?/to?/to?/to?/to?/picture",
            f"{own}/loop",
            f"{own}/endless",
            f"{own}/page",
            f"{own}/gone",
        ]
    )
    return spoken(port, post(json.dumps({"pictures": [{"url": url}]}).encode(), "application/json"))


def slow_sender(chance: random.Random, port: int, _: str) -> int | None:
    kind = chance.randrange(3)
    whole = post(_SMALL, "image/png")
    end = whole.index(b"\r\n\r\n")
    if kind == 0:  # headers that never end
        return spoken(port, whole[: chance.randint(1, end - 1)])
    if kind == 1:  # a body that never ends
        return spoken(port, whole[: chance.randint(end + 4, len(whole) - 1)])
    pieces = [whole[at : at + 1] for at in range(12)]
    return spoken(port, *pieces, pause=0.02)


def hang_up(chance: random.Random, port: int, _: str) -> int | None:
    whole = post(picture_bytes(chance.randrange(5), 400, 600), "image/png")
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        if chance.random() < 0.5:  # with a reset instead of an end
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(whole[: chance.choice([0, 10, 100, len(whole) // 2, len(whole) - 1, len(whole)])])
        time.sleep(chance.choice([0, 0.002, 0.02]))
    return HUNG_UP


ATTACKS: tuple[Attack, ...] = (
    bomb, packed_body, broken_form, broken_form, many_parts, wrong_bytes, damaged_picture, wrong_kind, wrong_json,
    wrong_parameter, huge_header, path_trick, wrong_method, broken_http, forbidden_url, forbidden_url, slow_sender,
    hang_up,
)  # fmt: skip
