"""The pictures of a request: its body in any of the three forms."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from email.message import Message
from typing import Annotated

import msgspec
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from tood.serving.refusal import Refusal

# Parts of a form may carry a few headers, of ordinary length.
_MOST_HEADERS, _LONGEST_HEADER = 16, 4096
# However many a server allows: what is read of a body before they are counted stays small.
_MOST_PICTURES = 4096


@dataclass(frozen=True)
class Submitted:
    """A picture as it came: its bytes, or where to fetch them.

    Attributes:
        name: for the answer and for errors; never a path that is opened.
        content: the bytes of an image file, or a web address.
    """

    name: str
    content: bytes | str


class _JsonPicture(msgspec.Struct, forbid_unknown_fields=True):
    name: str | None = None
    base64: str | None = None
    url: str | None = None


class _JsonBody(msgspec.Struct, forbid_unknown_fields=True):
    pictures: Annotated[list[_JsonPicture], msgspec.Meta(max_length=_MOST_PICTURES)]


def submitted_pictures(content_type: str, body: bytes) -> list[Submitted]:
    """The pictures of a body.

    Args:
        content_type: the header: multipart/form-data, application/json, image/* or application/octet-stream.
        body: all of it.

    Raises:
        Refusal: if it is none of these, or broken.
    """
    kind, options = parse_options_header(content_type)
    told = kind.decode("latin-1").lower()
    if told == "multipart/form-data":
        pictures = _of_form(options.get(b"boundary"), body)
    elif told == "application/json":
        pictures = _of_json(body)
    elif told.startswith("image/") or told == "application/octet-stream" or not content_type.strip():
        pictures = [Submitted("picture", body)] if body else []
    else:
        raise Refusal(
            415,
            "unsupported_type",
            f"a body of type '{told[:60]}' is not read: send multipart/form-data, application/json, or a picture's "
            "bytes as image/* or application/octet-stream",
        )
    if not pictures:
        raise Refusal(400, "no_picture", "there is no picture in this request: send at least one")
    return pictures


def _of_json(body: bytes) -> list[Submitted]:
    try:
        parsed = msgspec.json.decode(body, type=_JsonBody)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        problem = " ".join(str(error).split())[:200]
        raise Refusal(
            400, "bad_json", f'the json is not as expected, {{"pictures": [{{"base64": "..."}}]}}: {problem}'
        ) from error
    return [_of_entry(number, entry) for number, entry in enumerate(parsed.pictures)]


def _of_entry(number: int, entry: _JsonPicture) -> Submitted:
    name = _plain_name(entry.name) or f"picture {number}"
    if (entry.base64 is None) == (entry.url is None):
        raise Refusal(400, "bad_json", f'{name}: give either "base64" or "url"')
    if entry.url is not None:
        return Submitted(_plain_name(entry.name) or entry.url[:200], entry.url)
    text = entry.base64 or ""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return Submitted(name, base64.b64decode("".join(text.split()), validate=True))
    except (binascii.Error, ValueError) as error:
        raise Refusal(400, "bad_base64", f"{name}: is not base64 ({error})") from error


@dataclass
class _Part:
    header: bytearray = field(default_factory=bytearray)
    value: bytearray = field(default_factory=bytearray)
    headers: dict[str, str] = field(default_factory=dict)
    content: bytearray = field(default_factory=bytearray)


class _Form:
    """Collects the parts of a form, in memory."""

    def __init__(self) -> None:
        self.parts: list[_Part] = []
        self.ended = False

    def on_part_begin(self) -> None:
        if len(self.parts) >= _MOST_PICTURES:
            raise Refusal(413, "too_many_pictures", f"more than {_MOST_PICTURES:,} pictures in one request")
        self.parts.append(_Part())

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        part = self.parts[-1]
        part.value += data[start:end]
        if len(part.value) > _LONGEST_HEADER:
            raise Refusal(400, "bad_form", "a header of a part is too long")

    def on_header_end(self) -> None:
        part = self.parts[-1]
        if len(part.headers) >= _MOST_HEADERS:
            raise Refusal(400, "bad_form", "a part has too many headers")
        part.headers[part.header.decode("latin-1").lower()] = _text(bytes(part.value))
        part.header, part.value = bytearray(), bytearray()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].content += data[start:end]

    def on_end(self) -> None:
        self.ended = True


def _of_form(boundary: bytes | None, body: bytes) -> list[Submitted]:
    if not boundary or len(boundary) > 256:
        raise Refusal(400, "bad_form", "the form has no boundary of at most 256 bytes in its content type")
    form = _Form()
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": form.on_part_begin,
                "on_header_field": form.on_header_field,
                "on_header_value": form.on_header_value,
                "on_header_end": form.on_header_end,
                "on_part_data": form.on_part_data,
                "on_end": form.on_end,
            },
        )
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError, IndexError) as error:
        raise Refusal(400, "bad_form", f"the form is broken: {' '.join(str(error).split())[:200]}") from error
    if not form.ended:
        raise Refusal(400, "bad_form", "the form is broken: its end is missing")
    pictures = []
    for number, part in enumerate(form.parts):
        pictures.append(Submitted(_name(part, number), bytes(part.content)))
    return pictures


def _name(part: _Part, number: int) -> str:
    """What the part's file is called, as RFC 7578 and 5987 have it, else its field; a name for people, no path."""
    message = Message()
    message["content-disposition"] = part.headers.get("content-disposition", "").replace("\n", " ").replace("\r", " ")
    try:
        if name := _plain_name(message.get_filename() or ""):
            return name
        field = message.get_param("name", header="content-disposition")
        return f"picture {number} (field {_plain_name(field)})" if isinstance(field, str) else f"picture {number}"
    except (ValueError, LookupError, TypeError):
        return f"picture {number}"


def _plain_name(name: str | None) -> str:
    """The last part of a name, without what no terminal or page should be given."""
    last = (name or "").replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(sign if sign.isprintable() else "?" for sign in last)[:200]


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")
