"""Cutting images of any size into windows of an engine's input size, each pixel counted once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edpct.data.samples import Dataset, Split


@dataclass(frozen=True)
class Window:
    """A window of an image.

    Attributes:
        image: (h, w, 3), uint8; padded with its own mirrored edge where the image is smaller than the window.
        labels: (h, w), uint8; the ignore index on padding and on pixels that an earlier window already counted.
        source: index of the image in its split.
        top, left: position of the window in the image, pixels.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    source: int
    top: int
    left: int


def starts(length: int, window: int, overlap: float = 0.0) -> list[int]:
    """Where windows begin along one axis, the last one moved back to end with the image.

    Args:
        overlap: share of a window, 0..1, that the next one covers, too; 0: side by side.
    """
    if length <= window:
        return [0]
    return [*range(0, length - window, max(1, round(window * (1 - overlap)))), length - window]


def cover(
    image: NDArray[np.uint8], height: int, width: int, overlap: float = 0.0
) -> Iterator[tuple[NDArray[np.uint8], tuple[slice, slice]]]:
    """Windows that cover an image (H, W, 3), in row-major order, and the rows and columns of the image in each.

    A window is (height, width, 3), uint8; its upper left part is the image's, the rest its own mirrored edge where the
    image is smaller than the window.
    """
    rows, columns = image.shape[:2]
    for top in starts(rows, height, overlap):
        for left in starts(columns, width, overlap):
            area = slice(top, min(top + height, rows)), slice(left, min(left + width, columns))
            window = image[area]
            pad = (height - window.shape[0], width - window.shape[1])
            if any(pad):
                window = np.pad(window, ((0, pad[0]), (0, pad[1]), (0, 0)), mode="symmetric")
            yield window, area


def windows_of(
    image: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    height: int,
    width: int,
    ignore_index: int,
    source: int = 0,
) -> Iterator[Window]:
    """Windows that cover an image, in row-major order, every labelled pixel being counted in exactly one of them."""
    open_labels = labels.copy()
    for window, area in cover(image, height, width):
        counted = np.full((height, width), ignore_index, np.uint8)
        inner = open_labels[area]
        counted[: inner.shape[0], : inner.shape[1]] = inner
        open_labels[area] = ignore_index
        yield Window(window, counted, source, area[0].start, area[1].start)


def count_windows(dataset: Dataset, split: Split, height: int, width: int) -> int:
    """How many :func:`windows` gives, from the sizes of the images alone.

    Raises:
        DataError: the split is empty, or an image cannot be read.
    """
    sizes = (dataset.decode_size(sample.image) for sample in dataset.split(split))
    return sum(len(starts(rows, height)) * len(starts(columns, width)) for rows, columns in sizes)


def windows(dataset: Dataset, split: Split, height: int, width: int) -> Iterator[Window]:
    """Windows over all images of a split."""
    for index, sample in enumerate(dataset.split(split)):
        image, labels = dataset.read(sample)
        yield from windows_of(image, labels, height, width, dataset.task.ignore_index, index)
