"""The answers, as OpenAPI documents them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class FoundObject(BaseModel):
    """One object in a picture."""

    box: list[float] = Field(description="x1, y1, x2, y2 in pixels of the picture", min_length=4, max_length=4)
    score: float
    label: int = Field(description="index of the class")
    name: str = Field(description="of the class")


class Timing(BaseModel):
    """Seconds that a picture took."""

    read: float = Field(description="fetching and decoding")
    wait: float = Field(description="in the queue")
    compute: float = Field(description="in the network, with its batch")


class PictureAnswer(BaseModel):
    """What is on one picture."""

    name: str
    width: int
    height: int
    detections: list[FoundObject]
    seconds: Timing


class DetectAnswer(BaseModel):
    """What is on the pictures of a request, in their order."""

    model: str
    version: str = Field(description="the first digits of its file's SHA-256, or of all its files'")
    results: list[PictureAnswer]


class ServedClass(BaseModel):
    """A class that a model knows."""

    name: str
    colour: str = Field(description="as boxes of it are drawn, #rrggbb")


class ModelAnswer(BaseModel):
    """A model that is served."""

    name: str
    version: str
    loaded: str = Field(description="when, in UTC")
    device: str
    precision: str
    threshold: float = Field(description="least score of what it gives")
    classes: list[ServedClass]


class ModelsAnswer(BaseModel):
    """All models; the first answers where none is named."""

    models: list[ModelAnswer]


class StateAnswer(BaseModel):
    """Whether it is so."""

    status: str


class ErrorAnswer(BaseModel):
    """Why a request was not done."""

    error: str


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": told}
    for status, told in {
        400: "The body is broken, or holds no picture.",
        401: "There is no key, or a wrong one.",
        403: "An address that this server does not fetch from.",
        404: "There is no such model.",
        408: "The body did not arrive in time.",
        413: "Too many bytes, pixels or pictures.",
        415: "A kind of body that is not read.",
        422: "A picture that cannot be read or fetched, or a wrong parameter.",
        429: "Busy: try again after as many seconds as Retry-After says.",
        500: "Something in the server broke; its log says what.",
        503: "Not done in time, or too many connections.",
    }.items()
}

_BINARY = {"schema": {"type": "string", "format": "binary"}}
BODIES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"pictures": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            },
            "image/jpeg": _BINARY,
            "image/png": _BINARY,
            "application/octet-stream": _BINARY,
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["pictures"],
                    "properties": {
                        "pictures": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "properties": {
                                    "name": {"type": "string"},
                                    "base64": {"type": "string", "description": "of an image file"},
                                    "url": {"type": "string", "description": "on one of the allowed hosts"},
                                },
                            },
                        }
                    },
                }
            },
        },
    }
}
