"""Objects of any size in a picture of any size are found once, wherever the seams are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bright_square import BrightConfig
from tood.data.images.windows import ArrayWindows
from tood.errors import ToodError
from tood.inference import Detector, TileConfig, detect_in_tiles
from tood.inference.second_look import decided, doubts
from tood.inference.tile_merging import MergeConfig, Tile, TileBoxes, merge
from tood.inference.tiles import tiles_of
from tood.input import InputConfig
from tood.structures import DensePredictions, Priors

SIDE = 128


class BrightObjects(nn.Module):
    """Predicts the hull of each connected bright region, at a score that grows with its area, as class 1."""

    def __init__(self) -> None:
        super().__init__()
        self.config: Any = replace(BrightConfig(), input=InputConfig(short=SIDE, long=SIDE))
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> DensePredictions:
        most = 64
        boxes, scores = torch.zeros(len(images), most, 4), torch.zeros(len(images), most, 2)
        for place, image in enumerate(images):
            bright = (image.mean(0) > 1).numpy().astype(np.uint8)
            count, _, stats, _ = cv2.connectedComponentsWithStats(bright)
            for number in range(1, min(count, most)):
                x, y, width, height, area = stats[number].tolist()
                boxes[place, number] = torch.tensor([x, y, x + width, y + height])
                scores[place, number, 1] = 0.5 + 0.4 * min(area / SIDE**2, 1)
        priors = Priors(torch.zeros(most, 2), torch.ones(most), torch.ones(most), ((1, most),))
        return DensePredictions(scores, boxes, priors)


class ShyObjects(BrightObjects):
    """Ends an object that its image cuts a little before the border, as networks do with what they see a part of."""

    def forward(self, images: Tensor) -> DensePredictions:
        seen = super().forward(images)
        sides = torch.tensor([images.shape[3], images.shape[2]])
        low, high = seen.boxes[..., :2], seen.boxes[..., 2:]
        shy = 0.06 * sides
        boxes = torch.cat([torch.where(low < 1, shy, low), torch.where(high > sides - 1, sides - shy, high)], dim=2)
        return replace(seen, boxes=boxes)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.from_model(BrightObjects(), ["dark", "bright"], "cpu", 0.3)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def shy() -> Detector:
    return Detector.from_model(ShyObjects(), ["dark", "bright"], "cpu", 0.3)  # type: ignore[arg-type]


def scene(height: int, width: int, boxes: list[tuple[int, int, int, int]]) -> np.ndarray:
    pixels = np.zeros((height, width, 3), np.uint8)
    for x1, y1, x2, y2 in boxes:
        pixels[y1:y2, x1:x2] = 255
    return pixels


def require_each_once(found: np.ndarray, wanted: list[tuple[int, int, int, int]], least: float = 0.8) -> None:
    assert len(found) == len(wanted), (found.tolist(), wanted)
    truth = np.array(wanted, np.float32)
    low = np.maximum(found[:, None, :2], truth[None, :, :2])
    high = np.minimum(found[:, None, 2:], truth[None, :, 2:])
    common = (high - low).clip(min=0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (found, truth)]
    iou = common / (areas[0][:, None] + areas[1] - common)
    assert (iou.max(axis=0) > least).all(), (found.tolist(), wanted)
    assert len(set(iou.argmax(axis=0).tolist())) == len(wanted)


# Cells of 160 pixels with an object of 24 to 100 in each, or a large one that takes several.
CELLS = st.lists(
    st.tuples(st.integers(24, 100), st.integers(24, 100), st.integers(0, 50), st.integers(0, 50)), max_size=12
)


@settings(max_examples=12)
@given(CELLS, st.sampled_from([0.2, 0.4]), st.integers(1, 5))
def test_every_object_is_found_once(
    detector: Detector, cells: list[tuple[int, int, int, int]], overlap: float, batch_size: int
) -> None:
    boxes = []
    for place, (width, height, x, y) in enumerate(cells):
        left, top = 160 * (place % 4) + x, 160 * (place // 4) + y
        boxes.append((left, top, left + width, top + height))
    boxes.append((700, 30, 1000, 420))  # larger than two tiles
    boxes.append((60, 500, 640, 560))  # long
    pixels = scene(600, 1100, boxes)
    found = detector.in_tiles(pixels, TileConfig(overlap=overlap), batch_size=batch_size)
    require_each_once(found.boxes.numpy(), boxes, 0.6)
    assert set(found.names) == {"bright"}


@pytest.mark.parametrize("smaller", [True, False])
def test_an_object_on_a_seam_and_on_a_crossing_of_seams(detector: Detector, smaller: bool) -> None:
    tiles = tiles_of(300, 300, SIDE, TileConfig(smaller=False))
    seam = tiles[1].left + 13  # in the middle of what the first two tiles share
    boxes = [(seam - 30, 20, seam + 30, 50), (seam - 40, seam - 40, seam + 40, seam + 40), (270, 270, 300, 300)]
    found = detector.in_tiles(scene(300, 300, boxes), TileConfig(smaller=smaller))
    require_each_once(found.boxes.numpy(), boxes)


def test_pieces_that_look_whole_are_looked_at_once_more(shy: Detector) -> None:
    boxes = [(60, 40, 210, 90), (300, 60, 340, 240), (70, 190, 130, 250), (250, 280, 270, 300)]
    pixels = scene(340, 420, boxes)
    once, looked_at = shy.in_tiles(pixels, TileConfig(second_look=False)), shy.in_tiles(pixels)
    assert len(once) > len(boxes)
    require_each_once(looked_at.boxes.numpy(), boxes)
    # A place at the picture's corner: the tile around it ends there.
    corner = [(300, 260, 420, 340)]
    require_each_once(shy.in_tiles(scene(340, 420, corner)).boxes.numpy(), [(300, 260, 395, 332)])


def test_second_looks_are_told_of_and_stopped(shy: Detector) -> None:
    picture = ArrayWindows("array", scene(340, 420, [(60, 40, 210, 90), (300, 60, 340, 240)]))
    steps: list[tuple[int, int | None]] = []
    assert detect_in_tiles(shy, picture, TileConfig(), progress=lambda *step: steps.append(step)) is not None
    tiles = len(tiles_of(340, 420, SIDE, TileConfig()))
    assert (tiles, tiles) in steps
    last, of = steps[-1]
    assert last == of
    assert last > tiles

    def stop() -> bool:
        return last_of(seen) == tiles

    seen: list[tuple[int, int | None]] = []

    def last_of(steps: list[tuple[int, int | None]]) -> int:
        return steps[-1][0] if steps else 0

    stopped = detect_in_tiles(shy, picture, TileConfig(), progress=lambda *step: seen.append(step), stop=stop)
    assert (stopped, seen[-1]) == (None, (tiles, tiles))


def test_a_picture_that_fits_a_tile_is_found_as_it_is(detector: Detector) -> None:
    pixels = scene(SIDE, SIDE, [(5, 6, 60, 70)])
    assert torch.equal(detector.in_tiles(pixels).boxes, detector(pixels).boxes)
    assert len(tiles_of(SIDE, SIDE, SIDE, TileConfig())) == 1


def test_files_give_what_arrays_do(detector: Detector, tmp_path: Path) -> None:
    pixels = scene(500, 700, [(100, 100, 140, 150), (300, 60, 600, 400)])
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(64, 64), photometric="rgb", compression="zlib")
    file, array = detector.in_tiles(tmp_path / "a.tif"), detector.in_tiles(pixels)
    assert torch.equal(file.boxes, array.boxes)
    assert file.path == str(tmp_path / "a.tif")
    assert file.image is None
    with pytest.raises(ToodError, match=r"tiles\.overlap is 0\.9"):
        TileConfig(overlap=0.9)


def boxes_of(*rows: tuple[list[float], float, int, str]) -> TileBoxes:
    """Box, score, label, and which sides are cut, of l, t, r, b."""
    return TileBoxes(
        np.array([row[0] for row in rows], np.float32),
        np.array([row[1] for row in rows], np.float32),
        np.array([row[2] for row in rows], np.int64),
        np.array([[side in row[3] for side in "ltrb"] for row in rows]),
        np.ones(len(rows), np.int64),
    )


def test_how_boxes_are_merged() -> None:
    whole = ([0.0, 0, 100, 100], 0.6, 1, "")
    piece = ([0.0, 0, 60, 100], 0.9, 1, "r")
    assert merge(boxes_of(whole, piece)).boxes.tolist() == [[0, 0, 100, 100]]  # surer or not, it is a piece
    other = ([0.0, 0, 60, 100], 0.9, 0, "r")
    assert len(merge(boxes_of(whole, other))) == 2  # of another class
    left, right = ([0.0, 0, 60, 100], 0.5, 1, "r"), ([50.0, 5, 120, 98], 0.7, 1, "l")
    joined = merge(boxes_of(left, right))
    assert joined.boxes.tolist() == [[0, 0, 120, 100]]
    assert joined.scores.tolist() == pytest.approx([0.7])
    low = ([50.0, 80, 120, 240], 0.7, 1, "l")
    assert len(merge(boxes_of(left, low))) == 2  # another object across the seam
    far = ([70.0, 0, 120, 100], 0.7, 1, "l")
    assert len(merge(boxes_of(left, far))) == 2  # they do not meet
    assert len(merge(boxes_of(whole, ([5.0, 5, 45, 95], 0.9, 1, "")))) == 2  # a small whole one before a large one
    assert len(merge(TileBoxes.together([]))) == 0


def seen_again(levels: int, *rows: tuple[list[float], float, int, str]) -> TileBoxes:
    return replace(boxes_of(*rows), levels=np.full(len(rows), levels)) if rows else TileBoxes.together([])


def test_what_is_in_doubt() -> None:
    whole, piece = ([10.0, 0, 110, 100], 0.6, 1, ""), ([10.0, 10, 60, 60], 0.9, 1, "")
    half, other, alone = (
        ([400.0, 0, 500, 50], 0.5, 1, "l"),
        ([20.0, 20, 90, 90], 0.8, 0, ""),
        ([300.0, 0, 320, 9], 1, 1, ""),
    )
    doubtful, tiles = doubts(boxes_of(piece, alone, whole, half, other), 128, 900, 1000)
    assert [one.boxes.tolist() for one in doubtful] == [[0, 2], [3]]  # not of another class, and not what is alone
    assert [one.place.tolist() for one in doubtful] == [[10, 0, 110, 100], [400, 0, 500, 50]]
    assert tiles == [Tile(0, 0, 256, 256, 2), Tile(0, 322, 256, 256, 2)]
    near, far = ([120.0, 0, 190, 60], 0.5, 1, "l"), ([450.0, 0, 520, 60], 0.5, 1, "l")
    for other, tile_of_other in ((near, 0), (far, 1)):
        for by in (0, 300):
            rows = [([x + by for x in box], 0.5, 1, "l") for box, *_ in (whole, other)]
            doubtful, tiles = doubts(boxes_of(*rows), 400, 900, 1000)
            assert [one.tile for one in doubtful] == [0, tile_of_other], "enough around both, or the picture's border"
    nothing, no_tiles = doubts(TileBoxes.together([]), 128, 900, 1000)
    assert (nothing, no_tiles) == ([], [])


def test_what_a_second_look_decides() -> None:
    whole, piece = ([10.0, 0, 110, 100], 0.6, 1, ""), ([10.0, 10, 60, 60], 0.9, 1, "")
    found = boxes_of(whole, piece)
    doubtful, tiles = doubts(found, 128, 900, 1000)

    def after(*rows: tuple[list[float], float, int, str]) -> list[tuple[list[float], float]]:
        kept = decided(found, doubtful, tiles, [seen_again(tiles[0].reduction, *rows)], MergeConfig())
        return [(box, round(score, 3)) for box, score in zip(kept.boxes.tolist(), kept.scores.tolist(), strict=True)]

    exact = ([12.0, 0, 108, 100], 0.5, 1, "")
    assert after(exact) == [(exact[0], 0.6)]  # the piece is gone, the score is the better one
    assert after(exact, ([10.0, 10, 60, 60], 0.4, 1, "")) == [(piece[0], 0.9), (exact[0], 0.6)]  # two objects after all
    both = [(piece[0], 0.9), (whole[0], 0.6)]
    assert after() == both  # nothing is seen now
    assert after(([10.0, 0, 110, 100], 0.9, 0, "")) == both  # of no class that is in doubt
    assert after(([300.0, 0, 400, 100], 0.9, 1, "")) == both  # elsewhere
    # What was cut, or seen in a smaller copy, was seen worse.
    for worse in (boxes_of(([10.0, 0, 110, 100], 0.6, 1, "r"), piece), replace(found, levels=np.array([4, 1]))):
        kept = decided(worse, doubtful, tiles, [seen_again(2, ([10.0, 12, 60, 60], 0.7, 1, ""))], MergeConfig())
        assert kept.boxes.tolist() == [[10, 12, 60, 60]]


def test_merging_in_blocks_is_merging_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 500, (300, 2))
    many = TileBoxes(
        np.concatenate([corners, corners + rng.uniform(5, 90, (300, 2))], axis=1).astype(np.float32),
        rng.uniform(0.1, 1, 300).astype(np.float32),
        rng.integers(0, 2, 300),
        rng.random((300, 4)) < 0.3,
        np.ones(300, np.int64),
    )
    at_once = merge(many, MergeConfig())
    monkeypatch.setattr("tood.inference.tile_merging._BLOCK", 1000)
    in_blocks = merge(many, MergeConfig())
    assert np.array_equal(at_once.boxes, in_blocks.boxes)
    assert 50 < len(at_once) < 300
