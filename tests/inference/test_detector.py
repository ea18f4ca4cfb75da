"""`Detector` on every kind of source."""

from __future__ import annotations

import gc
import io
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bright_square import BrightRectangle, picture, save_picture
from tood.data.images import DecodedImage
from tood.errors import ToodError
from tood.inference import Detector, SourceConfig
from tood.inference.sources import expand
from tood.models import build_model
from tood.structures import Detections
from tood.weights import save_weights
from tood.zoo import named_models

BOX = (60, 20, 150, 90)
IMAGE = picture(200, 300, BOX)


def png(image: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, "png")
    return content.getvalue()


def detector(**options: object) -> Detector:
    return Detector.from_model(BrightRectangle(), ["dark", "bright"], "cpu", **options)  # type: ignore[arg-type]


def found(result: Detections, box: tuple[int, int, int, int] = BOX) -> bool:
    # An input pixel is some three pixels of the original.
    return result.names[0] == "bright" and np.allclose(result.boxes[0], box, atol=3)


def test_boxes_are_in_pixels_of_the_original_and_best_first() -> None:
    result = detector()(IMAGE)
    assert found(result)
    assert result.names == ["bright", "dark"]
    torch.testing.assert_close(result.scores, torch.tensor([0.9, 0.1]))
    assert result.path is None
    assert not result.boxes.is_inference()
    assert result.plot().shape == IMAGE.shape
    assert (result.plot() != IMAGE).any()


def test_threshold() -> None:
    assert len(detector(threshold=0.5)(IMAGE)) == 1
    assert len(detector(threshold=0.95)(IMAGE)) == 0
    with pytest.raises(ToodError, match=r"threshold is 1\.5"):
        detector(threshold=1.5)


def test_every_source_of_one_image(tmp_path: Path) -> None:
    path = save_picture(tmp_path / "a [1].png", IMAGE)
    detect = detector()
    grey = IMAGE[:, :, 0]
    sources = [str(path), path, png(IMAGE), IMAGE, grey, grey[:, :, None], Image.fromarray(IMAGE)]
    sources += [Image.fromarray(grey), Image.fromarray(IMAGE).convert("RGBA"), Image.fromarray(IMAGE).convert("CMYK")]
    sources += [Image.fromarray(grey.astype(np.uint16) * 257), IMAGE[::-1][::-1]]
    for source in sources:
        result = detect(source)
        assert isinstance(result, Detections), type(source)
        assert found(result), type(source)
    assert detect(path).path == str(path)


def test_several_images_are_a_list(tmp_path: Path) -> None:
    for name in ("b.png", "deep/er/a.JPG", "c.jpeg", ".hidden/d.png", "notes.txt"):
        save_picture(tmp_path / "notes.png", IMAGE).rename(tmp_path / "x") if name == "notes.txt" else save_picture(
            tmp_path / name, IMAGE
        )
    detect = detector()

    def names(source: object) -> list[str]:
        results = detect(source)  # type: ignore[call-overload]
        assert all(found(result) for result in results)
        return [Path(result.path).name for result in results]

    assert names(tmp_path) == names(str(tmp_path)) == ["b.png", "c.jpeg", "a.JPG"]
    assert names(f"{tmp_path}/*.*g") == ["b.png", "c.jpeg"]
    assert names(f"{tmp_path}/**/*.JPG") == ["a.JPG"]
    assert names([tmp_path / "b.png", str(tmp_path / "deep")]) == ["b.png", "a.JPG"]
    assert len(detect([IMAGE, png(IMAGE)])) == 2
    assert detect([]) == []


def test_any_iterable_is_a_list_and_a_home_folder_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("photos/a.png", "photos/b.png", "photos/c.png"):
        save_picture(tmp_path / name, IMAGE)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    paths = sorted((tmp_path / "photos").iterdir())
    detect = detector()
    for sources in (
        "~/photos",
        Path("~/photos"),
        "~/photos/*.png",
        (path for path in paths),
        iter(paths),
        map(str, paths),
        dict.fromkeys(paths).keys(),
        tuple(paths),
    ):
        results = detect(sources)
        assert [result.path for result in results] == [str(path) for path in paths], sources
    assert [len(detect(path for path in paths[:count])) for count in (0, 1)] == [0, 1]
    single = detect("~/photos/a.png")
    assert isinstance(single, Detections)
    assert single.path == str(paths[0])


