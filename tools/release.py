"""One command for a release: `make release`. Nothing leaves this machine; what it has tried is in dist/.

1. The version stands in pyproject.toml alone, and the changelog's newest section is of it, with a date and content.
2. No file differs from the commit, and no tag of that version is there.
3. sdist and wheel are built; the wheel of the sdist is the wheel.
4. Each is installed into an environment of its own, with the tested versions of everything, and runs the five lines of
   the README.

It then says which command tags the commit: the forge's workflow publishes what bears a tag.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:  # pytest brings it along
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
_SECTION = re.compile(
    r"^## (?P<version>\S+)(?: - (?P<date>\S+))?\n(?P<content>.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL
)
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_EXAMPLE = re.compile(r"```python\n(from tood import Detector\n.*?)```", re.DOTALL)
# What the example finds: an untrained model under the name of a run, and a photograph.
_PREPARE = """
from pathlib import Path
import numpy as np
from PIL import Image
from tood.models import build_model
from tood.weights import save_weights
from tood.zoo import named_models
names = [str(number) for number in range(80)]
save_weights(Path({weights!r}), build_model(named_models()["tood_tiny"].config()), names)
Image.fromarray(np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)).save({photo!r})
"""
_CHECK = """
import tood
assert "site-packages" in tood.__file__, tood.__file__
assert tood.__version__ == {version!r}, tood.__version__
assert picture.shape == (240, 320, 3)
print("tood", tood.__version__, "finds", len(found), "objects")
"""


class ReleaseError(Exception):
    """Why there is no release: one sentence."""


def project_version(root: Path = ROOT) -> str:
    """The version in pyproject.toml, which is the only place that has it.

    Raises:
        ReleaseError: if it is none, or the package names one as well.
    """
    version = str(tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"].get("version", ""))
    if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", version):
        raise ReleaseError(f"pyproject.toml: version is '{version}': expected such as 1.2.3 or 1.2.3rc1")
    own = re.compile(r"^__version__\s*=", re.MULTILINE)
    twice = [path for path in (root / "src").rglob("*.py") if own.search(path.read_text("utf-8"))]
    if twice:
        raise ReleaseError(f"{twice[0]} sets a version of its own: it has to be in pyproject.toml alone")
    return version


def changelog_entry(changelog: str, version: str) -> str:
    """What the changelog says of a version.

    Raises:
        ReleaseError: if its newest section is not of it, lacks a date or says nothing.
    """
    sections = list(_SECTION.finditer(changelog))
    if sections and sections[0]["version"] == "Unreleased" and not sections[0]["content"].strip():
        sections = sections[1:]
    newest = sections[0] if sections else None
    if newest is None or newest["version"] != version:
        told = f"'{newest['version']}'" if newest else "missing"
        raise ReleaseError(
            f"CHANGELOG.md: the newest section with content is {told}: head it '## {version} - YEAR-MONTH-DAY'"
        )
    if not _DATE.fullmatch(newest["date"] or ""):
        raise ReleaseError(f"CHANGELOG.md: the section {version} has no date: head it '## {version} - YEAR-MONTH-DAY'")
    if not newest["content"].strip():
        raise ReleaseError(f"CHANGELOG.md: the section {version} says nothing")
    return newest["content"].strip()


def readme_example(readme: str) -> str:
    """The README's first lines of Python.

    Raises:
        ReleaseError: if there are none.
    """
    found = _EXAMPLE.search(readme)
    if found is None:
        raise ReleaseError("README.md has no example that begins with 'from tood import Detector'")
    return found[1]


def run_example(python: Path, version: str, readme: str, isolated: bool = True) -> None:
    """Runs the README's example as it stands, in a folder with the files that it names.

    Args:
        python: interpreter with the package.
        version: that it has to be.
        readme: text with the example.
        isolated: from neither this checkout nor what PYTHONPATH names.

    Raises:
        ReleaseError: if it fails.
    """
    example = readme_example(readme)
    weights, photo = re.findall(r'\w+\("([^"]+)"', example)[:2]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / weights).parent.mkdir(parents=True)
        for text in (_PREPARE.format(weights=weights, photo=photo), example + _CHECK.format(version=version)):
            _run([str(python), *["-I"] * isolated, "-c", text], cwd=Path(folder))


def build(out: Path, root: Path = ROOT, python: str = sys.executable) -> tuple[Path, Path]:
    """Builds the sdist, and the wheel from it; gives both.

    Raises:
        ReleaseError: if that fails, or a file is missing in them.
    """
    out.mkdir(parents=True, exist_ok=True)
    for old in [*out.glob("*.whl"), *out.glob("*.tar.gz")]:
        old.unlink()
    _run([python, "-m", "build", "--outdir", str(out), str(root)])
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    wanted = {path.relative_to(root / "src").as_posix() for path in (root / "src" / "tood").rglob("*.py")}
    with zipfile.ZipFile(wheel) as archive:
        missing = wanted - set(archive.namelist())
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    missing |= {f"src/{name}" for name in wanted if f"src/{name}" not in names} | ({"LICENSE", "README.md"} - names)
    if missing:
        raise ReleaseError(f"{len(missing)} files are not in the archives, such as {min(missing)}")
    return sdist, wheel


def install(archive: Path, folder: Path, root: Path = ROOT) -> Path:
    """A new environment with the archive and the tested versions of what it needs; gives its interpreter."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "--constraint", str(root / "constraints.txt"), str(archive)])
    return python


def require_committed(version: str, root: Path = ROOT) -> None:
    """Refuses where files differ from the commit, or the tag is there.

    Raises:
        ReleaseError: then.
    """
    changed = _run(["git", "status", "--porcelain"], cwd=root).strip()
    if changed:
        raise ReleaseError(f"files differ from the commit: {', '.join(line[3:] for line in changed.splitlines()[:3])}")
    if _run(["git", "tag", "--list", f"v{version}"], cwd=root).strip():
        raise ReleaseError(f"there is a tag v{version}: raise the version in pyproject.toml")


def _run(command: Sequence[str], cwd: Path = ROOT) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-15:]
        raise ReleaseError(f"{' '.join(command[:6])} ended with {done.returncode}:\n" + "\n".join(last))
    return done.stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Does it all; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder for the archives")
    parser.add_argument("--check", action="store_true", help="look at version, changelog and README alone")
    parser.add_argument("--try", dest="rehearse", action="store_true", help="also from files that are not committed")
    asked = parser.parse_args(arguments)
    try:
        version = project_version()
        readme = (ROOT / "README.md").read_text("utf-8")
        readme_example(readme)
        if not asked.rehearse:
            changelog_entry((ROOT / "CHANGELOG.md").read_text("utf-8"), version)
        if asked.check:
            print(f"tood {version}: version, changelog and README are fit for a release")
            return 0
        if not asked.rehearse:
            require_committed(version)
        for archive in build(asked.out):
            print(f"{archive.name}: installing it into a fresh environment")
            with tempfile.TemporaryDirectory() as folder:
                run_example(install(archive, Path(folder) / "venv"), version, readme)
            print(f"{archive.name}: runs the README's example")
    except ReleaseError as error:
        print(f"release: {error}", file=sys.stderr)
        return 2
    print(f"tood {version} is in {asked.out}. To publish it: git tag v{version} && git push origin v{version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
