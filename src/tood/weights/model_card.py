"""The page that a model has on the Hugging Face Hub: what it finds, how well, what it costs, how it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tood.errors import quoted
from tood.models import AnyModelConfig
from tood.models.measure import measure
from tood.weights.model_file import describe_architecture

# Figures of `tood eval` in COCO's order -> how they are called in tables, and by the hub.
FIGURES: Mapping[str, tuple[str, str]] = {
    "ap": ("AP (IoU 0.50:0.95)", "mAP"),
    "ap50": ("AP50", "mAP@50"),
    "ap75": ("AP75", "mAP@75"),
    "ap_small": ("AP, objects up to 32² px", "mAP small"),
    "ap_medium": ("AP, 32² to 96² px", "mAP medium"),
    "ap_large": ("AP, above 96² px", "mAP large"),
    "ar100": ("AR, at most 100 detections", "mAR@100"),
}
_CLASSES_SHOWN = 100


@dataclass(frozen=True)
class CardFacts:
    """What a card says beside what the weights show.

    Attributes:
        address: hf://OWNER/NAME by which people load it.
        title: of the page.
        figures: in 0..1, by COCO's names; empty where nothing was measured.
        dataset: what they were measured on.
        licence: of the weights, by its SPDX identifier; the page claims none where none is given.
        version: of tood.
        sha256: of the file of weights.
    """

    address: str
    title: str
    figures: Mapping[str, float] = field(default_factory=dict)
    dataset: str | None = None
    licence: str | None = None
    version: str = ""
    sha256: str = ""


def model_card(config: AnyModelConfig, class_names: Sequence[str], facts: CardFacts) -> str:
    """The card as markdown, with the metadata in front that the hub reads.

    Args:
        config: the network.
        class_names: name of every class, indexed by label.
        facts: the rest.
    """
    cost = measure(config)
    height, width = cost.size
    shown = ", ".join(f"`{_plain(name)}`" for name in class_names[:_CLASSES_SHOWN])
    more = len(class_names) - _CLASSES_SHOWN
    parts = [
        f"---\n{yaml.safe_dump(_metadata(facts), sort_keys=False, allow_unicode=True)}---",
        f"# {_plain(facts.title)}",
        f"An object detector: {describe_architecture(config)}, made with tood {facts.version}.",
        "## Use",
        f"```\npip install tood\ntood predict --model {quoted(facts.address)} photo.jpg\n```",
        "```python\nfrom tood import Detector\n\n"
        f'detector = Detector("{facts.address}", threshold=0.3)\n'
        'found = detector("photo.jpg")\nfound.boxes, found.scores, found.names\n```',
        f"`tood train --from {quoted(facts.address)} --data my_pictures` goes on from these weights.",
        "## Figures",
        _figures(facts),
        "## Cost",
        "| | |\n|---|---:|\n"
        f"| parameters | {cost.parameters / 1e6:.1f} M |\n"
        f"| multiply-adds at {width} x {height} | {cost.multiply_adds / 1e9:.1f} G |\n"
        f"| weights | {cost.weight_bytes / 2**20:.0f} MiB |",
        "## Classes",
        shown + (f" and {more:,} more" if more > 0 else ""),
        *([f"SHA-256 of `model.safetensors`: `{facts.sha256}`"] if facts.sha256 else []),
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(facts: CardFacts) -> dict[str, Any]:
    metadata: dict[str, Any] = {"library_name": "tood", "pipeline_tag": "object-detection"}
    if facts.licence is not None:
        metadata["license"] = facts.licence.lower()
    metadata["tags"] = ["object-detection", "tood", "safetensors"]
    measured = [
        {"type": "mean_average_precision", "name": called, "value": round(facts.figures[name], 4)}
        for name, (_, called) in FIGURES.items()
        if facts.figures.get(name, -1) >= 0
    ]
    if measured:
        dataset = facts.dataset or "validation split of its training"
        metadata["model-index"] = [
            {
                "name": facts.title,
                "results": [
                    {
                        "task": {"type": "object-detection"},
                        "dataset": {"name": dataset, "type": _identifier(dataset)},
                        "metrics": measured,
                    }
                ],
            }
        ]
    return metadata


def _figures(facts: CardFacts) -> str:
    rows = [
        f"| {title} | {100 * facts.figures[name]:.1f} |"
        for name, (title, _) in FIGURES.items()
        if facts.figures.get(name, -1) >= 0
    ]
    if not rows:
        return "Nobody has told how well it finds them: `tood eval` measures it."
    where = f"{_plain(facts.dataset)}, by" if facts.dataset else "The validation split during its training, by"
    return f"{where} COCO's rules, in percent:\n\n| | |\n|---|---:|\n" + "\n".join(rows)


def _identifier(text: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else " " for letter in text.lower()).split()) or "dataset"


def _plain(text: str) -> str:
    """A text of somebody's, of which markdown is to make nothing."""
    return " ".join(text.split()).replace("`", "'").replace("|", "/").replace("<", "(").replace(">", ")")


def title_of(path: Path, config: AnyModelConfig) -> str:
    """A title for weights that were given none: the folder of their run, or their file's name."""
    name = path.parent.name if path.stem in ("best", "model") and path.parent.name else path.stem
    return name or config.family
