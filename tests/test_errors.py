"""Errors are told apart by their types, and PyTorch's, which have none, by what it really says."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
import yaml

from tood import yaml_text
from tood.configuration import apply_overrides
from tood.data import ImageTransfer, read_image
from tood.data.formats import open_folder
from tood.errors import PictureError, SettingError, ToodError, first_line, one_line, require_local
from tood.folder_lock import make_folder
from tood.inference.sources import expand
from tood.progress_bar import progress_bar
from tood.torch_errors import is_lost_connection, is_too_little_to_normalise, without_workers_traceback
from tood.training import RunConfig, SGDConfig
from tood.weights import locate_weights
from tood.whole_file import whole_file
from tood.yaml_text import is_bad_escape


@pytest.mark.parametrize(
    "error",
    [SettingError("optimizer.lr", "is 0: expected a number above 0"), PictureError("a: b.jpg", "is empty")],
    ids=["setting", "picture"],
)
def test_an_error_comes_whole_out_of_another_process(error: ToodError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_a_setting_s_error_knows_its_key() -> None:
    with pytest.raises(SettingError, match=r"^optimizer\.lr is 0") as caught:
        SGDConfig(lr=0)
    assert caught.value.key == "optimizer.lr"
    # The key stands in the sentence once, whether the check names the whole of it or the part that it knows.
    for setting, sentence in (
        ("optimizer.lr=0", "--set: optimizer.lr is 0"),
        ("model.input.divisor=0", "--set: model.input.divisor is 0"),
    ):
        with pytest.raises(ToodError) as raised:
            apply_overrides(RunConfig(), [setting])
        assert str(raised.value).startswith(sentence)


def test_a_value_of_no_type_of_a_union_names_all_of_them() -> None:
    with pytest.raises(ToodError, match=r"epochs.* is 'many': expected a whole number"):
        apply_overrides(RunConfig(), ["epochs=many"])


def test_a_picture_s_error_tells_name_and_reason_apart() -> None:
    # A name that holds what stands between the two.
    with pytest.raises(PictureError) as caught:
        read_image(b"", name="a: is empty.jpg")
    assert caught.value.reason == "is empty (zero bytes)"
    assert str(caught.value) == "a: is empty.jpg: is empty (zero bytes)"


def test_pytorch_still_says_what_is_looked_for() -> None:
    norm = torch.nn.BatchNorm2d(3)
    with pytest.raises(ValueError, match="1") as caught:
        norm(torch.zeros(1, 3, 1, 1))
    assert is_too_little_to_normalise(caught.value)
    assert not is_too_little_to_normalise(ValueError("another"))
    assert is_lost_connection(torch.distributed.DistNetworkError("gone"))
    assert not is_lost_connection(RuntimeError("size mismatch"))


class _UnreadableError(ToodError):
    def __init__(self, message: str) -> None:
        super().__init__(without_workers_traceback(type(self), message))


class _Broken(torch.utils.data.Dataset[int]):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        raise _UnreadableError("a.jpg: is empty")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_out_of_a_loading_process_is_its_sentence_alone(workers: int) -> None:
    with pytest.raises(_UnreadableError) as caught:
        next(iter(torch.utils.data.DataLoader(_Broken(), num_workers=workers)))
    assert str(caught.value) == "a.jpg: is empty"


def test_errors_of_others_fit_into_a_sentence() -> None:
    assert one_line(ValueError("two\n  lines")) == "two lines"
    assert first_line(ValueError("\nreason\nstack")) == "reason"
    assert one_line(TimeoutError()) == first_line(TimeoutError()) == "TimeoutError"


def test_a_progress_bar_is_silent_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("pictures", 3) as move:
        move(1, None)
        move(3, 3)
    assert capsys.readouterr() == ("", "")


def test_the_command_line_and_the_library_choose_among_the_same() -> None:
    from tood import choices
    from tood.cli import data as command

    assert ImageTransfer is choices.ImageTransfer is command.ImageTransfer


def test_yaml_that_fails_at_a_backslash_is_told_from_other_yaml() -> None:
    def failure(text: str) -> yaml.YAMLError:
        with pytest.raises(yaml.YAMLError) as caught:
            yaml_text.parse(text)
        return caught.value

    assert is_bad_escape(failure(r'path: "C:\data"'))
    assert is_bad_escape(failure(r'path: "\x"'))
    assert not is_bad_escape(failure("escape: [1"))
    assert not is_bad_escape(failure("a: 1\na: escape"))


def test_an_address_of_a_bucket_makes_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("runs/s3:/x", "C:/x", "gs", "."):
        require_local(path)
    out = Path("s3://bucket/run/x.json")
    made: list[Path] = []
    with pytest.raises(ToodError, match=r"s3://bucket/run/.* is not on this machine"), whole_file(out):
        raise AssertionError
    with pytest.raises(ToodError, match="s3://bucket/run is not"):
        make_folder(out.parent, made)
    for read in (lambda path: list(expand(path)), open_folder, locate_weights):
        with pytest.raises(ToodError, match="is not on this machine"):
            read(str(out))
    assert not list(tmp_path.iterdir())
