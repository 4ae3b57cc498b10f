"""One raster from beginning to end: predicted row by row, resumed where it was stopped, written, counted."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edpct import __version__
from edpct.errors import DataError, RunError
from edpct.predict.engine import Engine
from edpct.predict.mosaic import OVERLAP, mosaic
from edpct.predict.raster.facts import raster_facts
from edpct.predict.raster.ground import Census, pixel_area
from edpct.predict.raster.growing import Growing, kept_rows
from edpct.predict.raster.made import TAG, count, job_of, was_made
from edpct.predict.raster.polygons import Outlines, write_polygons
from edpct.predict.raster.read import Bands, Raster, rasterio_module
from edpct.predict.raster.rows import Workspace, state_of
from edpct.predict.raster.write import write_classes, write_probabilities
from edpct.predict.stitch import Grid
from edpct.progress import Progress
from edpct.runtimes.artefact import sha256_of

SPARE_CACHE = 64 << 20  # bytes of GDAL's cache beside two rows of the input's blocks


@dataclass(frozen=True)
class RasterSettings:
    """How a raster is predicted.

    Attributes:
        bands: which bands are looked at, and how.
        overlap: pixels that windows share.
        probabilities: write them too, to ``OUT-probabilities.tif``.
        polygons: file to draw the areas into, .geojson or .gpkg; None: none.
        outlines: of those.
    """

    bands: Bands = field(default_factory=Bands)
    overlap: int = OVERLAP
    probabilities: bool = False
    polygons: Path | None = None
    outlines: Outlines = field(default_factory=Outlines)


@dataclass(frozen=True)
class Mapped:
    """What came out.

    Attributes:
        files: the map first.
        written: those that were made now; the others were there from the same job.
        height, width: pixels.
        pixels: of each class, (C,); the rest has no data.
        square_metres: of each class, (C,); None where no area is known.
        measured_on: "grid", "ellipsoid", or "" where no area is known.
        polygons: their number; None if none were asked for.
        resumed_at: the row that an earlier attempt had come to.
        seconds: of predicting, and of writing.
    """

    files: tuple[Path, ...]
    written: tuple[Path, ...]
    height: int
    width: int
    pixels: NDArray[np.int64]
    square_metres: NDArray[np.float64] | None
    measured_on: str
    polygons: int | None
    resumed_at: int
    seconds: tuple[float, float]

    @property
    def kept(self) -> bool:
        """Whether the map was there, so that nothing was predicted."""
        return self.files[0] not in self.written


def predict_raster(engine: Engine, source: Path, out: Path, settings: RasterSettings, progress: Progress) -> Mapped:
    """The map of classes of a raster, as a cloud-optimised GeoTIFF that lies where the raster does.

    Memory grows with the raster's width, not with its height. Stopped at any time, it goes on where it was when it is
    called again with the same engine, raster and settings; and what that made before is kept.

    Args:
        out: a .tif file; it appears at once, when it is whole.

    Raises:
        DataError: the raster cannot be read.
        EngineError: the engine failed, or gives no probabilities and they are asked for.
        RunError: the result cannot be written.
    """
    engine.stitcher(1, settings.probabilities)  # refuses what it cannot give, before anything is made
    fill = np.rint(np.array(engine.task.preprocessing.mean) * 255).tolist()
    began = time.monotonic()
    with Raster(source, settings.bands, fill) as raster:
        size, job = (raster.height, raster.width), job_of(_facts(engine, raster, settings))
        state = {"job": job, "probabilities": settings.probabilities}
        area = pixel_area(raster.crs, raster.transform, *size)
        census = Census(engine.task.num_classes, *size, area)
        files: tuple[Path, ...] = (out, probabilities_file(out)) if settings.probabilities else (out,)
        written = files
        if all(was_made(path, job) for path in files):
            progress.say(f"{out} was made before, by the same engine from the same raster, and is kept")
            written, begun, predicted = (), 0, began
            count(out, census)
            if state_of(out) == state:  # stopped between its last two steps
                with Workspace(out, state) as work:
                    work.remove()
        else:
            with Workspace(out, state) as work:
                begun, predicted = _make(engine, raster, out, settings, work.folder, job, census, progress)
                work.remove()
        drawn = None
        if settings.polygons is not None:
            progress.say(f"Drawing polygons into {settings.polygons}")
            drawn = write_polygons(out, raster, engine.task, settings.outlines, settings.polygons)
            files, written = (*files, settings.polygons), (*written, settings.polygons)
        seconds = predicted - began, time.monotonic() - predicted
        on = "" if area is None else area.on
        return Mapped(files, written, *size, census.pixels, census.square_metres, on, drawn, begun, seconds)


def _make(
    engine: Engine, raster: Raster, out: Path, settings: RasterSettings, folder: Path, job: str, census: Census,
    progress: Progress,
) -> tuple[int, float]:  # fmt: skip
    """Predict and write; the row that an earlier attempt had come to, and when all rows were there."""
    planes = engine.task.num_classes if settings.probabilities else 0
    _check_memory(raster, engine.size[0])
    _check_room(folder, raster, planes)
    grid = Grid.over((raster.height, raster.width), engine.size, settings.overlap, raster.phase)
    cache = 2 * (raster.block_rows + engine.size[0]) * raster.width * 3 + SPARE_CACHE
    with rasterio_module().Env(GDAL_CACHEMAX=cache):
        begun = _begin(grid, raster, folder, planes)
        with Growing(folder, raster.height, raster.width, planes, begun, census) as growing:
            _predict(engine, raster, grid, growing, begun, settings.probabilities, progress)
            halves = growing.finish()
    predicted = time.monotonic()
    progress.say(f"Writing {out}")
    _write(engine, raster, growing, halves, out, job)
    return begun, predicted


def probabilities_file(out: Path) -> Path:
    """Where the probabilities beside a map go."""
    return out.with_name(f"{out.stem}-probabilities{out.suffix}")


def _facts(engine: Engine, raster: Raster, settings: RasterSettings) -> dict[str, Any]:
    """What the rows depend on."""
    return {
        **raster_facts(raster),
        "edpct": __version__,
        "engine": sha256_of(engine.path),
        "runtime": engine.runtime,
        "bands": list(raster.bands),
        "scale": None if raster.scale is None else [list(raster.scale.low), list(raster.scale.high)],
        "overlap": settings.overlap,
    }


def _check_memory(raster: Raster, rows: int) -> None:
    """Two rows of windows are in memory at a time, as values and as colours; no machine swaps its way through more."""
    needed = 2 * rows * raster.width * 3 * (raster.value_bytes + 1)
    have = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > have:
        raise DataError(
            f"{raster.path.name} is {raster.width} pixels wide, which needs {needed / 1e9:.0f} GB of memory; this "
            f"machine has {have / 1e9:.0f} GB.",
            "Cut it into narrower pieces, with gdal_translate -srcwin say.",
        )


def _check_room(folder: Path, raster: Raster, planes: int) -> None:
    """Rows are kept as they are until the file is written; better said now than after an hour."""
    needed = raster.height * raster.width * (2 + 2 * planes)
    kept = sum(path.stat().st_size for path in folder.iterdir())
    free = shutil.disk_usage(folder).free
    if needed - kept > free:
        raise RunError(
            f"The disk is nearly full: {raster.path.name} needs up to {(needed - kept) / 1e9:.1f} GB for the time "
            f"being, and {free / 1e9:.1f} GB are free.",
            "Free some space, or choose another --out.",
        )


def _begin(grid: Grid, raster: Raster, folder: Path, planes: int) -> int:
    """The row to go on at: only whole rows of windows count."""
    done = _rows_of_windows(grid, kept_rows(folder, raster.width, planes))
    return raster.height if done == len(grid.rows) else grid.rows[done].first


def _rows_of_windows(grid: Grid, rows: int) -> int:
    """How many rows of windows so many finished rows of pixels are."""
    return sum(row.last - row.ramp_out <= rows for row in grid.rows)


def _predict(
    engine: Engine, raster: Raster, grid: Grid, growing: Growing, begin: int, probabilities: bool, progress: Progress
) -> None:
    """Append the rows from ``begin`` on."""
    ignore = np.uint8(engine.task.ignore_index)
    if begin:
        progress.say(f"Going on at row {begin} of {raster.height}")
    with progress.task(f"Predicting {raster.path.name}", raster.height, begin) as update:
        for first, rows, shares in _finished(engine, raster, grid, probabilities, begin):
            valid = raster.valid(first, first + len(rows))
            if valid is not None:
                rows[~valid] = ignore
                if shares is not None:
                    shares[:, ~valid] = 0
            growing.append(rows, shares)
            update(first + len(rows), "rows")


def _finished(
    engine: Engine, raster: Raster, grid: Grid, probabilities: bool, begin: int
) -> Iterator[tuple[int, NDArray[np.uint8], NDArray[np.uint8] | None]]:
    """Number of the first row, and rows, from ``begin`` on."""
    if begin == raster.height:
        return
    row = max(_rows_of_windows(grid, begin) - 1, 0)  # the ramp above the first that is missing needs the one before it
    first = grid.rows[row].first
    for rows, shares in mosaic(engine, grid, raster.read, row, probabilities, raster.empty):
        after = first + len(rows)
        if after > begin:
            yield first, rows, shares
        first = after


def _write(engine: Engine, raster: Raster, growing: Growing, halves: list[Path], out: Path, job: str) -> None:
    tags = {"EDPCT": __version__, "ENGINE": engine.path.name, "NETWORK": engine.card.network, TAG: job}
    if growing.shares:
        write_probabilities(growing.shares, raster, engine.task, tags, probabilities_file(out))
    write_classes(growing.classes, halves, raster, engine.task, tags, out)
