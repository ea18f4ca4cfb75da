"""What every download of this package keeps to: web addresses alone, and no redirect to a less safe place."""

from __future__ import annotations

import http.client
import urllib.request
from typing import IO
from urllib.parse import urlsplit


class UnsafeRedirectError(Exception):
    """The server sends to an address that is not as safe as its own; the text names it."""


class SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows to http and https alone, and never from a secure address to one that is not.

    It raises UnsafeRedirectError instead, out of the opener's `open`.
    """

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if not is_web_address(newurl) or (req.type == "https" and urlsplit(newurl).scheme != "https"):
            raise UnsafeRedirectError(f"the server redirects to {newurl}, which is not as safe")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def is_web_address(url: str) -> bool:
    """Whether this is an http or https address with a server in it."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False
