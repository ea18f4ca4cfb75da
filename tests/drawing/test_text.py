"""Text of any script in pictures: drawn with a font that has it, in the order in which it is seen, or replaced."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from dataset_files import box_row, coco, image_row, write_coco_folder
from drawing.fonts import forget, layout, only_fonts, write_font
from tood.data import dataset_stats, load_dataset
from tood.drawing.bidi import isolated, joined, visual_text
from tood.drawing.fonts import VARIABLE, own_typeface, typeface_of
from tood.drawing.text import draw_text, drawable, names_to_draw, text_width, undrawable
from tood.plots import (
    SheetRow,
    class_colour,
    contact_sheet,
    dataset_picture,
    draw_boxes,
    draw_detections,
    training_curves,
)
from tood.structures import Detections

SCRIPTS = {"Chinese": "犬", "Japanese": "いぬ", "Korean": "개", "Arabic": "كلب", "emoji": "🐕‍🦺", "Devanagari": "कुत्ता"}
# Of DejaVu Sans, which is always there: all others need a font of the system.
FOREIGN = [name for name in SCRIPTS if name != "Arabic"]


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A system without any font; returns the folder where a person's fonts go."""
    with only_fonts(monkeypatch, tmp_path / "home"):
        yield tmp_path / "home" / ".fonts"


def drawn(text: str, size: int = 20) -> NDArray[np.uint8]:
    picture = Image.new("RGB", (400, 40), (255, 255, 255))
    draw_text(picture, (5, 20), text, (0, 0, 0), size)
    return np.array(picture)


def one_box(names: list[str]) -> Detections:
    count = len(names)
    boxes = torch.tensor([[30.0, 40.0 + 60 * i, 130.0, 80.0 + 60 * i] for i in range(count)])
    return Detections(boxes, torch.full((count,), 0.9), torch.arange(count), names)


def captioned(names: list[str]) -> NDArray[np.uint8]:
    return draw_detections(np.full((60 * len(names) + 40, 400, 3), 128, np.uint8), one_box(names))


