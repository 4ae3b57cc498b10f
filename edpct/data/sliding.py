"""Least or greatest value of the square around each pixel, in a few passes over the array."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", bound=np.generic)


def over_square(values: NDArray[Number], combine: np.ufunc, neutral: float, radius: int) -> NDArray[Number]:
    """Minimum or maximum over the square of 2 radius + 1 pixels around each of (H, W).

    Args:
        combine: ``np.minimum`` or ``np.maximum``.
        neutral: what lies outside; a value that is never the least (the greatest).

    Returns:
        (H, W), of the dtype of ``values``.
    """
    padded = np.pad(values, radius, constant_values=values.dtype.type(neutral))
    return _over_rows(_over_rows(padded, combine, 2 * radius + 1).T, combine, 2 * radius + 1).T


def _over_rows(values: NDArray[Number], combine: np.ufunc, length: int) -> NDArray[Number]:
    """Minimum or maximum of each row and those after it, ``length`` in all: (H, W) to (H - length + 1, W).

    By doubling, which takes log2(length) passes: two runs of n rows, n apart, make one of 2 n.
    """
    reach = 1
    while reach < length:
        step = min(reach, length - reach)  # the last two runs may overlap: it is the same minimum
        values = combine(values[:-step], values[step:])
        reach += step
    return values
