"""From the values of a raster, of whatever type, to the 8 bits that networks here are trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TABLE_TYPES = ("uint8", "uint16", "int16")


@dataclass(frozen=True)
class Scale:
    """What becomes 0 and what becomes 255, band by band; in between linear, beyond it cut.

    Attributes:
        low, high: one value a band, in the raster's own units, ``low < high``.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def apply(self, values: NDArray[Any], band: int) -> NDArray[np.uint8]:
        """Values of a band, of any shape and real type, as uint8; NaN becomes 0."""
        if values.dtype.name in TABLE_TYPES:  # one look-up a pixel instead of arithmetic in floating point
            info = np.iinfo(values.dtype)
            table = self._linear(np.arange(info.min, info.max + 1), band)
            index = values.astype(np.int32) - info.min if info.min else values
            return table[index]
        return self._linear(values, band)

    def _linear(self, values: NDArray[Any], band: int) -> NDArray[np.uint8]:
        low, high = self.low[band], self.high[band]
        exact = np.float64 if values.dtype.itemsize > 4 or values.dtype.kind != "f" else np.float32  # far from 0, too
        real: NDArray[Any] = values.astype(exact)
        real *= exact(0.5)  # of halves, no difference leaves the range
        real -= exact(low / 2)
        real /= exact(high / 2 - low / 2)
        real *= exact(255)
        real = np.nan_to_num(real, copy=False, nan=0.0, posinf=255.0, neginf=0.0)
        return np.clip(np.rint(real), 0, 255).astype(np.uint8)


def percentiles(samples: list[NDArray[Any]], low: float, high: float) -> Scale:
    """The scale whose ends are percentiles (0..100) of what was sampled of each band.

    Args:
        samples: valid values of each band, (n,), finite; a band without any, or of one value, keeps that value dark.
    """
    ends = [np.percentile(values, (low, high)) if len(values) else np.array((0.0, 1.0)) for values in samples]
    return Scale(
        tuple(float(end[0]) for end in ends),
        tuple(float(end[1]) if end[1] > end[0] else float(end[0]) + 1.0 for end in ends),
    )
