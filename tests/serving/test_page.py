"""The page in a real Chromium: what a person sees and does."""

from __future__ import annotations

import base64
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from server_process import CLASSES, ServerProcess, picture_bytes, serving, small_model

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
# Pictures of what was seen, for eyes: TOOD_SCREENSHOTS names a folder.
SCREENSHOTS = os.environ.get("TOOD_SCREENSHOTS")
_ARGUMENTS = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
# Milliseconds after which what is waited for counts as missing, on the busiest machine.
_PATIENCE = 300_000
# Of the webcam, in pixels.
_WIDTH, _HEIGHT = 320, 240


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("page")
    first = small_model(folder / "first.safetensors")
    second = small_model(folder / "second.safetensors", seed=3)
    with serving([first, second], home=folder / "home") as running:
        yield running


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    # What the webcam sees.
    film = tmp_path_factory.mktemp("webcam") / "noise.y4m"
    frame = b"FRAME\n" + np.random.default_rng(0).integers(0, 256, _WIDTH * _HEIGHT * 3 // 2, np.uint8).tobytes()
    film.write_bytes(f"YUV4MPEG2 W{_WIDTH} H{_HEIGHT} F10:1 Ip A1:1 C420jpeg\n".encode() + frame * 5)
    arguments = [*_ARGUMENTS, f"--use-file-for-fake-video-capture={film}"]
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments, timeout=_PATIENCE)
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser, server: ServerProcess) -> Iterator[Page]:
    context = browser.new_context(
        viewport={"width": 1200, "height": 800}, accept_downloads=True, permissions=["camera"]
    )
    opened = context.new_page()
    opened.set_default_timeout(_PATIENCE)
    asked: list[str] = []
    wrong: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda message: wrong.append(message.text) if _is_fault(message) else None)
    opened.goto(server.address)
    opened.get_by_text("Choose a picture, drop one").wait_for()
    yield opened
    context.close()
    assert not wrong
    assert all(address.startswith((server.address, "blob:", "data:")) for address in asked)


def _is_fault(message: ConsoleMessage) -> bool:
    # A refused request is written there by the browser; that is no fault of the page.
    return message.type == "error" and "Failed to load resource" not in message.text


def dropped(page: Page, picture: bytes, name: str = "noise.png") -> None:
    """A picture dropped onto the page, as from a file manager."""
    page.evaluate(
        """([content, name]) => {
            const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], name, { type: "image/png" }));
            const at = document.getElementById("drop");
            for (const kind of ["dragover", "drop"]) {
                at.dispatchEvent(new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
            }
        }""",
        [base64.b64encode(picture).decode(), name],
    )


def boxes(page: Page, model: str = "first") -> int:
    return int(page.locator(f'figure[data-model="{model}"] canvas').get_attribute("data-shown") or -1)


def wanted(server: ServerProcess, picture: bytes, threshold: float, model: str = "first") -> int:
    with server.client() as client:
        found = client.post(f"/detect?exif=true&model={model}", content=picture).json()["results"][0]["detections"]
    return sum(one["score"] >= threshold for one in found)


def until(page: Page, expression: str) -> None:
    """Waits for it to be true; Playwright's own way would be against the page's rules of what may run in it."""
    latest = time.monotonic() + _PATIENCE / 1000
    while time.monotonic() < latest:
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(expression)


def set_threshold(page: Page, value: float) -> None:
    page.get_by_label("Least score").fill(str(value))


def seen(page: Page, name: str) -> None:
    if SCREENSHOTS:
        page.screenshot(path=str(Path(SCREENSHOTS) / f"{name}.png"), full_page=True)


