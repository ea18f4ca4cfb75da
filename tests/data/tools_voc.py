"""Pascal VOC folders in the shapes that well-known tools and datasets leave, each by a function of the tool's name.

Every function writes a dataset below `root` and returns what must be read from it: for each split, for each picture by
its path below `root`, the objects as (class, x1, y1, x2, y2, difficult) in pixels counted from 0, x2 and y2 outside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from dataset_files import write_image

Object = tuple[str, float, float, float, float, bool]
Expected = dict[str, dict[str, list[Object]]]

CAT: Object = ("cat", 9, 4, 30, 25, False)
DOG: Object = ("dog", 0, 0, 64, 48, False)
HARD: Object = ("dog", 40, 10, 60, 40, True)


def _object(item: Object, order: Sequence[str] = ("xmin", "ymin", "xmax", "ymax"), form: str = "{:.0f}") -> str:
    name, x1, y1, x2, y2, difficult = item
    corners = {"xmin": x1 + 1, "ymin": y1 + 1, "xmax": x2, "ymax": y2}
    box = "".join(f"\t\t\t<{key}>{form.format(corners[key])}</{key}>\n" for key in order)
    return (
        f"\t<object>\n\t\t<name>{name}</name>\n\t\t<pose>Unspecified</pose>\n\t\t<truncated>0</truncated>\n"
        f"\t\t<difficult>{int(difficult)}</difficult>\n\t\t<bndbox>\n{box}\t\t</bndbox>\n\t</object>\n"
    )


def _xml(file_name: str, objects: Sequence[Object], *, folder: str = "images", path: str = "", size: str = "") -> str:
    size = size or "\t<size>\n\t\t<width>64</width>\n\t\t<height>48</height>\n\t\t<depth>3</depth>\n\t</size>\n"
    told = f"\t<path>{path}</path>\n" if path else ""
    return (
        f"<annotation>\n\t<folder>{folder}</folder>\n\t<filename>{file_name}</filename>\n{told}"
        f"\t<source>\n\t\t<database>Unknown</database>\n\t</source>\n{size}\t<segmented>0</segmented>\n"
        f"{''.join(map(_object, objects))}</annotation>\n"
    )


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def voc2007(root: Path) -> Expected:
    """The VOC devkit's: lists, a list for each class beside them, parts of objects with boxes of their own."""
    home = root / "VOCdevkit" / "VOC2007"
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></part>"
    files = {"000005": [CAT], "000007": [DOG, HARD], "000009": [CAT]}
    for name, objects in files.items():
        text = _xml(f"{name}.jpg", objects, folder="VOC2007").replace("\t</object>", f"{part}\t</object>")
        _write(home / "Annotations" / f"{name}.xml", text)
        write_image(home / "JPEGImages" / f"{name}.jpg")
    lists = home / "ImageSets" / "Main"
    splits = {"train": ["000005"], "val": ["000007"], "trainval": ["000005", "000007"], "test": ["000009"]}
    for split, names in splits.items():
        _write(lists / f"{split}.txt", "".join(f"{name}\n" for name in names))
        _write(lists / f"cat_{split}.txt", "".join(f"{name} {1 if CAT in files[name] else -1:2d}\n" for name in names))
    _write(home / "ImageSets" / "Layout" / "train.txt", "000005 1\n")
    _write(home / "ImageSets" / "Segmentation" / "train.txt", "000005\n")
    inside = "VOCdevkit/VOC2007/JPEGImages"
    return {split: {f"{inside}/{name}.jpg": files[name] for name in names} for split, names in splits.items()}


def labelimg_flat(root: Path) -> Expected:
    """labelImg saving beside the pictures: `verified`, absolute paths of Windows, and its predefined classes."""
    for name, objects in (("IMG 1", [CAT]), ("IMG 1 0", [DOG, HARD])):
        path = f"C:\\Users\\me\\Desktop\\{name}.JPG"
        text = _xml(f"{name}.JPG", objects, folder="Desktop", path=path)
        _write(root / f"{name}.xml", text.replace("<annotation>", '<annotation verified="yes">', 1))
        write_image(root / f"{name}.jpg").rename(root / f"{name}.JPG")
    _write(root / "predefined_classes.txt", "cat\ndog\n")
    _write(root / "pom.xml", "<project><modelVersion>4.0.0</modelVersion></project>")
    return {"all": {"IMG 1.JPG": [CAT], "IMG 1 0.JPG": [DOG, HARD]}}


