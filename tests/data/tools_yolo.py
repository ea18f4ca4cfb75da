"""Folders as tools write them in their YOLO formats, each by a function named after the tool.

Each writes the same `SCENES` into a folder and returns the splits as they are to be found, with the scenes of each.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataset_files import write_image

CLASSES = ("person", "no", "012")


@dataclass(frozen=True)
class Scene:
    """A picture: its name, its size, and its objects as label and x1 y1 x2 y2 in pixels."""

    name: str
    size: tuple[int, int]
    objects: tuple[tuple[int, tuple[int, int, int, int]], ...]


TRAIN = (
    Scene("street", (64, 48), ((0, (8, 6, 40, 30)), (2, (32, 12, 64, 48)))),
    Scene("garden", (80, 60), ((1, (0, 0, 20, 30)),)),
    Scene("sky", (48, 64), ()),
)
VAL = (Scene("beach", (96, 48), ((0, (24, 12, 72, 36)),)),)
TEST = (Scene("lake", (64, 64), ((1, (8, 8, 24, 40)),)),)

Found = Mapping[str, Sequence[Scene]]
Line = Callable[[Scene, int, tuple[int, int, int, int]], str]


def roboflow_yolo(root: Path) -> Found:
    """Roboflow's YOLOv5 to v11 zip: split folders, `../` before each in data.yaml, which has a record of its own."""
    return _roboflow(root, with_test=True)


def roboflow_yolo_without_test(root: Path) -> Found:
    """The same of a project without a test split: data.yaml names its folder all the same."""
    return _roboflow(root, with_test=False)


def roboflow_darknet(root: Path) -> Found:
    """Roboflow's YOLO Darknet zip: labels beside the pictures, the classes in each split's `_darknet.labels`."""
    for folder, scenes in (("train", TRAIN), ("valid", VAL)):
        _write(scenes, root / folder, root / folder)
        (root / folder / "_darknet.labels").write_text("\n".join(CLASSES))
    (root / "README.roboflow.txt").write_text("3 images\n")
    return {"train": TRAIN, "val": VAL}


def cvat_ultralytics(root: Path) -> Found:
    """CVAT's Ultralytics YOLO Detection 1.0."""
    return _cvat_ultralytics(root)


def cvat_ultralytics_nested(root: Path) -> Found:
    """The same of a task whose pictures were uploaded in folders, one of them called `images`."""
    return _cvat_ultralytics(root, subset="Train", inner="D/images")


def cvat_ultralytics_track(root: Path) -> Found:
    """CVAT's Ultralytics YOLO Detection Track 1.0: every line ends in a track id."""
    return _cvat_ultralytics(root, line=lambda scene, label, box: f"{_box(scene, label, box)} {label + 4}")


def cvat_ultralytics_pose(root: Path) -> Found:
    """CVAT's Ultralytics YOLO Pose 1.0: keypoints with their visibility after each box."""

    def line(scene: Scene, label: int, box: tuple[int, int, int, int]) -> str:
        return f"{_box(scene, label, box)} 0.010000 0.020000 2 0.900000 0.950000 1"

    return _cvat_ultralytics(root, line=line, more="kpt_shape: [2, 3]\n")


def cvat_ultralytics_pose_flat(root: Path) -> Found:
    """Poses without visibility, which have as many numbers as a polygon."""

    def line(scene: Scene, label: int, box: tuple[int, int, int, int]) -> str:
        return f"{_box(scene, label, box)} 0.010000 0.020000 0.900000 0.950000 0.500000 0.500000"

    return _cvat_ultralytics(root, line=line, more="kpt_shape:\n- 3\n- 2\n")


def cvat_ultralytics_obb(root: Path) -> Found:
    """CVAT's Ultralytics YOLO Oriented Bounding Boxes 1.0: four corners."""
    return _cvat_ultralytics(root, line=_corners)


def cvat_ultralytics_segmentation(root: Path) -> Found:
    """CVAT's Ultralytics YOLO Segmentation 1.0: polygons."""

    def line(scene: Scene, label: int, box: tuple[int, int, int, int]) -> str:
        (w, h), (x1, y1, x2, y2) = scene.size, box
        middle = (x1 + x2) / 2
        points = ((middle, y1), (x2, y1 + 3), (x2 - 1, y2), (middle, y2 - 2), (x1, y1 + 1))
        return " ".join([str(label), *(f"{x / w:.6f} {y / h:.6f}" for x, y in points)])

    return _cvat_ultralytics(root, line=line)


