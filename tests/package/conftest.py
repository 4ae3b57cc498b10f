"""A cache of the test's own, and a small run folder whose engines and report are real."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS / "predict"), str(TESTS / "bench" / "report")]  # toy_engines, report_factory


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that packages are unpacked to, not there yet."""
    home = tmp_path / "xdg-cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home / "edpct" / "packages"


@pytest.fixture
def toy_run(tmp_path: Path) -> Path:
    """A run folder with toy engines and a report of them."""
    from toy_runs import write_run

    return write_run(tmp_path / "run")


@pytest.fixture
def toy_zip(toy_run: Path, tmp_path: Path) -> Path:
    """The package of it."""
    from edpct.package.write import package

    return package(toy_run, tmp_path / "student.zip").path
