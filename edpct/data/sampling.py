"""A few windows of a split, spread over its ground: for calibration, parity, timing and importance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edpct.data.samples import Dataset, Split
from edpct.data.tiling import Window, windows_of


def sample_windows(
    dataset: Dataset, split: Split, count: int, height: int, width: int, seed: int
) -> list[NDArray[np.uint8]]:
    """The images of :func:`sample_labelled`: (height, width, 3), uint8 each."""
    return [window.image for window in sample_labelled(dataset, split, count, height, width, seed)]


def sample_labelled(dataset: Dataset, split: Split, count: int, height: int, width: int, seed: int) -> list[Window]:
    """Up to ``count`` windows of images drawn in shuffled order, one or more from each.

    Images are visited round by round, so that all are seen before one is seen twice. The same seed gives the same
    windows.

    Raises:
        DataError: the split is empty or an image cannot be read.
    """
    samples = dataset.split(split)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(samples))
    per_image = -(-count // len(samples))
    rounds: list[list[Window]] = [[] for _ in range(per_image)]
    for index in order[:count]:
        image, labels = dataset.read(samples[int(index)])
        cut = list(windows_of(image, labels, height, width, dataset.task.ignore_index, int(index)))
        picks = rng.permutation(len(cut))[:per_image]
        for place, pick in enumerate(picks):
            rounds[place].append(cut[int(pick)])
    return [window for found in rounds for window in found][:count]