def test_a_file_whose_name_begins_like_a_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_picture(tmp_path / "~$draft.png", IMAGE)
    assert found(detector()("~$draft.png"))


def test_batches_give_what_single_images_give() -> None:
    boxes = [(0, 0, 40, 40), (20, 30, 90, 60), (10, 10, 100, 100)]
    images = [picture(100, 140, boxes[0]), picture(140, 100, boxes[1]), picture(333, 120, boxes[2]), picture(50, 50)]
    network = BrightRectangle()
    single, batched = detector(), Detector.from_model(network, ["dark", "bright"], "cpu")
    results = batched(images, batch_size=3)
    assert network.batches == [3, 1]
    for image, result in zip(images, results, strict=True):
        torch.testing.assert_close(single(image).boxes, result.boxes)
    assert len(results[3]) == 0


def test_one_pixel_and_a_thin_line() -> None:
    detect = detector()
    assert detect(picture(1, 1, (0, 0, 1, 1))).boxes[0].tolist() == [0, 0, 1, 1]
    assert len(detect(picture(1, 5000, (0, 0, 5000, 1)))) == 2


def test_stream_reads_one_batch_ahead_at_most() -> None:
    read = []

    def images() -> Iterator[np.ndarray]:
        for i in range(100):
            read.append(i)
            yield IMAGE

    stream = detector().stream(images(), batch_size=2)
    result = next(stream)
    assert len(read) == 4, "its own batch, and the next one"
    assert result.image is None
    with pytest.raises(ValueError, match="keep_image"):
        result.plot()


@pytest.mark.parametrize("batch_size", [1, 3])
def test_one_array_filled_anew_gives_each_frame_its_own_result(batch_size: int) -> None:
    """As a camera gives them."""
    boxes = [(20 * i, 10, 20 * i + 90, 90) for i in range(8)]
    frames = [picture(200, 300, box) for box in boxes]

    def camera() -> Iterator[np.ndarray]:
        buffer = np.empty_like(frames[0])
        for frame in frames:
            buffer[:] = frame
            yield buffer
        buffer[:] = 0

    results = list(detector().stream(camera(), batch_size=batch_size, keep_image=True))
    for result, frame, box in zip(results, frames, boxes, strict=True):
        assert found(result, box)
        np.testing.assert_array_equal(result.image, frame)


def test_pictures_may_be_closed_or_changed_when_the_next_is_asked_for(tmp_path: Path) -> None:
    boxes = [(20 * i, 10, 20 * i + 90, 90) for i in range(6)]
    for i, box in enumerate(boxes):
        save_picture(tmp_path / f"{i}.png", picture(200, 300, box))

    def opened() -> Iterator[Image.Image]:
        for i in range(len(boxes)):
            with Image.open(tmp_path / f"{i}.png") as image:
                yield image

    def pasted() -> Iterator[Image.Image]:
        canvas = Image.new("RGB", (300, 200))
        for box in boxes:
            canvas.paste(Image.fromarray(picture(200, 300, box)))
            yield canvas

    for pictures in (opened, pasted):
        results = list(detector().stream(pictures()))
        assert len(results) == len(boxes)
        assert all(found(result, box) for result, box in zip(results, boxes, strict=True))


