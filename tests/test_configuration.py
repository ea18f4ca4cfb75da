"""YAML to typed dataclasses and back; every complaint names the key, the value and what was expected."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tood import yaml_text
from tood.configuration import apply_overrides, from_dict, load, save, to_dict
from tood.errors import SettingError, ToodError


@dataclass(frozen=True)
class Square:
    kind: Literal["square"] = "square"
    side: int = 1
    colour: str = "red"


@dataclass(frozen=True)
class Circle:
    kind: Literal["circle"] = "circle"
    radius: float = 1.0
    colour: str = "blue"

    def __post_init__(self) -> None:
        if self.radius < 0:
            raise ToodError(f"shape.radius is {self.radius}: expected 0 or more")


@dataclass(frozen=True)
class Pen:
    name: str
    width: float = 0.5


@dataclass(frozen=True)
class Grid:
    """Knows itself by a shorter key than the one that sets it."""

    key: str = "lines"
    lines: int = 1

    def __post_init__(self) -> None:
        if self.lines < 0:
            raise SettingError(self.key, f"is {self.lines}: expected 0 or more")


@dataclass(frozen=True)
class Page:
    grid: Grid = field(default_factory=Grid)
    margin: int = 0

    def __post_init__(self) -> None:
        if self.margin < 0:
            raise SettingError("margin", f"is {self.margin}: expected 0 or more")


@dataclass(frozen=True)
class Book:
    page: Page = field(default_factory=Page)


@dataclass(frozen=True)
class Drawing:
    shape: Square | Circle = field(default_factory=Square)
    extra: Square | Circle | None = None
    pens: tuple[Pen, ...] = ()
    origin: tuple[float, float] = (0.0, 0.0)
    mode: Literal["draft", "final", 3] = "draft"
    title: str | None = None
    folder: Path = Path("here")
    layers: tuple[int, ...] = (1, 2)
    visible: bool = True
    scale: int | float = 1
    notes: Mapping[str, int] = field(default_factory=dict)


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)
numbers = st.floats(allow_nan=False)
shapes = st.one_of(st.builds(Square, side=st.integers(), colour=texts), st.builds(Circle, radius=st.floats(0, 1e300)))
drawings = st.builds(
    Drawing,
    shape=shapes,
    extra=st.none() | shapes,
    pens=st.lists(st.builds(Pen, texts, numbers), max_size=3).map(tuple),
    origin=st.tuples(numbers, numbers),
    mode=st.sampled_from(["draft", "final", 3]),
    title=st.none() | texts,
    folder=st.sampled_from([Path("a"), Path("/a b/c"), Path("2017")]),
    layers=st.lists(st.integers(), max_size=4).map(tuple),
    visible=st.booleans(),
    scale=st.integers() | numbers,
    notes=st.dictionaries(texts, st.integers(), max_size=3),
)


@given(drawings)
def test_what_is_saved_is_loaded_equal(tmp_path_factory: pytest.TempPathFactory, drawing: Drawing) -> None:
    path = tmp_path_factory.mktemp("yaml") / "drawing.yaml"
    save(drawing, path, comment="two\nlines")
    assert load(path, Drawing) == drawing
    assert from_dict(Drawing, to_dict(drawing)) == drawing
    assert [file.name for file in path.parent.iterdir()] == ["drawing.yaml"]


def complaint(raw: object) -> str:
    with pytest.raises(ToodError) as caught:
        from_dict(Drawing, raw, where="drawing.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("raw", "parts"),
    [
        ({"shape": {"kind": "square", "sied": 3}}, ["drawing.yaml", "'shape.sied'", "did you mean 'shape.side'"]),
        ({"titel": "x"}, ["'titel'", "did you mean 'title'"]),
        ({"zzz": 1}, ["'zzz'", "known are shape, extra"]),
        ({"shape": {"kind": "sqare"}}, ["shape.kind", "'sqare'", "square or circle", "did you mean square"]),
        ({"shape": {"side": 3}}, ["shape.kind is missing", "square or circle"]),
        ({"shape": {"kind": "square", "side": "big"}}, ["shape.side", "'big'", "a whole number"]),
        ({"shape": {"kind": "square", "side": True}}, ["shape.side", "True", "a whole number"]),
        ({"shape": {"kind": "square", "side": 1.5}}, ["shape.side", "1.5", "a whole number"]),
        ({"shape": {"kind": "circle", "radius": -1}}, ["shape.radius is -1.0: expected 0 or more"]),
        ({"shape": [1]}, ["shape", "[1]", "a mapping"]),
        ({"shape": None}, ["shape", "None", "a mapping"]),
        ({"pens": [{"name": "a"}, {"width": 1}]}, ["pens.1.name is missing"]),
        ({"origin": [1, 2, 3]}, ["origin", "a list of 2 values"]),
        ({"origin": [1, "x"]}, ["origin.1", "'x'", "a number"]),
        ({"origin": [1, float("nan")]}, ["origin.1", "nan", "a number"]),
        ({"layers": "12"}, ["layers", "'12'", "a list"]),
        ({"mode": "3"}, ["mode", "draft, final or 3"]),
        ({"visible": "yes"}, ["visible", "'yes'", "true or false"]),
        ({"title": 3}, ["title", "3", "text"]),
        ({"scale": "x"}, ["scale", "'x'", "a whole number or a number"]),
        ({"notes": {"a": "b"}}, ["notes.a", "'b'", "a whole number"]),
        ([1], ["the configuration", "[1]", "a mapping"]),
    ],
)
def test_a_wrong_value_is_named_with_its_key_and_what_was_expected(raw: object, parts: list[str]) -> None:
    message = complaint(raw)
    assert all(part in message for part in parts), message
    assert "\n" not in message


def test_numbers_in_scientific_notation_without_a_dot_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "pen.yaml"
    path.write_text("name: a\nwidth: 1e-4\n")
    assert load(path, Pen) == Pen("a", 1e-4)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: [1", "not valid YAML"),
        ("name: a\nname: b", "'name' stands twice"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
        ("[" * 5000, "not valid YAML"),
        ("{[1]: 2}", "not valid YAML"),
        ("", "name is missing"),
    ],
)
def test_a_broken_file_is_one_sentence(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "pen.yaml"
    path.write_text(text)
    with pytest.raises(ToodError, match=part) as caught:
        load(path, Pen)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_one_of_bytes_are_named(tmp_path: Path) -> None:
    with pytest.raises(ToodError, match=r"none\.yaml"):
        load(tmp_path / "none.yaml", Pen)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ToodError, match=r"bytes\.yaml is not valid YAML"):
        load(tmp_path / "bytes.yaml", Pen)


def test_overrides_reach_every_kind_of_field() -> None:
    start = Drawing(pens=(Pen("a"), Pen("b")))
    changed = apply_overrides(
        start,
        ["shape.side=3", "pens.1.width=1e-3", "origin=[1, 2]", "title=2017", "visible=false", "folder=a=b", "mode=3"],
    )
    assert changed == replace(
        start,
        shape=Square(side=3),
        pens=(Pen("a"), Pen("b", 1e-3)),
        origin=(1.0, 2.0),
        title="2017",
        visible=False,
        folder=Path("a=b"),
        mode=3,
    )
    assert apply_overrides(changed, ["title=null"]).title is None
    assert apply_overrides(start, ["extra={kind: circle, radius: 2}"]).extra == Circle(radius=2.0)
    assert apply_overrides(start, ["extra.side=4"]).extra == Square(side=4)


def test_overriding_the_discriminator_changes_the_member_and_keeps_what_both_have() -> None:
    start = Drawing(shape=Square(side=5, colour="green"))
    assert apply_overrides(start, ["shape.kind=circle"]).shape == Circle(colour="green")
    assert apply_overrides(start, ["shape.kind=circle", "shape.radius=2"]).shape == Circle(radius=2.0, colour="green")
    assert apply_overrides(start, ["shape.kind=square"]) == start


@dataclass(frozen=True)
class Brush:
    """Has a pen's keys, but a width of another meaning."""

    name: str = "brush"
    width: float = 9.0


