"""A few windows of a split, spread over its ground: for calibration, parity, timing and importance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edpct.data.samples import Dataset, Split
from edpct.data.tiling import Window, windows_of

LEAST_SHOWN = 0.01  # of a window's pixels


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


def sample_covering(dataset: Dataset, split: Split, count: int, height: int, width: int, seed: int) -> list[Window]:
    """Like :func:`sample_labelled`, but choosing among twice as many windows, so that rare classes are seen often too.

    In turn, the class that the chosen windows show least often gets the next window that shows it (on a hundredth of
    its pixels or more), so that any number of the first windows covers the classes.
    """
    offered = sample_labelled(dataset, split, 2 * count, height, width, seed)
    classes = dataset.task.num_classes
    shows = np.stack(
        [np.bincount(w.labels.ravel(), minlength=256)[:classes] >= LEAST_SHOWN * w.labels.size for w in offered]
    )
    left = np.ones(len(offered), bool)
    seen = np.zeros(classes, np.int64)
    chosen = []
    for _ in range(min(count, len(offered))):
        there = shows[left].any(0)
        wanted = int(np.argmin(np.where(there, seen, np.iinfo(np.int64).max))) if there.any() else None
        pick = int(np.flatnonzero(left & (shows[:, wanted] if wanted is not None else True))[0])
        left[pick] = False
        seen += shows[pick]
        chosen.append(offered[pick])
    return chosen
