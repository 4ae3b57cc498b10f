"""How much ground a class covers, in square metres.

Of a raster in a projection that is measured in metres or feet, a pixel is as large as its grid says. Where that is off
by more than one in a hundred, as in Web Mercator, or where the coordinates are degrees, the area is that on the
ellipsoid: blocks of pixels are brought to an equal-area projection and measured there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edpct.predict.raster.equal_area import EqualArea, borders, corners, equal_area

TRUST = 0.01  # how far the grid's pixel may be from the ellipsoid's


@dataclass(frozen=True)
class PixelArea:
    """The area of pixels.

    Attributes:
        on: "grid", one area for all; or "ellipsoid".
        square_metres: (rows, columns) of cells that the raster is divided into evenly; of one pixel in each.
    """

    on: Literal["grid", "ellipsoid"]
    square_metres: NDArray[np.float64]

    def of(self, height: int, width: int, first: int, last: int) -> list[tuple[slice, slice, float]]:
        """The cells of some rows of a raster: rows from ``first``, columns, area of one pixel there."""
        rows, columns = self.square_metres.shape
        down, across = borders(height, rows), borders(width, columns)
        parts = []
        for row in range(len(down) - 1):
            top, bottom = max(down[row], first), min(down[row + 1], last)
            if top < bottom:
                parts += [
                    (slice(top - first, bottom - first), slice(across[column], across[column + 1]), float(area))
                    for column, area in enumerate(self.square_metres[row])
                ]
        return parts


def pixel_area(crs: Any, transform: Any, height: int, width: int) -> PixelArea | None:
    """What a pixel covers; None where the raster does not know where it lies, or lies nowhere on Earth."""
    if crs is None or not (crs.is_geographic or crs.is_projected) or not np.isfinite(tuple(transform)).all():
        return None
    true = _on_the_ellipsoid(equal_area(crs, transform, height, width), transform, height, width)
    if crs.is_projected:
        unit = crs.linear_units_factor[1]
        flat = abs(transform.a * transform.e - transform.b * transform.d) * unit**2
        if true is None or np.all(np.abs(true / flat - 1) <= TRUST):
            return PixelArea("grid", np.array([[flat]]))
    return None if true is None else PixelArea("ellipsoid", true)


def _on_the_ellipsoid(area: EqualArea | None, transform: Any, height: int, width: int) -> NDArray[np.float64] | None:
    """Square metres of a pixel, cell by cell; None if some corner is nowhere."""
    metres = None if area is None else area.metres(*corners(transform, height, width))
    if metres is None:
        return None
    e, n = metres
    # Half the cross product of the diagonals: the area of each four-cornered cell.
    first = e[1:, 1:] - e[:-1, :-1], n[1:, 1:] - n[:-1, :-1]
    second = e[1:, :-1] - e[:-1, 1:], n[1:, :-1] - n[:-1, 1:]
    cells = np.abs(first[0] * second[1] - first[1] * second[0]) / 2
    pixels = np.outer(np.diff(borders(height)), np.diff(borders(width)))
    areas: NDArray[np.float64] = cells / pixels
    return areas if (areas > 0).all() else None


class Census:
    """Counts the pixels of every class, and their area, over rows that come from the top to the bottom.

    Attributes:
        pixels: (C,), of each class; pixels of no class are not counted.
        square_metres: (C,); None where no area is known.
    """

    def __init__(self, classes: int, height: int, width: int, area: PixelArea | None) -> None:
        self._size, self._area, self._row = (height, width), area, 0
        self.pixels: NDArray[np.int64] = np.zeros(classes, np.int64)
        self.square_metres: NDArray[np.float64] | None = None if area is None else np.zeros(classes)

    def append(self, rows: NDArray[np.uint8]) -> None:
        """Rows (n, width) of the map."""
        first, self._row = self._row, self._row + len(rows)
        if self._area is None or self.square_metres is None:
            self.pixels += self._count(rows)
            return
        if self._area.square_metres.size == 1:
            counted = self._count(rows)
            self.pixels += counted
            self.square_metres += counted * self._area.square_metres[0, 0]
            return
        for place, across, area in self._area.of(*self._size, first, self._row):
            counted = self._count(rows[place, across])
            self.pixels += counted
            self.square_metres += counted * area

    def _count(self, part: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Class by class: several times as fast as np.bincount, which makes 64 bits of every pixel."""
        return np.array([np.count_nonzero(part == label) for label in range(len(self.pixels))], np.int64)
