"""The toy engines of the folder above, opened."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A toy engine's file."""
    from toy_engines import write_engine

    folder = tmp_path / "engine"
    folder.mkdir()
    return write_engine(folder)


@pytest.fixture
def engine(toy: Path) -> Iterator[object]:
    from edpct.predict.engine import Engine

    with Engine(toy, runtime="onnxruntime") as opened:
        yield opened


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty folder to write to."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder
