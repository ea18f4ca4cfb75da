"""The addresses of the server and what they answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec
from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, Response
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.staticfiles import StaticFiles

from tood.drawing.palette import class_colour
from tood.serving.metrics import CONTENT_TYPE
from tood.serving.observed import Observed
from tood.serving.refusal import Refusal
from tood.serving.schema import BODIES, ERRORS, DetectAnswer, ModelsAnswer, StateAnswer
from tood.serving.served_model import ServedModel
from tood.serving.service import Hold, Pending, Service, stop_waiting
from tood.serving.submitted import submitted_pictures
from tood.structures import Detections
from tood.version import own_version

PAGE = Path(__file__).parent / "page"
# Bodies beyond this are taken apart in a thread, so that the others go on meanwhile.
_SMALL_BODY = 1 << 20
# Of a refused body so much, or twice what is allowed, is taken and dropped, so that its sender reads the answer.
_DRAINED = 64 << 20
_DECIMALS, _SCORE_DECIMALS = 4, 6

_bearer = HTTPBearer(auto_error=False, description="A key of this server.")
_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="The same in a header of its own.")


def create_app(service: Service) -> Observed:
    """The ASGI application of a service, which it closes when the server ends."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.get_running_loop().run_in_executor(None, service.close)

    app = FastAPI(
        title="tood", version=own_version(), description="Finds objects in pictures.", lifespan=lifespan,
        docs_url=None, redoc_url=None, redirect_slashes=False,
    )  # fmt: skip
    _add_errors(app, service)
    _add_detect(app, service)
    _add_states(app, service)
    _add_page(app)
    return Observed(app, service.log, service.metrics, max(_DRAINED, 2 * service.config.limits.body_bytes))


def _checks_key(service: Service) -> Any:
    async def check(
        bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
        header: Annotated[str | None, Depends(_header)],
    ) -> None:
        given = header if bearer is None else bearer.credentials
        if service.keys and not service.keys.admit(given):
            raise Refusal(401, "key", "this server wants a key: send it as Authorization: Bearer KEY or X-API-Key")

    return Depends(check)


def _add_errors(app: FastAPI, service: Service) -> None:
    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        service.metrics.refused.labels(error.reason).inc()
        request.state.told["refused"] = error.reason
        headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
        if error.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return _json({"error": error.told}, error.status, headers)

    async def unknown(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _json({"error": str(error.detail)}, error.status_code, dict(error.headers or {}))

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        told = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        return _json({"error": told[:500]}, 422)

    async def broken(_: Request, error: Exception) -> Response:
        return _json({"error": "something in the server broke; its log says what"}, 500)

    app.add_exception_handler(Exception, broken)
    app.add_exception_handler(Refusal, refused)
    app.add_exception_handler(HTTPException, unknown)
    app.add_exception_handler(RequestValidationError, invalid)


def _add_detect(app: FastAPI, service: Service) -> None:
    @app.post(
        "/detect",
        summary="Find objects in one picture or several",
        response_model=DetectAnswer,
        responses=ERRORS,
        openapi_extra=BODIES,
        dependencies=[_checks_key(service)],
    )
    async def detect(
        request: Request,
        model: Annotated[str | None, Query(description="Name of a model; the first, if left out.")] = None,
        threshold: Annotated[float, Query(ge=0, le=1, description="Least score.")] = 0.0,
        exif: Annotated[bool, Query(description="Turn photographs as their EXIF orientation says.")] = False,
    ) -> Response:
        """The body is a form with one picture a part, one picture's bytes, or json with base64 or addresses."""
        told = request.state.told
        served = service.model(model)
        hold = service.hold()
        try:
            body = await _body(request, service, hold)
            pictures = await _off_the_loop(len(body), partial(submitted_pictures, _content_type(request), body))
            del body
            pending = service.take(pictures, served, exif, hold)
        except ClientDisconnect:
            hold.release()
            told["gone"] = True
            return Response(status_code=400)
        except BaseException:
            hold.release()
            raise
        told |= {"model": served.name, "version": pending[0].loaded.version, "pictures": len(pending)}
        if not await _answered(request, pending, service.config.limits.seconds):
            told["gone"] = True
            return Response(status_code=400)
        return _json(_answer(service, served, pending, threshold, told))


def _content_type(request: Request) -> str:
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "unsupported_type", "packed bodies are not read: send it without Content-Encoding")
    return request.headers.get("content-type", "")


async def _off_the_loop(size: int, work: Any) -> Any:
    """The result of work on so many bytes."""
    return work() if size <= _SMALL_BODY else await asyncio.get_running_loop().run_in_executor(None, work)