@dataclass(frozen=True)
class Ink:
    kind: Literal["ink"] = "ink"
    tool: Pen = Pen("pen")
    paper: Pen = Pen("paper")


@dataclass(frozen=True)
class Paint:
    kind: Literal["paint"] = "paint"
    tool: Brush = Brush()
    paper: Pen = Pen("canvas")


@dataclass(frozen=True)
class Picture:
    technique: Ink | Paint = Ink()


def test_overriding_the_discriminator_keeps_no_part_of_another_class() -> None:
    start = Picture(Ink(tool=Pen("quill", 0.1), paper=Pen("blotter")))
    assert apply_overrides(start, ["technique.kind=paint"]).technique == Paint(paper=Pen("blotter"))


@pytest.mark.parametrize(
    ("setting", "part"),
    [
        ("shape.side", "expected key=value"),
        ("=3", "expected key=value"),
        ("shape..side=3", "expected key=value"),
        ("shape.sde=3", "did you mean 'shape.side'"),
        ("shpe.side=3", "did you mean 'shape'"),
        ("shape.side=x", "shape.side is 'x': expected a whole number"),
        ("shape.side.x=1", "it has no key 'x'"),
        ("shape.kind=triangle", "expected square or circle"),
        ("pens.4.name=x", "no key 'pens.4'"),
        ("origin=[1", "origin is '\\[1': expected a list"),
        ("shape=null", "shape is None: expected a mapping"),
    ],
)
def test_a_wrong_override_says_where_it_stands(setting: str, part: str) -> None:
    with pytest.raises(ToodError, match=part) as caught:
        apply_overrides(Drawing(), [setting])
    assert str(caught.value).startswith("--set")


