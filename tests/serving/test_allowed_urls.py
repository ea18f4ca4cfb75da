"""Which addresses a server fetches from."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tood.errors import ToodError
from tood.inference import SourceConfig, download
from tood.serving.allowed_urls import AllowedUrls

QUICK = SourceConfig(url_timeout=60, url_deadline=60, url_max_bytes=1000)


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    """A server on this machine: /picture answers, /to?WHERE redirects there."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, where = self.path.partition("?")
            if path == "/to":
                self.send_response(302)
                self.send_header("Location", where)
                self.end_headers()
                return
            if path == "/endless":
                self.send_response(302)
                self.send_header("Location", "/picture")
                self.end_headers()
                with suppress(OSError):
                    while True:
                        self.wfile.write(bytes(1 << 16))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"content" if path == "/picture" else bytes(5000))

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize(
    ("hosts", "url", "allowed"),
    [
        (["example.com"], "https://example.com/a.jpg", True),
        (["example.com"], "http://EXAMPLE.com./a.jpg", True),
        (["example.com"], "https://example.com:443/a.jpg", True),
        (["example.com"], "https://example.com:8443/a.jpg", False),
        (["example.com:8443"], "https://example.com:8443/a.jpg", True),
        (["example.com"], "https://sub.example.com/a.jpg", False),
        (["*.example.com"], "https://sub.example.com/a.jpg", True),
        (["*.example.com"], "https://example.com/a.jpg", False),
        (["*.example.com"], "https://badexample.com/a.jpg", False),
        (["example.com"], "https://example.com@evil.org/a.jpg", False),
        (["example.com"], "https://user:word@example.com/a.jpg", False),
        (["example.com"], "https://example.com.evil.org/", False),
        (["example.com"], "ftp://example.com/a.jpg", False),
        (["example.com"], "file:///etc/passwd", False),
        (["example.com"], "https://example.com:99999/", False),
        (["example.com"], "https://exam\nple.com/", False),
        (["example.com"], "https:///a", False),
        ([], "https://example.com/a.jpg", False),
    ],
)
def test_only_hosts_of_the_list(hosts: list[str], url: str, allowed: bool) -> None:
    listed = AllowedUrls.of(hosts)
    if allowed:
        listed.check(url)
    else:
        with pytest.raises(ToodError):
            listed.check(url)


@pytest.mark.parametrize("entry", ["", "a/b", "http://a", "me@a.com", "a:0", "a:b"])
def test_an_entry_that_is_no_host_is_told(entry: str) -> None:
    with pytest.raises(ToodError, match="is no host"):
        AllowedUrls.of([entry])


# IANA's registries of special-purpose addresses, multicast, and what is not given out.
SPECIAL = [
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
    "224.0.0.0/4", "240.0.0.0/4", "::/64", "64:ff9b:1::/48", "64:ff9b::a00:0/104", "100::/64", "2001::/23",
    "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
    "::ffff:10.0.0.0/104",
]  # fmt: skip


@given(st.sampled_from(SPECIAL).flatmap(lambda network: st.ip_addresses(network=network)))
def test_no_address_that_is_not_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    assert not AllowedUrls(()).may_connect(str(address), 80)


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "9.255.255.255", "11.0.0.0", "172.32.0.0", "100.128.0.0", "2606:4700::1111", "2a00:1450::1",
     "2001:4860:4860::8888", "64:ff9b::101:101", "::ffff:1.1.1.1"],
)  # fmt: skip
def test_public_addresses(address: str) -> None:
    assert AllowedUrls(()).may_connect(address, 80)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "169.254.169.254", "192.168.0.1", "0.0.0.0", "100.64.0.1", "224.0.0.1", "::1", "::",
     "fe80::1%eth0", "fd00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "64:ff9b::a00:1",
     "fec0::1", "64:ff9b:1::a00:1", "2001:0:a00:1::"],
)  # fmt: skip
def test_private_addresses_in_every_dress(address: str) -> None:
    assert not AllowedUrls(("example.com",)).may_connect(address, 80)


def test_a_private_address_is_reached_where_it_is_named_itself(elsewhere: str) -> None:
    allowed = AllowedUrls.of([elsewhere])
    allowed.check(f"http://{elsewhere}/picture")
    assert download(f"http://{elsewhere}/picture", QUICK, allowed.opener) == b"content"


def test_a_name_of_a_private_address_is_not(elsewhere: str) -> None:
    port = elsewhere.split(":")[1]
    allowed = AllowedUrls.of([f"localhost:{port}"])
    allowed.check(f"http://localhost:{port}/picture")
    with pytest.raises(ToodError, match="does not connect to"):
        download(f"http://localhost:{port}/picture", QUICK, allowed.opener)


@pytest.mark.parametrize(
    "where",
    ["http://127.0.0.1:1/", "http://169.254.169.254/latest", "file:///etc/passwd", "http://localhost/", "//evil/"],
)
def test_redirects_are_judged_as_the_first_address(elsewhere: str, where: str) -> None:
    allowed = AllowedUrls.of([elsewhere])
    with pytest.raises(ToodError, match=r"redirects|not allowed"):
        download(f"http://{elsewhere}/to?{where}", QUICK, allowed.opener)


def test_redirects_within_the_list_are_followed_a_few_times(elsewhere: str) -> None:
    allowed = AllowedUrls.of([elsewhere])
    assert download(f"http://{elsewhere}/to?/picture", QUICK, allowed.opener) == b"content"
    with pytest.raises(ToodError, match="cannot be fetched"):
        download(f"http://{elsewhere}/to?/to?/to?/to?/to?/picture", QUICK, allowed.opener)


def test_the_body_of_a_redirect_is_not_read(elsewhere: str) -> None:
    assert download(f"http://{elsewhere}/endless", QUICK, AllowedUrls.of([elsewhere]).opener) == b"content"


def test_a_download_beyond_the_limit_is_given_up(elsewhere: str) -> None:
    with pytest.raises(ToodError, match="larger than the limit"):
        download(f"http://{elsewhere}/large", QUICK, AllowedUrls.of([elsewhere]).opener)


@pytest.mark.parametrize("kind", ["headers", "redirects"])
def test_one_deadline_is_over_all_of_a_download(kind: str) -> None:
    """A header every now and then, or a redirect: each comes in time, and together they never end."""
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n" if kind == "headers" else b"HTTP/1.1 302 Found\r\n")
            for number in range(1 if kind == "redirects" else 90):
                if not ended.wait(0.4):
                    self.wfile.write(b"X-%d: a\r\n" % number)
            self.wfile.write(b"Location: %s/\r\n\r\n" % self.path.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        place = f"127.0.0.1:{server.server_port}"
        begun = time.monotonic()
        with pytest.raises(ToodError, match=r"not whole within 0\.5 seconds"):
            download(f"http://{place}/", SourceConfig(url_timeout=60, url_deadline=0.5), AllowedUrls.of([place]).opener)
        assert time.monotonic() - begun < 18, "the headers alone take 36 seconds"
        ended.set()
        server.shutdown()


def test_proxies_of_the_environment_are_not_asked(elsewhere: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert download(f"http://{elsewhere}/picture", QUICK, AllowedUrls.of([elsewhere]).opener) == b"content"
