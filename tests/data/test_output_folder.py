"""Writing a dataset never destroys what is not ours, nor what it is made of."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

import tood
from dataset_files import box_row, coco, image_row, usual_coco, write_coco_folder, write_image
from tood import manifest
from tood.data import ImageTransfer, convert_dataset, load_dataset, split_dataset
from tood.data.output_folder import MANIFEST, OldDataset
from tood.errors import ToodError
from tood.manifest import FileStamp
from tood.whole_file import Look, whole_folder

Snapshot = dict[str, bytes | str | None]


def snapshot(folder: Path) -> Snapshot:
    """Every path below a folder with its bytes, a link's target, or None for a folder."""
    found: Snapshot = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        found[name] = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None
    return found


def source(root: Path) -> Path:
    write_coco_folder(root, usual_coco())
    return root


def yolo(root: Path, base: str = "") -> Path:
    """A small YOLO folder, whose yaml may start from another one."""
    write_image(root / "images" / "train" / "1.png")
    (root / "labels" / "train").mkdir(parents=True)
    (root / "labels" / "train" / "1.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    path = f"path: {base}\n" if base else ""
    (root / "data.yaml").write_text(f"{path}train: images/train\nnames: [cat]\n")
    return root


def refused(place: Path, sentence: str, write: Callable[..., object], *arguments: object, **options: object) -> None:
    """`write`, asked to overwrite, does not, and nothing in `place` is other than before."""
    before = snapshot(place)
    with pytest.raises(ToodError, match=sentence):
        write(*arguments, **options, overwrite=True)
    assert snapshot(place) == before


def test_what_it_wrote_itself_is_replaced_again_and_again(tmp_path: Path) -> None:
    source(tmp_path / "a")
    for to, transfer in (("yolo", "hardlink"), ("voc", "symlink"), ("coco", "copy"), ("yolo", "copy")):
        convert_dataset(tmp_path / "a", tmp_path / "out", to, transfer=ImageTransfer(transfer), overwrite=True)
        assert load_dataset(tmp_path / "out", "train").format == to
    split_dataset(tmp_path / "a", tmp_path / "out", overwrite=True, val=0.4)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "out"}
    # Carried elsewhere without its times it is known by what is in it.
    shutil.copytree(tmp_path / "out", tmp_path / "copied", copy_function=shutil.copyfile)
    convert_dataset(tmp_path / "a", tmp_path / "copied", "voc", overwrite=True)


def test_there_and_back_by_links_loses_no_picture(tmp_path: Path) -> None:
    source(tmp_path / "first")
    convert_dataset(tmp_path / "first", tmp_path / "a", "coco", transfer=ImageTransfer.COPY)
    shutil.rmtree(tmp_path / "first")
    convert_dataset(tmp_path / "a", tmp_path / "b", "yolo", transfer=ImageTransfer.SYMLINK)
    refused(tmp_path, "read from it", convert_dataset, tmp_path / "b", tmp_path / "a", "coco")
    refused(tmp_path, "read from it", split_dataset, tmp_path / "b", tmp_path / "a")
    assert len(load_dataset(tmp_path / "b", "train")) == 3


def test_a_yaml_that_leads_into_the_folder(tmp_path: Path) -> None:
    yolo(tmp_path / "mine")
    convert_dataset(tmp_path / "mine", tmp_path / "out", "yolo", transfer=ImageTransfer.COPY)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "data.yaml").write_text(f"path: {tmp_path / 'out'}\ntrain: images/train\nnames: [cat]\n")
    for root in (tmp_path / "other", tmp_path / "other" / "data.yaml"):
        refused(tmp_path, "leads into", convert_dataset, root, tmp_path / "out", "voc")


@pytest.mark.parametrize("linked", ["images", "labels", "images/train/1.png", "labels/train/1.txt", "data.yaml"])
def test_any_link_into_the_folder(tmp_path: Path, linked: str) -> None:
    yolo(tmp_path / "mine")
    convert_dataset(tmp_path / "mine", tmp_path / "out", "yolo", transfer=ImageTransfer.COPY)
    link = tmp_path / "mine" / linked
    shutil.rmtree(link) if link.is_dir() else link.unlink()
    link.symlink_to(tmp_path / "out" / linked)
    refused(tmp_path, "leads into", convert_dataset, tmp_path / "mine", tmp_path / "out", "voc")


