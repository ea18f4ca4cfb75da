"""What `make release` looks at before anything is built, and the archives themselves."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

import tood

ROOT = Path(__file__).parents[1]
_SPEC = importlib.util.spec_from_file_location("release", ROOT / "tools" / "release.py")
assert _SPEC is not None
assert _SPEC.loader is not None
release = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(release)


def test_this_checkout_has_one_version_an_entry_and_an_example() -> None:
    version = release.project_version()
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    # Between releases the newest section is the one of what is not released yet.
    entry = release.changelog_entry(changelog.replace("## Unreleased", f"## {version} - 2026-01-01", 1), version)
    assert len(entry) > 1000
    example = release.readme_example((ROOT / "README.md").read_text("utf-8"))
    assert len([line for line in example.splitlines() if line.strip()]) == 5
    compile(example, "README.md", "exec")


def test_the_example_runs_as_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of this checkout, not of an installed package, as after a release.
    monkeypatch.setattr(release, "_CHECK", "\nassert picture.shape == (240, 320, 3)\n")
    monkeypatch.setenv("PYTHONPATH", str(Path(tood.__file__).parents[1]))
    release.run_example(Path(sys.executable), "1", (ROOT / "README.md").read_text("utf-8"), isolated=False)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("# Changelog\n", "newest section with content is missing"),
        ("## Unreleased\n- a\n\n## 1.2.3 - 2026-01-01\n- b\n", "is 'Unreleased'"),
        ("## 1.2.2 - 2026-01-01\n- b\n", "is '1.2.2'"),
        ("## 1.2.3\n- b\n", "has no date"),
        ("## 1.2.3 - soon\n- b\n", "has no date"),
        ("## 1.2.3 - 2026-01-01\n\n## 1.2.2 - 2025-01-01\n- b\n", "says nothing"),
    ],
)
def test_a_changelog_without_the_entry_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(release.ReleaseError, match=sentence):
        release.changelog_entry(text, "1.2.3")


def test_a_changelog_with_the_entry() -> None:
    text = "# Changelog\n\n## Unreleased\n\n## 1.2.3 - 2026-01-01\n### Added\n- b\n\n## 1.2.2 - 2025-01-01\n- c\n"
    assert release.changelog_entry(text, "1.2.3") == "### Added\n- b"


def test_a_second_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "src" / "tood").mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "tood"\nversion = "1.2.3"\n')
    assert release.project_version(tmp_path) == "1.2.3"
    (tmp_path / "src" / "tood" / "__init__.py").write_text('__version__ = "1.2.3"\n')
    with pytest.raises(release.ReleaseError, match=r"pyproject.toml alone"):
        release.project_version(tmp_path)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "tood"\nversion = "new"\n')
    with pytest.raises(release.ReleaseError, match="version is 'new'"):
        release.project_version(tmp_path)
