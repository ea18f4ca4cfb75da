"""From a trained model to a file that runs elsewhere, with a certificate of what it is worth."""

from __future__ import annotations

import copy
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from tood.engines import Engine, ExportedModel, FixedInput, PriorGrid, open_exported
from tood.engines.extras import needed
from tood.errors import ToodError
from tood.evaluation import evaluate
from tood.export.certificate import ApChange, Certificate, versions
from tood.export.config import ExportConfig, rows_of
from tood.export.lower_precision import FLOAT_PARTS, in_half, in_int8
from tood.export.network import export_dimensions
from tood.export.onnx_graph import network_graph, whole_graph, without_traces
from tood.export.openvino_model import operators, quantised, save_openvino, to_openvino
from tood.export.parity import compare
from tood.export.sample_pictures import CALIBRATING, COMPARED, pictures_of, prepared_images, require_pictures
from tood.export.torch_program import operators_of, save_program, whole_program
from tood.models import AnyDetector
from tood.models.common import TopKConfig
from tood.stop import stopped_after
from tood.version import own_version
from tood.whole_file import remove_unfinished, scratch_folder, sha256_of, whole_file

if TYPE_CHECKING:
    from onnx import ModelProto

    from tood.data import DetectionDataset

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Origin:
    """What is exported.

    Attributes:
        model: the network.
        class_names: of its classes.
        source: what it was called.
        licence: SPDX identifier of its weights' licence, empty where nobody said.
        weights: its file, None where it has none.
    """

    model: AnyDetector
    class_names: tuple[str, ...]
    source: str = ""
    licence: str = ""
    weights: Path | None = None


@dataclass(frozen=True, eq=False)
class Proof:
    """What an exported file is measured on.

    Attributes:
        data: dataset on which AP is measured before and after, None: AP is not measured.
        pictures: what results are compared on: a dataset or folder of pictures; None takes built-in scenes.
        calibration: what the ranges of int8 are learnt from.
        batch_size: images at once when AP is measured.
        workers: processes that load them; None picks what suits the machine.
    """

    data: DetectionDataset | None = None
    pictures: str | None = None
    calibration: str | None = None
    batch_size: int = 4
    workers: int | None = None


def export_model(
    origin: Origin,
    out: Path,
    config: ExportConfig,
    proof: Proof = Proof(),
    *,
    allow_loss: bool = False,
    say: Say = lambda _: None,
) -> Certificate:
    """Writes a model as a file for an engine, and its certificate beside it: all of them whole, the model last.

    Args:
        origin: what is exported.
        out: the file to write; its name ends as the format's do.
        config: what it is exported as.
        proof: what it is measured on.
        allow_loss: write it even where it is beyond the tolerance.
        say: told what is being done.

    Raises:
        ToodError: if the model has no such graph, an engine is not installed, or the file's results are beyond the
            tolerance, which the message tells.
    """
    if out.suffix != config.suffix:
        raise ToodError(f"{out} is no name for what is written: name a file that ends in {config.suffix}")
    # What cannot be is told before the work.
    for path in (out, *certificate_files(out), *([out.with_suffix(".bin")] if config.format == "openvino" else [])):
        if path.is_dir():
            raise ToodError(f"{path} is a folder: name another file with --out")
    require_packages(config)
    if config.precision == "int8":
        if proof.calibration is None:
            raise ToodError("int8 learns the range of values from pictures: give a dataset or folder with --calibrate")
        require_pictures(proof.calibration, CALIBRATING)
        if proof.data is None and not allow_loss:
            raise ToodError("what int8 loses is told by the AP alone: give a dataset with --data (or --allow-loss)")
    if (source := proof.pictures or proof.data) is not None:
        require_pictures(source, COMPARED)
    work = Export.of(origin, config, proof, say)
    with scratch_folder() as folder:
        built, certificate = work.best(folder, out.name)
        if certificate.complaints and not allow_loss:
            # What fp16 loses is told by the AP, too.
            instead = "with --data the AP decides, " if config.precision == "fp16" and proof.data is None else ""
            told = "; ".join(certificate.complaints)
            raise ToodError(f"{out} is not written: {told} ({instead}--allow-loss writes it all the same)")
        put_in_place(built, out, (certificate.as_json(), certificate.as_page()))
    return certificate


