"""The dataset formats: COCO json, YOLO txt, Pascal VOC xml; which one a folder is in."""

from pathlib import Path

from tood.data.formats.coco import find_coco
from tood.data.formats.folder import DatasetFolder, SplitInfo, canonical, find_name
from tood.data.formats.voc import find_voc, find_voc_below
from tood.data.formats.writing import write_coco
from tood.data.formats.yolo import find_yolo
from tood.errors import ToodError

__all__ = ["DatasetFolder", "SplitInfo", "canonical", "find_name", "open_folder", "write_coco"]

_WANTED = (
    "a COCO folder (annotations/*.json), a YOLO folder (data.yaml), a Pascal VOC folder (Annotations/*.xml), "
    "or a path straight to a json or yaml"
)


def open_folder(root: str | Path) -> DatasetFolder:
    """Recognise a dataset.

    Args:
        root: a COCO, YOLO or VOC folder, a COCO json or a YOLO yaml.

    Raises:
        ToodError: if there is nothing there, or no dataset that is known.
    """
    path = Path(root)
    if "\0" in str(path) or not path.exists():
        raise ToodError(f"{root}: no such dataset; give {_WANTED}")
    try:
        if path.is_file() and not path.stat().st_size:
            raise ToodError(f"{root}: is empty; give {_WANTED}")
        found: DatasetFolder | None = find_voc(path) or find_coco(path) or find_yolo(path) or find_voc_below(path)
    except OSError as error:
        raise ToodError(f"{root}: cannot be read ({error.strerror})") from None
    if found is None:
        raise ToodError(f"{root}: is no dataset that is known; give {_WANTED}")
    return found
