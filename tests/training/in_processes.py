"""What each process of test_processes.py does: ``torchrun in_processes.py SCENES OUT``."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from trainings import SETTINGS, Plain, fit, learner_of

from edpct.data.layouts import open_dataset
from edpct.data.samples import Dataset
from edpct.errors import DataError, EdpctError
from edpct.training.objective import Learner

# Crops of which some are mostly padding, so that the processes' parts have unlike numbers of counted pixels.
CASES = {
    "plain": {"batch": 4, "steps": 4, "scale": (0.2, 1.0), "validate_every": 2},
    "parts": {"batch": 5, "steps": 4, "scale": (0.2, 1.0), "validate_every": 2, "accumulate": 2, "ema": 0.5},
    "network": {"batch": 4, "steps": 3, "validate_every": 1, "ema": 0.5, "patience": 3},
}


def learner_for(case: str) -> Learner:
    return learner_of() if case == "network" else Plain()


def failing_later(dataset: Dataset) -> Dataset:
    """Its images are read once, as when training begins; then the second process finds them damaged."""
    reads = len(dataset.train) + len(dataset.val)
    calls = 0

    def decode(path: Path) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls > reads and os.environ["RANK"] == "1":
            raise DataError(f"{path.name} is gone.", "Bring it back.")
        return dataset.decode_mask(path)

    return replace(dataset, decode_mask=decode)


def main(scenes: Path, out: Path) -> None:
    rank, dataset = os.environ["RANK"], open_dataset(scenes)
    for case, settings in CASES.items():
        learner = learner_for(case)
        history = fit(learner, dataset, out / case, None, SETTINGS.model_copy(update=settings))
        torch.save(learner.model.state_dict(), out / f"{case}-{rank}.pt")
        (out / f"{case}-{rank}.json").write_text(json.dumps(history.as_dict()))
    for case, settings in {"reading": {"steps": 5}, "cutting": {"batch": 2, "accumulate": 2}}.items():
        asked = SETTINGS.model_copy(update={"validate_every": 1, **settings})
        try:
            fit(Plain(), failing_later(dataset), out / case, None, asked)
        except EdpctError as error:
            (out / f"{case}-{rank}.txt").write_text(str(error))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
