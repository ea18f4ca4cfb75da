"""`tood doctor`: what is installed, what is missing, and what would make this machine faster."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from tood.machine import processor_flags

State = Literal["ok", "faster", "missing", "broken"]

_GIB = 2**30
# Less than this is soon full: weights, checkpoints, a dataset's cache.
_LEAST_DISK, _LEAST_MEMORY, _LEAST_SHARED = 5 * _GIB, 2 * _GIB, _GIB // 2
# Instructions of CPUs in the order of what they bring, by the flags that Linux has for them.
_INSTRUCTIONS = ("amx_bf16", "amx_int8", "avx512_bf16", "avx512_vnni", "avx512f", "avx2", "bf16", "asimd")
_SIGNS = {"ok": "ok     ", "faster": "faster ", "missing": "missing", "broken": "BROKEN "}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: what.
        state: "ok"; "faster": something would help; "missing": what some commands need; "broken": what all need.
        found: what there is.
        remedy: what to do; empty where nothing is to be done.
    """

    subject: str
    state: State
    found: str
    remedy: str = ""


def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Look at this machine: what is installed, what is missing, and what would make it faster.

    It changes nothing and asks no server. Exit code 2 if something is broken that every command needs.
    """
    findings = list(examine())
    if json:
        import json as json_module

        typer.echo(json_module.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        width = max(len(finding.subject) for finding in findings)
        for finding in findings:
            typer.echo(f"{_SIGNS[finding.state]}  {finding.subject:{width}}  {finding.found}")
            if finding.remedy:
                typer.echo(f"{'':9}{'':{width}}  -> {finding.remedy}")
        typer.echo(summary(findings))
    if any(finding.state == "broken" for finding in findings):
        raise typer.Exit(2)


def summary(findings: list[Finding]) -> str:
    """One line on all of them."""
    counts = {state: sum(finding.state == state for finding in findings) for state in _SIGNS}
    told = [
        f"{counts['broken']} broken" * bool(counts["broken"]),
        f"{counts['missing']} missing, which only some commands need" * bool(counts["missing"]),
        f"{counts['faster']} would make it faster" * bool(counts["faster"]),
    ]
    return "; ".join(filter(None, told)) or "all well"


def examine() -> Iterator[Finding]:
    """Everything that is looked at, one after the other."""
    yield _tood()
    required = list(_required())
    yield from required
    if any(finding.state == "broken" for finding in required):
        return
    yield _processor()
    yield _arithmetic()
    yield _cores()
    yield _load()
    yield _allocator()
    yield from _memory()
    yield _gpu()
    yield _pretrained()
    yield from _extras()
    yield from _disks()


def _tood() -> Finding:
    import tood

    python = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding("tood", "ok", f"{tood.__version__}, {python}, {Path(tood.__file__).parent}")


# --- packages ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Requirement:
    """A package that tood names: what extra needs it (None: all do), and whether it is here."""

    name: str
    extra: str | None
    wanted: str
    version: str | None
    fits: bool


def _named() -> list[str]:
    """Packages that the installed tood names, as its metadata has them; none where it was not installed by pip."""
    from importlib.metadata import PackageNotFoundError, requires

    try:
        return requires("tood") or []
    except PackageNotFoundError:
        return []


def _extras_of(line: str) -> list[str]:
    """Extras that the metadata's line of a package is of."""
    return re.findall(r"extra == [\"']([^\"']+)[\"']", line)


def requirements() -> list[Requirement]:
    """All packages that the installed tood names for this system; none where it was not installed by pip."""
    from importlib.metadata import PackageNotFoundError, version

    from packaging.requirements import Requirement as Parsed

    found = []
    for line in _named():
        parsed = Parsed(line)
        extras = _extras_of(str(parsed.marker or ""))
        if parsed.marker is not None and not parsed.marker.evaluate({"extra": extras[0] if extras else ""}):
            continue
        if parsed.name == "tood":  # an extra that names other extras
            continue
        try:
            have = version(parsed.name)
        except PackageNotFoundError:
            have = None
        fits = have is not None and parsed.specifier.contains(have, prereleases=True)
        found.append(Requirement(parsed.name, extras[0] if extras else None, str(parsed.specifier), have, fits))
    return found