@pytest.mark.parametrize("linked", ["labels", "labels/train/1.txt"])
def test_links_in_a_folder_that_a_yaml_elsewhere_names(tmp_path: Path, linked: str) -> None:
    yolo(tmp_path / "mine")
    convert_dataset(tmp_path / "mine", tmp_path / "out", "yolo", transfer=ImageTransfer.COPY)
    link = tmp_path / "mine" / linked
    shutil.rmtree(link) if link.is_dir() else link.unlink()
    link.symlink_to(tmp_path / "out" / linked)
    yaml = tmp_path / "lists" / "all.yaml"
    yaml.parent.mkdir()
    yaml.write_text(f"path: {tmp_path / 'mine'}\ntrain: images/train\nnames: [cat]\n")
    refused(tmp_path, "leads into", convert_dataset, yaml, tmp_path / "out", "voc")


def test_a_link_that_passes_through_the_folder_and_ends_elsewhere(tmp_path: Path) -> None:
    source(tmp_path / "real")
    convert_dataset(tmp_path / "real", tmp_path / "out", "coco", transfer=ImageTransfer.SYMLINK)
    write_coco_folder(tmp_path / "mine", coco([image_row(7)], [box_row(1, 7)], {3: "cat"}))
    picture = tmp_path / "mine" / "train2017" / "7.png"
    picture.unlink()
    picture.symlink_to(os.path.relpath(tmp_path / "out" / "train" / "7.png", picture.parent))
    assert not picture.resolve().is_relative_to(tmp_path / "out")
    refused(tmp_path, "leads into", convert_dataset, tmp_path / "mine", tmp_path / "out", "voc")


def test_a_split_that_is_not_converted_is_not_lost_either(tmp_path: Path) -> None:
    source(tmp_path / "first")
    convert_dataset(tmp_path / "first", tmp_path / "out", "coco", transfer=ImageTransfer.COPY)
    write_coco_folder(tmp_path / "mine", coco([image_row(1)], [box_row(1, 1)], {3: "cat"}))
    path = write_coco_folder(tmp_path / "mine", coco([image_row(7)], [box_row(1, 7)], {3: "cat"}), "val", images=False)
    (path.parent.parent / "val2017").symlink_to(tmp_path / "out" / "train")
    mine, out = tmp_path / "mine", tmp_path / "out"
    refused(tmp_path, "leads into", convert_dataset, mine, out, "voc", splits=["train"])
    refused(tmp_path, "leads into", split_dataset, mine, out, split="train")


def test_hard_links_are_pictures_of_their_own(tmp_path: Path) -> None:
    """A source that shares its bytes with the old result keeps them when that goes."""
    source(tmp_path / "a")
    convert_dataset(tmp_path / "a", tmp_path / "out", "coco")
    before = snapshot(tmp_path / "a")
    convert_dataset(tmp_path / "a", tmp_path / "out", "yolo", overwrite=True)
    assert snapshot(tmp_path / "a") == before


@pytest.mark.parametrize(
    "stranger", [".git/HEAD", "runs/x/best.safetensors", "train.py", "images/train/mine.png", "empty/", ".DS_Store"]
)
def test_anything_else_in_the_folder_is_named(tmp_path: Path, stranger: str) -> None:
    source(tmp_path / "a")
    out = tmp_path / "out"
    convert_dataset(tmp_path / "a", out, "yolo")
    if stranger.endswith("/"):
        (out / stranger).mkdir()
    else:
        (out / stranger).parent.mkdir(parents=True, exist_ok=True)
        (out / stranger).write_text("mine")
    refused(tmp_path, stranger, convert_dataset, tmp_path / "a", out, "voc")
    refused(tmp_path, stranger, split_dataset, tmp_path / "a", out)


def test_what_somebody_has_changed_since_is_not_ours(tmp_path: Path) -> None:
    source(tmp_path / "a")
    out = tmp_path / "out"

    def corrected_label() -> str:
        label = next((out / "labels").rglob("7.txt"))
        label.write_text(label.read_text().replace("0", "1", 1))  # of the same length
        return "7.txt"

    def other_picture() -> str:
        picture = out / "images" / "train" / "7.png"
        picture.unlink()
        write_image(picture, seed=99)
        return "7.png"

    def link_to_the_same() -> str:
        picture = out / "images" / "train" / "7.png"
        picture.unlink()
        picture.symlink_to(tmp_path / "a" / "train2017" / "7.png")
        return "7.png"

    for change in (corrected_label, other_picture, link_to_the_same):
        convert_dataset(tmp_path / "a", out, "yolo")
        name = change()
        refused(tmp_path, name, convert_dataset, tmp_path / "a", out, "voc")
        shutil.rmtree(out)


