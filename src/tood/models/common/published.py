"""What every family tells about published weight files: its tensors' names there, and its shape as they show it."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeVar

from torch import Tensor

from tood.errors import ToodError
from tood.models.common.detector import ModelConfig

ConfigT_co = TypeVar("ConfigT_co", bound=ModelConfig, covariant=True)


@dataclass(frozen=True)
class Names:
    """Published names of tensors and this package's, translated both ways.

    Attributes:
        pairs: (beginning of a published name, of ours), where # stands for a number and * for anything, the same in
            both. The first pair that fits decides; a name that none fits is the same on both sides.
    """

    pairs: tuple[tuple[str, str], ...]

    def ours(self, published: str) -> str:
        """This package's name of a published tensor."""
        return _replace_start(published, self._to_ours)

    def published(self, ours: str) -> str:
        """The published name of one of this package's tensors."""
        return _replace_start(ours, self._to_published)

    @cached_property
    def _to_ours(self) -> tuple[tuple[re.Pattern[str], str], ...]:
        return tuple((_pattern(published), _template(ours)) for published, ours in self.pairs)

    @cached_property
    def _to_published(self) -> tuple[tuple[re.Pattern[str], str], ...]:
        return tuple((_pattern(ours), _template(published)) for published, ours in self.pairs)


@dataclass(frozen=True)
class PublishedFile:
    """A file of weights on the web.

    Attributes:
        url: its address.
        sha256_prefix: first hexadecimal digits of its SHA-256; empty where nobody states it, so that the address alone
            vouches for the file.
    """

    url: str
    sha256_prefix: str


@dataclass(frozen=True)
class PackagedFile:
    """A file of weights that comes with an installed Python package.

    Attributes:
        package: its name for `import`.
        path: the file's within it.
        sha256_prefix: first hexadecimal digits of its SHA-256.
        extra: of this package's own, which installs it.
    """

    package: str
    path: str
    sha256_prefix: str
    extra: str


@dataclass(frozen=True)
class Hints:
    """What a file says about its network beside the tensors.

    Attributes:
        file_name: of the file; published ones tell the variant.
        model: `model` of the training framework's configuration, if the file holds it.
    """

    file_name: str = ""
    model: Mapping[str, Any] = field(default_factory=dict)

    def find(self, *keys: str) -> Any:
        """The value at these keys of `model`, one below the other; None if there is none."""
        value: Any = self.model
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def norm_groups(self, width: int) -> int:
        """Groups of the head's GroupNorms, which show in no tensor.

        If `model` does not say, 32 as all published heads have; in a head too narrow for these, groups of 4 channels.
        """
        said = self.find("bbox_head", "norm_cfg", "num_groups")
        return said if isinstance(said, int) and said > 0 else math.gcd(32, max(width // 4, 1))

    def anchor_scale(self, default: float) -> float:
        """Side of the head's anchors in strides, which shows in no tensor."""
        said = self.find("bbox_head", "anchor_generator", "octave_base_scale")
        return float(said) if isinstance(said, int | float) else default


class FamilyWeights(Protocol[ConfigT_co]):
    """What `models/<family>/weights.py` offers; the module itself is the implementation."""

    @property
    def FRAMEWORK_TYPES(self) -> tuple[str, ...]:  # noqa: N802 - a module's constant
        """Classes of its head, and of its whole network, in training frameworks' configurations."""

    @property
    def CLASSIFIER(self) -> tuple[str, ...]:  # noqa: N802 - a module's constant
        """Our names of the tensors that have one entry a class, # for the number of each level."""

    def layouts(self, names: Collection[str], /) -> tuple[str, ...]:
        """Layouts in which published code reads a network of these tensors (our names), the usual one first."""

    def matches(self, names: Collection[str]) -> bool:
        """Whether these are names of this family, in any layout, ours included."""

    def from_published(self, state: Mapping[str, Tensor], /) -> dict[str, Tensor]:
        """A state dict of any layout under our names."""

    def to_published(self, state: Mapping[str, Tensor], layout: str) -> dict[str, Tensor]:
        """Our state dict under the names of a layout."""

    def infer_config(self, state: Mapping[str, Tensor], hints: Hints) -> ConfigT_co:
        """The network that a state dict under our names belongs to."""


def rename(state: Mapping[str, Tensor], names: Names) -> dict[str, Tensor]:
    """A published state dict under our names.

    Raises:
        ToodError: if two of its names mean the same tensor.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        ours = names.ours(name)
        if ours in renamed:
            raise ToodError(f"{ours} stands twice in it, one of them as {name}: layouts cannot be mixed")
        renamed[ours] = tensor
    return renamed


def count(names: Iterable[str], pattern: str) -> int:
    """How many different numbers stand for the # of `pattern` at the beginning of the names."""
    matcher = _pattern(pattern)
    return len({match[1] for match in map(matcher.match, names) if match})


def named(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """Those of the names that are one of the patterns, in which # stands for a number."""
    matchers = [_pattern(pattern) for pattern in patterns]
    return [name for name in names if any(matcher.fullmatch(name) for matcher in matchers)]


def shape(state: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    """Shape of a tensor that a family cannot do without.

    Raises:
        ToodError: if it is missing or has another number of dimensions.
    """
    if name not in state:
        raise ToodError(f"{name} is missing in it")
    found = tuple(state[name].shape)
    if len(found) == dimensions and 0 in found:
        raise ToodError(f"{name} has the shape {list(found)}, which holds no number")
    if len(found) != dimensions:
        raise ToodError(f"{name} has the shape {list(found)}, where {dimensions} dimensions are expected")
    return found


def _replace_start(name: str, rules: tuple[tuple[re.Pattern[str], str], ...]) -> str:
    for pattern, template in rules:
        match = pattern.match(name)
        if match:
            return match.expand(template) + name[match.end() :]
    return name


def _pattern(start: str) -> re.Pattern[str]:
    return re.compile(re.escape(start).replace(r"\#", r"(\d+)").replace(r"\*", r"(.+)"))


def _template(start: str) -> str:
    pieces = re.split(r"[#*]", start)
    return pieces[0] + "".join(rf"\g<{i}>{piece}" for i, piece in enumerate(pieces[1:], 1))
