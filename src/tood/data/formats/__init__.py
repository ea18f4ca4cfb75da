"""The dataset formats: COCO json, YOLO txt, Pascal VOC xml, pictures alone; which one a folder is in."""

from pathlib import Path

from tood.data.formats.coco import find_coco
from tood.data.formats.folder import DatasetFolder, SplitInfo, canonical, find_name
from tood.data.formats.pictures import find_pictures
from tood.data.formats.refusal import WANTED, no_such_dataset, nothing_to_learn, refusal
from tood.data.formats.several import also_held
from tood.data.formats.voc import find_voc, find_voc_below
from tood.data.formats.writing import write_coco
from tood.data.formats.yolo import find_yolo
from tood.errors import ToodError, require_local

__all__ = [
    "DatasetFolder",
    "SplitInfo",
    "also_held",
    "canonical",
    "find_name",
    "nothing_to_learn",
    "open_folder",
    "write_coco",
]


def open_folder(root: str | Path) -> DatasetFolder:
    """Recognise a dataset.

    Args:
        root: a COCO, YOLO or VOC folder, a COCO json or a YOLO yaml; also a folder of pictures without labels, whose
            one split has no annotations.

    Raises:
        ToodError: if there is nothing there, or no dataset that is known.
    """
    path = Path(root)
    if "\0" in str(path) or not path.exists():
        require_local(path)
        raise ToodError(no_such_dataset(path))
    try:
        if path.is_file() and not path.stat().st_size:
            raise ToodError(f"{root}: is empty; give {WANTED}")
        found = _find(path) or find_pictures(path)
        if found is None:
            raise ToodError(refusal(path, _find))
    except OSError as error:
        raise ToodError(f"{root}: cannot be read ({error.strerror})") from None
    return found


def _find(path: Path) -> DatasetFolder | None:
    return find_voc(path) or find_coco(path) or find_yolo(path) or find_voc_below(path)
