"""3x3 convolutions with a half or a quarter of the multiplications (Winograd 1980; Lavin and Gray 2016).

Each square of m x m outputs is computed from a tile of n x n inputs, n = m + 2: inputs and weights are transformed by
small matrices, between them stand n * n matrix products, and a third matrix makes their results outputs. F(4x4, 3x3)
needs 36 multiplications where the direct way needs 144, F(2x2, 3x3) 16 for 36 and less memory for weights. In fp32 the
result is within 1e-5 of the largest exact value; gradients are computed alike. Tiles are taken in strips, so that what
lies between stays near the cores.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from tood.ops.arithmetic import arithmetic, in_own_dtype, products_are_exact
from tood.ops.conv_gradients import keeps_size_3x3

# Tiles in a strip, of each thread and at most: of 256 channels, 36 KiB each and three times that for gradients.
TILES, MOST_TILES = 128, 1024
# Below, oneDNN's direct convolution is as fast: channels in or out, and cells of all maps.
LEAST_CHANNELS, LEAST_CELLS = 128, 500

# Where the polynomials behind the algorithm are evaluated, beside infinity; for m = 4 those of little rounding error.
POINTS = {2: (0.0, 1.0, -1.0), 4: (0.0, 0.75, -0.75, 1.5, -1.5)}


@dataclass(frozen=True)
class Transforms:
    """The algorithm's matrices, for tiles and squares as rows of numbers.

    Attributes:
        inputs: [n * n, n * n], of a tile's inputs.
        taps: [n * n, 9], of a filter.
        outputs: [m * m, n * n], of the products.
    """

    inputs: Tensor
    taps: Tensor
    outputs: Tensor


@dataclass(frozen=True)
class Piece:
    """Some images' rows of tiles of one map.

    Attributes:
        level: which map.
        images: which of its images.
        rows: of tiles.
        across: tiles in a row.
    """

    level: int
    images: slice
    rows: slice
    across: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """The numbers of images, of rows of tiles and of columns of tiles."""
        return self.images.stop - self.images.start, self.rows.stop - self.rows.start, self.across

    @property
    def tiles(self) -> int:
        """Number of tiles in all images together."""
        images, rows, across = self.shape
        return images * rows * across


@dataclass(frozen=True, eq=False)
class Winograd:
    """Convolutions of stride 1 and padding 1 with the same weights, and their gradients; fp32, on a CPU.

    Attributes:
        kernels: [n * n, O, C], the transformed weights.
        size: m, 2 or 4.
    """

    kernels: Tensor
    size: int

    @classmethod
    def of(cls, weight: Tensor, size: int = 4) -> Winograd:
        """That of the weights [O, C, 3, 3]; in fp32, transformed in their own dtype."""
        taps = weight.permute(2, 3, 0, 1).reshape(9, -1)
        kernels = (transforms(size).taps.to(weight.dtype) @ taps).view(-1, *weight.shape[:2])
        return cls(kernels.float(), size)

    @in_own_dtype
    def __call__(
        self,
        maps: Sequence[Tensor],
        bias: Tensor | None = None,
        *,
        relu: bool = False,
        reused: Sequence[Tensor | None] | None = None,
    ) -> list[Tensor]:
        """The convolution of each map, through ReLU where asked.

        Args:
            maps: [B, C, h, w], fast in channels-last memory.
            bias: [O].
            relu: whether ReLU follows.
            reused: [B, O, h, w] that may be overwritten and given back, where its sides are whole squares.

        Returns:
            [B, O, h, w] in channels-last memory.
        """
        size, outputs, matrices = self.size, self.kernels.shape[1], transforms(self.size)
        cells = [features.permute(0, 2, 3, 1) for features in maps]  # [B, h, w, C]
        results = [
            self._blocks(features, outputs, reused=memory)
            for features, memory in zip(cells, reused or [None] * len(cells), strict=True)
        ]
        limit = self._tiles_at_once(cells)
        scratch = self._scratch(cells, limit)
        for strip in self._strips(cells, limit):
            inputs = self._transformed(cells, strip, matrices, scratch)  # [n * n, T, C], in `back`
            products = _shaped(scratch.front, *inputs.shape[:2], outputs)
            torch.bmm(inputs, self.kernels.transpose(1, 2), out=products)
            squares = _shaped(scratch.back, size * size, products[0].numel())
            torch.mm(matrices.outputs, products.flatten(1), out=squares)
            for piece, part in _parts(strip, squares.view(size, size, -1, outputs)):
                target = _by_cell(results[piece.level][piece.images, piece.rows])
                if bias is None:
                    target.copy_(part)
                else:
                    torch.add(part, bias, out=target)
                if relu:
                    target.relu_()
        return [
            _dense(result, 0, features.shape).permute(0, 3, 1, 2)
            for result, features in zip(results, cells, strict=True)
        ]

    @in_own_dtype
    def gradients(
        self, maps: Sequence[Tensor], gradients: Sequence[Tensor], *, to_maps: bool, to_weight: bool
    ) -> tuple[list[Tensor] | None, Tensor | None]:
        """Towards the maps and the weights.

        Args:
            maps: [B, C, h, w] as they were convolved.
            gradients: [B, O, h, w] of what came out.
            to_maps: whether theirs are wanted.
            to_weight: whether that of the weights is.

        Returns:
            [B, C, h, w] in channels-last memory of each map, and [O, C, 3, 3]; None of what is not wanted.
        """
        channels, matrices = self.kernels.shape[2], transforms(self.size)
        cells, of_cells = ([features.permute(0, 2, 3, 1) for features in some] for some in (maps, gradients))
        # A tile's last inputs are the first ones of the next: one row and column of blocks more.
        sums = [self._blocks(features, channels, more=1).zero_() for features in cells] if to_maps else []
        of_kernels: Tensor | None = None  # [n * n, O, C]
        limit = self._tiles_at_once(cells)
        scratch = self._scratch(cells, limit)
        for strip in self._strips(cells, limit):
            inputs = self._transformed(cells, strip, matrices, scratch) if to_weight else None  # in `back`
            of_products = self._transformed_gradients(of_cells, strip, matrices, scratch)  # [n * n, T, O], in `front`
            if inputs is not None and of_kernels is None:
                of_kernels = torch.bmm(of_products.transpose(1, 2), inputs)
            elif inputs is not None and of_kernels is not None:
                of_kernels.baddbmm_(of_products.transpose(1, 2), inputs)
            if to_maps:
                of_inputs = _shaped(scratch.back, *of_products.shape[:2], channels)  # the inputs were needed until here
                torch.bmm(of_products, self.kernels, out=of_inputs)
                self._add_tiles(sums, strip, of_inputs, matrices, scratch)
        of_weight = None
        if of_kernels is not None:
            of_taps = matrices.taps.t() @ of_kernels.flatten(1)  # [9, O * C]
            of_weight = of_taps.view(3, 3, *of_kernels.shape[1:]).permute(2, 3, 0, 1)
        if not to_maps:
            return None, of_weight
        of_maps = [
            _dense(blocks, 1, features.shape).permute(0, 3, 1, 2) for blocks, features in zip(sums, cells, strict=True)
        ]
        return of_maps, of_weight

    def _strips(self, cells: Sequence[Tensor], limit: int) -> Iterator[list[Piece]]:
        """What is computed at once: small maps together, large ones in parts, of at most so many tiles."""
        strip: list[Piece] = []
        room = limit
        for piece in self._pieces(cells, limit):
            if piece.tiles > room:
                yield strip
                strip, room = [], limit
            strip.append(piece)
            room -= piece.tiles
        if strip:
            yield strip

    def _pieces(self, cells: Sequence[Tensor], limit: int) -> Iterator[Piece]:
        """Of at most so many tiles each: some whole images, or rows of one."""
        for level, features in enumerate(cells):
            images, down, across = self._grid(features)
            if not images * down * across:
                continue
            images_at_once = max(limit // (down * across), 1)
            parts = -(-down // (limit // across))
            rows_at_once = -(-down // parts)  # parts of about the same size
            for first in range(0, images, images_at_once):
                some = slice(first, min(first + images_at_once, images))
                for row in range(0, down, rows_at_once):
                    yield Piece(level, some, slice(row, min(row + rows_at_once, down)), across)

    def _tiles_at_once(self, cells: Sequence[Tensor]) -> int:
        grids = [self._grid(features) for features in cells]
        together = sum(images * down * across for images, down, across in grids)
        # A row of tiles is not divided.
        return max(min(TILES * torch.get_num_threads(), MOST_TILES, together), *(across for _, _, across in grids), 1)

    def _scratch(self, cells: Sequence[Tensor], limit: int) -> _Scratch:
        sides = self.kernels.shape[0]
        numbers = limit * max(self.kernels.shape[1:])
        return _Scratch(*(cells[0].new_empty(numbers * side) for side in (sides, sides, self.size**2)))

    def _grid(self, features: Tensor) -> tuple[int, int, int]:
        """Images, rows, columns of tiles of [B, h, w, C]."""
        images, height, width, _ = features.shape
        return images, -(-height // self.size), -(-width // self.size)

    def _blocks(self, features: Tensor, channels: int, *, more: int = 0, reused: Tensor | None = None) -> Tensor:
        """Memory for a map in squares: [B, down, m, across, m, channels]."""
        images, down, across = self._grid(features)
        shape = (images, down + more, self.size, across + more, self.size, channels)
        if reused is not None and reused.numel() == math.prod(shape):
            return reused.permute(0, 2, 3, 1).view(shape)
        return features.new_empty(shape)

    def _transformed(
        self, cells: Sequence[Tensor], strip: Sequence[Piece], matrices: Transforms, scratch: _Scratch
    ) -> Tensor:
        """The strip's inputs [n * n, T, C], in `back`."""
        side, channels = self.size + 2, cells[0].shape[3]
        tiles = _shaped(scratch.front, side, side, sum(piece.tiles for piece in strip), channels)
        for piece, part in _parts(strip, tiles):
            lines = _lines(cells[piece.level][piece.images], piece, self.size, border=1)
            part.copy_(lines.unfold(1, side, self.size).unfold(2, side, self.size).permute(4, 5, 0, 1, 2, 3))
        flat = tiles.view(side * side, -1)
        return torch.mm(matrices.inputs, flat, out=_shaped(scratch.back, *flat.shape)).view(side * side, -1, channels)

    def _transformed_gradients(
        self, of_cells: Sequence[Tensor], strip: Sequence[Piece], matrices: Transforms, scratch: _Scratch
    ) -> Tensor:
        """Gradients of the strip's products [n * n, T, O], in `front`."""
        size, outputs = self.size, of_cells[0].shape[3]
        squares = _shaped(scratch.small, size, size, sum(piece.tiles for piece in strip), outputs)
        for piece, part in _parts(strip, squares):
            lines = _lines(of_cells[piece.level][piece.images], piece, size, border=0)
            part.copy_(_by_cell(lines.view(len(lines), -1, size, piece.across, size, outputs)))
        flat = squares.view(size * size, -1)
        products = _shaped(scratch.front, self.kernels.shape[0], flat.shape[1])
        return torch.mm(matrices.outputs.t(), flat, out=products).view(len(products), -1, outputs)

    def _add_tiles(
        self,
        sums: Sequence[Tensor],
        strip: Sequence[Piece],
        of_inputs: Tensor,
        matrices: Transforms,
        scratch: _Scratch,
    ) -> None:
        """Gradients of the strip's transformed inputs [n * n, T, C], added where the inputs lie; through `front`."""
        size, side = self.size, self.size + 2
        flat = of_inputs.flatten(1)
        tiles = torch.mm(matrices.inputs.t(), flat, out=_shaped(scratch.front, *flat.shape))
        for piece, part in _parts(strip, tiles.view(side, side, *of_inputs.shape[1:])):
            blocks = sums[piece.level][piece.images]
            for down, rows in enumerate((slice(0, size), slice(size, side))):
                for right, columns in enumerate((slice(0, size), slice(size, side))):
                    numbers = part[rows, columns]
                    below, beside = (
                        slice(piece.rows.start + down, piece.rows.stop + down),
                        slice(right, piece.across + right),
                    )
                    _by_cell(blocks[:, below, :, beside])[: len(numbers), : numbers.shape[1]].add_(numbers)


