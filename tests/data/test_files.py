"""Which files of a folder are taken for its pictures."""

from __future__ import annotations

from pathlib import Path

from tood.data.files import find_images


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