def labelimg_images_folder(root: Path) -> Expected:
    """The layout of the well-known TensorFlow tutorial: labelImg's files in `images/train` and `images/test`."""
    for split, name, objects in (("train", "a", [CAT]), ("train", "b", [DOG]), ("test", "a", [HARD, CAT])):
        _write(root / "images" / split / f"{name}.xml", _xml(f"{name}.jpg", objects, folder=split))
        write_image(root / "images" / split / f"{name}.jpg")
    _write(root / "images" / "train_labels.csv", "filename,width\n")
    return {
        "train": {"images/train/a.jpg": [CAT], "images/train/b.jpg": [DOG]},
        "test": {"images/test/a.jpg": [HARD, CAT]},
    }


def raccoon(root: Path) -> Expected:
    """datitran's raccoons: `annotations/` in small letters beside `images/`, a csv, and what macOS leaves."""
    for number, objects in ((1, [CAT]), (10, [DOG])):
        name = f"raccoon-{number}"
        text = _xml(f"{name}.jpg", objects, path=f"/Users/datitran/Desktop/raccoon/images/{name}.jpg")
        _write(root / "annotations" / f"{name}.xml", text)
        write_image(root / "images" / f"{name}.jpg")
    (root / "annotations" / "._raccoon-1.xml").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X")
    (root / "images" / "._raccoon-1.jpg").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X")
    _write(root / "annotations" / ".DS_Store", "")
    _write(root / "data" / "raccoon_labels.csv", "filename\n")
    return {"all": {"images/raccoon-1.jpg": [CAT], "images/raccoon-10.jpg": [DOG]}}


def kangaroo(root: Path) -> Expected:
    """experiencor's kangaroos: `annots/` beside `images/`."""
    for name, objects in (("00001", [CAT]), ("00002", [DOG, CAT])):
        _write(root / "annots" / f"{name}.xml", _xml(f"{name}.jpg", objects))
        write_image(root / "images" / f"{name}.jpg")
    return {"all": {"images/00001.jpg": [CAT], "images/00002.jpg": [DOG, CAT]}}


def oxford_pets(root: Path) -> Expected:
    """Oxford's pets: the xml files in `annotations/xmls`, other annotations beside them, not every picture has one."""
    _write(root / "annotations" / "xmls" / "Abyssinian_1.xml", _xml("Abyssinian_1.jpg", [CAT], folder="OXIIIT"))
    _write(root / "annotations" / "list.txt", "#Image CLASS-ID\nAbyssinian_1 1 1 1\n")
    write_image(root / "annotations" / "trimaps" / "Abyssinian_1.png")
    write_image(root / "images" / "Abyssinian_1.jpg")
    write_image(root / "images" / "Abyssinian_2.jpg")
    return {"all": {"images/Abyssinian_1.jpg": [CAT]}}


