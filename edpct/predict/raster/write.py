"""From finished rows to a cloud-optimised GeoTIFF: tiled, compressed, with overviews, where the input lies.

The rows' file and its overviews are joined by a VRT (https://gdal.org/drivers/raster/vrt.html), which also holds the
coordinates and colours; GDAL's COG driver copies that (https://gdal.org/drivers/raster/cog.html).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from edpct.errors import RunError
from edpct.predict.raster.read import Raster, gdal_errors, rasterio_module
from edpct.predict.raster.rows import STRIP
from edpct.task import Task

SPARE_CACHE = 64 << 20  # bytes of GDAL's cache beside the strips that a row of tiles is cut from
LEVEL = 1  # of DEFLATE: maps of classes hardly get smaller with more, and take three times as long


def write_classes(
    rows: Path, overviews: Sequence[Path], like: Raster, task: Task, tags: dict[str, str], out: Path
) -> None:
    """The map of classes: one band, uint8, palette, no data where the task ignores.

    Args:
        rows, overviews: finished files of :class:`edpct.predict.raster.rows.Rows`, in one folder.
        like: the raster that was predicted; its coordinates are taken over.
        tags: further metadata.
        out: appears at once, when it is whole.

    Raises:
        RunError: it cannot be written.
    """
    names = {f"CLASS_{index}": name for index, name in enumerate(task.names)}
    entries = "".join(
        f'<Entry c1="{red}" c2="{green}" c3="{blue}" c4="{0 if index == task.ignore_index else 255}"/>'
        for index, (red, green, blue) in enumerate(task.palette.tolist())
    )
    halves = "".join(
        f'<Overview><SourceFilename relativeToVRT="1">{path.name}</SourceFilename><SourceBand>1</SourceBand></Overview>'
        for path in overviews
    )
    band = (
        f"<Description>class</Description><NoDataValue>{task.ignore_index}</NoDataValue><ColorInterp>Palette</ColorInterp>"
        f"<ColorTable>{entries}</ColorTable>{halves}"
    )
    _write([rows], [band], like, names | tags, out, overviews="AUTO" if overviews else "NONE")


def write_probabilities(rows: Sequence[Path], like: Raster, task: Task, tags: dict[str, str], out: Path) -> None:
    """The probabilities: one band a class, uint8, 255 for 1; 0 in all bands where there is no data.

    Args:
        rows: finished files, one a class, in one folder.

    Further arguments, and what is raised: as :func:`write_classes`.
    """
    bands = [f"<Description>{escape(name)}</Description><Scale>{1 / 255!r}</Scale>" for name in task.names]
    _write(rows, bands, like, tags, out, overview_resampling="AVERAGE", interleave="BAND")


def _write(
    rows: Sequence[Path], bands: Sequence[str], like: Raster, tags: dict[str, str], out: Path, **options: str
) -> None:
    rasterio = rasterio_module()
    failures: tuple[type[Exception], ...] = (*gdal_errors(), OSError)
    joined, grown = rows[0].with_suffix(".vrt"), rows[0].with_suffix(".tif")
    joined.write_text(_vrt(rows, bands, like.height, like.width), encoding="utf-8")
    cache = 2 * STRIP * like.width + SPARE_CACHE  # bands are written one after the other
    try:
        with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=cache):
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with rasterio.open(joined, "r+") as file:
                place(file, like)
                file.update_tags(**tags)
            rasterio.shutil.copy(
                joined, grown, driver="COG", compress="DEFLATE", level=LEVEL, num_threads="ALL_CPUS",
                bigtiff="IF_SAFER", **options,
            )  # fmt: skip
            whole(rasterio, grown)
        grown.replace(out)
    except failures as error:
        raise RunError(
            f"{out} cannot be written: {_said(error)}.", "What was predicted is kept; the same command goes on."
        ) from error


def place(file: Any, like: Raster) -> None:
    """Say of an opened file where it lies."""
    if like.crs is not None or not like.transform.is_identity:
        file.transform = like.transform
    if like.crs is not None:
        file.crs = like.crs
    points, system = like.gcps
    if points:
        file.gcps = (points, system or rasterio_module().CRS())
    if like.rpcs is not None:
        file.rpcs = like.rpcs


def whole(rasterio: Any, path: Path) -> None:
    """Read back the last block of a file: GDAL reports a full disk late, or not at all.

    Raises:
        OSError: it is cut short.
    """
    try:
        with rasterio.open(path) as file:
            file.read(file.count, window=((file.height - 1, file.height), (file.width - 1, file.width)))
    except gdal_errors() as error:
        raise OSError("it came out damaged, as happens when the disk is full") from error


def _vrt(sources: Sequence[Path], bands: Sequence[str], height: int, width: int) -> str:
    parts = "".join(
        f'<VRTRasterBand dataType="Byte" band="{number}">{band}<SimpleSource><SourceFilename relativeToVRT="1">'
        f"{source.name}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        for number, (source, band) in enumerate(zip(sources, bands, strict=True), 1)
    )
    return f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">{parts}</VRTDataset>'


def _said(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:200]