def cvat_darknet(root: Path) -> Found:
    """CVAT's YOLO 1.1: obj.data, obj.names, and lists whose paths start with a `data/` that is not in the zip."""
    splits = {"train": TRAIN, "valid": VAL}
    settings = "classes = 3\n"
    for subset, scenes in splits.items():
        _write(scenes, root / f"obj_{subset}_data", root / f"obj_{subset}_data")
        listed = [f"data/obj_{subset}_data/{scene.name}.jpg" for scene in scenes]
        (root / f"{subset}.txt").write_text("\n".join(listed) + "\n")
        settings += f"{subset} = data/{subset}.txt\n"
    (root / "obj.data").write_text(settings + "names = data/obj.names\nbackup = backup/\n")
    (root / "obj.names").write_text("\n".join(CLASSES) + "\n")
    return {"train": TRAIN, "val": VAL}


def darknet(root: Path) -> Found:
    """A folder made after darknet's own guide: all in data/, pictures and labels together in data/obj/."""
    data = root / "data"
    _write((*TRAIN, *VAL), data / "obj", data / "obj")
    (data / "obj.names").write_text("\n".join(CLASSES))
    (data / "train.txt").write_text("".join(f"data/obj/{scene.name}.jpg\n" for scene in TRAIN))
    (data / "test.txt").write_text("".join(f"data/obj/{scene.name}.jpg\n" for scene in VAL))
    settings = "classes= 3\ntrain  = data/train.txt\nvalid  = data/test.txt\nnames = data/obj.names\nbackup = backup/\n"
    (data / "obj.data").write_text(settings)
    return {"train": TRAIN, "val": VAL}


def darknet_windows(root: Path) -> Found:
    """The same on Windows: lists that PowerShell wrote, with a byte order mark and whole paths."""
    _write((*TRAIN, *VAL), root / "obj", root / "obj")
    (root / "obj.names").write_bytes("\r\n".join([*CLASSES, ""]).encode())
    for name, scenes, encoding in (("train", TRAIN, "utf-16-le"), ("val", VAL, "utf-8")):
        mark = codecs.BOM_UTF16_LE if encoding == "utf-16-le" else codecs.BOM_UTF8
        lines = "".join(f"C:\\darknet\\build\\data\\obj\\{scene.name}.jpg\r\n" for scene in scenes)
        (root / f"{name}.txt").write_bytes(mark + lines.encode(encoding))
    return {"train": TRAIN, "val": VAL}


def label_studio_yolo(root: Path) -> Found:
    """Label Studio's YOLO export: a hash before every name, classes.txt, notes.json, no splits."""
    scenes = [
        Scene(f"3fa4c{number:03d}-{scene.name}", scene.size, scene.objects)
        for number, scene in enumerate((*TRAIN, *VAL))
    ]
    _write(scenes, root / "images", root / "labels")
    (root / "classes.txt").write_text("\n".join(CLASSES))
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES)]
    info = {"year": 2024, "version": "1.0", "contributor": "Label Studio"}
    (root / "notes.json").write_text(json.dumps({"categories": categories, "info": info}, indent=2))
    return {"all": scenes}


def labelimg_yolo(root: Path) -> Found:
    """labelImg with pictures and labels in one folder."""
    _write((*TRAIN, *VAL), root, root, empty=False)
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return {"all": (*TRAIN, *VAL)}


