"""A json that is read as a stream says what it says when it is read whole, or is left to that."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from data.test_formats_coco import ANYTHING, broken_coco, mutated
from dataset_files import box_row, coco, image_row
from tood.data.columns import PathColumn
from tood.data.formats.coco_columns import holds_coco_boxes, stream_coco
from tood.data.formats.coco_content import holds_boxes
from tood.data.formats.coco_images import LocatedImages
from tood.data.formats.coco_json import ParsedCoco, read_coco_json
from tood.data.formats.json_stream import JsonStream, Unusual
from tood.data.records import ImageRecord
from tood.errors import ToodError
from tood.evaluation import GroundTruth

# What brackets and quotation marks within texts could be taken for.
STRINGS = st.text(st.sampled_from('{}[],:"\\ ab\u00e9\n'), max_size=8)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | STRINGS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(STRINGS, inner, max_size=3),
    max_leaves=8,
)
ROWS = st.lists(st.dictionaries(STRINGS, VALUES, max_size=4), max_size=6)
SPACES = st.sampled_from((None, 0, 1, "\t"))


def streamed(text: bytes, block: int) -> dict[str, Any]:
    """Everything in a json, as a stream."""
    stream, found = JsonStream(io.BytesIO(text), block), {}
    for key in stream.sections():
        if stream.holds_objects():
            found[key] = [row for rows in stream.objects(msgspec.json.decode) for row in rows]
        else:
            found[key] = stream.value()
    return found


@given(content=st.dictionaries(STRINGS, ROWS | VALUES, max_size=4), block=st.integers(1, 60), indent=SPACES)
def test_a_stream_says_what_the_whole_says(content: dict[str, Any], block: int, indent: Any) -> None:
    ascii_alone = block % 2 == 0
    text = json.dumps(content, indent=indent, ensure_ascii=ascii_alone).encode()
    lists = [value for value in content.values() if isinstance(value, list)]
    if any(value and isinstance(value[0], dict) and not all(isinstance(row, dict) for row in value) for value in lists):
        # Left to the reader of whole files; a block too small to show the first object is read whole here already.
        with suppress(Unusual, msgspec.MsgspecError):
            assert streamed(text, block) == json.loads(text)
        return
    found = streamed(text, block)
    assert found == json.loads(text)
    skipping = JsonStream(io.BytesIO(text), block)
    assert [key for key in skipping.sections() if skipping.skip() is None] == list(content)


@given(content=st.dictionaries(STRINGS, ROWS, max_size=3), at=st.integers(0, 400), junk=st.binary(max_size=3))
def test_a_broken_json_is_never_taken_for_a_whole_one(content: dict[str, Any], at: int, junk: bytes) -> None:
    text = json.dumps(content).encode()
    text = text[:at] + junk + text[at + 1 :]
    try:
        wanted = json.loads(text.decode())
    except ValueError:
        with pytest.raises((Unusual, msgspec.MsgspecError, ValueError)):
            streamed(text, 20)
        return
    if isinstance(wanted, dict):
        try:
            found = streamed(text, 20)
        except (Unusual, msgspec.MsgspecError, ValueError):
            return
        assert found == wanted


# --- COCO's content --------------------------------------------------------------------------------------------------


def usual(draw: st.DrawFn) -> dict[str, Any]:
    """What some tool may have written, with everything as usual."""
    ids = draw(st.lists(st.integers(-(2**63) + 1, 2**63 - 1), unique=True, max_size=4))
    numbers = st.integers(-90, 90) | st.floats(-100, 100) | st.sampled_from((1e300, 2**60, 0, -0.0))
    images = [image_row(own, draw(st.sampled_from(("a/b.png", "é.png", f"{own}.png")))) for own in ids]
    boxes = [
        {
            **box_row(
                draw(st.integers(0, 5)),
                draw(st.sampled_from((*ids, 77))),
                [draw(numbers) for _ in range(4)],
                draw(st.sampled_from((3, 3, 3, 4))),
            ),
            **draw(
                st.sampled_from(({}, {"area": 3}, {"area": -1.5}, {"area": None}, {"iscrowd": 1}, {"iscrowd": True}))
            ),
            "segmentation": draw(ROWS | VALUES),
        }
        for _ in range(draw(st.integers(0, 6)))
    ]
    content = {"info": draw(VALUES), **coco(images, boxes, {3: "cat", 9: "dog"})}
    return {key: content[key] for key in draw(st.permutations(sorted(content)))}


@st.composite
def contents(draw: st.DrawFn) -> Any:
    content: Any = draw(broken_coco()) if draw(st.booleans()) else usual(draw)
    return mutated(draw, content) if draw(st.integers(0, 3)) == 0 and isinstance(content, dict) else content


def nowhere(names: Any) -> LocatedImages:
    return LocatedImages(PathColumn.of(names), names)


def columns_of(image: ImageRecord) -> list[NDArray[Any]]:
    return [image.boxes, image.labels, image.crowd, image.areas, image.annotation_ids]


def outcome(path: Path) -> Any:
    """All that reading a json gives."""
    try:
        found: ParsedCoco = read_coco_json(path, nowhere)
    except ToodError as error:
        return str(error)
    rows = [
        (image.id, image.name, image.width, image.height, *(column.tolist() for column in columns_of(image)))
        for image in found.images
    ]
    return found.categories, found.problems, found.annotated, rows


def truth(path: Path) -> Any:
    """All that measuring by a json starts from."""
    try:
        found = GroundTruth.from_json(path)
    except ToodError as error:
        return str(error)
    columns = (found.image_ids, found.annotation_image_ids, found.annotation_category_ids, found.crowd)
    return found.categories, *(column.tolist() for column in columns), repr(found.boxes), repr(found.areas)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(content=contents(), more=ANYTHING)
def test_both_ways_of_reading_a_coco_json_agree(tmp_path: Path, content: Any, more: Any) -> None:
    path = tmp_path / "train.json"
    path.write_text(json.dumps(content))
    streams = stream_coco(path) is not None
    first, measured = outcome(path), truth(path)
    sure = holds_coco_boxes(path)
    assert sure is None or sure == holds_boxes(path)
    if not isinstance(content, dict) or "images" not in content:
        assert not streams
        return
    # A key that is there twice is not read as a stream, and the last one counts.
    path.write_text(f'{{"images": [], {json.dumps(content)[1:]}')
    assert stream_coco(path) is None
    assert outcome(path) == first
    assert truth(path) == measured


@pytest.mark.parametrize(
    ("ending", "streams"),
    [
        ("}", True),
        ("}\n", True),
        ("", False),
        ("} x", False),
        ("}}", False),
        (",}", False),
        (',"a"}', False),
        (',"a": 01}', False),
        (',"a": NaN}', False),
        (',"a": "\\ud800"}', False),
        (',"annotations": null}', False),
    ],
)
def test_what_stands_behind_counts(tmp_path: Path, ending: str, streams: bool) -> None:
    path = tmp_path / "train.json"
    path.write_text('{"images": [], "categories": [{"id": 3, "name": "cat"}]' + ending)
    assert (stream_coco(path) is not None) == streams


def test_a_byte_that_is_no_text_is_refused_where_nobody_looks(tmp_path: Path) -> None:
    content = json.dumps(coco([image_row(1)], [box_row(1, 1, note="MARK")], {3: "cat"})).encode()
    path = tmp_path / "train.json"
    path.write_bytes(content)
    assert stream_coco(path) is not None
    path.write_bytes(content.replace(b"MARK", b"\xff"))
    assert stream_coco(path) is None
    with pytest.raises(ToodError, match="broken json"):
        read_coco_json(path, nowhere)


def test_large_files_are_told_apart_as_small_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [box_row(1, 1)]
    cases = [
        (coco([image_row(1)], rows, {3: "cat"}), True),
        (coco([image_row(1)], [], {3: "cat"}), True),
        ({"images": [], "categories": []}, True),
        (coco([image_row(1)], [{"id": 1, "image_id": 1, "caption": "a cat"}], {3: "cat"}), False),
        (coco([image_row(1)], [{"id": 1, "segments_info": [{"id": 1, "bbox": [1, 2, 3, 4]}]}], {}), False),
        ({"images": [{}], "annotations": rows}, False),
        ({"images": {}, "annotations": rows, "categories": []}, False),
        ({"version": "5", "shapes": [], "imageData": "x" * 999}, False),
    ]
    path = tmp_path / "a.json"
    for content, wanted in cases:
        path.write_text(json.dumps(content))
        assert holds_coco_boxes(path) in (wanted, None)
        monkeypatch.setattr("tood.data.formats.coco_content._LARGE", 0)
        assert holds_boxes(path) == wanted
        monkeypatch.undo()
        assert holds_boxes(path) == wanted


def test_escaped_quotation_marks_across_blocks() -> None:
    rows = [{"a": "\\" * number + '"{' + "}" * number} for number in range(40)]
    text = json.dumps({"x": rows}).encode()
    for block in (1, 7, 64, 1000, 1 << 20):
        assert streamed(text, block) == {"x": rows}


def test_ids_of_64_bits_are_exact(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    large = 2**63 - 1
    path.write_text(json.dumps(coco([image_row(large), image_row(-large)], [box_row(large - 1, large)], {3: "cat"})))
    found = stream_coco(path)
    assert found is not None
    assert found.images.ids.tolist() == [large, -large]
    assert found.annotations is not None
    assert found.annotations.ids.tolist() == [large - 1]
    assert np.isnan(found.annotations.areas).all()
