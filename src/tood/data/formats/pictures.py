"""A folder of pictures without any labels: to be looked at, counted and predicted on, not to be learned from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tood.data.dataset import DetectionDataset
from tood.data.files import any_images, find_images, passed_over_line
from tood.data.formats.coco import bare_images
from tood.data.formats.folder import SplitInfo
from tood.data.formats.foreign import foreign_labels
from tood.data.formats.survey import survey
from tood.data.formats.yolo_labels import looks_like_labels

# Files with which somebody has said something about the pictures.
_ANNOTATIONS = frozenset({".xml", ".json", ".csv", ".yaml", ".yml", ".names", ".parquet", ".tfrecord", ".jsonl"})


@dataclass(frozen=True)
class PictureFolder:
    """Pictures alone, as one split `all` without annotations or classes."""

    root: Path
    format: str = "pictures"
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def splits(self) -> Mapping[str, SplitInfo]:
        """See `DatasetFolder.splits`."""
        return {"all": SplitInfo("all", self.root, annotated=False)}

    def read(self, split: str, images_required: bool) -> DetectionDataset:
        """See `DatasetFolder.read`; sizes come from the image files, so they are needed in any case."""
        images, problems = bare_images(self.root)
        line = passed_over_line(find_images(self.root).passed_over)
        notes = ("pictures without labels: there is nothing to learn from, `tood predict` takes them",)
        return DetectionDataset(
            self.root, split, self.format, (), images, problems, False, self.root, (), (*notes, line) if line else notes
        )


def find_pictures(root: Path) -> PictureFolder | None:
    """The pictures of a folder; None if there are none, or anything beside them that may say what they show."""
    if not root.is_dir() or next(any_images(root), None) is None:
        return None
    found = survey(root, most=None)
    labelled = found.of(*_ANNOTATIONS) or any(map(looks_like_labels, found.of(".txt"))) or foreign_labels(found)
    return None if labelled else PictureFolder(root)
