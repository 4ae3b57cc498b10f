"""Two processes on one machine (torchrun, gloo) learn what one learns, and an error in one is an error in both."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from in_processes import CASES, learner_for
from trainings import SETTINGS, fit

from edpct.data.layouts import open_dataset
from edpct.data.samples import Dataset
from edpct.data.scenes import SCENE_TASK
from edpct.training.log import read_log
from edpct.training.processes import share_out
from edpct.training.validation import validate


@pytest.fixture(scope="module")
def dataset(scenes: Path) -> Dataset:
    return open_dataset(scenes)


@pytest.fixture(scope="module")
def two(scenes: Path, cli_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what two processes made."""
    out = tmp_path_factory.mktemp("two")
    script = Path(__file__).with_name("in_processes.py")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script, scenes, out]
    done = subprocess.run(
        [sys.executable, *map(str, launch)],
        env={**cli_environment, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=550, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def _history(two: Path, case: str, rank: int = 0) -> dict[str, Any]:
    return json.loads((two / f"{case}-{rank}.json").read_text())


@pytest.mark.parametrize("case", ["plain", "parts"])
def test_two_processes_learn_what_one_does(two: Path, dataset: Dataset, tmp_path: Path, case: str) -> None:
    """Without batch normalisation to rounding, with parts that have unlike numbers of counted pixels."""
    alone = learner_for(case)
    settings = SETTINGS.model_copy(update={**CASES[case], "accumulate": 1})
    expected = fit(alone, dataset, tmp_path, None, settings)
    for rank in (0, 1):
        found = _history(two, case, rank)
        for measure, other in zip(found["measures"], expected.measures, strict=True):
            assert measure["loss"] == pytest.approx(other.loss, rel=1e-5)
            assert measure["miou"] == pytest.approx(other.miou, abs=0.01)
        for name, value in torch.load(two / f"{case}-{rank}.pt").items():
            torch.testing.assert_close(value, alone.model.state_dict()[name], rtol=1e-3, atol=2e-5)


def test_validation_divided_is_validation_of_what_is_delivered(two: Path, dataset: Dataset) -> None:
    """With batch normalisation the main process's statistics count, in both processes."""
    model = learner_for("network").model
    model.load_state_dict(torch.load(two / "network-0.pt"))
    score = validate(model, dataset, SCENE_TASK.at_size(128, 128))
    found = _history(two, "network")
    (measure,) = [m for m in found["measures"] if m["step"] == found["delivered"]]
    assert tuple(measure["iou"]) == score.iou
    assert _history(two, "network", 1)["measures"] == found["measures"]


def test_only_the_main_process_writes(two: Path) -> None:
    for case, settings in CASES.items():
        assert sorted(path.name for path in (two / case).iterdir()) == ["log.csv", "resume.pt"]
        steps = [int(row["step"]) for row in read_log(two / case / "log.csv")]
        assert steps == sorted(set(steps)) and steps[-1] == settings["steps"]


def test_what_fails_in_one_process_fails_in_all_with_its_words(two: Path) -> None:
    told = {(two / f"reading-{rank}.txt").read_text() for rank in (0, 1)}
    assert len(told) == 1 and next(iter(told)).endswith(" is gone. Bring it back.")


def test_a_batch_smaller_than_its_parts_is_refused(two: Path) -> None:
    for rank in (0, 1):
        assert (two / f"cutting-{rank}.txt").read_text() == (
            "A batch of 2 crops cannot be cut into 4 parts (2 processes, accumulate 2). "
            "Raise batch, or take fewer processes."
        )


@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_one_process_takes_all(count: int) -> None:
    assert share_out(count) == range(count)