def test_a_picture_that_cannot_be_loaded_is_reported_in_its_turn(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.fromarray(IMAGE).save(out, "jpeg")
    broken = out.getvalue()[:-800]
    names: list[str] = []
    sources = [IMAGE, Image.open(io.BytesIO(broken)), Image.fromarray(IMAGE)]
    results = list(detector().stream(sources, on_error=lambda name, _: names.append(name)))
    assert all(map(found, results))
    assert (len(results), names) == (2, ["image from PIL"])


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_two_batches_are_in_memory_at_most(batch_size: int) -> None:
    data, most = png(IMAGE), 0

    def count() -> int:
        return sum(type(thing) is DecodedImage for thing in gc.get_objects())

    def images() -> Iterator[bytes]:
        nonlocal most
        for _ in range(6 * batch_size):
            most = max(most, count())
            yield data

    # What was there before is set aside: all of PyTorch would be counted through at each image.
    gc.freeze()
    try:
        assert count() == 0
        latest = time.monotonic() + 60
        for _ in detector().stream(images(), batch_size=batch_size):
            time.sleep(0.02)  # what may be read meanwhile is
            most = max(most, count())
            while most <= batch_size and time.monotonic() < latest:  # a busy machine takes longer to read on
                time.sleep(0.02)
                most = max(most, count())
    finally:
        gc.unfreeze()
    assert batch_size < most <= 2 * batch_size


def test_an_image_that_cannot_be_read_is_reported_and_left_out(tmp_path: Path) -> None:
    save_picture(tmp_path / "a.png", IMAGE)
    (tmp_path / "b.png").write_bytes(b"no image")
    save_picture(tmp_path / "c.png", IMAGE)
    errors: list[tuple[str, str]] = []
    results = list(detector().stream(tmp_path, batch_size=2, on_error=lambda name, e: errors.append((name, str(e)))))
    assert [Path(str(result.path)).name for result in results] == ["a.png", "c.png"]
    assert [name for name, _ in errors] == [str(tmp_path / "b.png")]
    assert str(tmp_path / "b.png") in errors[0][1]
    with pytest.raises(ToodError, match=r"b\.png"):
        detector()(tmp_path)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("no/such.jpg", "no image file or folder no/such.jpg"),
        ("no/such/*.jpg", "no file matches"),
        (b"", "empty"),
        (b"text", "not an image"),
        (np.zeros((4, 4, 3)), "float64: give uint8"),
        (np.zeros((4, 4, 2), np.uint8), r"shape \[4, 4, 2\]"),
        (np.zeros((0, 4, 3), np.uint8), r"shape \[0, 4, 3\]"),
        (7, "from a int"),
        (None, "from a NoneType"),
        (["no/such.jpg"], "no image file"),
        ([[IMAGE]], "from a list"),
        ("http://", "not a complete web address"),
        ("https:///x.png", "not a complete web address"),
        ("http://[::1", "cannot be fetched|not a complete web address"),
    ],
)
def test_wrong_sources_are_one_sentence(source: object, sentence: str) -> None:
    with pytest.raises(ToodError, match=sentence) as error:
        detector()(source)  # type: ignore[call-overload]
    assert "\n" not in str(error.value)


def test_an_empty_folder_and_a_truncated_picture_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ToodError, match="no image in the folder"):
        detector()(tmp_path)
    (tmp_path / "cut.png").write_bytes(png(np.random.default_rng(0).integers(0, 255, (60, 60, 3), np.uint8))[:5000])
    with pytest.raises(ToodError, match=r"cut\.png"):
        detector()(tmp_path / "cut.png")


