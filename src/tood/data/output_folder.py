"""Where a dataset may be written: nothing that is not ours is replaced, nothing that it is read from is lost."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tood.data.dataset import DetectionDataset
from tood.data.formats import DatasetFolder, open_folder
from tood.errors import ToodError
from tood.file_identity import file_identity
from tood.manifest import Manifest, look_at
from tood.whole_file import Look, settle_unfinished

MANIFEST = ".tood-dataset.json"
"""File at the root of a written dataset that lists all of it; a folder without one is never replaced."""

_NAMED = 3


@dataclass(frozen=True)
class OldDataset:
    """An earlier result that is to be replaced.

    Attributes:
        out: the folder, as the person named it.
        manifest: what was written there.
    """

    out: Path
    manifest: Manifest

    def require_own(self, folder: Path) -> Look:
        """Raise a ToodError if it, which is in `folder`, holds anything else than what was written.

        Returns:
            What it looked like before it was read.
        """
        look = look_at(folder)
        self._refuse(self.manifest.strangers(folder, MANIFEST))
        return look

    def require_unchanged(self, folder: Path, look: Look) -> None:
        """Raise a ToodError if it, which now is in `folder`, looks otherwise than before."""
        now = look_at(folder)
        self._refuse(sorted(name for name in look.keys() | now.keys() if look.get(name) != now.get(name)))

    def _refuse(self, strangers: Sequence[str]) -> None:
        if strangers:
            some = ", ".join(strangers[:_NAMED])
            more = f" and {len(strangers) - _NAMED} more" if len(strangers) > _NAMED else ""
            raise ToodError(
                f"{self.out}: not overwritten, as it holds what tood did not write there, or what has changed since: "
                f"{some}{more}; move that away, or name another folder"
            )

    def remove(self, folder: Path) -> None:
        """Remove what was written, from where the folder now is."""
        if not self.manifest.remove(folder, MANIFEST):
            raise ToodError(
                f"{self.out}: is written, but not all of the old one could be removed: the rest is {folder}"
            )


def require_free(root: Path, out: Path, overwrite: bool) -> OldDataset | None:
    """Refuse an `out` that something would be lost in; gives the earlier result that it holds, if any.

    Raises:
        ToodError: if it is the dataset's own folder, one above or inside it, the folder one works in, or holds
            anything that is not to be, or must not be, overwritten.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise ToodError(f"{out}: is there already and is no folder; name another")
    # `resolve` fails over a link that leads to itself.
    real_root, real_out, here = (Path(os.path.realpath(path)) for path in (root, out, Path.cwd()))
    if any(
        file_identity(real_out) == file_identity(place) for near in (real_root, here) for place in (near, *near.parents)
    ):
        raise ToodError(f"{out}: holds the dataset that is to be converted, or the folder you work in; name another")
    if root.is_dir() and any(file_identity(real_root) == file_identity(parent) for parent in real_out.parents):
        raise ToodError(f"{out}: lies inside the dataset that is to be converted; name a folder outside it")
    settle_unfinished(out, _remove_old)
    try:
        if not out.exists() or not any(out.iterdir()):
            return None
        if not overwrite:
            raise ToodError(
                f"{out}: is not empty; name another folder, or replace what tood wrote there with --overwrite"
            )
        manifest = Manifest.read(out / MANIFEST)
        if manifest is None:
            raise ToodError(_not_ours(out))
        old = OldDataset(out, manifest)
        old.require_own(out)
    except OSError as error:
        raise ToodError(f"{out}: cannot be looked through ({error.strerror or error})") from error
    return old


def require_sources_elsewhere(folder: DatasetFolder, read: Sequence[DetectionDataset], out: Path) -> None:
    """Refuse to replace `out` if a dataset is read from it, be it through links or by a list or yaml.

    Args:
        folder: the dataset.
        read: its splits that are read already; the others are read here, as they would be lost as well.
        out: the folder to be replaced.

    Raises:
        ToodError: if so, or if a split cannot be read at all.
    """
    leads = _LeadsInto(out)
    known = {dataset.split for dataset in read}
    others = [folder.read(name, False) for name in folder.splits if name not in known]
    for path in _sources(folder, [*read, *others]):
        if leads(path):
            raise ToodError(
                f"{out}: not overwritten, as the dataset that is to be converted is read from it: {path} leads into "
                "it; name another folder"
            )


def _sources(folder: DatasetFolder, datasets: Sequence[DetectionDataset]) -> Iterator[Path]:
    """Every file and folder that a dataset is read from, and every link inside its folder."""
    yield folder.root
    for info in folder.splits.values():
        yield info.source
    for dataset in datasets:
        yield from dataset.files
        yield from dataset.columns.paths
    for parent, folders, files in os.walk(folder.root):
        for name in (*folders, *files):
            path = Path(parent, name)
            if path.is_symlink():
                yield path


class _LeadsInto:
    """Whether a path leads into a folder: at its end, or through any link on its way."""

    def __init__(self, folder: Path) -> None:
        self.folder = file_identity(folder)
        self._known: dict[Path, tuple[Path, bool]] = {}

    def __call__(self, path: Path) -> bool:
        # A link to nothing, or to itself, has nothing to lose.
        return path.exists() and self._follow(Path.cwd() / path)[1]

    def _follow(self, path: Path) -> tuple[Path, bool]:
        """Where an absolute path ends, and whether it has been inside the folder on its way."""
        if path.parent == path:
            return path, False
        if path.parent not in self._known:
            self._known[path.parent] = self._follow(path.parent)
        parent, inside = self._known[path.parent]
        if path.name == "..":
            return parent.parent, inside
        place = parent / path.name
        if place.is_symlink():
            target = os.readlink(place).removeprefix("\\\\?\\")  # noqa: PTH115 - Windows marks long paths so
            end, through = self._follow(parent / target)
            return end, inside or through
        # By identity: the same folder may be spelt in several ways.
        return place, inside or file_identity(place) == self.folder


def _remove_old(folder: Path) -> None:
    """Remove what is left of an earlier result, but nothing that was not written there."""
    manifest = Manifest.read(folder / MANIFEST)
    if manifest is not None:
        manifest.remove(folder, MANIFEST)
    else:  # the list goes last
        folder.rmdir()


def _not_ours(out: Path) -> str:
    try:
        open_folder(out)
    except ToodError:
        return f"{out}: holds something that is no dataset of tood's: not overwritten; name another folder"
    return (
        f"{out}: holds a dataset, but no list of what tood wrote there ({MANIFEST}), as it is not tood's or of an "
        "earlier version: not overwritten; remove it yourself, or name another folder"
    )
