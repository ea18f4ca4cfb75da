"""Which files of a folder are taken for its pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tood.data.files import find_images, passed_over_line
from tood.data.images import read_image


def _touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_hidden_and_system_folders_are_passed_over_and_told(tmp_path: Path) -> None:
    inside = ["a.jpg", "sub/b.JFIF", "sub/c.jpe"]
    outside = [".ipynb_checkpoints/a.jpg", "sub/@eaDir/b.jpg", "__MACOSX/a.jpg", "._a.jpg", "d.heic", "gone.png"]
    _touch(*(tmp_path / name for name in [*inside, *outside[:-1], "notes.txt"]))
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    found = find_images(tmp_path)
    assert found.images == tuple(tmp_path / name for name in inside)
    told = {path.relative_to(tmp_path).as_posix() for paths in found.passed_over.values() for path in paths}
    assert told == set(outside)


def test_linked_folders_are_entered_once(tmp_path: Path) -> None:
    real = tmp_path / "elsewhere"
    _touch(real / "a.jpg", real / "inner" / "b.jpg")
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "link").symlink_to(real)
    (real / "inner" / "back").symlink_to(folder)  # a circle
    assert find_images(folder).images == (folder / "link" / "a.jpg", folder / "link" / "inner" / "b.jpg")


@pytest.mark.parametrize(
    "folder",
    [
        *("@Recycle", "#snapshot", "#recycle", ".thumbnails", "_thumbs", "Thumbnails", ".@__thumb", "@__thumb", "@tmp"),
        *("@Recently-Snapshot", "$RECYCLE.BIN", "RECYCLER", ".Trash-1000", ".AppleDouble", "lost+found", "~snapshot"),
        *(".picasaoriginals", "System Volume Information", "Network Trash Folder", ".snapshot"),
    ],
)
def test_what_systems_keep_for_themselves_is_no_picture_of_the_folder(tmp_path: Path, folder: str) -> None:
    _touch(tmp_path / "a.jpg", tmp_path / folder / "b.jpg", tmp_path / folder / "deep" / "c.jpg")
    assert find_images(tmp_path).images == (tmp_path / "a.jpg",)
    assert find_images(tmp_path).passed_over == {"in hidden or system folders": (tmp_path / folder / "b.jpg",)}
    assert find_images(tmp_path / folder).images, "but who names the folder itself means it"


def test_thumbs_are_previews_where_they_repeat_what_lies_above(tmp_path: Path) -> None:
    _touch(tmp_path / "a.jpg", tmp_path / "thumbs" / "a.png", tmp_path / "hands" / "thumbs" / "b.jpg")
    assert find_images(tmp_path).images == (tmp_path / "a.jpg", tmp_path / "hands" / "thumbs" / "b.jpg")
    assert find_images(tmp_path).passed_over == {"in hidden or system folders": (tmp_path / "thumbs" / "a.png",)}


def test_the_line_on_what_was_passed_over_is_short_whatever_lies_there(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100)
    _touch(
        *(long / "Thumbnails" / f"{number}.jpg" for number in range(3)), long / "._hidden.jpg", long / "sub" / "._b.jpg"
    )
    kinds = ("heic", "heif", "exr", "hdr", "xcf", "nef", "dng", "cr2", "dcm", "svg")
    _touch(*(long / f"{number}.{kind}" for number, kind in enumerate(kinds)))
    (long / "gone.png").symlink_to(tmp_path / "nowhere.png")
    found = find_images(tmp_path).passed_over
    line = passed_over_line({**found, "label files without a picture": (long / "o.txt",)})
    assert line is not None
    assert len(line) <= 300
    assert line.startswith("17 files passed over: 1 label files without a picture (such as ")
    order = ["label files", "10 of kinds that are not read", "1 links to nothing", "3 in hidden or", "2 hidden"]
    assert sorted(order, key=line.index) == order


@pytest.mark.parametrize(("suffix", "kind"), [("avif", "AVIF"), ("jp2", "JPEG2000"), ("tga", "TGA"), ("ico", "ICO")])
def test_a_folder_has_the_pictures_that_are_read_one_by_one(tmp_path: Path, suffix: str, kind: str) -> None:
    path = tmp_path / f"a.{suffix}"
    try:
        Image.new("RGB", (32, 32), (200, 30, 30)).save(path, kind)
    except KeyError:  # Pillow before 11.3 knows no AVIF
        path.write_bytes(b"")
        assert list(find_images(tmp_path).passed_over.values()) == [(path,)]
        return
    assert read_image(path).shape == (32, 32, 3)
    found = find_images(tmp_path)
    assert (list(found.images), dict(found.passed_over)) == ([path], {})
