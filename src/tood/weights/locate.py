"""From whatever a person calls weights to a file on this machine."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tood.errors import ToodError, one_line, require_local
from tood.models import AnyDetector, AnyModelConfig
from tood.weights.cache import FetchConfig
from tood.weights.model_file import load_detector_file
from tood.weights.published import detector_weights
from tood.zoo import named_models

HUB = "hf://"
# What a repository's weights are called where no file of it is named.
HUB_FILE = "model.safetensors"


@dataclass(frozen=True)
class LocatedWeights:
    """A file of weights.

    Attributes:
        path: the file.
        config: the architecture where it has a name, else None: the file itself then shows it.
    """

    path: Path
    config: AnyModelConfig | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The file, and the one beside it without which it is nothing: OpenVINO's .xml has its numbers in a .bin."""
        return (self.path, self.path.with_suffix(".bin")) if _is_openvino(self.path.name) else (self.path,)


def load_model(name_or_file: str | Path) -> tuple[AnyDetector, tuple[str, ...]]:
    """A trained model and its class names.

    Args:
        name_or_file: the name of a model (its published weights, fetched once), a file of weights of any layout that
            `load_detector_file` knows, the folder of a training run (its best.safetensors), or
            hf://OWNER/NAME[@REVISION][/FILE].

    Raises:
        ToodError: if there is none, it cannot be fetched, or it is the name of a model whose weights nobody published.
    """
    located = locate_weights(name_or_file)
    return load_detector_file(located.path, located.config)


def locate_weights(source: str | Path, fetching: FetchConfig = FetchConfig()) -> LocatedWeights:  # noqa: B008 - frozen
    """The file of these weights, fetched if need be.

    Args:
        source: a file, also one of `tood export`; the folder of a training run (its best.safetensors), a name of
            `named_models()` (the published weights), hf://OWNER/NAME or hf://OWNER/NAME@REVISION (its
            model.safetensors), or one of these with /FILE.
        fetching: patience with slow servers.

    Raises:
        ToodError: if there is no such file, or it cannot be fetched.
    """
    text = str(source)
    if text.startswith(HUB):
        return LocatedWeights(_hub_file(text))
    path = Path(source).expanduser()
    if path.is_file():
        return LocatedWeights(path)
    best = path / "best.safetensors"
    if best.is_file():
        return LocatedWeights(best)
    card = named_models().get(text)
    if card is not None:
        return LocatedWeights(detector_weights(card, fetching), card.config())
    if path.is_dir():
        raise ToodError(f"there is no best.safetensors in the folder {path}: has its training finished an epoch?")
    require_local(path)
    raise ToodError(f"there is no weights file {path}: check the path, or name a model of `tood models`")


def _is_openvino(name: str) -> bool:
    return name.lower().endswith(".xml")


def _hub_file(address: str) -> Path:
    """A file of a repository on the Hugging Face Hub, kept in that library's own cache with what it needs beside it."""
    match = re.fullmatch(r"hf://([^/@\s]+/[^/@\s]+)(?:@([^/\s]+))?(?:/(.*[^/]))?/?", address)
    if match is None:
        raise ToodError(f"{address} is no address on the Hugging Face Hub: expected hf://OWNER/NAME[@REVISION][/FILE]")
    repository, revision, name = match[1], match[2], match[3] or HUB_FILE

    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    names = [name, str(PurePosixPath(name).with_suffix(".bin"))] if _is_openvino(name) else [name]
    paths = []
    try:
        here_alone = not _is_hub_reached(repository, names[0], revision)
        for name in names:
            paths.append(Path(hf_hub_download(repository, name, revision=revision, local_files_only=here_alone)))
        return paths[0]
    except GatedRepoError as error:
        reason = f"{repository} asks its visitors to accept its terms: do so on its page, then `hf auth login`"
        raise ToodError(f"{address} cannot be fetched: {reason}") from error
    except RepositoryNotFoundError as error:
        reason = f"there is no repository {repository}, or it is private: check the name, or `hf auth login`"
        raise ToodError(f"{address} cannot be fetched: {reason}") from error
    except RevisionNotFoundError as error:
        raise ToodError(f"{address} cannot be fetched: {repository} has no revision '{revision}'") from error
    except LocalEntryNotFoundError as error:
        raise ToodError(
            f"{address} cannot be fetched: huggingface.co is not reached and the file is not in its cache; with a "
            "connection try again, or give the path of a copy"
        ) from error
    except EntryNotFoundError as error:
        hint = "" if match[3] else f"; name the file that it has, hf://{repository}/FILE"
        raise ToodError(f"{address} cannot be fetched: {repository} has no file {name}{hint}") from error
    except ValueError as error:
        raise ToodError(f"{address} is no address on the Hugging Face Hub: {one_line(error)}") from error
    except OSError as error:
        reason = one_line(error)
        raise ToodError(f"{address} cannot be fetched: {reason}") from error


def _is_hub_reached(repository: str, name: str, revision: str | None) -> bool:
    """Whether the hub answers, be it that it refuses.

    The library's download asks again and again where nobody is there, for half a minute, and prints a line each time.

    Raises:
        ValueError: if that is no name of a repository.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError

    address = hf_hub_url(repository, name, revision=revision)
    try:
        get_hf_file_metadata(address)
    except (HfHubHTTPError, ValueError):
        return True
    except Exception as error:
        # Its HTTP library's own errors, which are others in each of its versions: no connection, no answer.
        if not isinstance(error, OSError) and "http" not in type(error).__module__:
            raise
        return False
    return True
