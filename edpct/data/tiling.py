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


def starts(length: int, window: int) -> list[int]:
    """Where windows begin along one axis: side by side, the last one moved back to end with the image."""
    if length <= window:
        return [0]
    return [*range(0, length - window, window), length - window]


def windows_of(
    image: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    height: int,
    width: int,
    ignore_index: int,
    source: int = 0,
) -> Iterator[Window]:
    """Windows that cover an image, in row-major order, every labelled pixel being counted in exactly one of them."""
    rows, columns = labels.shape
    open_labels = labels.copy()
    for top in starts(rows, height):
        for left in starts(columns, width):
            area = np.s_[top : min(top + height, rows), left : min(left + width, columns)]
            pad = (height - image[area].shape[0], width - image[area].shape[1])
            window_image = image[area]
            window_labels = open_labels[area].copy()
            open_labels[area] = ignore_index
            if any(pad):
                window_image = np.pad(window_image, ((0, pad[0]), (0, pad[1]), (0, 0)), mode="symmetric")
                window_labels = np.pad(
                    window_labels, ((0, pad[0]), (0, pad[1])), constant_values=np.uint8(ignore_index)
                )
            yield Window(window_image, window_labels, source, top, left)


def windows(dataset: Dataset, split: Split, height: int, width: int) -> Iterator[Window]:
    """Windows over all images of a split."""
    for index, sample in enumerate(dataset.split(split)):
        image, labels = dataset.read(sample)
        yield from windows_of(image, labels, height, width, dataset.task.ignore_index, index)
