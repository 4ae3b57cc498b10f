"""What many tests need: a small folder of made scenes, and a small teacher that names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edpct.card import Card, DataSource
from edpct.data.scenes import SCENE_TASK, write_scenes

TEACHER_SIZE = 128  # pixels, both ways


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