def test_a_dropped_picture_shows_its_boxes_and_filters_ask_nothing_more(page: Page, server: ServerProcess) -> None:
    picture = picture_bytes(1, 240, 320)
    set_threshold(page, 0.1)
    dropped(page, picture)
    page.get_by_text("objects shown").wait_for()
    many = boxes(page)
    assert many == wanted(server, picture, 0.1) > 3
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    with server.client() as client:
        found = client.post("/detect?exif=true&model=first", content=picture).json()["results"][0]["detections"]
    middle = round(sorted(one["score"] for one in found)[len(found) // 2], 2)
    set_threshold(page, middle)
    assert boxes(page) == sum(one["score"] >= middle for one in found) < many
    kind = next(one["name"] for one in found if one["score"] >= middle)
    left = sum(one["score"] >= middle and one["name"] != kind for one in found)
    page.get_by_role("checkbox", name=kind).uncheck()
    assert boxes(page) == left
    page.get_by_role("button", name="None").click()
    assert boxes(page) == 0
    page.get_by_role("button", name="All", exact=True).click()
    set_threshold(page, 0.1)
    assert boxes(page) == many
    assert f"{many} of {len(found)} objects shown" in page.get_by_role("status").inner_text()
    assert f"first shows {many} objects" in (page.get_by_role("img").get_attribute("aria-label") or "")
    assert not requests
    seen(page, "one")


def test_two_models_side_by_side(page: Page, server: ServerProcess) -> None:
    picture = picture_bytes(2, 240, 320)
    page.get_by_label("Choose pictures or a video").set_input_files(
        [{"name": f"{i}.png", "mimeType": "image/png", "buffer": picture_bytes(i, 240, 320)} for i in (2, 3)]
    )
    page.get_by_text("objects shown").wait_for()
    page.get_by_label("Compare with").select_option("second")
    until(page, "document.querySelectorAll('canvas[data-shown]').length === 2")
    page.get_by_text("objects shown").wait_for()
    assert boxes(page) == wanted(server, picture, 0.3)
    assert boxes(page, "second") == wanted(server, picture, 0.3, "second")
    places = [page.locator("canvas").nth(number).bounding_box() for number in (0, 1)]
    assert places[0]["y"] == places[1]["y"]
    assert places[0]["x"] + places[0]["width"] <= places[1]["x"]
    seen(page, "two")
    page.get_by_role("button", name="3.png").click()
    page.get_by_text("3.png:").first.wait_for()
    page.get_by_text("objects shown").wait_for()
    assert boxes(page) == wanted(server, picture_bytes(3, 240, 320), 0.3)


def test_downloads_hold_what_is_shown(page: Page, server: ServerProcess, tmp_path: Path) -> None:
    picture = picture_bytes(4, 240, 320)
    dropped(page, picture, "street.png")
    page.get_by_text("objects shown").wait_for()
    count = boxes(page)
    saved = {}
    for name in ("JSON", "COCO JSON", "Picture"):
        with page.expect_download() as waiting:
            page.get_by_role("button", name=name, exact=True).click()
        saved[name] = tmp_path / waiting.value.suggested_filename
        waiting.value.save_as(saved[name])
    told = json.loads(saved["JSON"].read_text())
    assert len(told["pictures"][0]["results"][0]["detections"]) == count > 0
    coco = json.loads(saved["COCO JSON"].read_text())
    assert [one["name"] for one in coco["categories"]] == list(CLASSES)
    assert coco["images"] == [{"id": 1, "file_name": "street.png", "width": 320, "height": 240}]
    assert len(coco["annotations"]) == count
    left, top, right, bottom = told["pictures"][0]["results"][0]["detections"][0]["box"]
    assert coco["annotations"][0]["bbox"] == pytest.approx([left, top, right - left, bottom - top], abs=2e-3)
    from tood.data.images import read_image

    drawn, plain = read_image(saved["Picture"]), read_image(picture)
    assert drawn.shape == plain.shape
    assert saved["Picture"].name == "street-detections.png"
    assert (np.abs(drawn.astype(int) - plain).max(2) > 0).any()


def test_the_webcam_is_watched_until_it_is_stopped(page: Page) -> None:
    page.get_by_role("button", name="Start webcam").click()
    page.get_by_text("objects shown").wait_for()
    assert "webcam" in page.locator("#status").inner_text()
    page.get_by_role("button", name="Pause").click()
    assert page.get_by_role("button", name="Go on").is_visible()
    seen(page, "webcam")
    page.get_by_role("button", name="Stop").click()
    assert page.get_by_role("button", name="Start webcam").is_visible()
    assert boxes(page) > 0
    assert page.locator("#problem").inner_text() == ""


def test_a_video_is_played_with_its_boxes(page: Page, tmp_path: Path) -> None:
    import av

    path = tmp_path / "film.webm"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx", rate=10)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for number in range(10):
            pixels = np.random.default_rng(number).integers(0, 256, (96, 160, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    page.get_by_label("Choose pictures or a video").set_input_files(path)
    page.get_by_text("film.webm,").first.wait_for()
    page.get_by_role("button", name="Start webcam").wait_for()  # it ended
    assert page.locator("#problem").inner_text() == ""
    assert boxes(page) > 0
    size = page.locator("canvas").first.evaluate("(canvas) => [canvas.width, canvas.height]")
    assert size == [160, 96]


def test_everything_is_reached_by_keyboard(page: Page) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    met = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        met.add(page.evaluate("document.activeElement.id || document.activeElement.value || ''"))
    assert {"theme", "files", "webcam", "first", "second", "threshold", "all", "none", "cat", "owl"} <= met
    page.get_by_label("Least score").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#threshold-told").inner_text() == "0.31"


def test_dark_and_light(browser: Browser, server: ServerProcess, page: Page) -> None:
    def background(of: Page) -> list[int]:
        text = of.evaluate("getComputedStyle(document.body).backgroundColor")
        return [int(part) for part in text[4:-1].split(",")]

    assert min(background(page)) > 200
    page.get_by_role("button", name="Dark").click()
    assert max(background(page)) < 60
    page.reload()
    assert max(background(page)) < 60
    seen(page, "dark")
    context = browser.new_context(color_scheme="dark")
    other = context.new_page()
    other.set_default_timeout(_PATIENCE)
    other.goto(server.address)
    assert max(background(other)) < 60
    context.close()


def test_a_picture_that_cannot_be_read_is_told_as_an_alert(page: Page) -> None:
    with page.expect_response("**/detect*"):
        dropped(page, b"no picture", "broken.png")
    page.get_by_role("alert").filter(has_text="broken.png").wait_for()
    assert page.get_by_role("status").inner_text() == "broken.png: not looked at."
    assert page.locator("figcaption").inner_text() == "first: not looked at"


def test_a_webcam_that_is_allowed_after_stop_stays_off(page: Page) -> None:
    """The person answers the browser's question late: the real webcam, held back until then."""
    page.evaluate(
        """() => {
            const devices = navigator.mediaDevices, real = devices.getUserMedia.bind(devices);
            devices.getUserMedia = async (wanted) => {
                window.stream = await real(wanted);
                await new Promise((allow) => { window.allow = allow; });
                return window.stream;
            };
        }"""
    )
    page.get_by_role("button", name="Start webcam").click()
    until(page, "window.allow !== undefined")
    assert page.get_by_role("status").inner_text() == "Waiting for the first frame…"
    assert page.get_by_role("button", name="Pause").is_hidden()
    page.get_by_role("button", name="Stop").click()
    page.evaluate("window.allow()")
    until(page, "window.stream.getTracks().every((track) => track.readyState === 'ended')")
    assert page.get_by_role("button", name="Start webcam").is_visible()
    assert page.locator("figure:visible").count() == 0
    assert page.locator("#problem").inner_text() == ""


def test_after_a_frame_without_answer_the_page_waits(page: Page) -> None:
    page.get_by_role("button", name="Start webcam").click()
    page.get_by_text("objects shown").wait_for()
    failed: list[str] = []
    page.on("requestfailed", lambda request: failed.append(request.url))
    page.context.set_offline(True)
    page.get_by_role("alert").filter(has_text="does not answer").wait_for()
    page.wait_for_timeout(1000)
    assert 0 < len(failed) < 4
    page.context.set_offline(False)
    page.get_by_text("objects shown").wait_for()
    assert page.locator("#problem").inner_text() == ""


def test_pictures_that_waited_for_a_key_are_looked_at_when_it_is_given(browser: Browser, tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text("open-sesame-for-all\n")
    model = small_model(tmp_path / "first.safetensors")
    with serving([model], "--keys", str(keys), home=tmp_path / "home") as running:
        opened = browser.new_page()
        opened.set_default_timeout(_PATIENCE)
        opened.goto(running.address)
        opened.locator("#key").wait_for()
        opened.keyboard.press("Escape")
        dropped(opened, picture_bytes(1, 240, 320))
        for key in ("wrong", "open-sesame-for-all"):
            opened.locator("#key").fill(key)
            opened.get_by_role("button", name="Use it").click()
        opened.get_by_text("objects shown").wait_for()
        assert boxes(opened) > 0
        assert opened.locator("#problem").inner_text() == ""
        opened.evaluate("sessionStorage.clear()")
        dropped(opened, picture_bytes(2, 240, 320), "second.png")
        opened.get_by_role("alert").filter(has_text="second.png").wait_for()
        opened.locator("#key").fill("open-sesame-for-all")
        opened.get_by_role("button", name="Use it").click()
        opened.get_by_role("button", name="second.png").click()
        opened.get_by_role("status").filter(has_text="second.png").filter(has_text="objects shown").wait_for()
        opened.close()


def axe() -> Path | None:
    """axe-core, where somebody has put it (MPL-2.0: it is not part of this repository)."""
    named = os.environ.get("TOOD_AXE")
    places = [Path(named)] if named else []
    places += [root / "node_modules/axe-core/axe.min.js" for root in (Path(sys.prefix), Path(__file__).parents[2])]
    return next((place for place in places if place.is_file()), None)


@pytest.mark.skipif(axe() is None, reason="there is no axe-core: npm install --prefix .venv --no-save axe-core")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(browser: Browser, server: ServerProcess, scheme: str) -> None:
    context = browser.new_context(color_scheme=scheme, bypass_csp=True)
    opened = context.new_page()
    opened.set_default_timeout(_PATIENCE)
    place = axe()
    assert place is not None
    for path in ("/", "/docs"):
        opened.goto(server.address + path)
        if path == "/":
            opened.get_by_text("Choose a picture, drop one").wait_for()
            dropped(opened, picture_bytes(1, 240, 320))
            opened.get_by_label("Compare with").select_option("second")
            opened.get_by_text("objects shown").wait_for()
            for details in opened.get_by_text("Objects as a table").all():
                details.click()
        else:
            opened.get_by_role("heading", name="POST /detect").wait_for()
        opened.add_script_tag(path=str(place))
        faults = opened.evaluate("axe.run().then((told) => told.violations)")
        serious = [(one["id"], one["nodes"][0]["html"]) for one in faults if one["impact"] in ("serious", "critical")]
        assert not serious
    context.close()