def put_in_place(built: Sequence[Path], out: Path, certificate: tuple[str, str]) -> None:
    """Copies an exported file, and what belongs to it, to where it is to be; the model takes its place last.

    If anything cannot be written, all is as it was. An old model goes before anything else takes its place: a process
    that is killed meanwhile leaves it, or the new one, or none, but never a model beside what belongs to the other.
    What it leaves of temporary files goes at the next time.

    Args:
        built: the files, the one that is opened first; each gets `out`'s name with its own ending.
        out: the file that is opened.
        certificate: for programs and for people.

    Raises:
        ToodError: if a file cannot be written.
    """
    remove_unfinished(out.parent)
    with stopped_after(), ExitStack() as stack:
        # What is entered last takes its place first: the model comes when all that belongs to it is there.
        for path in built:
            shutil.copyfile(path, stack.enter_context(whole_file(out.with_suffix(path.suffix), durable=True)))
        for path, text in zip(certificate_files(out), certificate, strict=True):
            stack.enter_context(whole_file(path, durable=True)).write_text(text, encoding="utf-8")
        out.unlink(missing_ok=True)


def require_packages(config: ExportConfig) -> None:
    """Looks for what the format is written and run with.

    Raises:
        ToodError: if a package is not installed; the message has the command.
    """
    if config.format == "torch":
        return
    purpose = f"to export as {config.suffix}"
    for module in ("onnx", "onnxscript"):
        needed(module, "export", purpose)
    if config.format == "openvino":
        needed("openvino", "openvino", purpose)
        if config.precision == "int8":
            needed("nncf", "openvino", f"{purpose} in int8")
    else:
        needed("onnxruntime", "export", purpose)


def certificate_files(out: Path) -> tuple[Path, Path]:
    """Names of an exported file's certificate, for programs and for people."""
    return out.with_name(f"{out.name}.certificate.json"), out.with_name(f"{out.name}.certificate.md")


def description_of(origin: Origin, config: ExportConfig) -> ExportedModel:
    """What the file is to say of itself, and by that which of two heads it shows.

    Args:
        origin: the model, on the CPU and in evaluation mode.
        config: what it is exported as; with the graph "topk" the file's post-processing is that of a head that gives
            each object once, whatever the model's own is.

    Raises:
        ToodError: if the model has no such graph, or cannot have such a size.
    """
    model, own = origin.model, origin.model.config
    if config.size is not None:
        FixedInput.of(own.input, *config.size)
    example, _ = export_dimensions(model, config)
    with torch.inference_mode():
        predictions = model(example[:1])
    suppression = own.postprocess
    if config.graph == "topk" and not isinstance(suppression, TopKConfig):
        if predictions.one_to_one is None:
            raise ToodError(
                f"the graph 'topk' is for heads that give each object once, which {own.family}'s does not: "
                "take --graph nms"
            )
        best = TopKConfig(suppression.score_threshold, rows_of(suppression), suppression.clip, suppression.ranking)
        own = replace(own, postprocess=best)
    if config.graph == "nms" and isinstance(suppression, TopKConfig):
        raise ToodError("this model gives each object once and suppresses nothing: choose --graph topk")
    return ExportedModel(
        own,
        origin.class_names,
        config.graph,
        config.raw,
        config.precision,
        PriorGrid.of(predictions.priors),
        config.size,
        config.batch,
        0 if config.graph == "dense" else rows_of(own.postprocess),
        origin.licence,
        own_version(),
        origin.source,
        "" if origin.weights is None else sha256_of(origin.weights),
    )


