"""Crops made by two other processes: ``python worker_cases.py same SCENES OUT``, or ``failing``.

In a process of its own: what forks should have no threads of other libraries, which the tests' own process has.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from trainings import SETTINGS, Plain, fit

from edpct.data.layouts import open_dataset
from edpct.data.samples import Dataset
from edpct.errors import DataError, EdpctError, MissingPackageError, UnknownLabelsError
from edpct.progress import Silent
from edpct.task import Preprocessing
from edpct.training import crops, loop
from edpct.training.crops import CropDataset, crop_loader

ERRORS = (
    DataError("An image is gone.", "Bring it back."),
    UnknownLabelsError("A mask holds 9.", "Mend it.", {"9": 4}),
    MissingPackageError("pyogrio", "writing areas", "geo"),
)


def fails_with(error: EdpctError, dataset: Dataset, out: Path, workers: int) -> None:
    """A training whose files are read once in order when it begins, and are found damaged afterwards."""
    left = len(dataset.train) + len(dataset.val)

    def decode(path: Path) -> np.ndarray:
        nonlocal left
        left -= 1
        if left < 0:
            raise error
        return dataset.decode_mask(path)

    def loader(made: CropDataset, batches: Sequence[Sequence[int]], **_: object) -> object:
        return crop_loader(made, batches, workers=workers, pin_memory=False)

    before = crops.CACHE_BYTES, loop.crop_loader
    crops.CACHE_BYTES, loop.crop_loader = 0, loader
    try:
        fit(Plain(), replace(dataset, decode_mask=decode), out)
    except EdpctError as found:
        assert type(found) is type(error) and vars(found) == vars(error) and str(found) == str(error)
        assert multiprocessing.active_children() == []  # while the traceback is still there
    else:
        raise AssertionError("it trained to its end")
    finally:
        crops.CACHE_BYTES, loop.crop_loader = before


def same(dataset: Dataset, out: Path) -> None:
    made = CropDataset(dataset, Preprocessing(), SETTINGS, 0, Silent())
    batches = [range(2), range(2, 3)]
    for workers in (0, 2):
        found = list(crop_loader(made, batches, workers=workers, pin_memory=False))
        for (images, labels), wanted in zip(found, batches, strict=True):
            assert torch.equal(images, torch.stack([made[index][0] for index in wanted]))
            assert torch.equal(labels, torch.stack([made[index][1] for index in wanted]))


def failing(dataset: Dataset, out: Path) -> None:
    for number, error in enumerate(ERRORS):
        fails_with(error, dataset, out / str(number), workers=2)


if __name__ == "__main__":
    case, scenes, folder = sys.argv[1:]
    {"same": same, "failing": failing}[case](open_dataset(Path(scenes)), Path(folder))
