"""Crops made by other processes, as on a GPU: Ctrl-C in a terminal reaches them too, and so may a damaged file."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from trainings import SETTINGS, Plain, fit

from edpct.data.layouts import open_dataset
from edpct.data.samples import Dataset
from edpct.errors import DataError, EdpctError, MissingPackageError, UnknownLabelsError
from edpct.progress import Silent
from edpct.task import Preprocessing
from edpct.training import crops, loop
from edpct.training.crops import CropDataset, crop_loader
from edpct.training.resume import load_point

ERRORS = (
    DataError("An image is gone.", "Bring it back."),
    UnknownLabelsError("A mask holds 9.", "Mend it.", {"9": 4}),
    MissingPackageError("pyogrio", "writing areas", "geo"),
)


@pytest.fixture(scope="module")
def dataset(scenes: Path) -> Dataset:
    return open_dataset(scenes)


def test_ctrl_c_in_a_terminal_leaves_a_resume_point(
    scenes: Path, tmp_path: Path, cli_environment: dict[str, str]
) -> None:
    def listen() -> None:  # where the tests run in the background, Ctrl-C is ignored and that is inherited
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("interrupted_workers.py"), scenes, tmp_path / "out"],
        env=cli_environment, capture_output=True, text=True, timeout=240, check=False,
        start_new_session=True, preexec_fn=listen,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    point = load_point(tmp_path / "out", "a")
    assert point is not None and 1 <= point["step"] < 2000


def test_workers_make_the_same_batches(dataset: Dataset) -> None:
    made = CropDataset(dataset, Preprocessing(), SETTINGS, 0, Silent())
    batches = [range(2), range(2, 3)]
    for workers in (0, 2):
        found = list(crop_loader(made, batches, workers=workers, pin_memory=False))
        for (images, labels), wanted in zip(found, batches, strict=True):
            assert torch.equal(images, torch.stack([made[index][0] for index in wanted]))
            assert torch.equal(labels, torch.stack([made[index][1] for index in wanted]))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_what_fails_in_a_worker_is_raised_as_it_is(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, error: EdpctError
) -> None:
    """The files are read once in order when training begins, and are found damaged afterwards."""
    left = len(dataset.train) + len(dataset.val)

    def decode(path: Path) -> np.ndarray:
        nonlocal left
        left -= 1
        if left < 0:
            raise error
        return dataset.decode_mask(path)

    def loader(made: CropDataset, batches: list[range], **_: object) -> object:
        return crop_loader(made, batches, workers=workers, pin_memory=False)

    monkeypatch.setattr(crops, "CACHE_BYTES", 0)
    monkeypatch.setattr(loop, "crop_loader", loader)
    with pytest.raises(type(error)) as caught:
        fit(Plain(), replace(dataset, decode_mask=decode), tmp_path)
    assert vars(caught.value) == vars(error) and str(caught.value) == str(error)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_crosses_to_another_process_whole(error: EdpctError) -> None:
    found = pickle.loads(pickle.dumps(error))
    assert type(found) is type(error) and found.args == error.args and vars(found) == vars(error)