@dataclass(frozen=True, eq=False)
class _Scratch:
    """Memory that is taken once for all strips. Computations go to and fro between `front` and `back`."""

    front: Tensor
    back: Tensor
    small: Tensor  # of as many numbers as squares have


def _shaped(memory: Tensor, *shape: int) -> Tensor:
    """Its beginning, in this shape."""
    return memory[: math.prod(shape)].view(*shape)


def is_wide(weight: Tensor) -> bool:
    """Whether it is a 3x3 convolution's of so many channels that Winograd's way is the faster one on large maps.

    Where PyTorch was told to lower the precision of fp32 matrix products, which the algorithm would magnify, none is.
    """
    return weight.shape[2:] == (3, 3) and min(weight.shape[:2]) >= LEAST_CHANNELS and products_are_exact()


def pays_in_training(conv: nn.Conv2d, maps: Sequence[Tensor]) -> bool:
    """Whether F(4x4, 3x3) is the faster one where the weights are transformed anew at each step.

    Where gradients are off the digits stay those of the direct convolution, which golden values are compared with;
    where speed counts, `tood.models.for_inference` does more.
    """
    if not (torch.is_grad_enabled() and conv.weight.device.type == "cpu" and keeps_size_3x3(conv)):
        return False
    cells = sum(features.numel() // features.shape[1] for features in maps)
    in_fp32 = {conv.weight.dtype, *(arithmetic(features) for features in maps)} == {torch.float32}
    return in_fp32 and is_wide(conv.weight) and cells >= LEAST_CELLS


def transforms(size: int) -> Transforms:
    """The matrices for squares of `size`."""
    return Transforms(*(torch.from_numpy(matrix) for matrix in _matrices(size)))


@cache
def _matrices(size: int) -> tuple[NDArray[np.float32], ...]:
    """By interpolation at `POINTS` (Toom and Cook); not as tensors, which know the mode that they were made in."""
    points = np.array(POINTS[size])
    others = [np.delete(points, i) for i in range(len(points))]
    # Ascending coefficients of the polynomials that are 0 at all other points, the last one's at all of them.
    inputs = [[*np.poly(other)[::-1], 0.0] for other in others] + [np.poly(points)[::-1]]
    lengths = np.array([np.prod(point - other) for point, other in zip(points, others, strict=True)])
    taps = [*(np.vander(points, 3, increasing=True) / lengths[:, None]), (0.0, 0.0, 1.0)]
    outputs = np.vstack([np.vander(points, size, increasing=True), np.eye(size)[-1]]).T
    squared = (np.kron(rows, rows) for rows in map(np.array, (inputs, taps, outputs)))
    return tuple(matrix.astype(np.float32) for matrix in squared)


def _parts(strip: Sequence[Piece], tiles: Tensor) -> Iterator[tuple[Piece, Tensor]]:
    """Each piece with its share of [s, s, T, channels], as [s, s, images, rows, across, channels]."""
    start = 0
    for piece in strip:
        yield piece, tiles[:, :, start : start + piece.tiles].view(*tiles.shape[:2], *piece.shape, -1)
        start += piece.tiles


def _by_cell(blocks: Tensor) -> Tensor:
    """[B, down, m, across, m, C] -> [m, m, B, down, across, C], without a copy."""
    return blocks.permute(2, 4, 0, 1, 3, 5)


def _lines(images: Tensor, piece: Piece, size: int, border: int) -> Tensor:
    """The piece's lines of [b, h, W, C] with a border on all sides: whole squares, zeros outside of the image."""
    height, width = images.shape[1:3]
    start, end = piece.rows.start * size - border, piece.rows.stop * size + border
    above, below, right = max(-start, 0), max(end - height, 0), piece.across * size + border - width
    inside = images[:, start + above : end - below]
    return F.pad(inside, (0, 0, border, right, above, below)) if border or below or right else inside


def _dense(blocks: Tensor, border: int, shape: Sequence[int]) -> Tensor:
    """A map in squares [B, down, m, across, m, C] as [B, h, w, C], what lies beyond or in the border cut off."""
    whole = blocks.flatten(3, 4).flatten(1, 2)
    return whole[:, border : shape[1] + border, border : shape[2] + border].contiguous()
