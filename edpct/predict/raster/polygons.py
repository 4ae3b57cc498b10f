"""The areas of a map of classes as polygons, in a GeoJSON or a GeoPackage file.

Neighbours are simplified together (shapely's coverage_simplify, after Visvalingam and Whyatt, 1993), so that no gaps
and no overlaps come between them. All polygons are held in memory.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edpct.errors import MissingPackageError, RunError
from edpct.predict.part import part_of
from edpct.predict.raster.equal_area import EqualArea, equal_area, placed
from edpct.predict.raster.read import Raster, rasterio_module
from edpct.task import Task

Points = NDArray[np.float64]

DIGIT = 1e-8  # degrees; a millimetre, and eight decimals
SUFFIXES = (".geojson", ".json", ".gpkg")


@dataclass(frozen=True)
class Outlines:
    """How polygons are drawn.

    Attributes:
        smallest: pixels; what is smaller is given to its largest neighbour. 0 or 1 keeps all.
        tolerance: pixels, 0 or more; corners go that stand out less. 0 keeps every pixel's edge.
    """

    smallest: int = 16
    tolerance: float = 1.0


def check_polygon_file(path: Path) -> None:
    """Before hours of work: whether polygons can be written to such a file.

    Raises:
        RunError: another suffix, or no folder for it.
        MissingPackageError: shapely, or for a GeoPackage pyogrio, is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise RunError(f"Polygons are written as .geojson or .gpkg, and {path.name} is neither.")
    if not path.parent.is_dir():
        raise RunError(f"There is no folder {path.parent} for {path.name}.", "Make it first.")
    if path.is_dir():
        raise RunError(f"{path} is a folder.", "Name a file in it.")
    _shapely()
    if path.suffix.lower() == ".gpkg":
        _pyogrio()


def write_polygons(classes: Path, like: Raster, task: Task, outlines: Outlines, out: Path) -> int:
    """Draw the areas of a map of classes that was written; their number.

    Each has the index and the name of its class and, where the raster knows where it lies, its square metres on the
    ellipsoid. GeoJSON is in longitude and latitude (RFC 7946), a GeoPackage in the raster's own system; of a raster
    that does not know where it lies, both are in its pixels.

    Args:
        classes: the GeoTIFF of :func:`edpct.predict.raster.write.write_classes`.

    Raises:
        RunError: it cannot be written.
    """
    labels, shapes = _drawn(classes, task.ignore_index, outlines)
    shapes = _shapely().transform(shapes, partial(placed, like.transform), interleaved=False)
    where = equal_area(like.crs, like.transform, like.height, like.width)
    projected = None if where is None else _transformed(shapes, where.metres)
    areas = None if projected is None else np.asarray(_shapely().area(projected))
    grown = part_of(out, out.suffix)
    try:
        if out.suffix.lower() == ".gpkg":
            _write_geopackage(grown, labels, shapes, areas, like.crs, task)
        else:
            _write_geojson(grown, labels, shapes if like.crs is None else _in_degrees(shapes, where), areas, task)
        grown.replace(out)
    except OSError as error:
        raise RunError(f"{out} cannot be written: {error.strerror or error}.", "Choose another file.") from error
    finally:
        with suppress(OSError):
            grown.unlink()
    return len(labels)


def _drawn(classes: Path, ignore_index: int, outlines: Outlines) -> tuple[NDArray[np.uint8], NDArray[np.object_]]:
    """Class and polygon of each area, in pixels (x right, y down)."""
    rasterio_module()
    import rasterio
    from rasterio.features import shapes, sieve

    shapely = _shapely()
    with rasterio.open(classes) as file:
        labels = file.read(1)
    valid = labels != ignore_index
    if outlines.smallest > 1:
        labels = sieve(labels, outlines.smallest, mask=valid)
    found = [(label, shapely.geometry.shape(shape)) for shape, label in shapes(labels, mask=valid)]
    polygons = np.array([shape for _, shape in found], dtype=object)
    if outlines.tolerance and len(polygons):
        # A corner that two areas share must be a corner of both: so a vertex at every pixel first.
        polygons = shapely.transform(shapely.segmentize(polygons, 1.0), np.rint)
        polygons = shapely.coverage_simplify(polygons, outlines.tolerance)
    return np.array([label for label, _ in found], np.uint8), polygons


