"""Any order of conversions, changes by hand and links between folders: what a command did not write never goes.

`TOOD_FUZZ_TREES` says how many trees are tried.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from dataset_files import box_row, coco, image_row, write_coco_folder
from tood.data import ImageTransfer, convert_dataset, load_dataset, split_dataset
from tood.errors import ToodError

TREES = int(os.environ.get("TOOD_FUZZ_TREES", "40"))
PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)  # to explain a failure takes minutes
# Two that are one where capital letters are ignored, two that are one where Unicode is normalised.
FOLDERS = ("a", "b", "out", "OUT", "\u00e4", "a\u0308", "out/in", "link", ".")
SOURCES = FOLDERS[:6]

Kind = Literal[
    "convert", "split", "stranger", "edit", "link file", "link folder", "point yaml", "link out", "drop", "knot"
]


@dataclass(frozen=True)
class Step:
    """One thing that happens to a tree: `first` and `second` are folders, `number` picks a file or a way."""

    kind: Kind
    first: str
    second: str
    number: int
    overwrite: bool


KINDS: tuple[Kind, ...] = (
    *("convert",) * 8,
    *("split", "stranger", "edit", "point yaml", "link out", "drop"),
    *("link file", "link folder", "knot") * 3,
)
STEPS = st.builds(
    Step,
    st.sampled_from(KINDS),
    st.sampled_from((*SOURCES, "out", "OUT")),
    st.sampled_from((*("out",) * 6, *("OUT",) * 3, *FOLDERS)),
    st.integers(0, 1000),
    st.sampled_from((True, True, True, False)),
)


def state(path: Path) -> tuple[object, ...]:
    """What a path is: a link and its target, a folder, or a file with its bytes."""
    if path.is_symlink():
        return ("link", str(path.readlink()))
    return ("folder",) if path.is_dir() else ("file", path.read_bytes())


def tree(root: Path) -> dict[str, tuple[object, ...]]:
    """Every path below a folder and what it is; links are not followed."""
    return {str(path): state(path) for path in sorted(root.rglob("*"))}


def pictures(folder: Path) -> dict[str, bytes] | None:
    """The bytes of each picture that a dataset in a folder has, through whatever links; None if there is none."""
    try:
        paths = [image.path for image in load_dataset(folder).images]
        return {str(path): path.read_bytes() for path in paths if path.is_file()}  # links may lead nowhere by now
    except ToodError:
        return None


@dataclass
class World:
    """A tree, and what the commands wrote into it."""

    root: Path
    written: dict[str, tuple[object, ...]] = field(default_factory=dict)

    def take(self, step: Step) -> None:
        first, second = self.root / step.first, self.root / step.second
        if step.kind in ("convert", "split"):
            self.write(step, first, second)
        elif step.kind == "stranger" and second.is_dir():
            names = (
                ".git/HEAD",
                "train.py",
                "images/train/x.png",
                "labels/train/1.txt",
                "empty/x/.keep",
                "train/q.png",
            )
            place = second / names[step.number % len(names)]
            if not place.parent.exists() or place.parent.is_dir():
                place.parent.mkdir(parents=True, exist_ok=True)
                if not os.path.lexists(place):
                    place.write_text("mine")
        elif step.kind == "edit" and (file := self.pick(second, step.number)):
            content = file.read_bytes()
            file.unlink()  # the other names of a hard link keep theirs
            file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if content else b"mine")
        elif (
            step.kind == "link file"
            and (file := self.pick(first, step.number))
            and (to := self.pick(second, step.number))
        ):
            if file != to:
                file.unlink()
                file.symlink_to(to if step.overwrite else os.path.relpath(to.resolve(), file.parent.resolve()))
        elif step.kind == "link folder":
            inner = sorted(p for p in first.rglob("*") if p.is_dir() and not p.is_symlink()) if first.is_dir() else []
            if inner and second.is_dir():
                folder = inner[step.number % len(inner)]
                twin = second / folder.relative_to(first)
                if twin.is_dir() and twin.resolve() != folder.resolve() and not self.above(folder, twin):
                    shutil.rmtree(folder)
                    folder.symlink_to(twin)
        elif step.kind == "point yaml" and first.is_dir() and second.is_dir() and (first / "data.yaml").is_file():
            (first / "data.yaml").unlink()
            (first / "data.yaml").write_text(f"path: {second}\ntrain: images/train\nnames: [cat, dog]\n")
        elif step.kind == "link out" and not os.path.lexists(self.root / "link"):
            (self.root / "link").symlink_to(first)
        elif step.kind == "knot" and second.is_dir():
            self.knot(second, step.number)
        elif step.kind == "drop" and first.is_dir() and not first.is_symlink():
            shutil.rmtree(first)

    @staticmethod
    def knot(top: Path, number: int) -> None:
        """A link to itself, two to each other, or one to a folder above, somewhere in a folder."""
        inner = [top, *sorted(path for path in top.rglob("*") if path.is_dir() and not path.is_symlink())]
        folder = inner[number // 4 % len(inner)]
        name = ("me", "me.png", "train", "labels")[number // 16 % 4]
        links = ([(name, name)], [(name, "other"), ("other", name)], [(name, "..")], [(name, ".")])[number % 4]
        for link, target in links:
            if not os.path.lexists(folder / link):
                (folder / link).symlink_to(target)

    @staticmethod
    def above(folder: Path, twin: Path) -> bool:
        return twin.resolve().is_relative_to(folder.resolve())

    @staticmethod
    def pick(folder: Path, number: int) -> Path | None:
        files = sorted(p for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else []
        return files[number % len(files)] if files else None

    def write(self, step: Step, source: Path, out: Path) -> None:
        before, shown = tree(self.root), pictures(source)
        transfer = list(ImageTransfer)[step.number % 3]
        try:
            if step.kind == "split":
                split_dataset(source, out, val=0.4, transfer=transfer, overwrite=step.overwrite)
            else:
                to = ("coco", "yolo", "voc")[step.number // 3 % 3]
                convert_dataset(source, out, to, transfer=transfer, overwrite=step.overwrite)
        except ToodError as error:
            event(f"refused: {str(error).partition(': ')[2][:25]}")
            assert tree(self.root) == before, "a refusal changed something"
            return
        event("overwritten" if str(out) in before else "written")
        after = tree(self.root)
        mine = {path: held for path, held in before.items() if self.written.get(path) != held and path != str(out)}
        lost = [path for path, held in mine.items() if after.get(path) != held]
        assert not lost, f"gone or changed: {lost}"
        new = [Path(path) for path in after if path not in before]
        outside = [path for path in new if not path.is_relative_to(out) and path not in out.parents]
        assert not outside, f"left outside of {out}: {outside}"
        assert shown is None or pictures(source) == shown, "the source has lost pictures"
        self.written = {path: held for path, held in self.written.items() if not Path(path).is_relative_to(out)}
        self.written |= {path: held for path, held in after.items() if Path(path).is_relative_to(out)}


@settings(max_examples=TREES, phases=PHASES, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEPS, min_size=3, max_size=10))
def test_nothing_but_what_the_command_wrote_ever_changes_or_goes(steps: list[Step]) -> None:
    with TemporaryDirectory() as folder:
        world = World(Path(folder).resolve())
        rows = [image_row(number, width=8, height=6) for number in (1, 2, 3)]
        boxes = [box_row(number, number, (1, 1, 4, 3), number % 2) for number in (1, 2, 3)]
        for name in ("a", "b"):
            write_coco_folder(world.root / name, coco(rows, boxes, {0: "cat", 1: "dog"}))
        # A first result, so that most trees have something to overwrite.
        world.take(Step("convert", "a", "out", len(steps), overwrite=False))
        for step in steps:
            world.take(step)
