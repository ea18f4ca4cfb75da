"""`Detector`: a trained model that takes images of any source and gives `Detections`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray

from tood.choices import PredictionPrecision
from tood.data.images import DecodedImage
from tood.data.images.opening import open_windows
from tood.data.images.windows import ArrayWindows, Windows
from tood.data.notes import SourceNotes
from tood.engines import Engine, is_exported
from tood.errors import ToodError
from tood.inference.devices import check_device
from tood.inference.exported import engine_precision, engine_predictor, load_engine
from tood.inference.predictor import Predictor, read_ahead
from tood.inference.sources import ImageSource, Source, SourceConfig, expand_all, is_many
from tood.inference.tiles import TileConfig, detect_in_tiles
from tood.input import Geometry, InputConfig, prepare, stacked
from tood.models import AnyDetector, for_inference
from tood.ops.allocator import return_freed_memory
from tood.precision import choose_precision
from tood.structures import Detections
from tood.weights import load_model


class Detector:
    """Finds objects in images.

        detector = Detector("tood_r50_fpn_1x", threshold=0.3)  # or "runs/x/best.safetensors"
        result = detector("photo.jpg")
        result.boxes, result.scores, result.names

    Attributes:
        class_names: name of every class, indexed by label.
        device: where it computes.
        precision: "fp32" or "bf16", and why: for people.
        config: thresholds and limits of the detections.
        sources: how images are fetched and read.
    """

    def __init__(
        self,
        name_or_file: str | Path,
        device: torch.device | str | None = None,
        threshold: float | None = None,
        *,
        precision: PredictionPrecision = "auto",
        sources: SourceConfig = SourceConfig(),  # noqa: B008 - frozen
    ) -> None:
        """Loads a model.

        Args:
            name_or_file: a model's name (its published weights are fetched once), a file of weights, the folder of a
                training run, hf://OWNER/NAME, or a file of `tood export` (.onnx, .xml, .pt2).
            device: such as "cpu" or "cuda:1"; None picks the accelerator if there is one.
            threshold: only detections of a higher score are given; pictures for people want about 0.3. None takes the
                model's own, which is low (0.01 for `tood_lite0`, 0.05 for TOOD as published), as AP counts uncertain
                detections too: up to 100 an image, most of them wrong.
            precision: what the network computes in; boxes and scores always are fp32. "auto" is bf16 on a CPU that has
                instructions for it (scores differ in the third digit, AP by less than 0.2), else fp32. An exported
                file has its own.
            sources: how images are fetched and read.

        Raises:
            ToodError: if there is no such model or device.
        """
        if is_exported(name_or_file):
            # Engines decide for themselves what they compute on; the CPU unless another is asked for.
            self.device = torch.device("cpu") if device is None else check_device(device)
            engine = load_engine(name_or_file, self.device)
            self.precision = engine_precision(engine, precision)
            self._set_up(engine_predictor(engine), engine.description.class_names, threshold, sources)
            return
        model, class_names = load_model(name_or_file)
        self._set_up_model(model, class_names, device, threshold, precision, sources)
        del model  # what computes is a copy
        return_freed_memory()

    @classmethod
    def from_model(
        cls,
        model: AnyDetector,
        class_names: Sequence[str],
        device: torch.device | str | None = None,
        threshold: float | None = None,
        *,
        precision: PredictionPrecision = "auto",
        sources: SourceConfig = SourceConfig(),  # noqa: B008 - frozen
    ) -> Detector:
        """A detector of a model in memory, which it moves to `device` and puts into evaluation mode.

        What computes is a faster copy of it: for weights that changed since make another detector.
        """
        detector = cls.__new__(cls)
        detector._set_up_model(model, class_names, device, threshold, precision, sources)
        return detector

    @classmethod
    def from_engine(
        cls,
        engine: Engine,
        threshold: float | None = None,
        *,
        sources: SourceConfig = SourceConfig(),  # noqa: B008 - frozen
    ) -> Detector:
        """A detector of an exported model in memory."""
        detector = cls.__new__(cls)
        detector.device, detector.precision = torch.device("cpu"), engine_precision(engine, "auto")
        detector._set_up(engine_predictor(engine), engine.description.class_names, threshold, sources)
        return detector

    def _set_up_model(
        self,
        model: AnyDetector,
        class_names: Sequence[str],
        device: torch.device | str | None,
        threshold: float | None,
        precision: PredictionPrecision,
        sources: SourceConfig,
    ) -> None:
        self.device = check_device(device)
        chosen = choose_precision(precision, self.device)
        self.precision = str(chosen)
        # The network itself is not kept: a second set of weights.
        network = for_inference(model.to(self.device).eval(), chosen.dtype)
        predictor = Predictor(network, model.config.input, model.config.postprocess, self.device)
        self._set_up(predictor, class_names, threshold, sources)

    def _set_up(
        self, predictor: Predictor, class_names: Sequence[str], threshold: float | None, sources: SourceConfig
    ) -> None:
        self.class_names = tuple(class_names)
        self.config = predictor.postprocess
        self._predictor = predictor
        if threshold is not None:
            if not 0 <= threshold <= 1:
                raise ToodError(f"threshold is {threshold}: give a score from 0 to 1")
            self.config = replace(self.config, score_threshold=threshold)
        self.sources = sources

    @property
    def input(self) -> InputConfig:
        """What the network expects of a picture."""
        return self._predictor.input

    def with_threshold(self, threshold: float) -> Detector:
        """The same detector, sharing its weights, with another least score."""
        other = copy(self)
        other.config = replace(self.config, score_threshold=threshold)
        return other

    @overload
    def __call__(self, source: Source, *, keep_image: bool = True, batch_size: int = 1) -> Detections: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(
        self, source: Iterable[Source], *, keep_image: bool = True, batch_size: int = 1
    ) -> list[Detections]: ...
    def __call__(
        self, source: Source | Iterable[Source], *, keep_image: bool = True, batch_size: int = 1
    ) -> Detections | list[Detections]:
        """The objects in one image, or in several.

        Args:
            source: an image file, a URL (http, https), bytes of an image file, a uint8 array [H, W, 3] RGB or [H, W]
                grey, or a PIL image: one `Detections`. A folder (with its sub-folders), a glob pattern, or a list or
                any other iterable of these: a list.
            keep_image: carry the image in the result, as `plot` needs; turn off for very many images, or use `stream`.
            batch_size: images computed at once. They are padded to one size, and what a network finds near an image's
                border depends on its padding: scores and boxes may differ a little from those of batch size 1.

        Raises:
            ToodError: at the first image that cannot be read.
        """
        results = list(self.stream(source, keep_image=keep_image, batch_size=batch_size))
        return results if is_many(source) else results[0]

    def stream(
        self,
        sources: Source | Iterable[Source],
        *,
        keep_image: bool = False,
        batch_size: int = 1,
        on_error: Callable[[str, ToodError], None] | None = None,
    ) -> Iterator[Detections]:
        """The same, one image after the other, holding no more than two batches of images in memory: the one that is
        computed, and the next, which is read meanwhile.

        Args:
            sources: as for calling the detector; any iterable will do, also one that gives the same array each time,
                filled anew: it is copied when it is taken.
            keep_image, batch_size: as for calling the detector.
            on_error: called with the image's name and the error for each image that cannot be read, which is then left
                out; None raises the error.
        """
        if batch_size < 1:
            raise ToodError(f"batch_size is {batch_size}: give at least 1")
        batch: list[_Picture] = []
        notes = SourceNotes()
        taken = (source.taken(self.sources) for source in expand_all(sources))
        for picture in read_ahead(taken, self._read, batch_size):
            try:
                batch.append(picture())
                notes.add(batch[-1].source.name, batch[-1].decoded)
            except _UnreadableError as error:
                if on_error is None:
                    raise error.reason from None
                on_error(error.name, error.reason)
            if len(batch) == batch_size:
                yield from self._detect(batch, keep_image)
                batch = []
            del picture  # which holds what it gave
        yield from self._detect(batch, keep_image)
        notes.tell()

    def in_tiles(
        self,
        source: str | Path | NDArray[np.uint8],
        config: TileConfig = TileConfig(),  # noqa: B008 - frozen
        *,
        batch_size: int = 4,
    ) -> Detections:
        """The objects in a picture of any size, which is looked at tile by tile and never held whole.

        Args:
            source: a TIFF file (tiled, striped, BigTIFF, GeoTIFF, whole-slide), which is read by windows and needs
                tifffile (the extra `big`); any other picture file, or a uint8 array [H, W, 3] RGB, which is cut.
            config: size of the tiles, overlap and merging.
            batch_size: tiles computed together.

        Returns:
            Each object once, without the picture; as many as there are.

        Raises:
            ToodError: if it cannot be read.
        """
        if isinstance(source, np.ndarray):
            picture: Windows = ArrayWindows("array", ImageSource("array", source).read(self.sources))
        else:
            picture = open_windows(source, exif=self.sources.exif)
        found = detect_in_tiles(self, picture, config, batch_size=batch_size)
        assert found is not None
        return found

    def _read(self, source: ImageSource) -> _Picture:
        try:
            decoded = source.decode(self.sources)
        except ToodError as error:
            raise _UnreadableError(source.name, error) from error
        return _Picture(source, decoded, self.prepare(decoded.pixels))

    def _detect(self, pictures: Sequence[_Picture], keep_image: bool) -> list[Detections]:
        found = self.detect([picture.prepared for picture in pictures])
        return [
            replace(one, path=picture.source.path, image=picture.decoded.pixels if keep_image else None)
            for picture, one in zip(pictures, found, strict=True)
        ]

    def prepare(self, pixels: NDArray[np.uint8]) -> PreparedImage:
        """An image [H, W, 3] RGB as the network wants it: the half of a prediction that other threads may do ahead."""
        laid_out, geometry = prepare(pixels, self._predictor.input)
        return PreparedImage(laid_out, geometry, self._predictor.input.padded(*laid_out.shape[:2]))

    def detect(self, images: Sequence[PreparedImage]) -> list[Detections]:
        """The objects in prepared images, which are computed at once: the other half.

        Images of unlike `PreparedImage.padded` are padded to one size, which may change what is found near borders.
        """
        if not images:
            return []
        pixels = stacked([image.pixels for image in images], self._predictor.input)
        predictor = replace(self._predictor, postprocess=self.config)
        found = predictor(torch.from_numpy(pixels).permute(0, 3, 1, 2), [image.geometry for image in images])
        return [
            # Copies made outside of inference mode are ordinary tensors.
            Detections(
                boxes=one.boxes.cpu().clone(),
                scores=one.scores.cpu().clone(),
                labels=one.labels.cpu().clone(),
                class_names=self.class_names,
            )
            for one in found
        ]


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """An image as a network wants it.

    Attributes:
        pixels: [h, w, 3] uint8 RGB, scaled and on its canvas.
        geometry: where the image lies on it.
        padded: height and width of the network's input where the image is computed alone.
    """

    pixels: NDArray[np.uint8]
    geometry: Geometry
    padded: tuple[int, int]


@dataclass(frozen=True, eq=False)
class _Picture:
    """A picture that was read, and what the network is given of it."""

    source: ImageSource
    decoded: DecodedImage
    prepared: PreparedImage


class _UnreadableError(Exception):
    """Why the picture of a name cannot be read."""

    def __init__(self, name: str, reason: ToodError) -> None:
        super().__init__(name)
        self.name, self.reason = name, reason
