"""A json that is read as a stream says what it says when it is read whole, faults and oddities included."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic_core import from_json

from data.malformed import WEIRD
from data.test_formats_coco import ANYTHING, broken_coco, mutated
from data.whole_coco import read_whole, whole_holds_boxes, whole_is_annotated
from dataset_files import box_row, coco, image_row
from tood.data.columns import PathColumn
from tood.data.formats.coco_content import holds_boxes, is_annotated
from tood.data.formats.coco_images import LocatedImages
from tood.data.formats.coco_json import ParsedCoco, read_coco_json
from tood.data.formats.coco_rows import CocoRows, read_rows
from tood.data.formats.folder import valid_areas
from tood.data.formats.json_stream import BrokenJsonError, JsonStream, NoJsonObjectError
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
        if stream.is_list():
            found[key] = [row for piece in stream.pieces() for row in stream.parse(piece)]
        else:
            found[key] = stream.value()
    return found


def skipped(text: bytes, block: int) -> list[str]:
    """The keys of a json, whose values are looked at for their grammar alone."""
    stream = JsonStream(io.BytesIO(text), block)
    return [key for key in stream.sections() if stream.skip() is None]


@given(content=st.dictionaries(STRINGS, ROWS | VALUES, max_size=4), block=st.integers(1, 60), indent=SPACES)
def test_a_stream_says_what_the_whole_says(content: dict[str, Any], block: int, indent: Any) -> None:
    ascii_alone = block % 2 == 0
    text = json.dumps(content, indent=indent, ensure_ascii=ascii_alone).encode()
    assert streamed(text, block) == json.loads(text)
    assert skipped(text, block) == list(content)


# What a fault may be made of.
JUNK = (
    b"",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b'"',
    b"\\",
    b"x",
    b"0",
    b"\n",
    b"\xff",
    b"\0",
    b",,",
    b"nul",
    b"\\ud800",
)


def spoiled(draw: st.DrawFn, text: bytes) -> bytes:
    """A text that is cut or has something else in one place."""
    at = draw(st.integers(0, len(text)))
    if draw(st.booleans()):
        return text[:at]
    return text[:at] + draw(st.sampled_from(JUNK)) + text[at + draw(st.integers(0, 2)) :]


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    content = draw(st.dictionaries(STRINGS, ROWS | VALUES, max_size=3) | VALUES)
    text = json.dumps(content, indent=draw(SPACES), ensure_ascii=draw(st.booleans())).encode()
    for _ in range(draw(st.integers(0, 2))):
        text = spoiled(draw, text)
    return draw(st.sampled_from((b"", b"", b"\n ", b"\xef\xbb\xbf"))) + text


@settings(max_examples=400)
@given(text=texts(), block=st.integers(1, 60), read=st.sampled_from((streamed, skipped)))
def test_a_broken_json_is_told_as_the_whole_tells_it(
    text: bytes, block: int, read: Callable[[bytes, int], object]
) -> None:
    try:
        wanted = from_json(text.removeprefix(b"\xef\xbb\xbf"))
    except ValueError as error:
        sentence = str(error)  # with the line and the column
        with pytest.raises(BrokenJsonError, match=f"^{re.escape(sentence)}$"):
            read(text, block)
        return
    if not isinstance(wanted, dict):
        with pytest.raises(NoJsonObjectError):
            read(text, block)
    elif read is streamed:
        assert streamed(text, block) == wanted
    else:
        read(text, block)


@pytest.mark.parametrize("value", [7, "x" * 9, [], {}, [1, [2] * 3000], {"a": 1, "b": ["x" * 9000]}, ["y" * 9000, 3]])
@pytest.mark.parametrize("block", [3, 1 << 16])
def test_a_glimpse_begins_as_the_value_does(value: Any, block: int) -> None:
    stream = JsonStream(io.BytesIO(json.dumps({"x": value, "y": 1}).encode()), block)
    keys = stream.sections()
    assert next(keys) == "x"
    found = stream.glimpse()
    assert json.dumps(found)[:2000] == json.dumps(value)[:2000]
    assert len(json.dumps(found)) < 9000
    assert next(keys) == "y"
    assert stream.value() == 1


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


def spoil(draw: st.DrawFn, content: dict[str, Any]) -> None:
    """Write something otherwise, as some tools do, in one row or in all; or take it away."""
    section = draw(st.sampled_from(("images", "annotations", "annotations", "categories")))
    rows = content[section]
    how = draw(st.sampled_from(("whole", "text", "whole", "text", "weird", "lacking", "stranger", "mask", "section")))
    if how == "section":
        content[section] = deepcopy(draw(st.sampled_from((*WEIRD, {"a": rows}))))
    if how == "section" or not rows:
        return
    if how == "stranger":
        rows.insert(draw(st.integers(0, len(rows))), deepcopy(draw(st.sampled_from(WEIRD))))
        return
    keys = {"images": ("id", "file_name", "width", "height"), "categories": ("id", "name")}
    key = draw(st.sampled_from(keys.get(section, ("id", "image_id", "category_id", "bbox", "area", "iscrowd"))))
    weird = draw(st.sampled_from(WEIRD))
    for row in rows if draw(st.booleans()) else [draw(st.sampled_from(rows))]:
        value = row.get(key) if isinstance(row, dict) else None
        if how == "whole" and isinstance(value, int):
            row[key] = float(value)
        elif how == "text" and isinstance(value, int):
            row[key] = str(value)
        elif how == "weird" and isinstance(row, dict):
            row[key] = deepcopy(weird)
        elif how == "lacking" and isinstance(row, dict):
            row.pop(key, None)
        elif how == "mask" and isinstance(row, dict):
            row.pop("bbox", None)
            row["segmentation"] = [[1, 2, 30, 40.5, 5, 6]]


@st.composite
def odd_texts(draw: st.DrawFn) -> bytes:
    """COCO jsons of several pieces, most of them with something unusual."""
    images = [image_row(own) for own in range(1, draw(st.integers(1, 9)))]
    boxes = [box_row(own, 1 + own % 5, note="{" * (own % 3)) for own in range(1, draw(st.integers(1, 12)))]
    content: Any = coco(images, boxes, {3: "cat", 9: "dog"})
    for _ in range(draw(st.integers(0, 3))):
        if all(isinstance(rows, list) for rows in content.values()):
            spoil(draw, content)
    content = {key: content[key] for key in draw(st.permutations(sorted(content)))}
    if draw(st.integers(0, 9)) == 0:
        content.pop(draw(st.sampled_from(sorted(content))))
    text = json.dumps(content, indent=draw(SPACES)).encode()
    if draw(st.integers(0, 9)) == 0:  # of a key that is there twice the last value counts
        key = draw(st.sampled_from(sorted(content)))
        text = f'{{"{key}": {json.dumps(content[key])}, '.encode() + text[1:]
        text = text[:-1].rstrip() + f', "{key}": {draw(st.sampled_from(("[]", "null", "[{}]")))}}}'.encode()
    if draw(st.integers(0, 5)) == 0:
        text = spoiled(draw, text)
    return text


def told(read: Callable[[Path], CocoRows], path: Path) -> Any:
    """All that a reader says of a file."""
    try:
        rows = read(path)
    except ToodError as error:
        return str(error)
    images, boxes = rows.images, rows.annotations
    columns = None
    if boxes is not None:
        areas = valid_areas(boxes.areas, np.full(len(boxes.areas), -1.0))
        numbers = (boxes.ids, boxes.image_ids, boxes.category_ids, areas, boxes.crowd)
        columns = [*(column.tolist() for column in numbers), repr(boxes.boxes.tolist())]
    known = (images.ids.tolist(), list(images.names), images.sizes.tolist())
    return rows.categories, known, columns, list(rows.image_problems), list(rows.annotation_problems)


@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(text=odd_texts(), block=st.sampled_from((1, 30, 200, 400, 1 << 20)))
def test_every_oddity_is_read_and_told_as_by_the_reader_of_objects(tmp_path: Path, text: bytes, block: int) -> None:
    path = tmp_path / "train.json"
    path.write_bytes(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tood.data.formats.json_stream._BLOCK", block)
        wanted = told(read_whole, path)
        assert told(read_rows, path) == wanted
        assert holds_boxes(path) == whole_holds_boxes(path)
        # Whether it is annotated is known before it is read to its end.
        if "broken json" not in wanted and text.count(b'"annotations"') < 2:
            assert is_annotated(path) == whole_is_annotated(path)


@pytest.mark.parametrize("block", [1, 100, 400])
def test_rows_keep_their_numbers_over_many_pieces(tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tood.data.formats.json_stream._BLOCK", block)
    rows: list[Any] = [box_row(own, 1) for own in range(40)]
    for at in range(3, 40, 7):
        rows[at] = None
    for at in range(5, 40, 7):
        rows[at]["bbox"] = [at]
    path = tmp_path / "train.json"
    path.write_text(json.dumps(coco([image_row(1)], rows, {3: "cat"})))
    said = [problem.message for problem in read_rows(path).annotation_problems]
    assert said[:2] == ["annotations[3] is missing, not an object", "annotations[10] is missing, not an object"]
    # Those that are no objects are not counted here.
    assert said[6:8] == [
        "annotations[4]: its bbox is [5], not four numbers x y width height",
        "annotations[10]: its bbox is [12], not four numbers x y width height",
    ]
    assert told(read_rows, path) == told(read_whole, path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(content=contents(), more=ANYTHING)
def test_both_ways_of_reading_a_coco_json_agree(tmp_path: Path, content: Any, more: Any) -> None:
    path = tmp_path / "train.json"
    path.write_text(json.dumps(content))
    assert told(read_rows, path) == told(read_whole, path)
    assert holds_boxes(path) == whole_holds_boxes(path)
    first, measured = outcome(path), truth(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tood.data.formats.coco_json.read_rows", read_whole)
        patch.setattr("tood.evaluation.ground_truth._sound_rows", lambda path: None)
        assert outcome(path) == first
        assert truth(path) == measured
    if not isinstance(content, dict) or "images" not in content:
        return
    # Of a key that is there twice the last one counts.
    path.write_text(f'{{"images": {json.dumps(more)}, {json.dumps(content)[1:]}')
    assert outcome(path) == first
    assert truth(path) == measured


@pytest.mark.parametrize(
    ("ending", "reads"),
    [
        ("}", True),
        ("}\n", True),
        ("", False),
        ("} x", False),
        ("}}", False),
        (",}", False),
        (',"a"}', False),
        (',"a": 01}', False),
        (',"a": NaN}', True),
        (',"a": "\\ud800"}', False),
        (',"annotations": null}', True),
    ],
)
def test_what_stands_behind_counts(tmp_path: Path, ending: str, reads: bool) -> None:
    path = tmp_path / "train.json"
    path.write_text('{"images": [], "categories": [{"id": 3, "name": "cat"}]' + ending)
    assert told(read_rows, path) == told(read_whole, path)
    if not reads:
        with pytest.raises(ToodError, match=r"broken json: .* at line"):
            read_rows(path)
    else:
        assert read_rows(path).categories


def test_a_byte_that_is_no_text_is_refused_where_nobody_looks(tmp_path: Path) -> None:
    content = json.dumps(coco([image_row(1)], [box_row(1, 1, note="MARK")], {3: "cat"})).encode()
    path = tmp_path / "train.json"
    path.write_bytes(content)
    assert read_rows(path).annotations is not None
    path.write_bytes(content.replace(b"MARK", b"\xff"))
    with pytest.raises(ToodError, match="broken json: invalid unicode code point at line 1 column"):
        read_coco_json(path, nowhere)


def test_jsons_of_other_kinds_are_told_apart(tmp_path: Path) -> None:
    rows = [box_row(1, 1)]
    cases = [
        (coco([image_row(1)], rows, {3: "cat"}), True),
        (coco([image_row(1)], [], {3: "cat"}), True),
        (coco([image_row(1)], [None, 7, {"bbox": None}], {3: "cat"}), True),
        ({"images": [], "categories": []}, True),
        (coco([image_row(1)], [{"id": 1, "image_id": 1, "caption": "a cat"}], {3: "cat"}), False),
        (coco([image_row(1)], [{"id": 1, "segments_info": [{"id": 1, "bbox": [1, 2, 3, 4]}]}], {}), False),
        ({"images": [{}], "annotations": rows}, False),
        ({"images": {}, "annotations": rows, "categories": []}, False),
        ({"images": [], "annotations": {"1": rows[0]}, "categories": []}, False),
        ({"version": "5", "shapes": [], "imageData": "x" * 999}, False),
    ]
    path = tmp_path / "a.json"
    for content, wanted in cases:
        path.write_text(json.dumps(content))
        assert holds_boxes(path) == wanted == whole_holds_boxes(path)


def test_a_large_broken_truth_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.json"
    path.write_text('{"images": [')
    with pytest.raises(ToodError, match=r"t\.json is not valid json \(Expecting value: line 1"):
        GroundTruth.from_json(path)
    monkeypatch.setattr("tood.evaluation.ground_truth._LARGE", 0)
    with pytest.raises(ToodError, match=r"t\.json: broken json: EOF while parsing a list at line 1 column 12"):
        GroundTruth.from_json(path)


def test_escaped_quotation_marks_across_blocks() -> None:
    rows = [{"a": "\\" * number + '"{' + "}" * number} for number in range(40)]
    text = json.dumps({"x": rows}).encode()
    for block in (1, 7, 64, 1000, 1 << 20):
        assert streamed(text, block) == {"x": rows}


def test_ids_of_64_bits_are_exact(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    large = 2**63 - 1
    path.write_text(json.dumps(coco([image_row(large), image_row(-large)], [box_row(large - 1, large)], {3: "cat"})))
    found = read_rows(path)
    assert found.images.ids.tolist() == [large, -large]
    assert found.annotations is not None
    assert found.annotations.ids.tolist() == [large - 1]
    assert np.isnan(found.annotations.areas).all()


def test_ids_that_are_lacking_end_at_64_bits(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    lacking = {key: value for key, value in box_row(0, 1).items() if key != "id"}
    path.write_text(json.dumps(coco([image_row(1)], [lacking, box_row(2**63 - 2, 1), lacking], {3: "cat"})))
    found = read_rows(path)
    assert found.annotations is not None
    assert found.annotations.ids.tolist() == [2**63 - 1, 2**63 - 2]
    assert "annotations[2]: its id is 9223372036854775808, not a whole number" in found.annotation_problems[0].message
    assert told(read_rows, path) == told(read_whole, path)