def cvat_voc(root: Path) -> Expected:
    """CVAT's "PASCAL VOC 1.1": sub-folders, names with blanks, float corners, an empty depth, its label map."""
    size = "<size><width>64</width><height>48</height><depth></depth></size>"
    files = {"sub/frame 0": [CAT], "sub/deep/frame_1": [DOG, HARD], "frame_2": []}
    for name, objects in files.items():
        items = "".join(_object(item, ("xmin", "ymin", "xmax", "ymax"), "{:.2f}") for item in objects)
        text = f"<annotation><folder/><filename>{name}.png</filename>{size}<segmented>0</segmented>{items}</annotation>"
        _write(root / "Annotations" / f"{name}.xml", text)
        write_image(root / "JPEGImages" / f"{name}.png")
    _write(root / "ImageSets" / "Main" / "default.txt", "".join(f"{name}\n" for name in files))
    _write(root / "ImageSets" / "Main" / "cat_default.txt", "sub/frame 0  1\nsub/deep/frame_1 -1\n")
    _write(root / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:128,0,0::\n")
    return {"default": {f"JPEGImages/{name}.png": objects for name, objects in files.items()}}


def roboflow_voc(root: Path) -> Expected:
    """Roboflow's "Pascal VOC": the xml beside the pictures of each split, its order of corners, names with hashes."""
    expected: Expected = {}
    for folder, split, objects in (("train", "train", [CAT]), ("valid", "val", [DOG]), ("test", "test", [])):
        name = f"{folder}_jpg.rf.0a1b2c3d"
        items = "".join(_object(item, ("xmin", "xmax", "ymin", "ymax")) for item in objects)
        size = "<size><width>64</width><height>48</height><depth>3</depth></size>"
        text = f"<annotation><folder></folder><filename>{name}.jpg</filename><path>{name}.jpg</path>{size}{items}"
        _write(root / folder / f"{name}.xml", f"{text}</annotation>")
        write_image(root / folder / f"{name}.jpg")
        expected[split] = {f"{folder}/{name}.jpg": objects}
    _write(root / "README.roboflow.txt", "")
    return expected


def imageai(root: Path) -> Expected:
    """ImageAI's: `train/annotations` beside `train/images`, and so for `validation`."""
    expected: Expected = {}
    for folder, split, objects in (("train", "train", [CAT, HARD]), ("validation", "val", [DOG])):
        _write(root / folder / "annotations" / "image (1).xml", _xml("image (1).jpg", objects))
        write_image(root / folder / "images" / "image (1).jpg")
        expected[split] = {f"{folder}/images/image (1).jpg": objects}
    return expected


def paddle_voc(root: Path) -> Expected:
    """PaddleDetection's and PaddleX': lists of two columns, the picture and the xml, in the root."""
    files = {"a b": [CAT], "c": [DOG], "d": [HARD, CAT]}
    for name, objects in files.items():
        _write(root / "Annotations" / f"{name}.xml", _xml(f"{name}.png", objects))
        write_image(root / "JPEGImages" / f"{name}.png")
    _write(root / "train_list.txt", "JPEGImages/a b.png Annotations/a b.xml\n./JPEGImages/c.png ./Annotations/c.xml\n")
    _write(root / "val_list.txt", "JPEGImages\\d.png Annotations\\d.xml\n")
    _write(root / "labels.txt", "cat\ndog\n")
    return {
        "train": {"JPEGImages/a b.png": [CAT], "JPEGImages/c.png": [DOG]},
        "val": {"JPEGImages/d.png": [HARD, CAT]},
    }


def label_studio_voc(root: Path) -> Expected:
    """Label Studio's "Pascal VOC XML": `Annotations/` beside `images/`, names with hashes, no lists."""
    for name, objects in (("0a1b2c3d-photo", [CAT]), ("4e5f6a7b-photo", [DOG])):
        _write(root / "Annotations" / f"{name}.xml", _xml(name, objects))
        write_image(root / "images" / f"{name}.jpg")
    return {"all": {"images/0a1b2c3d-photo.jpg": [CAT], "images/4e5f6a7b-photo.jpg": [DOG]}}


def labelme_xml(root: Path) -> Expected:
    """MIT's LabelMe: polygons instead of boxes, deleted objects, no size as VOC writes it."""

    def outlined(name: str, deleted: int, points: Sequence[tuple[int, int]]) -> str:
        told = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in points)
        return f"<object><name>{name}</name><deleted>{deleted}</deleted><polygon>{told}</polygon></object>"

    items = outlined("cat", 0, [(10, 5), (30, 9), (20, 25)]) + outlined("dog", 1, [(1, 1), (3, 1), (3, 3)])
    size = "<imagesize><nrows>48</nrows><ncols>64</ncols></imagesize>"
    text = f"<annotation><filename>a.jpg</filename><folder>users</folder>{size}{items}</annotation>"
    _write(root / "Annotations" / "users" / "a.xml", text)
    write_image(root / "Images" / "users" / "a.jpg")
    return {"all": {"Images/users/a.jpg": [CAT]}}


def with_namespace(root: Path) -> Expected:
    """An xml with a namespace, without a size and with its fields in another order."""
    size = "<segmented>0</segmented>"
    text = _xml("a.png", [CAT, HARD], size=size).replace("<annotation>", '<annotation xmlns="http://example.org/voc">')
    _write(root / "Annotations" / "a.xml", text)
    write_image(root / "JPEGImages" / "a.png")
    return {"all": {"JPEGImages/a.png": [CAT, HARD]}}