@pytest.mark.parametrize("script", FOREIGN)
def test_a_name_without_a_font_is_shown_as_the_class_s_number_and_told_once(
    script: str, bare: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = SCRIPTS[script]
    assert (captioned(["cat", name]) == captioned(["cat", "class 1"])).all()
    captioned(["cat", name])
    [said] = [record.getMessage() for record in caplog.records]
    assert f"class 1 for {name}" in said
    assert "fonts-noto-cjk" in said
    assert VARIABLE in said


@pytest.mark.parametrize("script", FOREIGN)
def test_a_name_is_drawn_with_a_font_of_the_system(script: str, bare: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_font(bare / "deep" / "Letters.ttf", SCRIPTS[script])
    forget()
    assert not undrawable(SCRIPTS[script])
    pixels = captioned(["cat", SCRIPTS[script]])
    assert (pixels != captioned(["cat", "class 1"])).any()
    assert not caplog.records


def test_letters_have_the_place_and_the_size_of_their_own_font(bare: Path) -> None:
    write_font(bare / "Blocks.ttf", "犬猫", width=500)
    forget()
    assert text_width("犬猫", 20) == pytest.approx(20)
    dark = (drawn("犬") < 128).all(2)
    rows, columns = dark.any(1).nonzero()[0], dark.any(0).nonzero()[0]
    assert len(columns) == pytest.approx(10, abs=1)
    assert len(rows) == pytest.approx(14, abs=1)
    assert columns[0] == pytest.approx(5, abs=1)
    # Both stand on one line, whatever their fonts say of ascents.
    latin = (drawn("H") < 128).all(2).any(1).nonzero()[0]
    assert rows[-1] == pytest.approx(latin[-1], abs=1)


def test_each_letter_takes_the_first_font_that_has_it(bare: Path) -> None:
    write_font(bare / "ASans.ttf", "犬")
    write_font(bare / "BSans.ttf", "犬猫🐕")
    write_font(bare / "Broken.ttf", "鳥").write_bytes(b"no font")
    forget()
    faces = {letter: typeface_of(letter) for letter in "a犬猫🐕鳥"}
    assert faces["a"] == own_typeface()
    assert {letter: face and face.path.name for letter, face in faces.items() if letter != "a"} == {
        "犬": "ASans.ttf",
        "猫": "BSans.ttf",
        "🐕": "BSans.ttf",
        "鳥": None,
    }
    assert text_width("a犬猫", 20) == pytest.approx(text_width("a", 20) + 40, abs=1)


def test_plain_letters_are_preferred_to_bold_and_slanted_ones(bare: Path) -> None:
    for name in ("ASans-Bold.ttf", "BSerif-Regular.ttf", "CSans-Regular.ttf", "DSans-Italic.ttf"):
        write_font(bare / name, "犬")
    forget()
    face = typeface_of("犬")
    assert face is not None
    assert face.path.name == "CSans-Regular.ttf"


@pytest.mark.parametrize("as_folder", [False, True])
def test_a_font_that_the_environment_names_goes_first(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_folder: bool
) -> None:
    write_font(bare / "ASans.ttf", "犬")
    named = write_font(tmp_path / "mine 犬" / "ZSerif-Bold.ttf", "犬")
    monkeypatch.setenv(VARIABLE, str(named.parent if as_folder else named))
    forget()
    face = typeface_of("犬")
    assert face is not None
    assert face.path == named


def test_a_font_that_is_not_there_is_told(
    bare: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(VARIABLE, "/no/such/font.ttf")
    forget()
    assert typeface_of("犬") is None
    assert "/no/such/font.ttf" in caplog.text


def test_fontconfig_is_asked_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = write_font(tmp_path / "strange place" / "Sans.ttf", "犬猫")
    listing = tmp_path / "bin" / "fc-list"
    listing.parent.mkdir()
    # As fontconfig's own: each font with the ranges of its letters.
    listing.write_text(f"#!/bin/sh\nprintf '%s\\t0\\t20-7e 72ac 732b\\n' '{elsewhere}'\n")
    listing.chmod(0o755)
    with only_fonts(monkeypatch, tmp_path / "home", listing):
        face = typeface_of("猫")
        assert face is not None
        assert face.path == elsewhere
        assert typeface_of("鳥") is None
        assert text_width("犬猫", 30) == pytest.approx(60)


def test_a_fontconfig_that_fails_leaves_the_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_font(tmp_path / "home" / ".fonts" / "Sans.ttf", "犬")
    listing = tmp_path / "bin" / "fc-list"
    listing.parent.mkdir()
    listing.write_text("#!/bin/sh\nexit 1\n")
    listing.chmod(0o755)
    with only_fonts(monkeypatch, tmp_path / "home", listing):
        assert typeface_of("犬") is not None


def test_other_text_shows_the_numbers_of_letters_without_a_font(bare: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert drawable("photo 犬猫.jpg") == "photo U+72AC U+732B .jpg"
    assert drawable("photo 鳥.jpg") == "photo U+9CE5 .jpg"
    assert len(caplog.records) == 1
    assert (drawn("a 犬") == drawn("a U+72AC")).all()


def test_names_that_are_no_letters_at_all_are_numbers_too(bare: Path) -> None:
    assert names_to_draw(("cat", "", "\u200d", "two\nlines", "  ")) == (
        "cat",
        "class 1",
        "\u200d",
        "two\nlines",
        "class 4",
    )
    assert drawable("two\nlines\x00") == "two lines "


def test_one_sentence_for_a_long_list_of_names(bare: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = tuple(chr(0x4E00 + i) for i in range(50))
    assert names_to_draw(names) == tuple(f"class {i}" for i in range(50))
    names_to_draw(names)
    [said] = [record.getMessage() for record in caplog.records]
    assert "and 45 more" in said


# --- the order of what is seen ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        ("cat 90%", "cat 90%"),
        ("חתול", "לותח"),
        ("abc אבג def", "abc גבא def"),
        ("אבג abc, דהו", "והד ,abc גבא"),
        ("חתול 12", "12 לותח"),
        ("חתול 1,000.5%", "1,000.5% לותח"),
        ("חתול [a] 12", "12 [a] לותח"),
        ("a (אבג) b", "a (גבא) b"),
        ("אבג (דהו)", "(והד) גבא"),
        ("犬 אבג", "犬 גבא"),
        (f"{isolated('חתול')} 90%", "לותח 90%"),
        (f"{isolated('a')} 90%", "a 90%"),
        # A mark stays with its letter.
        ("אּב", "באּ"),
    ],
)
def test_right_to_left_text_lies_as_it_is_read(written: str, seen: str) -> None:
    assert visual_text(written) == seen


@given(st.text(st.sampled_from("abאבגس犬12 ,.-+%()[]ً")))
def test_no_letter_is_lost_or_made(text: str) -> None:
    mirrored = str.maketrans("()[]", "((((")
    assert sorted(visual_text(text).translate(mirrored)) == sorted(joined(text).translate(mirrored)) or "س" in text
    assert len(visual_text(text)) == len(text)


@pytest.mark.parametrize(
    ("word", "shapes"),
    [
        ("سيارة", "\ufeb3\ufef4\ufe8e\ufead\ufe93"),  # seen initial, yeh medial, alef final, reh and teh apart
        ("كلب", "\ufedb\ufee0\ufe90"),
        ("لا", "\ufefb"),  # lam with alef is one letter
        ("سلام", "\ufeb3\ufefc\ufee1"),
        ("سُم", "\ufeb3\u064f\ufee2"),  # vowels do not part what is joined
        ("ب", "\ufe8f"),
        ("abc", "abc"),
    ],
)
def test_arabic_letters_join(word: str, shapes: str) -> None:
    assert joined(word) == shapes


@pytest.mark.parametrize("shaping", [True, False])
def test_arabic_is_drawn_from_right_to_left_with_and_without_shaping_by_pillow(
    shaping: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Alef, a single stroke, comes first: it must stand rightmost.
    with layout(monkeypatch, shaping):
        pixels = drawn("اس", 24)
        apart, together = (text_width(letters, 24) for letters in ("س س", "سس"))
    columns = (pixels < 128).all(2).sum(0)
    places = columns.nonzero()[0]
    assert columns[places[-3:]].max() >= 12, "the stroke at the right"
    assert columns[places[:6]].max() < 12
    assert together < apart
    assert not undrawable("سيارة")


def test_both_ways_of_layout_agree_on_arabic(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = []
    for shaping in (True, False):
        with layout(monkeypatch, shaping):
            ways.append(drawn("سيارة حمراء", 24).astype(int))
    assert np.abs(ways[0] - ways[1]).mean() < 2


# --- all pictures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fonts", [True, False])
def test_all_pictures_take_names_of_any_script(bare: Path, tmp_path: Path, fonts: bool) -> None:
    if fonts:
        write_font(bare / "Sans.ttf", "".join(SCRIPTS.values()))
        forget()
    names = [f"{name} $x$" for name in SCRIPTS.values()]
    image = np.full((400, 400, 3), 200, np.uint8)
    found = one_box(names)
    sheet = contact_sheet([SheetRow(image, found, found, "写真/📷.jpg")], tmp_path / "犬 📷.png", title="見出し")
    assert (tmp_path / "犬 📷.png").is_file()
    assert sheet.shape[0] > 400
    drawn_boxes = draw_boxes(image, found.boxes.numpy(), [class_colour(i) for i in range(len(names))], names)
    assert (drawn_boxes != image).any()
    (tmp_path / "metrics.csv").write_text("epoch,loss,loss_犬,AP\n1,2,1,.1\n2,1,1,.3\n", encoding="utf-8")
    training_curves(tmp_path / "metrics.csv", tmp_path / "曲線.png", title=" ".join(names))
    assert (tmp_path / "曲線.png").is_file()


@pytest.mark.parametrize("fonts", [True, False])
def test_matplotlib_misses_no_letter(
    bare: Path, tmp_path: Path, fonts: bool, recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    names = dict(enumerate([*SCRIPTS.values(), "cat"], 1))
    if fonts:
        write_font(bare / "Sans.ttf", "".join(SCRIPTS.values()), name=f"Blocks {tmp_path.name}")
        forget()
    rows = [box_row(number, 1, category=number) for number in names]
    write_coco_folder(tmp_path / "写真", coco([image_row(1)], rows, names), images=False)
    stats = dataset_stats(load_dataset(tmp_path / "写真", "train2017", images_required=False))
    dataset_picture(stats, tmp_path / "stats.png")
    said = [str(warning.message) for warning in recwarn] + caplog.messages
    assert not any("Glyph" in sentence for sentence in said), said
    assert any("class 0 for 犬" in sentence for sentence in said) != fonts
