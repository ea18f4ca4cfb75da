"""All of `make bench-gpu` on a bare machine: an environment, then the parts, within the minutes that are given.

Needs Python from 3.10 on and nothing installed. Where the Python that runs this has a PyTorch that sees the GPU, that
one is used and only what is missing beside it is installed; else PyTorch comes from PyPI, with CUDA. Without a network
the missing packages come from --wheels FOLDER. With --dry-run every part is tried on the CPU, with the PyTorch of this
Python or of .venv (`make install`): none is fetched.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HAS_TORCH = "import torch; print(torch.__version__)"
SEES_GPU = "import torch; assert torch.cuda.is_available(); print(torch.__version__)"


def main() -> int:
    """The exit code of the runner, or 2 with a sentence."""
    began = time.time()
    # Of a script the packages' folder is on the path only now.
    from benchmarks.gpu.options import options

    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("--environment", type=Path, default=ROOT / ".venv-gpu", help="folder that is made for it")
    own.add_argument("--wheels", type=Path, help="folder of packages, where nothing can be fetched")
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[own, options()],
        allow_abbrev=False,
    )
    asked, others = parser.parse_args(), own.parse_known_args()[1]
    if asked.dry_run and (whole := _whole_python()) is not None:
        return _run(whole, began, others)
    there = _answer(sys.executable, HAS_TORCH if asked.dry_run else SEES_GPU)
    if asked.dry_run and there is None and asked.wheels is None:
        return _refuse(
            f"{sys.executable} has no PyTorch, and a dry run fetches none (PyPI's has gigabytes of CUDA): "
            "`make bench-gpu DRY=1` sets up .venv, or give --wheels FOLDER"
        )
    if not asked.dry_run and there is None and not (Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi")):
        return _refuse("there is no NVIDIA GPU here; --dry-run (`make bench-gpu DRY=1`) tries every part on the CPU")
    folder = asked.environment.absolute()
    try:
        python = environment(folder, shared=there is not None, wheels=asked.wheels)
    except subprocess.CalledProcessError as error:
        command = " ".join(map(str, error.cmd))
        return _refuse(f"the environment in {folder} could not be made, `{command}` ended with {error.returncode}")
    print(f"bench-gpu: environment ready after {time.time() - began:.0f} s", file=sys.stderr, flush=True)
    return _run(python, began, others)


def _run(python: Path, began: float, others: Sequence[str]) -> int:
    """The exit code of the parts, done by a Python that has all they need."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    command = [str(python), "-m", "benchmarks.gpu", "--began", str(began), *others]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False).returncode


def environment(folder: Path, *, shared: bool, wheels: Path | None = None) -> Path:
    """A virtual environment with all that tood needs, and its Python; one that is whole is left as it is.

    Args:
        folder: where it is made.
        shared: whether packages of this Python are seen in it, its PyTorch first of all.
        wheels: where packages are taken from instead of PyPI.

    Raises:
        subprocess.CalledProcessError: if something could not be installed.
    """
    python, stamp = folder / "bin" / "python", folder / ".installed"
    wanted = requirements(without=("torch",) if shared else ())
    made_of = hashlib.sha256("\n".join([sys.executable, str(shared), *wanted]).encode()).hexdigest()
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == made_of:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    # Without pip: Debian's Python has none to give away, and that of this Python does as well.
    options = ["--without-pip", *(["--system-site-packages"] if shared else [])]
    subprocess.run([sys.executable, "-m", "venv", *options, str(folder)], check=True)
    if shared and sys.prefix != sys.base_prefix:
        # Of a Python that is in an environment itself only the system's packages would be seen, not its own.
        (_site_packages(python) / "parent.pth").write_text(_own_site_packages(), encoding="utf-8")
    source = [] if wheels is None else ["--no-index", "--find-links", str(wheels.absolute())]
    # The tested versions, but not in place of what is there, and not where they have no build for this Python.
    tested = [] if shared or wheels else ["-c", str(ROOT / "constraints.txt")]
    try:
        _pip(python, [*source, *tested, *wanted])
    except subprocess.CalledProcessError:
        if not tested:
            raise
        print("bench-gpu: the tested versions do not install here; newer ones are tried", file=sys.stderr, flush=True)
        _pip(python, [*source, *wanted])
    stamp.write_text(made_of, encoding="utf-8")
    return python


def requirements(without: Sequence[str] = ()) -> list[str]:
    """What `pyproject.toml` says that tood needs."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        from pip._vendor import tomli as tomllib
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found: list[str] = content["project"]["dependencies"]
    return [line for line in found if not any(line.startswith(f"{name}>") for name in without)]


def _whole_python() -> Path | None:
    """A Python that has all that tood needs, this one or that of `make install`; None if neither has."""
    names = [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in requirements()]
    script = f"from importlib.metadata import version; import torch; print([version(name) for name in {names}])"
    pythons = (Path(sys.executable), ROOT / ".venv" / "bin" / "python")
    return next((one for one in pythons if one.exists() and _answer(str(one), script) is not None), None)


def _pip(python: Path, arguments: Sequence[str]) -> None:
    options = ["--quiet", "--disable-pip-version-check", "--no-warn-script-location"]
    command = [sys.executable, "-m", "pip", "--python", str(python)]
    if subprocess.run([*command, "--version"], capture_output=True, check=False).returncode:
        # No pip here, or one from before it knew of other environments.
        subprocess.run([str(python), "-m", "ensurepip"], stdout=subprocess.DEVNULL, check=True)
        command = [str(python), "-m", "pip"]
    subprocess.run([*command, "install", *options, *arguments], check=True)


def _site_packages(python: Path) -> Path:
    found = _answer(str(python), "import sysconfig; print(sysconfig.get_path('purelib'))")
    assert found is not None
    return Path(found)


def _own_site_packages() -> str:
    paths = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    return "".join(f"{path}\n" for path in paths)


def _answer(python: str, script: str) -> str | None:
    """What a script prints, None if it fails."""
    done = subprocess.run([python, "-c", script], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _refuse(sentence: str) -> int:
    print(f"bench-gpu: {sentence}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    # Modules beside this file are no part of the standard library.
    sys.path = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).resolve().parent]
    sys.path.insert(0, str(ROOT))
    raise SystemExit(main())
