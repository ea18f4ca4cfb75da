"""Weights with their card to a repository on the Hugging Face Hub, or to a folder that looks like one."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from tood.errors import ToodError, first_line
from tood.version import own_version
from tood.weights.locate import HUB, HUB_FILE, load_model, locate_weights
from tood.weights.model_card import FIGURES, CardFacts, model_card, title_of
from tood.weights.safetensors_file import recorded_figures, save_weights
from tood.whole_file import scratch_folder, settle_unfinished, sha256_of, whole_folder

FOLDER = "file://"
_REPOSITORY = re.compile(r"hf://([^/@\s]+/[^/@\s]+)/?")
CARD = "README.md"


@dataclass(frozen=True)
class PushConfig:
    """How weights are published.

    Attributes:
        title: of the card; None takes the run's name.
        licence: of the weights, by its SPDX identifier; None claims none.
        dataset: what the figures were measured on.
        report: metrics.json of `tood eval`; None takes what training recorded in the file.
        private: whether a repository that is made now is seen by its owner alone.
        message: of the commit.
    """

    title: str | None = None
    licence: str | None = None
    dataset: str | None = None
    report: Path | None = None
    private: bool = False
    message: str = "Weights and card from tood"


def push_weights(source: str, target: str, config: PushConfig = PushConfig()) -> str:
    """Publishes weights as `model.safetensors` with a card, in one commit; `hf://OWNER/NAME` then loads them.

    Args:
        source: what `load_model` takes.
        target: hf://OWNER/NAME (the repository is made where there is none), or file://FOLDER, a new folder with what
            the repository would hold.
        config: what the card says, and how.

    Returns:
        The address or folder where they are.

    Raises:
        ToodError: if there are no such weights, the target is none, or the hub refuses.
    """
    repository = _REPOSITORY.fullmatch(target)
    if repository is None and not target.startswith(FOLDER):
        raise ToodError(f"{target} is no place to push to: expected hf://OWNER/NAME or file://FOLDER")
    figures = _figures(config.report)
    model, class_names = load_model(source)
    located = locate_weights(source)
    figures = figures or _recorded(located.path)

    def fill(folder: Path) -> None:
        save_weights(folder / HUB_FILE, model, class_names, source="", figures=recorded_figures(located.path))
        name = repository[1] if repository else Path(target[len(FOLDER) :]).resolve().name
        facts = CardFacts(
            address=f"{HUB}{name}" if repository else str(Path(target[len(FOLDER) :]) / HUB_FILE),
            title=config.title or title_of(located.path, model.config),
            figures=figures,
            dataset=config.dataset,
            licence=config.licence,
            version=own_version(),
            sha256=sha256_of(folder / HUB_FILE),
        )
        (folder / CARD).write_text(model_card(model.config, class_names, facts), encoding="utf-8")

    if repository is None:
        folder = Path(target[len(FOLDER) :]).expanduser()
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ToodError(f"{folder} exists already: name a new folder")
        settle_unfinished(folder, Path.rmdir)
        try:
            with whole_folder(folder) as part:
                fill(part)
        except OSError as error:
            raise ToodError(f"{folder} cannot be written: {error.strerror or error}") from error
        return str(folder)
    with scratch_folder() as made:
        fill(made)
        return _upload(repository[1], made, config)


def _upload(repository: str, folder: Path, config: PushConfig) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    hub = HfApi(library_name="tood", library_version=own_version())
    try:
        # None leaves the visibility of a repository that is there as it is.
        hub.create_repo(repository, private=config.private or None, exist_ok=True)
        hub.upload_folder(repo_id=repository, folder_path=folder, commit_message=config.message)
    except HFValidationError as error:
        raise ToodError(f"{HUB}{repository} is no name of a repository: {first_line(error)}") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status in (401, 403):
            raise ToodError(
                f"{HUB}{repository} cannot be written to: the hub does not know you as somebody who may; `hf auth "
                "login` with a token that has the right to write"
            ) from error
        raise ToodError(f"{HUB}{repository} cannot be written to: {first_line(error)}") from error
    except ValueError as error:
        raise ToodError(f"{HUB}{repository} cannot be written to: {first_line(error)}") from error
    except Exception as error:
        # Its HTTP library's own errors: no connection, no answer.
        if not isinstance(error, OSError) and "http" not in type(error).__module__:
            raise
        raise ToodError(f"{HUB}{repository} cannot be reached: {first_line(error)}") from error
    return f"{HUB}{repository}"


def _figures(report: Path | None) -> dict[str, float]:
    """The figures in a report of `tood eval`; none where no report is given."""
    if report is None:
        return {}
    try:
        content = json.loads(report.read_text("utf-8"))
        found = {name: float(content[name]) for name in FIGURES if content.get(name) is not None}
    except FileNotFoundError as error:
        raise ToodError(f"there is no report {report}: check the path") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ToodError(f"{report} is no report of tood eval: give its metrics.json") from error
    if "ap" not in found:
        raise ToodError(f"{report} has no AP: give the metrics.json of tood eval")
    return found


def _recorded(path: Path) -> dict[str, float]:
    """What training measured of its best weights."""
    figures = recorded_figures(path)
    return {"ap": figures["AP"]} if "AP" in figures else {}
