"""A few windows of a split, spread over its ground: for calibration, parity and timing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edpct.data.samples import Dataset, Split
from edpct.data.tiling import windows_of


def sample_windows(
    dataset: Dataset, split: Split, count: int, height: int, width: int, seed: int
) -> list[NDArray[np.uint8]]:
    """Up to ``count`` windows (height, width, 3), uint8, of images drawn in shuffled order, one or more from each.

    Images are visited round by round, so that all are seen before one is seen twice. The same seed gives the same
    windows.

    Raises:
        DataError: the split is empty or an image cannot be read.
    """
    samples = dataset.split(split)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(samples))
    per_image = -(-count // len(samples))
    rounds: list[list[NDArray[np.uint8]]] = [[] for _ in range(per_image)]
    for index in order[:count]:
        image, labels = dataset.read(samples[int(index)])
        cut = [w.image for w in windows_of(image, labels, height, width, dataset.task.ignore_index)]
        picks = rng.permutation(len(cut))[:per_image]
        for place, pick in enumerate(picks):
            rounds[place].append(cut[int(pick)])
    return [window for found in rounds for window in found][:count]