def _required() -> Iterator[Finding]:
    """PyTorch, and the other packages that every command needs."""
    try:
        import torch
    except ImportError as error:
        yield Finding("torch", "broken", f"cannot be imported: {error}", "pip install torch")
        return
    yield Finding("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads")
    needed = [one for one in requirements() if one.extra is None]
    lacking = [one for one in needed if not one.fits]
    for one in lacking:
        found = f"{one.version or 'not installed'}, {one.wanted} is needed"
        yield Finding(one.name, "broken", found, f"pip install '{one.name}{one.wanted}'")
    if needed and not lacking:
        yield Finding("packages", "ok", f"all {len(needed)} that every command needs")
    from importlib.metadata import distributions

    names = {str(found.metadata["Name"]).lower() for found in distributions() if found.metadata["Name"]}
    both = sorted(name for name in names if name.startswith("opencv-") and "python" in name)
    if len(both) > 1:
        yield Finding(
            "OpenCV",
            "faster",
            f"{' and '.join(both)} write into one folder: which of them is used is chance",
            f"pip uninstall {' '.join(both)}; pip install opencv-python-headless",
        )


def _extras() -> Iterator[Finding]:
    """What each extra brings, and which are not here."""
    used = {
        "export": "ONNX files and ONNX Runtime",
        "openvino": "OpenVINO",
        "serve": "tood serve",
        "video": "videos",
        "track": "tracking, lines and zones",
        "big": "big TIFF pictures",
        "ray": "tood predict --engine ray",
        "wandb": "trackers=[wandb]",
        "mlflow": "trackers=[mlflow]",
    }
    found = requirements()
    known = {extra for line in _named() for extra in _extras_of(line)}
    unknown = [extra for extra in used if extra not in known]
    if found and unknown:
        yield Finding(
            "installation",
            "missing",
            f"its metadata is older than this code, and names no packages of the extras {', '.join(unknown)}",
            "install tood again the way it was: pip install --force-reinstall --no-deps, or -e in a checkout",
        )
    for extra, what in used.items():
        wanted = [one for one in found if one.extra == extra]
        lacking = [one for one in wanted if not one.fits]
        if not wanted:
            continue
        names = ", ".join(f"{one.name} {one.version or 'no'}" for one in (lacking or wanted))
        if extra == "track":  # in no extra: it asks for another OpenCV
            yield _trackers()
        if lacking:
            yield Finding(f"extra {extra}", "missing", f"{names}: for {what}", f"pip install 'tood[{extra}]'")
        else:
            yield Finding(f"extra {extra}", "ok", f"{names}: for {what}")


def _trackers() -> Finding:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return Finding("trackers", "ok", f"{version('trackers')}: for tracking")
    except PackageNotFoundError:
        return Finding("trackers", "missing", "not installed: for tracking", "pip install --no-deps trackers")


def _pretrained() -> Finding:
    """What the small models' backbones know of photographs."""
    from tood.choices import LARGER_MODEL, MANY_OBJECTS, PLAIN_MODEL, PRETRAINED_MODEL
    from tood.training import missing_weights

    if missing := missing_weights(PRETRAINED_MODEL):
        told = f"not installed: `tood train` takes {PLAIN_MODEL}, which starts from scratch"
        return Finding("ImageNet weights", "missing", told, missing)
    if missing := missing_weights(LARGER_MODEL):
        told = f"{PRETRAINED_MODEL}'s are installed, {LARGER_MODEL}'s are not: `tood train` never takes that one"
        return Finding("ImageNet weights", "missing", told, missing)
    told = (
        f"installed: `tood train` takes {PRETRAINED_MODEL}, and for {MANY_OBJECTS:,} objects or more {LARGER_MODEL}, "
        "which start from them"
    )
    return Finding("ImageNet weights", "ok", told)


# --- what computes -------------------------------------------------------------------------------------------------


def _processor() -> Finding:
    name, flags = processor_flags()
    found = [flag for flag in _INSTRUCTIONS if flag in flags]
    return Finding("processor", "ok", f"{name}" + (f", {', '.join(found)}" if found else ""))


def _arithmetic() -> Finding:
    import torch

    from tood.precision import choose_precision, cpu_multiplies_bf16

    chosen = choose_precision("auto", torch.device("cpu"))
    if cpu_multiplies_bf16():
        return Finding("precision", "ok", f"{chosen}: 2.5 to 4 times the speed of fp32 (docs/performance.md)")
    return Finding(
        "precision",
        "faster",
        f"{chosen}: this CPU has no instructions for bf16",
        "one with AMX or AVX-512 BF16 (Intel Xeon from 2023, AMD from Zen 4) takes a quarter to 0.4 of the time",
    )