async def _body(request: Request, service: Service, hold: Hold) -> bytes:
    """All of a request's body, within the limits.

    Raises:
        Refusal: if it is too large or too slow.
    """
    limits = service.config.limits
    large = Refusal(413, "bytes", f"the body is larger than the {limits.body_bytes / 2**20:g} MiB that are served here")
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length) > limits.body_bytes:
        raise large
    body = bytearray()

    async def arrive() -> None:
        async for chunk in request.stream():
            if len(body) + len(chunk) > limits.body_bytes:
                raise large
            hold.grow(len(chunk))
            body.extend(chunk)

    try:
        await asyncio.wait_for(arrive(), limits.seconds)
    except asyncio.TimeoutError:
        told = f"the body did not arrive within {limits.seconds:g} seconds"
        raise Refusal(408, "slow", told) from None
    return bytes(body)


async def _answered(request: Request, pending: Sequence[Pending], seconds: float) -> bool:
    """Waits for all pictures; False if whoever asked has hung up.

    Raises:
        Refusal: if one cannot be read, or they are not done in time.
    """
    results: asyncio.Future[Any] = asyncio.gather(*(asyncio.wrap_future(one.result) for one in pending))
    # Left behind by who hung up, it would be told of in the log.
    results.add_done_callback(lambda done: done.cancelled() or done.exception())
    # When the body has been read, the next message is that the other side is gone.
    gone = asyncio.ensure_future(request.receive())
    either: set[asyncio.Future[Any]] = {results, gone}
    try:
        await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if results.done():
            results.result()
            return True
        if gone.done():
            return False
        raise Refusal(503, "late", f"not done within {seconds:g} seconds: try again, with fewer pictures", 5)
    finally:
        gone.cancel()
        results.cancel()
        stop_waiting(pending)


def _answer(
    service: Service, served: ServedModel, pending: Sequence[Pending], threshold: float, told: dict[str, object]
) -> dict[str, object]:
    results, count = [], 0
    for one in pending:
        computed = one.result.result()
        found = computed.found.above(threshold) if threshold > 0 else computed.found
        count += len(found)
        seconds = {"read": one.read_seconds, "wait": computed.waited, "compute": computed.computed}
        results.append(
            {
                "name": one.name,
                "width": one.width,
                "height": one.height,
                "detections": _rows(found),
                "seconds": {stage: round(took, 4) for stage, took in seconds.items()},
            }
        )
    service.metrics.pictures.labels(served.name).inc(len(pending))
    service.metrics.detections.labels(served.name).inc(count)
    told |= {"detections": count, "stages": results[0]["seconds"]}
    return {"model": served.name, "version": pending[0].loaded.version, "results": results}


def _rows(found: Detections) -> list[dict[str, Any]]:
    """As `Detections.to_dicts`, in as many digits as mean something."""
    boxes = found.boxes.double().numpy().round(_DECIMALS).tolist()
    scores = found.scores.double().numpy().round(_SCORE_DECIMALS).tolist()
    rows = zip(boxes, scores, found.labels.tolist(), found.names, strict=True)
    return [{"box": box, "score": score, "label": label, "name": name} for box, score, label, name in rows]


def _add_states(app: FastAPI, service: Service) -> None:
    @app.get("/health", summary="Whether the process answers", response_model=StateAnswer)
    async def health() -> Response:
        return _json({"status": "ok"})

    @app.get("/ready", summary="Whether it takes requests", response_model=StateAnswer, responses={503: ERRORS[503]})
    async def ready() -> Response:
        if service.closing.is_set():
            return _json({"status": "closing"}, 503)
        return _json({"status": "ready"})

    @app.get("/metrics", summary="Figures for Prometheus", response_class=Response, dependencies=[_checks_key(service)])
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)

    @app.get("/models", summary="The models", response_model=ModelsAnswer, dependencies=[_checks_key(service)])
    async def models() -> Response:
        return _json({"models": [_model(model) for model in service.models.values()]})


def _model(model: ServedModel) -> dict[str, object]:
    loaded = model.current
    detector = loaded.detector
    colours = ("#{:02x}{:02x}{:02x}".format(*class_colour(label)) for label in range(len(detector.class_names)))
    return {
        "name": model.name,
        "version": loaded.version,
        "loaded": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(loaded.loaded)),
        "device": str(detector.device),
        "precision": detector.precision,
        "threshold": detector.config.score_threshold,
        "classes": [
            {"name": name, "colour": colour} for name, colour in zip(detector.class_names, colours, strict=True)
        ],
    }


def _add_page(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return FileResponse(PAGE / "index.html")

    @app.get("/docs", include_in_schema=False)
    async def documentation() -> Response:
        return FileResponse(PAGE / "docs.html")

    app.mount("/page", StaticFiles(directory=PAGE))


def _json(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(content), status, headers, "application/json")