def test_a_dataset_without_a_list_is_not_replaced(tmp_path: Path) -> None:
    source(tmp_path / "a")
    convert_dataset(tmp_path / "a", tmp_path / "out", "yolo")
    for content in (None, "{}", "not json", '{"version": 99, "files": {}, "folders": []}'):
        (tmp_path / "out" / MANIFEST).unlink()
        if content is not None:
            (tmp_path / "out" / MANIFEST).write_text(content)
        refused(tmp_path, "earlier version", convert_dataset, tmp_path / "a", tmp_path / "out", "voc")
        (tmp_path / "out" / MANIFEST).touch()


def test_a_folder_above_below_or_behind_a_link(tmp_path: Path) -> None:
    source(tmp_path / "up" / "a")
    (tmp_path / "link").symlink_to(tmp_path / "up")
    (tmp_path / "to_a").symlink_to(tmp_path / "up" / "a")
    for out in ("up", "up/a", "up/a/new", "link", "link/a", "link/a/new", "to_a", "to_a/new", "up/a/../a/new"):
        for root in ("up/a", "link/a", "to_a"):
            refused(tmp_path, r"name another|name a folder", convert_dataset, tmp_path / root, tmp_path / out, "voc")


def test_what_comes_in_while_it_is_written_stays(tmp_path: Path) -> None:
    source(tmp_path / "a")
    convert_dataset(tmp_path / "a", tmp_path / "out", "yolo")

    def add(_done: int, _total: int) -> None:
        (tmp_path / "out" / "late.txt").write_text("mine")

    before = snapshot(tmp_path)
    with pytest.raises(ToodError, match=r"late\.txt"):
        convert_dataset(tmp_path / "a", tmp_path / "out", "voc", overwrite=True, progress=add)
    assert snapshot(tmp_path) == before | {"out/late.txt": b"mine"}

    def make(_done: int, _total: int) -> None:
        (tmp_path / "new").mkdir(exist_ok=True)
        (tmp_path / "new" / "mine.txt").write_text("mine")

    with pytest.raises(ToodError, match="new: cannot be written"):
        convert_dataset(tmp_path / "a", tmp_path / "new", "voc", progress=make)
    assert snapshot(tmp_path) == before | {"out/late.txt": b"mine", "new": None, "new/mine.txt": b"mine"}


def test_unfinished_folders_of_others_stay(tmp_path: Path) -> None:
    source(tmp_path / "a")
    for name in (f".out.{os.getpid()}.part", f".out.{os.getpid()}.old", ".out.part", ".tood-0.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.txt").write_text("mine")
    before = {name: held for name, held in snapshot(tmp_path).items() if not name.startswith("a")}
    for overwrite in (False, True):
        convert_dataset(tmp_path / "a", tmp_path / "out", "yolo", overwrite=overwrite)
    after = snapshot(tmp_path)
    assert {name: after.get(name) for name in before} == before


def test_what_comes_in_at_the_last_moment_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the old result was looked through, before it was moved."""
    source(tmp_path / "a")
    convert_dataset(tmp_path / "a", tmp_path / "out", "yolo")
    before = snapshot(tmp_path)
    look_through = OldDataset.require_own
    label = tmp_path / "out" / "labels" / "train" / "7.txt"
    same_length = label.read_text().replace("0", "1", 1)

    def slowly(old: OldDataset, folder: Path) -> Look:
        look = look_through(old, folder)
        if folder == tmp_path / "out":
            label.write_text(same_length)
            (folder / "late.txt").write_text("mine")
        return look

    calls = iter((look_through, slowly))  # the first is before anything is built
    monkeypatch.setattr(OldDataset, "require_own", lambda old, folder: next(calls)(old, folder))
    with pytest.raises(ToodError, match=r"labels/train/7\.txt, late\.txt"):
        convert_dataset(tmp_path / "a", tmp_path / "out", "voc", overwrite=True)
    changed = {"out/late.txt": b"mine", "out/labels/train/7.txt": same_length.encode()}
    assert snapshot(tmp_path) == before | changed


# --- stopped and killed -----------------------------------------------------------------------------------------------

AT = """
import os, signal, sys
from pathlib import Path
from tood import whole_file
from tood.cli.main import app
from tood.data import convert, output_folder
from tood.manifest import Manifest

def at(holder, name, number):
    call = getattr(holder, name)
    def signalled(*arguments, **options):
        os.kill(os.getpid(), number)
        return call(*arguments, **options)
    setattr(holder, name, signalled)