@pytest.mark.parametrize(
    ("written", "title"),
    [
        ("a #1", "a #1"),
        ("#1", "#1"),
        ("null #1", "null #1"),
        ("no # 1", "no # 1"),
        ("--- a", "--- a"),
        ("two\nlines", "two\nlines"),
        ("012", "012"),
        ("no", "no"),
        ("1:30", "1:30"),
        ("[a] #1", "[a] #1"),
        ("'a #1'", "a #1"),
        ('"null"', "null"),
        ("'a' #1", "'a' #1"),
        ("*.jpg", "*.jpg"),
        ("&a b", "&a b"),
        ("null", None),
        ("~", None),
        ("📷 #1 日本", "📷 #1 日本"),
        ('"\\ud83d\\udcf7 #1"', "📷 #1"),
    ],
)
def test_text_on_the_command_line_is_taken_as_it_stands(written: str, title: str | None) -> None:
    assert apply_overrides(Drawing(title="old"), [f"title={written}"]).title == title
    if title is not None:
        assert apply_overrides(Drawing(), [f"folder={written}"]).folder == Path(title)


@given(st.text(st.characters(exclude_categories=())).filter(lambda text: text.strip() == text))
@example("!")
def test_any_text_reaches_its_field_bare_or_as_json(text: str) -> None:
    # As names of files that are no UTF-8 come: lone halves, never a pair of them in a row.
    text = yaml_text.joined_halves(text)
    assert apply_overrides(Drawing(), [f"pens={json.dumps([{'name': text}])}"]).pens[0].name == text
    assert apply_overrides(Drawing(), [f"title={json.dumps(text)}"]).title == text
    if text and text[0] not in "'\"" and text not in ("~", "null", "Null", "NULL"):
        assert apply_overrides(Drawing(), [f"title={text}"]).title == text


@given(st.text(st.characters(exclude_categories=())).map(yaml_text.joined_halves))
def test_any_letters_are_saved_and_loaded_equal(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("yaml") / "drawing.yaml"
    drawing = Drawing(title=text, notes={text: 1}, pens=(Pen(text),))
    save(drawing, path, comment=f"tood train --config {text}")
    assert load(path, Drawing) == drawing


def test_a_configuration_written_as_json_keeps_its_letters(tmp_path: Path) -> None:
    path = tmp_path / "drawing.json"
    path.write_text(json.dumps({"title": "📷 犬", "pens": [{"name": "🐕"}]}), encoding="ascii")
    assert load(path, Drawing) == Drawing(title="📷 犬", pens=(Pen("🐕"),))


def test_saved_letters_can_be_read_by_a_person(tmp_path: Path) -> None:
    save(Drawing(title="📷 犬"), tmp_path / "drawing.yaml")
    assert "title: 📷 犬" in (tmp_path / "drawing.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("key", ["lines", "grid.lines", "page.grid.lines"])
def test_a_setting_is_told_by_its_whole_key_once(key: str) -> None:
    """However much of it the part knows that refuses the value, and whether it is set alone or read from a file."""
    told = "page.grid.lines is -1: expected 0 or more"
    with pytest.raises(ToodError, match=f"^a file: {told}$"):
        from_dict(Book, {"page": {"grid": {"key": key, "lines": -1}}}, "a file")
    with pytest.raises(ToodError, match=f"^--set: {told}$"):
        apply_overrides(Book(Page(Grid(key=key))), ["page.grid.lines=-1"])
    with pytest.raises(ToodError, match=r"^option: margin is -1: expected 0 or more$"):
        apply_overrides(Page(), ["margin=-1"], "option")