def labelimg_yolo_save_dir(root: Path) -> Found:
    """labelImg with another folder to save in, which classes.txt lies in."""
    _write((*TRAIN, *VAL), root / "images", root / "labels", empty=False)
    (root / "labels" / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return {"all": (*TRAIN, *VAL)}


def labelimg_into_split_folders(root: Path) -> Found:
    """labelImg with a folder to save in for each split; classes.txt lies in the one that was open last."""
    for split, scenes in (("train", TRAIN), ("val", VAL)):
        _write(scenes, root / "images" / split, root / "labels" / split, empty=False)
    (root / "labels" / "train" / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return {"train": TRAIN, "val": VAL}


def ultralytics_coco8(root: Path) -> Found:
    """A folder as Ultralytics' documentation describes it, its yaml inside, `path` from elsewhere, an empty `test`."""
    for split, scenes in (("train", TRAIN), ("val", VAL)):
        _write(scenes, root / "images" / split, root / "labels" / split, empty=False)
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(CLASSES))
    text = "path: ../datasets/coco8 # dataset root dir\ntrain: images/train # 4\nval: images/val\ntest: # optional\n"
    (root / "coco8.yaml").write_text(
        f"{text}\n# Classes\nnames:\n{names}\n# Download\ndownload: https://example.com/a.zip\n"
    )
    (root / "LICENSE").write_text("...")
    (root / "README.md").write_text("# coco8")
    return {"train": TRAIN, "val": VAL}


def fiftyone_yolov5(root: Path) -> Found:
    """FiftyOne's YOLOv5Dataset: `path` is the folder of the machine that wrote it."""
    for split, scenes in (("train", TRAIN), ("val", VAL)):
        _write(scenes, root / "images" / split, root / "labels" / split)
    names = "".join(f"  {number}: '{name}'\n" for number, name in enumerate(CLASSES))
    text = f"names:\n{names}path: /home/somebody/export\ntrain: ./images/train/\nval: ./images/val/\n"
    (root / "dataset.yaml").write_text(text)
    return {"train": TRAIN, "val": VAL}


def fiftyone_yolov4(root: Path) -> Found:
    """FiftyOne's YOLOv4Dataset: obj.names, images.txt, all in data/."""
    _write((*TRAIN, *VAL), root / "data", root / "data")
    (root / "obj.names").write_text("\n".join(CLASSES))
    (root / "images.txt").write_text("\n".join(f"data/{scene.name}.jpg" for scene in (*TRAIN, *VAL)))
    return {"all": (*TRAIN, *VAL)}


def supervisely_yolov5(root: Path) -> Found:
    """Supervisely's conversion: data_config.yaml, whose paths start with the project's name."""
    for split, scenes in (("train", TRAIN), ("val", VAL)):
        _write(scenes, root / "images" / split, root / "labels" / split)
    quoted = "['person', 'no', '012']"
    text = f"names: {quoted}\ncolors: [[1, 2, 3], [4, 5, 6], [7, 8, 9]]\nnc: 3\n"
    text += "train: ../Lemons/images/train\nval: ../Lemons/images/val\n"
    (root / "data_config.yaml").write_text(text)
    return {"train": TRAIN, "val": VAL}


TOOLS: tuple[Callable[[Path], Found], ...] = (
    roboflow_yolo,
    roboflow_yolo_without_test,
    roboflow_darknet,
    cvat_ultralytics,
    cvat_ultralytics_nested,
    cvat_ultralytics_track,
    cvat_ultralytics_pose,
    cvat_ultralytics_pose_flat,
    cvat_ultralytics_obb,
    cvat_ultralytics_segmentation,
    cvat_darknet,
    darknet,
    darknet_windows,
    label_studio_yolo,
    labelimg_yolo,
    labelimg_yolo_save_dir,
    labelimg_into_split_folders,
    ultralytics_coco8,
    fiftyone_yolov5,
    fiftyone_yolov4,
    supervisely_yolov5,
)


def _roboflow(root: Path, with_test: bool) -> Found:
    found = {}
    for folder, scenes in {"train": TRAIN, "valid": VAL, **({"test": TEST} if with_test else {})}.items():
        renamed = [Scene(f"{scene.name}_jpg.rf.0f3a", scene.size, scene.objects) for scene in scenes]
        _write(renamed, root / folder / "images", root / folder / "labels")
        found["val" if folder == "valid" else folder] = renamed
    text = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\n"
    text += "nc: 3\nnames: ['person', 'no', '012']\n\n"
    text += "roboflow:\n  workspace: mine\n  project: things\n  version: 1\n  license: CC BY 4.0\n"
    (root / "data.yaml").write_text(text)
    (root / "README.dataset.txt").write_text("# things > 2024\n")
    (root / "README.roboflow.txt").write_text("\nthings - v1\n==============\n")
    return found


def _cvat_ultralytics(
    root: Path, subset: str = "train", inner: str = "", line: Line | None = None, more: str = ""
) -> Found:
    _write(TRAIN, root / "images" / subset / inner, root / "labels" / subset / inner, line=line)
    folder = f"images/{subset}/{inner}".rstrip("/")
    (root / f"{subset}.txt").write_text("\n".join(f"{folder}/{scene.name}.jpg" for scene in TRAIN))
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(CLASSES))
    (root / "data.yaml").write_text(f"{more}names:\n{names}path: .\n{subset}: {subset}.txt\n")
    return {"train": TRAIN}


def _write(scenes: Sequence[Scene], pictures: Path, labels: Path, line: Line | None = None, empty: bool = True) -> None:
    """Pictures and label files; a scene without objects gets an empty one only where the tool writes such."""
    for number, scene in enumerate(scenes):
        write_image(pictures / f"{scene.name}.jpg", *scene.size, seed=number)
        if scene.objects or empty:
            labels.mkdir(parents=True, exist_ok=True)
            text = "".join(f"{(line or _box)(scene, label, box)}\n" for label, box in scene.objects)
            (labels / f"{scene.name}.txt").write_text(text)


def _box(scene: Scene, label: int, box: tuple[int, int, int, int]) -> str:
    (w, h), (x1, y1, x2, y2) = scene.size, box
    return f"{label} {(x1 + x2) / 2 / w:.6f} {(y1 + y2) / 2 / h:.6f} {(x2 - x1) / w:.6f} {(y2 - y1) / h:.6f}"


def _corners(scene: Scene, label: int, box: tuple[int, int, int, int]) -> str:
    (w, h), (x1, y1, x2, y2) = scene.size, box
    return " ".join([str(label), *(f"{x / w:.6f} {y / h:.6f}" for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2)))])