def test_exif_orientation_is_followed_when_asked_for(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned by a quarter
    Image.fromarray(IMAGE).save(tmp_path / "a.jpg", exif=exif, quality=95)
    stored = detector()(tmp_path / "a.jpg")
    turned = detector(sources=SourceConfig(exif=True))(tmp_path / "a.jpg")
    assert stored.image.shape == (200, 300, 3)
    assert turned.image.shape == (300, 200, 3)
    assert found(turned, (200 - 90, 60, 200 - 20, 150))
    with Image.open(tmp_path / "a.jpg") as opened:
        assert found(detector(sources=SourceConfig(exif=True))(opened), (200 - 90, 60, 200 - 20, 150))


ELSEWHERE = {"/ftp.png": "ftp://127.0.0.1:9/a.png", "/file.png": "file:///etc/hostname"}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/gone.png":
            self.send_error(404)
            return
        if self.path == "/moved.png":
            self.send_response(302)
            self.send_header("Location", "/a.png")
            self.end_headers()
            return
        if self.path in ELSEWHERE:
            self.send_response(302)
            self.send_header("Location", ELSEWHERE[self.path])
            self.end_headers()
            return
        if self.path == "/drip.png":
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):  # until the client has had enough
                while True:
                    self.wfile.write(b"x")
                    time.sleep(0.05)
            return
        if self.path == "/slow.png":
            time.sleep(60)
        content = {"/a.png": png(IMAGE), "/page.png": b"<html>", "/large.png": b"x" * 5000}.get(self.path, b"")
        self.send_response(200)
        self.send_header("Content-Length", str(len(content) + (99 if self.path == "/cut.png" else 0)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_web_addresses(address: str) -> None:
    detect = detector()
    for name in ("a.png", "moved.png"):
        result = detect(f"{address}/{name}")
        assert found(result)
        assert result.path == f"{address}/{name}"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("gone.png", "answered 404"),
        ("page.png", "not an image"),
        ("empty.png", "empty"),
        ("large.png", "larger than the limit"),
        ("slow.png", "no answer within 0.2 seconds"),
        ("cut.png", "cannot be fetched"),
        ("ftp.png", "redirects to ftp://127.0.0.1:9/a.png, which is not as safe"),
        ("file.png", "'file:///etc/hostname' is not allowed"),
        ("drip.png", "not whole within 0.4 seconds"),
    ],
)
def test_wrong_web_addresses_are_one_sentence(address: str, name: str, sentence: str) -> None:
    # Of the two times each has the one that it is about: on a busy machine any answer may take longer.
    timeout, deadline = {"slow.png": (0.2, 60.0), "drip.png": (60.0, 0.4)}.get(name, (60.0, 60.0))
    detect = detector(sources=SourceConfig(url_timeout=timeout, url_deadline=deadline, url_max_bytes=4000))
    with pytest.raises(ToodError, match=sentence) as error:
        detect(f"{address}/{name}")
    assert f"{address}/{name}" in str(error.value)


def test_a_server_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(ToodError, match="cannot be fetched"):
        detector()("http://127.0.0.1:9/x.png")


def test_from_a_file_or_a_run_s_folder(tmp_path: Path) -> None:
    model = build_model(named_models()["tood_tiny"].config())
    save_weights(tmp_path / "run" / "best.safetensors", model, [f"class {i}" for i in range(80)])
    image = np.random.default_rng(0).integers(0, 255, (64, 80, 3), np.uint8)
    by_file = Detector(tmp_path / "run" / "best.safetensors", "cpu", 0.0)(image)
    by_folder = Detector(str(tmp_path / "run"), "cpu", 0.0)(image)
    torch.testing.assert_close(by_file.boxes, by_folder.boxes)
    assert len(by_file) == 100
    assert by_file.names[0].startswith("class ")


def test_models_that_are_not_there_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ToodError, match="names an architecture"):
        Detector("tood_tiny")
    with pytest.raises(ToodError, match=r"no best\.safetensors in the folder"):
        Detector(tmp_path)
    with pytest.raises(ToodError, match="no weights file"):
        Detector(tmp_path / "x.safetensors")
    with pytest.raises(ToodError, match="no device 'abacus'"):
        Detector.from_model(BrightRectangle(), [], "abacus")  # type: ignore[arg-type]
    with pytest.raises(ToodError, match="no device 'cuda:99'"):
        Detector.from_model(BrightRectangle(), [], "cuda:99")  # type: ignore[arg-type]


@pytest.mark.parametrize(("source", "sentence"), [("", "an empty text"), ("x" * 5000, "there is no image file")])
def test_a_text_that_is_no_path_is_one_sentence(source: str, sentence: str) -> None:
    with pytest.raises(ToodError, match=sentence):
        list(expand(source))
