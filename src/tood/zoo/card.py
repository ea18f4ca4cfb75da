"""A named model on one card: what it is, how it is trained, what was published of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from tood.alignment import TaskAlignedCriterionConfig
from tood.models import AnyCriterionConfig, AnyModelConfig
from tood.models.common.published import PublishedFile

Recipe: TypeAlias = Literal[
    "1x", "1.5x", "2x", "3x", "small", "transfer", "yolox", "yolox_light", "ppyoloe", "ppyoloe_plus"
]
"""Name of a training recipe (`tood.training.recipes`): the papers', those for small models and few pictures, and those
of other families.
"""


@dataclass(frozen=True)
class PublishedWeights:
    """Where a model's weights are on the web; all that are there so far know COCO's 80 classes.

    Attributes:
        hosted: the file that is fetched by the model's name, None where nobody hosts one for programs.
        authors_drive_id: the original authors' file on Google Drive, which only a person can download.
        licence: under which they are published, by its SPDX identifier.
    """

    hosted: PublishedFile | None
    authors_drive_id: str | None = None
    licence: str = "Apache-2.0"

    @property
    def authors_url(self) -> str | None:
        """The page from which a person downloads the authors' file."""
        if self.authors_drive_id is None:
            return None
        return f"https://drive.google.com/file/d/{self.authors_drive_id}/view"


@dataclass(frozen=True)
class ModelCard:
    """A model with a name.

    Attributes:
        name: by which people ask for it.
        config: returns its configuration.
        recipe: what it is meant to be trained by.
        published_ap: AP on COCO minival in percent, None where nothing was published. The paper's, where it has the
            model and the weights that are hosted for it differ by 0.2 at most (they were trained again), else theirs.
        published_ap_test_dev: AP on COCO test-dev in percent, None where nothing was published.
        differs: how what was measured differs from this network trained by this recipe, None where it does not.
        criterion: returns the configuration of its losses and assigners.
        weights: where they are, None where none were published.
        step_images: images a step of its published training, None for those of the recipe; the rate is in proportion.
        thaw_from: objects from which on its recipe lets all stages behind the backbone's stem learn, None for never.
    """

    name: str
    config: Callable[[], AnyModelConfig]
    recipe: Recipe
    published_ap: float | None = None
    published_ap_test_dev: float | None = None
    differs: str | None = None
    criterion: Callable[[], AnyCriterionConfig] = TaskAlignedCriterionConfig
    weights: PublishedWeights | None = None
    step_images: int | None = None
    thaw_from: int | None = None


def on_mmdetection(path: str, sha256_prefix: str, authors_drive_id: str | None = None) -> PublishedWeights:
    """Weights that MMDetection hosts, whose file names end in the beginning of their hash."""
    url = f"https://download.openmmlab.com/mmdetection/v2.0/{path}-{sha256_prefix}.pth"
    return PublishedWeights(PublishedFile(url, sha256_prefix), authors_drive_id)
