"""Rasters that the tests make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine

HERE = Affine(0.3, 0, 325000.1, 0, -0.3, 2780000.2)
UTM = "EPSG:32640"


def rgb(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Blotches of colours that the toy engines tell apart, (H, W, 3)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 5 + 1, width // 5 + 1, 3), np.uint8)
    return np.ascontiguousarray(np.kron(coarse, np.ones((5, 5, 1), np.uint8))[:height, :width])


def write_raster(
    path: Path, bands: NDArray[Any], crs: str | None = UTM, transform: Affine = HERE, **profile: Any
) -> Path:
    """Bands (count, H, W) as a GeoTIFF."""
    count, height, width = bands.shape
    profile = {"driver": "GTiff", **profile}
    with rasterio.open(
        path, "w", count=count, height=height, width=width, dtype=bands.dtype, crs=crs, transform=transform, **profile
    ) as file:
        file.write(bands)
    return path


def planes(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) to (3, H, W)."""
    return np.ascontiguousarray(image.transpose(2, 0, 1))
