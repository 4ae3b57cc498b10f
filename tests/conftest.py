"""What many tests need: a small folder of made scenes, and a small teacher that names it."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edpct.card import Card, DataSource
from edpct.data.scenes import SCENE_TASK, write_scenes

TEACHER_SIZE = 128  # pixels, both ways

# Before torch is imported, here and in every process that a test starts. Two workers with as many threads as there are
# cores wait for one another's: the tests of training take 84 s on two cores so, and 23 s with one thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Files of few and slow tests: begun first, so that no worker is left alone with one of them at the end.
SLOW_FILES = (
    "test_cli_interrupt", "test_tensorrt_matrix", "test_run_qat", "test_run_compress", "test_networks",
    "test_export_open_size", "test_gpu_check", "test_cli_quantise",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With ``--no-loadscope-reorder``, in this order; pytest-xdist's own begins with the files of many tests."""
    items.sort(key=lambda item: item.path.stem not in SLOW_FILES)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three train and two val scenes of 128 x 128 pixels; read it, do not write to it."""
    directory = tmp_path_factory.mktemp("data") / "scenes"
    write_scenes(directory, train=3, val=2, seed=0, size=128)
    return directory


@pytest.fixture(scope="session")
def tiny_teacher(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``teacher.pt``: an untrained DP-CTNet tiny whose card says 128 x 128 and where the scenes lie."""
    import torch

    from edpct.models.architecture import count_macs, count_parameters
    from edpct.models.checkpoint import save_checkpoint
    from edpct.models.dpctnet import dpctnet

    torch.manual_seed(0)
    model = dpctnet("tiny", SCENE_TASK.num_classes).eval()
    card = Card(
        network="DP-CTNet tiny",
        task=SCENE_TASK.at_size(TEACHER_SIZE, TEACHER_SIZE),
        parameters=count_parameters(model),
        macs=count_macs(model, TEACHER_SIZE, TEACHER_SIZE),
        data=DataSource(directory=str(scenes), layout="folder"),
    )
    path = tmp_path_factory.mktemp("teacher") / "teacher.pt"
    save_checkpoint(path, model, card)
    return path


ROOT = Path(__file__).resolve().parent.parent
# The smallest compression that goes through every stage.
SMALL_RECIPE = """
[prune]
macs = 0.3
[distil]
steps = 2
batch = 2
crop = 64
[quantise]
calibration_images = 4
guard_images = 1
max_miou_drop = 50
[build]
target = "rtx"
[bench]
seconds = 0.1
runs = 2
rounds = 1
warm_up = 0.2
threads = 1
"""


@pytest.fixture(scope="session")
def cli_environment() -> dict[str, str]:
    """The environment for an edpct of this checkout in a process of its own."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


@pytest.fixture(scope="session")
def compressed_run(
    tiny_teacher: Path, cli_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The run folder of one ``edpct compress``, made once however many workers test; read it, do not write to it.

    Beside it lie the ``teacher.pt`` and the ``recipe.toml`` that it was made of.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    home = shared / "compressed"
    home.mkdir(exist_ok=True)
    teacher, recipe, folder, log = home / "teacher.pt", home / "recipe.toml", home / "run", home / "log.txt"
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not log.exists():
            shutil.copy(tiny_teacher, teacher)
            recipe.write_text(SMALL_RECIPE, encoding="utf-8")
            command = ["compress", "--teacher", teacher, "--recipe", recipe, "--out", folder]
            done = subprocess.run(
                [sys.executable, "-m", "edpct", *map(str, command)],
                env=cli_environment, capture_output=True, text=True, timeout=600, check=False,
            )  # fmt: skip
            log.write_text(f"{done.returncode}\n{done.stdout}{done.stderr}", encoding="utf-8")
    text = log.read_text(encoding="utf-8")
    assert text.startswith("0\n"), text
    return folder
