"""What backbones of several stages have in common: the first of them may be kept from learning."""

from __future__ import annotations

from torch import nn
from typing_extensions import Self

from tood.errors import SettingError


def check_frozen(frozen_stages: int, stages: int) -> None:
    """Refuses frozen stages that there are not.

    Raises:
        SettingError: if there are not so many stages, or the number is below -1.
    """
    if not -1 <= frozen_stages <= stages:
        raise SettingError(
            "model.backbone.frozen_stages",
            f"is {frozen_stages}: expected -1 (nothing is frozen), 0 (the stem), or up to {stages}, all of its stages",
        )


class StagedBackbone(nn.Module):
    """A backbone in stages, of which the first may be frozen.

    Args:
        frozen_stages: the stem and so many stages do not learn; 0 freezes the stem alone, -1 nothing.
        norm_eval: BatchNorms keep their running statistics while training.
    """

    def __init__(self, frozen_stages: int, norm_eval: bool) -> None:
        super().__init__()
        self._frozen_stages, self._norm_eval = frozen_stages, norm_eval

    def stages(self) -> list[list[nn.Module]]:
        """Its parts from the image on, the stem first: what is frozen, and learns at a rate of its own, together."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> Self:
        """As `nn.Module.train`, but frozen parts stay in evaluation mode, and all BatchNorms where so configured."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        if self._norm_eval:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def freeze(self) -> None:
        """Keeps the frozen stages' weights from learning; called once they are built."""
        for module in self._frozen_modules():
            module.requires_grad_(False)

    def _frozen_modules(self) -> list[nn.Module]:
        return [module for stage in self.stages()[: 1 + self._frozen_stages] for module in stage]
