"""A family's folder and its line are all it takes: the toy family moves into a copy of the house.

`toy_family/` becomes `models/toy/` there, and its record joins the list of `models/families.py`. Then the tests that
run over every record run over it too, in that house, unchanged.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import tood

TESTS = Path(__file__).parent
LINE = ("from tood.models.toy.family import FAMILY as TOY\n", "    TOY,\n")
OF_EVERY_FAMILY = ("models/test_every_family.py", "models/test_family_records.py", "ops/test_substitution.py")


def house_with_toy(root: Path) -> Path:
    """A copy of the package, with the toy family in it; the folder to import it from."""
    package = root / "house" / "tood"
    shutil.copytree(Path(tood.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(TESTS / "toy_family", package / "models/toy", ignore=shutil.ignore_patterns("__pycache__"))
    families = package / "models/families.py"
    importing, entry = LINE
    before = families.read_text(encoding="utf-8")
    after = before.replace("\n# A new family's record", f"{importing}\n# A new family's record").replace(
        "    ATSS,\n", f"    ATSS,\n{entry}"
    )
    assert len(after) == len(before) + len(importing) + len(entry)
    families.write_text(after, encoding="utf-8")
    return package.parent


def test_a_folder_and_a_line_make_a_family(tmp_path: Path) -> None:
    house = house_with_toy(tmp_path)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(house), *sys.path[1:]])}
    environment.pop("PYTEST_XDIST_WORKER", None)
    tests = [str(TESTS / name) for name in OF_EVERY_FAMILY]
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-k", "toy", *tests]
    where = subprocess.run(
        [sys.executable, "-c", "import tood; print(tood.__file__)"],
        env=environment,
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(where.stdout.strip()).is_relative_to(house)
    done = subprocess.run(command, env=environment, cwd=TESTS.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    # Trained, evaluated, saved, measured, exported; watched and changed at every layer.
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
    assert int(done.stdout.split(" passed")[0].split()[-1]) >= 20, done.stdout
