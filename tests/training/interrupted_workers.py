"""A training whose crops come from two other processes, as on a GPU: ``python interrupted_workers.py SCENES OUT``.

While it waits for the second batch, Ctrl-C is pressed: every process of the group gets the signal, as from a terminal.
Exit code 3: a KeyboardInterrupt came of it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch.utils.data import get_worker_info
from trainings import SETTINGS, Plain, fit

from edpct.data.layouts import open_dataset
from edpct.data.samples import read_image
from edpct.training import crops, loop

pressed = False


def interrupting(path: Path) -> np.ndarray:
    global pressed
    worker = get_worker_info()
    if worker is not None and worker.id == 1 and not pressed:
        pressed = True
        time.sleep(1)
        os.killpg(0, signal.SIGINT)
    return read_image(path)


def main(scenes: Path, out: Path) -> None:
    crops.CACHE_BYTES = 0
    loop.crop_loader = lambda data, batches, **_: crops.crop_loader(data, batches, workers=2, pin_memory=False)
    dataset = replace(open_dataset(scenes), decode_image=interrupting)
    try:
        fit(Plain(), dataset, out, None, SETTINGS.model_copy(update={"steps": 2000}))
    except KeyboardInterrupt:
        sys.exit(3)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
