"""What is taken out of bodies, whatever they hold."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tood.serving.refusal import Refusal
from tood.serving.submitted import Submitted, submitted_pictures

KINDS = ("multipart/form-data; boundary=x", "application/json", "image/png", "", "text/plain", "multipart/form-data")


@given(st.sampled_from(KINDS) | st.text(st.characters(codec="latin-1"), max_size=80), st.binary(max_size=400))
def test_any_body_gives_pictures_or_a_refusal(kind: str, body: bytes) -> None:
    try:
        pictures = submitted_pictures(kind, body)
    except Refusal as told:
        refusal = told
    else:
        assert pictures
        assert all(isinstance(picture, Submitted) for picture in pictures)
        return
    assert 400 <= refusal.status < 500


@given(
    st.lists(
        st.sampled_from(
            [b"--x", b"--x--", b"\r\n", b"Content-Disposition: form-data", b'; name="a"', b": ", b"\0", b"a"]
        )
    )
)
def test_broken_forms_too(pieces: list[bytes]) -> None:
    try:
        submitted_pictures(KINDS[0], b"".join(pieces))
    except Refusal as told:
        refusal = told
    else:
        return
    assert refusal.status == 400


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5))
def test_what_is_sent_arrives_as_it_was(contents: list[bytes]) -> None:
    told = json.dumps({"pictures": [{"base64": base64.b64encode(content).decode()} for content in contents]})
    assert [one.content for one in submitted_pictures("application/json", told.encode())] == contents
    boundary = b"b" * 40
    parts = [
        b"--" + boundary + b'\r\nContent-Disposition: form-data; name="p"; filename="a"\r\n\r\n' + content + b"\r\n"
        for content in contents
    ]
    body = b"".join(parts) + b"--" + boundary + b"--\r\n"
    form = submitted_pictures(f"multipart/form-data; boundary={boundary.decode()}", body)
    assert [one.content for one in form] == contents


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        (b'form-data; name="p"; filename="a.png"', "a.png"),
        (b'form-data; name="p"; filename="../../etc/passwd"', "passwd"),
        (b'form-data; name="p"; filename="C:\\\\dir\\\\b.png"', "b.png"),
        (b"form-data; name=\"p\"; filename*=UTF-8''%D1%84.png", "\u0444.png"),
        ('form-data; name="p"; filename="\u0444.png"'.encode(), "\u0444.png"),
        (b'form-data; name="p"', "picture 0 (field p)"),
        (b'form-data; name="p"; filename="a\x1b[31m.png"', "a?[31m.png"),
    ],
)
def test_names_are_names_and_no_paths(disposition: bytes, name: str) -> None:
    body = b"--x\r\nContent-Disposition: " + disposition + b"\r\n\r\n1\r\n--x--\r\n"
    assert submitted_pictures(KINDS[0], body)[0].name == name


def test_more_pictures_than_anyone_sends_are_not_kept() -> None:
    form = b"".join(b"--x\r\n\r\n\r\n" for _ in range(5000)) + b"--x--\r\n"
    with pytest.raises(Refusal, match="more than 4,096 pictures") as refused:
        submitted_pictures(KINDS[0], form)
    assert refused.value.status == 413
    with pytest.raises(Refusal, match="4096"):
        submitted_pictures(KINDS[1], json.dumps({"pictures": [{}] * 5000}).encode())