def _cores() -> Finding:
    import torch

    from tood.machine import usable_cores

    cores, threads, all_cores = usable_cores(), torch.get_num_threads(), os.cpu_count() or 1
    told = f"{cores} of {all_cores} cores may be used, {threads} {'thread' if threads == 1 else 'threads'}"
    set_here = [name for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name in os.environ]
    if threads < cores and set_here:
        return Finding("cores", "faster", told, f"unset {' '.join(set_here)}, or --threads {cores}")
    if threads > cores:
        return Finding("cores", "faster", f"{told}: they wait for each other", f"--threads {cores}")
    return Finding("cores", "ok", told)


def _load() -> Finding:
    from tood.machine import busy_advice

    advice = busy_advice()
    if advice:
        return Finding("load", "faster", advice.partition(", so")[0], "wait, or --threads with the cores that are left")
    return Finding("load", "ok", "nobody else is at work to speak of")


def _allocator() -> Finding:
    preloaded = os.environ.get("LD_PRELOAD", "")
    for name in ("jemalloc", "tcmalloc", "mimalloc"):
        if name in preloaded:
            return Finding("allocator", "ok", f"{name}, by LD_PRELOAD")
    if sys.platform != "linux":
        return Finding("allocator", "ok", "the system's")
    library = platform.libc_ver()[0]
    if library == "glibc":
        return Finding("allocator", "ok", "glibc's, which training and prediction set by themselves")
    return Finding(
        "allocator",
        "faster",
        f"{library or 'not glibc'}: gives freed maps back to the system at each step",
        "LD_PRELOAD a jemalloc or tcmalloc, or take an image with glibc",
    )


def memory_bytes(meminfo: Path = Path("/proc/meminfo")) -> tuple[int, int] | None:
    """Bytes of memory, all and available; None where Linux does not tell."""
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
        sizes = {line.partition(":")[0]: int(line.split()[1]) * 1024 for line in lines if len(line.split()) > 1}
        return sizes["MemTotal"], sizes["MemAvailable"]
    except (OSError, ValueError, KeyError):
        return None


def _memory() -> Iterator[Finding]:
    sizes = memory_bytes()
    if sizes is not None:
        total, free = sizes
        told = f"{free / _GIB:.1f} of {total / _GIB:.1f} GiB free"
        if free < _LEAST_MEMORY:
            yield Finding("memory", "faster", told, "a smaller --batch-size or model; close other programs")
        else:
            yield Finding("memory", "ok", told)
    shared = Path("/dev/shm")
    if sys.platform == "linux" and shared.is_dir():
        size = shutil.disk_usage(shared).total
        told = f"{size / _GIB:.2f} GiB in /dev/shm, through which loading processes hand over images"
        if size < _LEAST_SHARED:
            yield Finding("shared memory", "faster", told, "docker run --shm-size 2g, or --set data.workers=0")
        else:
            yield Finding("shared memory", "ok", told)


def _gpu() -> Finding:
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
        return Finding("GPU", "ok", f"{names}, CUDA {torch.version.cuda}")
    if torch.backends.mps.is_available():
        return Finding("GPU", "ok", "Apple's, by Metal (mps)")
    seen = [place for place in ("/dev/nvidia0", "/proc/driver/nvidia/version") if Path(place).exists()]
    if seen or shutil.which("nvidia-smi"):
        why = "this PyTorch is built without CUDA" if torch.version.cuda is None else "the driver does not answer"
        remedy = (
            "install PyTorch for CUDA: https://pytorch.org/get-started/locally"
            if torch.version.cuda is None
            else "`nvidia-smi` says what the driver lacks; in a container, docker run --gpus all"
        )
        return Finding("GPU", "faster", f"there is one of NVIDIA's, but {why}", remedy)
    return Finding("GPU", "ok", "none: the CPU computes")


# --- disks ---------------------------------------------------------------------------------------------------------


def _disks() -> Iterator[Finding]:
    from tood.weights import cache_folder

    places: dict[str, Callable[[], Path]] = {"cache": cache_folder, "this folder": Path.cwd}
    for subject, place in places.items():
        folder = place()
        there = next((parent for parent in (folder, *folder.parents) if parent.exists()), Path("/"))
        free = shutil.disk_usage(there).free
        told = f"{folder}: {free / _GIB:.1f} GiB free"
        if not os.access(there, os.W_OK):
            remedy = "TOOD_CACHE names another" if subject == "cache" else "name a folder of yours with --out"
            yield Finding(subject, "missing", f"{folder} cannot be written to", remedy)
        elif free < _LEAST_DISK:
            yield Finding(subject, "faster", told, "a full disk ends runs: make room, or take another")
        else:
            yield Finding(subject, "ok", told)
