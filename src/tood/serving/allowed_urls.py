"""Where pictures may be fetched from: hosts of a list, at public addresses, redirects included.

A server that fetches what strangers ask for can be made to reach what only it can reach: other machines of its network,
a cloud's metadata. The address that a name stands for is looked up once, judged, and connected to: a name that answers
otherwise the second time gains nothing. Proxies of the environment are not used, which would look it up themselves.
"""

from __future__ import annotations

import http.client
import ipaddress
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO
from urllib.parse import urlsplit

from tood.errors import ToodError
from tood.web import OneDeadline, SafeRedirects, UnsafeRedirectError, is_web_address

_PORTS = {"http": 80, "https": 443}
# Of the registries of special addresses (RFC 6890), what `is_global` of some version of Python takes for public; 6to4
# and Teredo (in 2001::/23) carry IPv4 addresses, which may be private ones.
_SPECIAL = tuple(
    ipaddress.ip_network(text)
    for text in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
_UNICAST = ipaddress.ip_network("2000::/3")


@dataclass(frozen=True)
class AllowedUrls:
    """Hosts that pictures may come from.

    Attributes:
        hosts: `example.com`, `*.example.com` (what is below it), each with or without a port (80 and 443 without).
            A private address is allowed only where it is named itself, as in `10.0.0.5:8080`.
    """

    hosts: tuple[str, ...]

    @staticmethod
    def of(hosts: Sequence[str]) -> AllowedUrls:
        """From what a person lists.

        Raises:
            ToodError: if an entry is no host.
        """
        for host in hosts:
            name, port = _parts(host)
            if not name or "/" in name or "@" in name or (port is not None and not 0 < port < 65536):
                raise ToodError(f"'{host}' is no host: expected one like example.com, *.example.com or 10.0.0.5:8080")
        return AllowedUrls(tuple(host.lower().rstrip(".") for host in hosts))

    def check(self, url: str) -> None:
        """Refuses an address whose host is not on the list.

        Raises:
            ToodError: if it is not allowed, or no address.
        """
        if not self.hosts:
            raise ToodError("this server fetches no addresses: send the picture itself")
        if not is_web_address(url):
            raise ToodError(f"{_short(url)} is not a complete http or https address")
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").rstrip("."), parts.port or _PORTS[parts.scheme]
        except ValueError as error:
            raise ToodError(f"{_short(url)} is not a complete http or https address") from error
        if parts.username is not None or parts.password is not None or any(ord(sign) <= 32 for sign in url):
            raise ToodError(f"{_short(url)} has a name, a password or a blank in it, which is not allowed")
        if not any(self._matches(entry, host, port) for entry in self.hosts):
            raise ToodError(f"{host}:{port} is not among the hosts that this server fetches pictures from")

    def may_connect(self, address: str, port: int) -> bool:
        """Whether this numeric address is public, or on the list itself."""
        number = ipaddress.ip_address(address.partition("%")[0])
        mapped = getattr(number, "ipv4_mapped", None)
        number = mapped or number
        if _is_public(_nat64(number) or number):
            return True
        return any(self._matches(entry, str(number), port) for entry in self.hosts if _is_number(entry))

    @staticmethod
    def _matches(entry: str, host: str, port: int) -> bool:
        name, wanted = _parts(entry)
        if port != wanted if wanted is not None else port not in _PORTS.values():
            return False
        return host.endswith(name[1:]) and len(host) > len(name) - 1 if name.startswith("*.") else host == name

    def opener(self, latest: float) -> urllib.request.OpenerDirector:
        """Connects to what is allowed only, until that time (`time.monotonic`)."""
        return urllib.request.build_opener(
            urllib.request.ProxyHandler({}), OneDeadline(latest, self.may_connect), _CheckedRedirects(self)
        )


def _parts(entry: str) -> tuple[str, int | None]:
    """Host and port of an entry; an IPv6 address with a port has brackets."""
    if entry.startswith("["):
        name, _, port = entry[1:].partition("]")
        return name, int(port[1:]) if port[1:].isdigit() else None
    if entry.count(":") > 1:
        return entry, None
    name, colon, port = entry.partition(":")
    return name, (int(port) if port.isascii() and port.isdigit() else 0) if colon else None


def _is_number(entry: str) -> bool:
    try:
        ipaddress.ip_address(_parts(entry)[0])
    except ValueError:
        return False
    return True


def _is_public(number: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if number.version == 6 and number not in _UNICAST:
        return False
    return number.is_global and not number.is_multicast and not any(number in network for network in _SPECIAL)


def _nat64(number: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if number in ipaddress.ip_network("64:ff9b::/96"):
        return ipaddress.IPv4Address(int(number) & 0xFFFFFFFF)
    return None


def _short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:100]}..."


class _CheckedRedirects(SafeRedirects):
    max_redirections = 3

    def __init__(self, allowed: AllowedUrls) -> None:
        self._allowed = allowed

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        try:
            self._allowed.check(newurl)
        except ToodError as error:
            raise UnsafeRedirectError(f"the server redirects, and {error}") from error
        return super().redirect_request(req, fp, code, msg, headers, newurl)