def _transformed(
    shapes: NDArray[np.object_], move: Callable[[Points, Points], tuple[Points, Points] | None]
) -> NDArray[np.object_] | None:
    """With every point moved; None where some would be nowhere."""
    shapely = _shapely()
    points = shapely.get_coordinates(shapes)
    moved = move(points[:, 0], points[:, 1])
    return None if moved is None else shapely.set_coordinates(shapes.copy(), np.stack(moved, axis=1))


def _in_degrees(shapes: NDArray[np.object_], where: EqualArea | None) -> NDArray[np.object_]:
    """Longitude and latitude, cut at the antimeridian (RFC 7946, section 3.1.9)."""
    shapely = _shapely()
    degrees = None if where is None or where.polar else _transformed(shapes, where.degrees)
    if degrees is None:
        why = "a pole lies in the raster" if where is not None and where.polar else "no way leads there from its system"
        raise RunError(f"GeoJSON is in longitude and latitude, and {why}.", "Write a .gpkg: it keeps the coordinates.")
    degrees = shapely.transform(degrees, lambda points: np.round(points, 8))
    left, _, right, _ = shapely.bounds(degrees).T
    for index in np.flatnonzero((left < -180) | (right > 180)):
        parts = []
        for turn in (-360, 0, 360):
            part = shapely.intersection(degrees[index], shapely.box(turn - 180, -90, turn + 180, 90), DIGIT)
            moved = shapely.transform(part, lambda points, turn=turn: points - (turn, 0))
            parts += [each for each in shapely.get_parts(moved) if each.geom_type == "Polygon" and not each.is_empty]
        degrees[index] = parts[0] if len(parts) == 1 else shapely.multipolygons(parts)
    return degrees


def _write_geojson(
    path: Path, labels: NDArray[np.uint8], shapes: NDArray[np.object_], areas: NDArray[np.float64] | None, task: Task
) -> None:
    to_text = _shapely().to_geojson

    def features() -> Iterator[str]:
        for index, (label, shape) in enumerate(zip(labels.tolist(), shapes, strict=True)):
            facts: dict[str, Any] = {"class": label, "name": task.names[label]}
            if areas is not None:
                facts["area_m2"] = round(float(areas[index]), 2)
            yield f'{{"type":"Feature","properties":{json.dumps(facts)},"geometry":{to_text(shape)}}}'

    with path.open("w", encoding="utf-8") as file:
        file.write('{"type":"FeatureCollection","features":[')
        for index, feature in enumerate(features()):
            file.write((",\n" if index else "\n") + feature)
        file.write("\n]}\n")


def _write_geopackage(
    path: Path, labels: NDArray[np.uint8], shapes: NDArray[np.object_], areas: NDArray[np.float64] | None, crs: Any,
    task: Task,
) -> None:  # fmt: skip
    pyogrio = _pyogrio()
    fields: dict[str, NDArray[Any]] = {
        "class": labels.astype(np.int32),
        "name": np.array([task.names[label] for label in labels], dtype=object),
    }
    if areas is not None:
        fields["area_m2"] = areas
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that there is no coordinate system, where there is none
            pyogrio.raw.write(
                path, geometry=_shapely().to_wkb(shapes), field_data=list(fields.values()), fields=list(fields),
                layer="classes", driver="GPKG", geometry_type="Polygon", crs=None if crs is None else crs.to_wkt(),
            )  # fmt: skip
    except (pyogrio.errors.DataSourceError, pyogrio.errors.FeatureError) as error:
        raise OSError(str(error)) from error


def _shapely() -> Any:
    try:
        import shapely
        import shapely.geometry
    except ImportError as error:
        raise MissingPackageError("shapely", "drawing polygons", "geo") from error
    return shapely


def _pyogrio() -> Any:
    try:
        import pyogrio
        import pyogrio.raw
    except ImportError as error:
        raise MissingPackageError("pyogrio", "writing a GeoPackage", "gpkg") from error
    return pyogrio