"""


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`tood data ...` in a process of its own, in which a signal comes before some call."""
    return subprocess.run(
        [sys.executable, "-c", f"{AT}\n{code}\napp()", "data", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(Path(tood.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("command", "number"), [("convert", signal.SIGINT), ("split", signal.SIGTERM), ("convert", signal.SIGHUP)]
)
def test_a_signal_ends_it_with_nothing_half_written(tmp_path: Path, command: str, number: signal.Signals) -> None:
    source(tmp_path / "a")
    convert_dataset(tmp_path / "a", tmp_path / "out", "yolo")
    before = snapshot(tmp_path)

    def arguments(out: str) -> list[object]:
        written = [tmp_path / out, "--to", "voc"] if command == "convert" else ["--out", tmp_path / out, "--val", 0.4]
        return [command, tmp_path / "a", *written, *(["--overwrite"] * (out == "out"))]

    at_image, at_end = "convert, 'transfer_image'", "Manifest, 'write'"
    for place, out, left in (
        (at_image, "new", "nothing is left there"),
        (at_end, "out", "what is there stays as it was"),
    ):
        ended = run(f"at({place}, {int(number)})", *arguments(out))
        assert ended.returncode == 128 + number, ended.stderr
        assert f"tood: stopped before {tmp_path / out} was whole: {left}" in ended.stderr
        assert "Traceback" not in ended.stderr
        assert snapshot(tmp_path) == before
    # From here on it is the new one: while the old one is looked at, moved and removed.
    place = "output_folder.OldDataset, 'require_unchanged'"
    ended = run(f"at({place}, {int(number)})", *arguments("out"))
    assert ended.returncode == 0, ended.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"a", "out"}
    assert load_dataset(tmp_path / "out", "train").format == ("voc" if command == "convert" else "coco")


@pytest.mark.parametrize(
    "place",
    [
        "convert, 'transfer_image'",
        "Manifest, 'write'",
        "output_folder.OldDataset, 'require_own'",
        "output_folder.OldDataset, 'require_unchanged'",  # the old one is moved away, the new one not there yet
        "output_folder.OldDataset, 'remove'",
        "Path, 'rmdir'",  # amidst the removal
    ],
)
def test_what_a_killed_one_left_is_settled_by_the_next(
    tmp_path: Path, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    source(tmp_path / "a")
    arguments = ("convert", tmp_path / "a", tmp_path / "out", "--to", "voc", "--overwrite")
    convert_dataset(tmp_path / "a", tmp_path / "out", "yolo")
    killed = run(f"at({place}, signal.SIGKILL)", *arguments)
    assert killed.returncode == -9, killed.stderr
    # Without leave to overwrite nothing is lost, and the earlier result, or the new one, is in its place.
    with pytest.raises(ToodError, match="is not empty"):
        convert_dataset(tmp_path / "a", tmp_path / "out", "voc")
    assert len(load_dataset(tmp_path / "out", "train")) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"a", "out"}
    if place.endswith("'require_unchanged'"):
        assert f"{tmp_path / 'out'}: was being replaced when that was killed: it is there again" in caplog.text
    convert_dataset(tmp_path / "a", tmp_path / "out", "voc", overwrite=True)
    assert load_dataset(tmp_path / "out", "train").format == "voc"
    assert {path.name for path in tmp_path.iterdir()} == {"a", "out"}


def test_the_old_one_stays_where_its_name_was_taken_meanwhile(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source(tmp_path / "a")
    arguments = ("convert", tmp_path / "a", tmp_path / "out", "--to", "voc", "--overwrite")
    convert_dataset(tmp_path / "a", tmp_path / "out", "yolo")
    held = snapshot(tmp_path / "out")
    run("at(output_folder.OldDataset, 'require_unchanged', signal.SIGKILL)", *arguments)
    source(tmp_path / "out")
    with pytest.raises(ToodError):
        convert_dataset(tmp_path / "a", tmp_path / "out", "voc", overwrite=True)
    (old,) = tmp_path.glob(".tood-*.old.*")
    assert snapshot(old) == held
    assert f"{old}: is what was in {tmp_path / 'out'} before it was replaced" in caplog.text


def test_one_that_is_at_work_or_elsewhere_is_left_alone(tmp_path: Path) -> None:
    source(tmp_path / "a")
    with whole_folder(tmp_path / "out") as part:
        (part / "half").write_text("half of it")
        convert_dataset(tmp_path / "a", tmp_path / "out", "yolo")
        assert (part / "half").read_text() == "half of it"
        (tmp_path / "out").rename(tmp_path / "first")
    shutil.rmtree(tmp_path / "out")
    run("at(convert, 'transfer_image', signal.SIGKILL)", "convert", tmp_path / "a", tmp_path / "out", "--to", "voc")
    (left,) = tmp_path.glob(".tood-*.part.*")
    elsewhere = left.rename(left.with_name(left.name[:-8] + "0" * 8))
    ended = run("", "convert", tmp_path / "a", tmp_path / "out", "--to", "voc")
    assert ended.returncode == 0
    assert f"{elsewhere}: was left by a process elsewhere" in ended.stderr.replace("\n", " ")
    assert elsewhere.is_dir()


# --- known without being read -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("transfer", list(ImageTransfer))
def test_linked_pictures_are_not_read_for_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transfer: ImageTransfer
) -> None:
    source(tmp_path / "a")
    read: list[Path] = []
    digest = manifest.sha256_of

    def counted(path: Path) -> str:
        read.append(path)
        return digest(path)

    monkeypatch.setattr(manifest, "sha256_of", counted)
    for _ in range(2):  # the second replaces the first
        convert_dataset(tmp_path / "a", tmp_path / "out", "yolo", transfer=transfer, overwrite=True)
        pictures = [path.name for path in read if path.suffix == ".png"]
        assert sorted(pictures) == (["3.png", "7.png", "a.png"] if transfer is ImageTransfer.COPY else [])
        read.clear()


def test_a_linked_picture_is_known_while_it_or_its_source_is_what_it_was(tmp_path: Path) -> None:
    original, link = write_image(tmp_path / "a.png"), tmp_path / "b.png"
    link.hardlink_to(original)
    stamp, later = FileStamp.of_hard_link(link, original), 1 << 62

    def copied(to: str) -> Path:
        shutil.copyfile(link, tmp_path / to)
        return tmp_path / to

    assert stamp.fits(link, later)
    assert stamp.fits(link, 0), "it is its source"
    assert stamp.fits(copied("copy.png"), later), "holds what its source does"
    changed = copied("changed.png")
    changed.write_bytes(changed.read_bytes()[:-1] + b"!")
    assert not stamp.fits(changed, later)
    os.utime(changed, ns=(stamp.modified, stamp.modified))
    assert not stamp.fits(changed, later), "another file, of the same size and time"
    original.rename(tmp_path / "gone.png")
    assert stamp.fits(link, later)
    assert not stamp.fits(link, 0), "as new as the list, and nothing to compare it with"
    assert not stamp.fits(copied("copy.png"), later)
    write_image(original, seed=3)
    assert not stamp.fits(copied("copy.png"), later)
    link.write_bytes(link.read_bytes()[:-1] + b"!")
    assert not stamp.fits(link, later)


def test_a_place_behind_a_link_that_leads_to_itself_is_one_sentence(tmp_path: Path) -> None:
    source(tmp_path / "a")
    (tmp_path / "me").symlink_to("me")
    for out in ("me", "me/out", "me/../me/out"):
        refused(tmp_path, "me", convert_dataset, tmp_path / "a", tmp_path / out, "voc")
    refused(tmp_path, "no such dataset", convert_dataset, tmp_path / "me", tmp_path / "out", "voc")


def test_a_split_cannot_be_written_beside_the_folder(tmp_path: Path) -> None:
    path = write_coco_folder(tmp_path / "in" / "a", usual_coco())
    path.rename(path.with_name("instances_...json"))
    for row in usual_coco()["images"]:
        write_image(tmp_path / "in" / row["file_name"])
    (tmp_path / "out").mkdir()
    refused(
        tmp_path, "cannot be a folder's name", convert_dataset, tmp_path / "in" / "a", tmp_path / "out" / "b", "coco"
    )


@pytest.mark.parametrize("to", ["coco", "yolo", "voc"])
def test_names_that_some_file_system_takes_for_one_are_kept_apart(tmp_path: Path, to: str) -> None:
    names = ["é.png", "e\u0301.png", "É.png", "E\u0301.PNG", "\u212b.png", "\u00c5.png"]
    rows = [image_row(number, name) for number, name in enumerate(names, start=1)]
    write_coco_folder(tmp_path / "a", coco(rows, [box_row(1, 1)], {3: "cat"}))
    convert_dataset(tmp_path / "a", tmp_path / "out", to)
    written = [path for path in (tmp_path / "out").rglob("*") if path.suffix.lower() == ".png"]
    assert len({unicodedata.normalize("NFC", path.name).casefold() for path in written}) == len(names)
    assert {path.stat().st_ino for path in written} == {
        path.stat().st_ino for path in (tmp_path / "a" / "train2017").iterdir()
    }
