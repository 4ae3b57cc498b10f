"""What a raster says beside its values, and all the files that it says it in: a map depends on these, too."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edpct.errors import DataError
from edpct.predict.raster.read import Raster, gdal_errors, rasterio_module


def raster_facts(raster: Raster) -> dict[str, Any]:
    """Where it lies, where it has data, and size and time of its file, of its sidecars and of a VRT's sources.

    Plain JSON values, equal for as long as nothing of it has changed.

    Raises:
        DataError: a VRT names a source in other than UTF-8.
    """
    file, (points, system) = raster.dataset, raster.gcps
    return {
        "raster": str(raster.path.resolve()),
        "files": sorted(_marks(path) for path in _with_masks(_files(file, raster.path, set()))),
        "crs": _wkt(raster.crs),
        "transform": list(raster.transform),
        "gcps": [[point.row, point.col, point.x, point.y, point.z] for point in points],
        "gcps_crs": _wkt(system),
        "rpcs": None if raster.rpcs is None else raster.rpcs.to_dict(),
        "nodata": [repr(value) for value in file.nodatavals],
        "masks": [[flag.name for flag in flags] for flags in file.mask_flag_enums],
    }


def _wkt(crs: Any) -> str | None:
    return None if crs is None else str(crs.to_wkt(version="WKT2_2019"))  # which can say more than the older ones


def _files(file: Any, path: Path, seen: set[Path]) -> Iterator[Path]:
    """All files of an opened raster, ``path`` first; those of a VRT in a VRT GDAL does not name."""
    seen.add(path)
    yield path
    try:
        names = file.files
    except UnicodeDecodeError as error:
        raise DataError(f"{path} reads a file whose name is not UTF-8.", "Rename it.") from error
    for other in map(Path, names):
        if other in seen:
            continue
        if other.suffix.lower() == ".vrt" and other.is_file():
            yield from _files_of_vrt(other, seen)
        else:
            seen.add(other)
            yield other


def _files_of_vrt(path: Path, seen: set[Path]) -> Iterator[Path]:
    rasterio = rasterio_module()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with rasterio.Env(), rasterio.open(path) as file:
                yield from _files(file, path, seen)
    except gdal_errors():  # reading it will say why
        seen.add(path)
        yield path


def _with_masks(paths: Iterator[Path]) -> set[Path]:
    """A source's own mask, which GDAL does not name with a VRT's sources, counts with it."""
    return {each for path in paths for each in (path, path.with_name(f"{path.name}.msk")) if path.name}


def _marks(path: Path) -> list[str | int]:
    """Name, size in bytes and time in ns; the name alone where there is none, or it is no plain file."""
    name = str(path.absolute())
    try:
        if not path.is_file():
            return [name]
        stat = path.stat()
    except (OSError, ValueError):
        return [name]
    return [name, stat.st_size, stat.st_mtime_ns]