@dataclass(frozen=True, eq=False)
class Export:
    """One export; see `export_model`. Made by `Export.of`.

    Attributes:
        origin: what is exported, a copy on the CPU and in evaluation mode that predicts what the file is to give.
        config: what it is exported as.
        proof: what it is measured on.
        description: what the file is to say of itself.
        say: told what is being done.
    """

    origin: Origin
    config: ExportConfig
    proof: Proof
    description: ExportedModel
    say: Say

    @staticmethod
    def of(origin: Origin, config: ExportConfig, proof: Proof = Proof(), say: Say = lambda _: None) -> Export:
        """Looks at the model; for errors see `description_of`."""
        # The caller's network may be elsewhere, or in training, and stays so.
        origin = replace(origin, model=copy.deepcopy(origin.model).cpu().eval())
        description = description_of(origin, config)
        # The graph, the comparison and AP read the head that the file shows.
        origin.model.config = description.model
        return Export(origin, config, proof, description, say)

    def best(self, folder: Path, name: str) -> tuple[list[Path], Certificate]:
        """The files, and what is known of them: of those with the most in int8 that are within the tolerance."""
        config, model = self.config, self.origin.model
        before = self._ap(model)
        if config.format == "torch":
            self.say("PyTorch's exporter")
            return self._certified([folder / name], (), before, self.program(folder / name))
        self.say("PyTorch's exporter to ONNX")
        network = network_graph(model, config)
        choices = FLOAT_PARTS if config.precision == "int8" else FLOAT_PARTS[:1]
        for float_parts in choices:
            built, found = self.files(network, folder / name, float_parts)
            result = self._certified(built, float_parts, before, found)
            # Without an AP to keep, others would be no better.
            if not result[1].complaints or (config.precision == "int8" and (before is None or before <= 0)):
                break
        return result

    def program(self, path: Path) -> dict[str, int]:
        """Writes the model as PyTorch's program: its operators."""
        program = whole_program(self.origin.model, self.description)
        save_program(program, path, self.description)
        return operators_of(program)

    def files(
        self, network: ModelProto, path: Path, float_parts: tuple[str, ...] = ()
    ) -> tuple[list[Path], dict[str, int]]:
        """Writes the model, as ONNX or OpenVINO's: its files, the one that is opened first, and its operators.

        Args:
            network: its own graph (`network_graph`), which is left as it is.
            path: the file that is opened.
            float_parts: parts of the network that stay in floating point in int8.
        """
        import onnx

        config = self.config
        proto = type(network)()
        proto.CopyFrom(network)
        if config.format == "onnx":
            if config.precision == "fp16":
                proto = in_half(proto)
            elif config.precision == "int8":
                self.say(f"calibration{_told(float_parts)}")
                proto = in_int8(proto, self._calibration(), float_parts)
            proto = whole_graph(proto, self.description)
            without_traces(proto)
            onnx.checker.check_model(proto)
            onnx.save(proto, path)
            return [path], dict(sorted(Counter(node.op_type for node in proto.graph.node).items()))
        proto = whole_graph(proto, self.description)
        model = to_openvino(proto)
        if config.precision == "int8":
            self.say(f"calibration{_told(float_parts)}")
            model = quantised(model, proto, self._calibration_inputs(), float_parts)
        save_openvino(model, path, self.description)
        return [path, path.with_suffix(".bin")], operators(model)

    def _certified(
        self, built: list[Path], float_parts: tuple[str, ...], before: float | None, found: dict[str, int]
    ) -> tuple[list[Path], Certificate]:
        engine = open_exported(built[0])
        self.say("comparison with PyTorch")
        data = self.proof.data
        pictures = pictures_of(self.proof.pictures or data, COMPARED)
        source = self.proof.pictures or (None if data is None else f"{data.root}, split {data.split}")
        cases = tuple(compare(self.origin.model, engine, pictures))
        ap = None
        if data is not None and before is not None:
            ap = ApChange(str(data.root), data.split, len(data), before, self._ap(engine) or 0.0)
        certificate = Certificate(
            {path.name: sha256_of(path) for path in built},
            sum(path.stat().st_size for path in built),
            self.description,
            engine.kind,
            f"{len(pictures)} pictures of {source}" if source else f"{len(pictures)} built-in scenes of digits",
            cases,
            ap,
            found,
            versions(),
            float_parts,
        )
        return built, certificate

    def _ap(self, model: AnyDetector | Engine) -> float | None:
        data = self.proof.data
        if data is None:
            return None
        self.say(f"AP on {len(data)} images")
        proof = self.proof
        names = self.origin.class_names
        return evaluate(model, data, names, batch_size=proof.batch_size, workers=proof.workers).ap

    def _calibration(self) -> list[NDArray[np.float32]]:
        pictures = pictures_of(self.proof.calibration, CALIBRATING)
        return list(prepared_images(pictures, self.description.network_input, self.config.batch or 1))

    def _calibration_inputs(self) -> Sequence[dict[str, NDArray[Any]]]:
        """The graph's own inputs."""
        batch = self.config.batch or 1
        if self.description.raw:
            return [
                {"images": np.stack([picture] * batch)} for picture in pictures_of(self.proof.calibration, CALIBRATING)
            ]
        inputs: list[dict[str, NDArray[Any]]] = [{"images": image} for image in self._calibration()]
        if self.description.wants_windows:
            for one in inputs:
                height, width = one["images"].shape[2:]
                one["windows"] = np.array([[0, 0, width, height]] * batch, np.float32)
        return inputs


def _told(float_parts: tuple[str, ...]) -> str:
    return f", {' and '.join(float_parts)} in floating point" if float_parts else ""
