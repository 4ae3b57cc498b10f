"""Makes the toy engines, the made rasters and the odd archives importable here."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TESTS / "predict"), str(TESTS / "package"), str(TESTS / "bench" / "report")]

from odd_cases import Disk  # noqa: E402 (the paths come first)
from odd_images import GREYS  # noqa: E402
from odd_server import Edpct, serving  # noqa: E402
from toy_engines import write_engine  # noqa: E402


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_engine(tmp_path_factory.mktemp("engine"), task=GREYS)


@pytest.fixture(scope="session")
def edpct(cli_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edpct]:
    """The command, on a terminal that knows ASCII alone."""
    odd = {"PYTHONIOENCODING": "ascii:strict", "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}
    with serving(cli_environment | odd) as run:
        yield run


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Mounts a file system of so many kilobytes."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(kilobytes: int, more: str = "") -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k{more}", "tmpfs", str(folder)]
        if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting a small disk is for root")
        return folder

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", str(folder)], check=True)