def oxford_pets_with_lists(root: Path) -> Expected:
    """The pets as they are downloaded: `trainval.txt` and `test.txt` among the annotations, lines of four words."""
    for name in ("Abyssinian_1", "beagle_2", "pug_3", "pug_4"):
        write_image(root / "images" / f"{name}.jpg")
    for name, items in (("Abyssinian_1", [CAT]), ("beagle_2", [DOG]), ("pug_3", [DOG, HARD])):
        _write(root / "annotations" / "xmls" / f"{name}.xml", _xml(f"{name}.jpg", items))
    _write(root / "annotations" / "list.txt", "#Image CLASS-ID SPECIES BREED ID\nAbyssinian_1 1 1 1\nbeagle_2 2 2 1\n")
    _write(root / "annotations" / "trainval.txt", "Abyssinian_1 1 1 1\nbeagle_2 2 2 1\npug_4 3 2 2\n")
    _write(root / "annotations" / "test.txt", "pug_3 3 2 2\n")
    return {
        "trainval": {"images/Abyssinian_1.jpg": [CAT], "images/beagle_2.jpg": [DOG]},
        "test": {"images/pug_3.jpg": [DOG, HARD]},
    }


def fruit_zips(root: Path) -> Expected:
    """Kaggle's fruits: a zip for each split, unpacked into folders of their own, the xml beside the pictures."""
    for split, name, items in (("train", "apple_1", [CAT]), ("test", "mixed_2", [DOG])):
        write_image(root / f"{split}_zip" / split / f"{name}.jpg")
        _write(root / f"{split}_zip" / split / f"{name}.xml", _xml(f"{name}.jpg", items, folder=split))
    return {
        "train": {"train_zip/train/apple_1.jpg": [CAT]},
        "test": {"test_zip/test/mixed_2.jpg": [DOG]},
    }


def imagenet_det(root: Path) -> Expected:
    """ImageNet's DET: `DET/` below everything, lists of a place and a running number."""
    for place, items in (("train/n01/n01_1", [CAT]), ("train/n02/n02_1", [DOG]), ("val/val_1", [DOG, HARD])):
        write_image(root / "Data" / "DET" / f"{place}.JPEG")
        _write(root / "Annotations" / "DET" / f"{place}.xml", _xml(place.rpartition("/")[2], items))
    _write(root / "ImageSets" / "DET" / "train.txt", "train/n01/n01_1 1\ntrain/n02/n02_1 2\n")
    _write(root / "ImageSets" / "DET" / "val.txt", "val_1 1\n")
    return {
        "train": {"Data/DET/train/n01/n01_1.JPEG": [CAT], "Data/DET/train/n02/n02_1.JPEG": [DOG]},
        "val": {"Data/DET/val/val_1.JPEG": [DOG, HARD]},
    }


def vott_voc(root: Path) -> Expected:
    """VoTT's "Pascal VOC": lists of single classes alone, of file names with a flag."""
    for name, items in (("a", [CAT]), ("b", [DOG]), ("c", [CAT, DOG])):
        write_image(root / "JPEGImages" / f"{name}.jpg")
        _write(root / "Annotations" / f"{name}.xml", _xml(f"{name}.jpg", items))
    for item in (CAT, DOG):
        flags = {name: 1 if item in items else -1 for name, items in (("a", [CAT]), ("b", [DOG]), ("c", [CAT, DOG]))}
        for split, names in (("train", "ab"), ("val", "c")):
            text = "".join(f"{name}.jpg {flags[name]}\n" for name in names)
            _write(root / "ImageSets" / "Main" / f"{item[0]}_{split}.txt", text)
    _write(root / "pascal_label_map.pbtxt", "item {\n id: 1\n name: 'cat'\n}\n")
    return {
        "train": {"JPEGImages/a.jpg": [CAT], "JPEGImages/b.jpg": [DOG]},
        "val": {"JPEGImages/c.jpg": [CAT, DOG]},
    }


def xml_in_labels(root: Path) -> Expected:
    """Folders as of YOLO, `images/` and `labels/` with one for each split, but xml files in them."""
    for split, name, items in (("train", "a", [CAT]), ("val", "b", [DOG])):
        write_image(root / "images" / split / f"{name}.jpg")
        _write(root / "labels" / split / f"{name}.xml", _xml(f"{name}.jpg", items))
    return {"train": {"images/train/a.jpg": [CAT]}, "val": {"images/val/b.jpg": [DOG]}}


TOOLS: tuple[Callable[[Path], Expected], ...] = (
    voc2007,
    labelimg_flat,
    labelimg_images_folder,
    raccoon,
    kangaroo,
    oxford_pets,
    cvat_voc,
    roboflow_voc,
    imageai,
    paddle_voc,
    label_studio_voc,
    labelme_xml,
    with_namespace,
    oxford_pets_with_lists,
    fruit_zips,
    imagenet_det,
    vott_voc,
    xml_in_labels,
)
