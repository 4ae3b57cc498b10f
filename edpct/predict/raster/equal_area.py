"""Coordinates in which areas are true, and which neither the antimeridian nor a pole tears apart.

A raster is brought to Lambert's cylindrical equal-area projection about its own middle meridian (the one of EPSG:6933,
which is about Greenwich), or, where a pole lies in it, to Lambert's azimuthal one about that pole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edpct.predict.raster.read import gdal_errors, rasterio_module

Points = NDArray[np.float64]

CELLS = 64  # along each side: over so small a part of a raster a pixel's area hardly changes
LONGITUDE_LATITUDE = "OGC:CRS84"
CYLINDRICAL = "+proj=cea +lat_ts=30 +lon_0={!r} +datum=WGS84 +units=m"
AZIMUTHAL = "+proj=laea +lat_0={} +lon_0=0 +datum=WGS84 +units=m"
# Metres a radian of longitude in the former: a cos(30) / sqrt(1 - e2 sin2(30)), Snyder 1987, equations 10-12 and 10-13.
RADIAN = 6378137.0 * math.cos(math.pi / 6) / math.sqrt(1 - 0.00669437999014 / 4)
TORN = 2 * math.pi * RADIAN / 8  # metres from cell to cell, as there are across a pole alone


@dataclass(frozen=True)
class EqualArea:
    """The projection for one raster.

    Attributes:
        crs: the raster's own system.
        projection: in PROJ's words.
        meridian: longitude of the raster's middle, degrees.
        middle: the x of it in the raster's system.
        polar: whether a pole lies in the raster.
    """

    crs: Any
    projection: str
    meridian: float
    middle: float
    polar: bool

    def metres(self, x: Points, y: Points) -> tuple[Points, Points] | None:
        """Points of the raster's system; None if some are nowhere."""
        found = _project(self.crs, self.projection, x, y)
        if found is None or not self.crs.is_geographic:
            return found
        return (x - self.middle) * self.crs.units_factor[1] * RADIAN, found[1]  # all the way round, without a seam

    def degrees(self, x: Points, y: Points) -> tuple[Points, Points] | None:
        """Longitudes, within 180 degrees of the meridian and so perhaps beyond 180, and latitudes; None likewise."""
        found = _project(self.crs, LONGITUDE_LATITUDE, x, y)
        if found is None:
            return None
        if self.crs.is_geographic:
            return self.meridian + np.degrees((x - self.middle) * self.crs.units_factor[1]), found[1]
        return found[0] - 360 * np.round((found[0] - self.meridian) / 360), found[1]


def equal_area(crs: Any, transform: Any, height: int, width: int) -> EqualArea | None:
    """The projection for a raster; None where it does not know where it lies, or lies nowhere on Earth."""
    if crs is None or not (crs.is_geographic or crs.is_projected) or not np.isfinite(tuple(transform)).all():
        return None
    x, y = corners(transform, height, width)
    middle = placed(transform, np.array([width / 2]), np.array([height / 2]))
    centre = _project(crs, LONGITUDE_LATITUDE, *middle)
    if centre is None:
        return None
    meridian = float(centre[0][0])
    found = EqualArea(crs, CYLINDRICAL.format(meridian), meridian, float(middle[0][0]), False)
    metres = found.metres(x, y)
    if crs.is_geographic or metres is None:
        return None if metres is None else found
    steps = (np.abs(np.diff(metres[0], axis=axis)).max(initial=0) for axis in (0, 1))
    if max(steps) < TORN:
        return found
    pole = math.copysign(90, float(centre[1][0]))
    return EqualArea(crs, AZIMUTHAL.format(pole), meridian, float(middle[0][0]), True)


def borders(length: int, count: int = CELLS) -> list[int]:
    """Where the cells of an axis begin, at most ``count`` of them, and the end of the last."""
    count = min(count, length)
    return [length * index // count for index in range(count + 1)]


def corners(transform: Any, height: int, width: int) -> tuple[Points, Points]:
    """Of all cells, x and y in the raster's system, (rows + 1, columns + 1) each."""
    columns, rows = np.meshgrid(np.array(borders(width), float), np.array(borders(height), float))
    return placed(transform, columns, rows)


def placed(transform: Any, columns: Points, rows: Points) -> tuple[Points, Points]:
    """From pixels to the raster's coordinates."""
    x = transform.a * columns + transform.b * rows + transform.c
    return x, transform.d * columns + transform.e * rows + transform.f


def _project(crs: Any, to: str, x: Points, y: Points) -> tuple[Points, Points] | None:
    rasterio_module()
    from rasterio.warp import transform

    try:
        found = transform(crs, to, x.ravel().tolist(), y.ravel().tolist())
    except gdal_errors():
        return None
    east, north = (np.asarray(values, float).reshape(x.shape) for values in found[:2])
    return (east, north) if np.isfinite(east).all() and np.isfinite(north).all() else None
