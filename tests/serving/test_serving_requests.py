"""What a running server answers, and what becomes of requests when it is busy, changed or stopped."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from server_process import CLASSES, ServerProcess, picture_bytes, post, serving, small_model, spoken
from typer.testing import CliRunner

from tood import Detector
from tood.cli.main import app

KEY = "a-key-of-many-letters"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("serving")


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    return small_model(folder / "run" / "best.safetensors")


@pytest.fixture(scope="module")
def server(folder: Path, model: Path) -> Iterator[ServerProcess]:
    other = small_model(folder / "other.safetensors", seed=1)
    with serving(
        [model, f"second={other}"], "--max-megapixels", "1", "--max-megabytes", "2", home=folder / "home"
    ) as running:
        yield running


def until(what: Callable[[], object]) -> None:
    """Waits for it; forever is a failure."""
    latest = time.monotonic() + 300
    while not what():
        assert time.monotonic() < latest
        time.sleep(0.02)


def expected(model: Path, picture: bytes) -> list[dict[str, Any]]:
    return Detector(model, "cpu", precision="fp32")(picture, keep_image=False).to_dicts()


def same(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> bool:
    """Whether boxes are equal to 1e-3 pixels, scores to 1e-5, classes and order exactly."""
    if [one["name"] for one in found] != [one["name"] for one in wanted]:
        return False
    boxes, others = ([one["box"] for one in some] for some in (found, wanted))
    scores, their = ([one["score"] for one in some] for some in (found, wanted))
    return bool(np.abs(np.subtract(boxes, others)).max() < 1e-3 and np.abs(np.subtract(scores, their)).max() < 1e-5)


def test_bytes_form_and_json_get_what_the_detector_finds(server: ServerProcess, model: Path) -> None:
    pictures = [picture_bytes(seed) for seed in range(3)]
    wanted = [expected(model, picture) for picture in pictures]
    assert all(len(one) > 5 for one in wanted)
    with server.client() as client:
        raw = client.post("/detect", content=pictures[0], headers={"Content-Type": "image/png"}).json()
        assert raw["model"] == "run"
        assert (raw["results"][0]["width"], raw["results"][0]["height"]) == (144, 96)
        assert same(raw["results"][0]["detections"], wanted[0])

        files = [("any", (f"../../{i}.png", picture, "image/png")) for i, picture in enumerate(pictures)]
        form = client.post("/detect", files=files).json()
        assert [one["name"] for one in form["results"]] == ["0.png", "1.png", "2.png"]
        entries = [{"name": f"p{i}", "base64": base64.b64encode(one).decode()} for i, one in enumerate(pictures)]
        entries[1]["base64"] = "data:image/png;base64," + entries[1]["base64"]
        told = client.post("/detect", json={"pictures": entries}).json()
        for answer in (form, told):
            assert all(same(one["detections"], own) for one, own in zip(answer["results"], wanted, strict=True))


def test_model_threshold_and_exif_are_chosen_by_the_request(server: ServerProcess) -> None:
    out = BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(BytesIO(picture_bytes(5))).save(out, "JPEG", exif=exif)
    with server.client() as client:
        default = client.post("/detect", content=out.getvalue()).json()
        second = client.post("/detect?model=second", content=out.getvalue()).json()
        assert second["model"] == "second"
        assert second["results"] != default["results"]
        turned = client.post("/detect?exif=true", content=out.getvalue()).json()["results"][0]
        assert (turned["width"], turned["height"]) == (96, 144)
        found = default["results"][0]["detections"]
        scores = sorted(one["score"] for one in found)
        middle = sum(scores[len(found) // 2 :][:2]) / 2
        fewer = client.post(f"/detect?threshold={middle}", content=out.getvalue()).json()["results"][0]["detections"]
        assert 0 < len(fewer) < len(found)
        assert fewer == [one for one in found if one["score"] >= middle]


def test_what_a_picture_gets_does_not_depend_on_its_neighbours(server: ServerProcess) -> None:
    pictures = [picture_bytes(seed) for seed in range(32)]
    with server.client() as client:
        alone = client.post("/detect", content=pictures[7]).json()["results"][0]["detections"]
        files = [("any", (str(i), picture)) for i, picture in enumerate(pictures)]
        for place in (0, 13, 31):
            ordered = files[:7] + files[8:]
            ordered.insert(place, files[7])
            among = client.post("/detect", files=ordered).json()["results"]
            assert len(among) == 32
            assert same(among[place]["detections"], alone)


def test_batches_of_a_fixed_size_give_the_same_alone_and_crowded(folder: Path, model: Path) -> None:
    with serving([model], "--batch-size", "8", "--lanes", "1", home=folder / "batched") as running:
        pictures = [picture_bytes(seed) for seed in range(32)]
        with running.client() as client:
            alone = [client.post("/detect", content=one).json()["results"][0]["detections"] for one in pictures[:4]]
            files = [("any", (str(i), picture)) for i, picture in enumerate(pictures)]
            among = client.post("/detect", files=files).json()["results"]
        assert all(same(one["detections"], own) for one, own in zip(among, alone, strict=False))
        assert running.metric('tood_batch_pictures_bucket{le="4.0"}') < running.metric("tood_batch_pictures_count")


@pytest.mark.parametrize(
    ("path", "body", "kind", "status", "part"),
    [
        ("/detect", b"no picture", "image/png", 422, "not an image"),
        ("/detect", b"", "image/png", 400, "no picture"),
        ("/detect", b"{}", "application/json", 400, "pictures"),
        ("/detect", b'{"pictures": []}', "application/json", 400, "no picture"),
        ("/detect", b'{"pictures": [{"base64": "?"}]}', "application/json", 400, "base64"),
        ("/detect", b'{"pictures": [{}]}', "application/json", 400, "either"),
        ("/detect", b'{"pictures": [{"url": "http://example.com/a.png"}]}', "application/json", 403, "no addresses"),
        ("/detect", b"a=b", "application/x-www-form-urlencoded", 415, "not read"),
        ("/detect", b"--x\r\n", "multipart/form-data", 400, "boundary"),
        ("/detect", b"--x\r\nbroken", "multipart/form-data; boundary=x", 400, "broken"),
        ("/detect?model=third", b"x", "image/png", 404, "run, second"),
        ("/detect?threshold=2", b"x", "image/png", 422, "threshold"),
        ("/detect", picture_bytes(0, 1000, 1008), "image/png", 413, "1008x1000 pixels"),
        ("/nowhere", b"x", "image/png", 404, "Not Found"),
    ],
)
def test_a_request_that_cannot_be_done_is_told_why(
    server: ServerProcess, path: str, body: bytes, kind: str, status: int, part: str
) -> None:
    with server.client() as client:
        answer = client.post(path, content=body, headers={"Content-Type": kind})
        assert (answer.status_code, part in answer.json()["error"]) == (status, True), answer.text


def test_a_body_beyond_the_limit_is_refused_with_and_without_a_length(server: ServerProcess) -> None:
    large = bytes(3 << 20)
    with server.client() as client:
        assert client.post("/detect", content=iter([large])).status_code == 413
    assert spoken(server.port, post(large, "image/png")) == 413
    head = b"POST /detect HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n"
    assert spoken(server.port, head) == 413
    assert server.becomes("tood_held_bytes", 0)


def test_models_states_figures_and_documentation(server: ServerProcess, model: Path) -> None:
    with server.client() as client:
        told = client.get("/models").json()["models"]
        assert [one["name"] for one in told] == ["run", "second"]
        assert [one["name"] for one in told[0]["classes"]] == list(CLASSES)
        assert client.get("/health").json() == {"status": "ok"}
        assert client.get("/ready").json() == {"status": "ready"}
        client.post("/detect", content=picture_bytes())
        figures = client.get("/metrics")
        assert figures.headers["content-type"].startswith("text/plain")
        for name in ("tood_requests_total", "tood_request_seconds_bucket", "tood_pictures_total", "tood_queue_limit",
                     "tood_stage_seconds_sum", "tood_refused_total", "process_resident_memory_bytes"):  # fmt: skip
            assert name in figures.text
        api = client.get("/openapi.json").json()
        assert {"/detect", "/models", "/health", "/ready", "/metrics"} <= set(api["paths"])
        assert "multipart/form-data" in api["paths"]["/detect"]["post"]["requestBody"]["content"]
        assert "openapi.json" in client.get("/docs").text
        page = client.get("/")
        assert "default-src 'self'" in page.headers["content-security-policy"]


def test_head_gets_what_get_does_without_the_body(server: ServerProcess) -> None:
    with server.client() as client:
        for path in (
            "/",
            "/health",
            "/ready",
            "/models",
            "/metrics",
            "/docs",
            "/openapi.json",
            "/page/style.css",
            "/no",
        ):
            whole, head = client.get(path), client.head(path)
            assert head.status_code == whole.status_code == (404 if path == "/no" else 200), path
            assert head.headers["content-type"] == whole.headers["content-type"]
            if path != "/metrics":  # which counts the very requests
                assert head.headers["content-length"] == str(len(whole.content))
            assert head.content == b""
        assert client.head("/detect").status_code == 405
        assert client.get("/health").json() == {"status": "ok"}  # over the same connection


def test_a_method_that_is_refused_is_told_which_are_not(server: ServerProcess) -> None:
    both = ("/", "/health", "/ready", "/models", "/metrics", "/docs", "/openapi.json", "/page/style.css")
    with server.client() as client:
        for path, allowed in {**dict.fromkeys(both, "GET, HEAD"), "/detect": "POST"}.items():
            for method in {"DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT"} - set(allowed.split(", ")):
                answer = client.request(method, path)
                assert (answer.status_code, answer.headers["allow"]) == (405, allowed), (method, path)


def test_the_log_is_a_line_of_json_a_request(server: ServerProcess) -> None:
    with server.client() as client:
        answer = client.post("/detect?x=secret", content=picture_bytes(), headers={"X-Request-ID": "mine-1"})
        assert answer.headers["x-request-id"] == "mine-1"
    line = server.event("request", id="mine-1")
    assert (line["status"], line["pictures"], line["model"], line["path"]) == (200, 1, "run", "/detect")
    assert set(line["stages"]) == {"read", "wait", "compute"}
    assert "secret" not in json.dumps(server.events)
    assert not server.other


def test_who_has_no_key_is_refused(folder: Path, model: Path) -> None:
    keys = folder / "keys.txt"
    keys.write_text(f"# of the team\n{KEY}\n")
    with serving([model], "--keys", str(keys), home=folder / "keyed") as running, running.client() as client:
        for path in ("/models", "/metrics"):
            assert client.get(path).status_code == client.head(path).status_code == 401
        assert client.get("/health").status_code == 200
        for headers in ({}, {"X-API-Key": "wrong"}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic eA=="}):
            refused = client.post("/detect", content=picture_bytes(), headers=headers)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer"
        for headers in ({"X-API-Key": KEY}, {"Authorization": f"Bearer {KEY}"}):
            assert client.post("/detect", content=picture_bytes(), headers=headers).status_code == 200
            assert client.get("/models", headers=headers).status_code == 200
        assert client.get("/models", headers={"X-API-Key": KEY, "X-Request-ID": "last"}).status_code == 200
        running.event("request", id="last")  # the log is a queue: all the others are in it
        assert KEY not in json.dumps(running.events)


def test_more_than_the_queue_holds_gets_429_and_all_others_an_answer(folder: Path, model: Path) -> None:
    large = picture_bytes(1, 2400, 3200)
    with (
        serving([model], "--queue", "3", "--max-pictures", "3", "--lanes", "1", home=folder / "queue") as running,
        ThreadPoolExecutor(32) as pool,
    ):
        connected = threading.Barrier(32, timeout=300)

        def ask(_: int) -> httpx.Response:
            with running.client() as client:
                assert client.get("/health").status_code == 200
                connected.wait()  # all ask at once, however long it takes to connect
                return client.post("/detect", content=large)

        answers = list(pool.map(ask, range(32)))
        codes = [answer.status_code for answer in answers]
        assert set(codes) == {200, 429}
        assert all(int(one.headers["retry-after"]) >= 1 for one in answers if one.status_code == 429)
        assert running.becomes("tood_queue_pictures", 0)
        with running.client() as client:
            four = client.post("/detect", files=[("a", picture_bytes())] * 4)
            assert four.status_code == 413


def test_a_slow_server_elsewhere_takes_nobodys_place_and_no_end_waits_for_it(folder: Path, model: Path) -> None:
    ended, fetched = threading.Event(), threading.Semaphore(0)

    def drip(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            while not ended.wait(0.2):
                connection.sendall(b"X: a\r\n")

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=drip, args=(slow.accept()[0],), daemon=True).start()
                fetched.release()

    def both_fetched() -> bool:
        return all(fetched.acquire(timeout=300) for _ in "ab")

    with socket.create_server(("127.0.0.1", 0)) as slow, ThreadPoolExecutor(1) as pool:
        threading.Thread(target=accept, daemon=True).start()
        place = f"127.0.0.1:{slow.getsockname()[1]}"
        limits = ("--queue", "2", "--max-pictures", "2", "--max-seconds", "6", "--allow-url", place)
        with serving([model], *limits, home=folder / "slow") as running, running.client() as client:
            body = {"pictures": [{"url": f"http://{place}/{name}.png"} for name in "ab"]}
            waiting = pool.submit(httpx.post, f"{running.address}/detect", json=body, timeout=300, trust_env=False)
            assert both_fetched()
            assert client.post("/detect", json=body).status_code == 429, "others would wait for these two"
            assert client.post("/detect", content=picture_bytes()).status_code == 200
            assert waiting.result().status_code in (422, 503)  # the fetch's time and the request's are over at once
            pool.submit(httpx.post, f"{running.address}/detect", json=body, timeout=300, trust_env=False)
            assert both_fetched()
            assert running.stop(15) == 0  # its grace is 17 seconds
        ended.set()


def test_a_changed_model_takes_its_place_and_no_request_is_lost(folder: Path, model: Path) -> None:
    served = folder / "changing.safetensors"
    served.write_bytes(model.read_bytes())
    names = [f"new {name}" for name in CLASSES]
    with serving([served], "--reload-seconds", "0.1", home=folder / "reload") as running:
        answers: list[httpx.Response] = []
        stop = threading.Event()

        def keep_asking() -> None:
            with running.client() as client:
                while not stop.is_set():
                    answers.append(client.post("/detect", content=picture_bytes(len(answers) % 5)))

        threads = [threading.Thread(target=keep_asking) for _ in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: answers)
        small_model(served, names, seed=2)
        first = running.event("reload")
        mark = len(running.events)
        half = folder / "half a file"
        half.write_bytes(b"half a file")
        half.replace(served)  # at once: an empty file in between would be another failure
        assert running.event("reload", after=mark)["level"] == "error"
        asked = len(answers)
        until(lambda: len(answers) >= asked + 8)  # of each thread one that it asked for since
        stop.set()
        for thread in threads:
            thread.join()
        assert {answer.status_code for answer in answers} == {200}
        versions = list(dict.fromkeys(answer.json()["version"] for answer in answers))
        assert versions[-1] == first["version"]
        assert len(versions) == 2
        for answer in answers:
            told = answer.json()
            assert told["results"][0]["detections"][0]["name"].startswith("new ") == (told["version"] == versions[1])
        assert running.metric('tood_model_reloads_total{model="changing",result="done"}') == 1
        assert running.metric('tood_model_reloads_total{model="changing",result="failed"}') == 1


def test_a_server_that_is_stopped_answers_what_it_took(folder: Path, model: Path) -> None:
    large = picture_bytes(1, 2400, 3200)
    with serving([model], "--lanes", "1", home=folder / "stopped") as running:
        connections = [socket.create_connection(("127.0.0.1", running.port), timeout=300) for _ in range(8)]
        for connection in connections:
            connection.sendall(post(large, "image/png"))

        def detected() -> list[dict[str, Any]]:
            return [event for event in running.events if event["event"] == "request" and event["path"] == "/detect"]

        until(lambda: len(detected()) + running.metric("tood_queue_pictures") >= 4)
        running.process.terminate()
        answers = []
        for connection in connections:
            try:
                answers.append(connection.makefile("rb").readline())
            except ConnectionError:  # reset, with what nobody has read
                answers.append(b"")
            connection.close()
        assert running.process.wait(300) == 0
        running.event("stopped")
        done = detected()
        assert [event["status"] for event in done] == [200] * len(done)
        # What had not been read from the network when the signal came was not taken.
        assert sum(b"200" in answer for answer in answers) == len(done) >= 4


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["no_such_model"], "no_such_model"),
        (["{model}", "{model}"], "two models are called run"),
        (["{model}", "--port", "{taken}"], "cannot listen"),
        (["{model}", "--keys", "{folder}/none.txt"], "cannot be read"),
        (["{model}", "--allow-url", "http://example.com/x"], "is no host"),
        (["{model}", "--threshold", "7"], "threshold"),
    ],
)
def test_a_wrong_command_says_what_is_wrong(folder: Path, model: Path, options: list[str], part: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        filled = [option.format(model=model, folder=folder, taken=taken.getsockname()[1]) for option in options]
        result = CliRunner().invoke(app, ["serve", "--port", "0", *filled])
    assert result.exit_code == 2
    assert part in result.output
