"""Makes the toy engines, the made rasters and the odd archives importable here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TESTS / "predict"), str(TESTS / "package")]

from odd_images import GREYS  # noqa: E402 (the paths come first)
from odd_server import Edpct, serving  # noqa: E402
from toy_engines import write_engine  # noqa: E402


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_engine(tmp_path_factory.mktemp("engine"), task=GREYS)


@pytest.fixture(scope="session")
def edpct(cli_environment: dict[str, str]) -> Iterator[Edpct]:
    with serving(cli_environment | {"PYTHONIOENCODING": "ascii:strict"}) as run:
        yield run
