"""All annotations of a Pascal VOC dataset as columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tood.data.columns import TextColumn
from tood.data.dataset import Problem
from tood.data.formats.voc_xml import VocAnnotation, read_voc_xml

# Files whose content is held as objects before it becomes part of a column.
_BLOCK = 4096


@dataclass(frozen=True, eq=False)
class VocAnnotations:
    """What many xml files say, as `VocAnnotation` has it of one.

    Attributes:
        sizes: [I, 2] int32, width and height, 0 where none is told.
        file_names: that the files tell.
        class_names: every class that there is.
        classes: [G] int32, index into them.
        boxes: [G, 4] float64.
        difficult: [G] bool.
        edges: [I + 1] int64, where each file's objects begin.
        problems: by file, what is wrong in it.
    """

    sizes: NDArray[np.int32]
    file_names: TextColumn
    class_names: Sequence[str]
    classes: NDArray[np.int32]
    boxes: NDArray[np.float64]
    difficult: NDArray[np.bool_]
    edges: NDArray[np.int64]
    problems: Mapping[int, tuple[Problem, ...]]

    @staticmethod
    def of(files: Iterable[str]) -> VocAnnotations:
        """Those of these files, taken one by one."""
        sizes = [np.zeros((0, 2), np.int32)]
        names: list[TextColumn] = []
        classes, known = [np.zeros(0, np.int32)], dict[str, int]()
        boxes, difficult, counts = [np.zeros((0, 4))], [np.zeros(0, np.bool_)], [np.zeros(1, np.int64)]
        problems: dict[int, tuple[Problem, ...]] = {}
        files, done = iter(files), 0
        while block := [read_voc_xml(Path(file)) for file in islice(files, _BLOCK)]:
            sizes.append(np.array([one.size or (0, 0) for one in block], np.int32))
            names.append(TextColumn.of(one.file_name for one in block))
            own = [known.setdefault(name, len(known)) for one in block for name in one.names]
            classes.append(np.array(own, np.int32))
            boxes.append(np.concatenate([one.boxes for one in block]))
            difficult.append(np.concatenate([one.difficult for one in block]))
            counts.append(np.array([len(one.names) for one in block], np.int64))
            problems |= {done + at: one.problems for at, one in enumerate(block) if one.problems}
            done += len(block)
        return VocAnnotations(
            np.concatenate(sizes),
            TextColumn.of(name for column in names for name in column),
            tuple(known),
            np.concatenate(classes),
            np.concatenate(boxes),
            np.concatenate(difficult),
            np.cumsum(np.concatenate(counts)),
            problems,
        )

    def __getitem__(self, row: int) -> VocAnnotation:
        own = slice(*self.edges[row : row + 2].tolist())
        width, height = self.sizes[row].tolist()
        return VocAnnotation(
            (width, height) if width else None,
            self.file_names[row],
            tuple(self.class_names[number] for number in self.classes[own].tolist()),
            self.boxes[own],
            self.difficult[own],
            self.problems.get(row, ()),
        )
