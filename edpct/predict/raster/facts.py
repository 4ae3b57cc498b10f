"""What a raster says beside its values, and all the files that it says it in: a map depends on these, too.

Programs that only look at a raster leave files beside it: statistics and histograms in ``.aux.xml`` (GDAL's PAM,
https://gdal.org/user/pam.html), overviews in ``.ovr``. These make no other map.
"""

from __future__ import annotations

import warnings
import xml.etree.ElementTree as ET
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
        "files": sorted(filter(None, map(_marks, _with_masks(_files(file, raster.path, set()), raster.path)))),
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


def _with_masks(paths: Iterator[Path], raster: Path) -> set[Path]:
    """Without overviews. A source's own mask, which GDAL does not name with a VRT's sources, counts with it."""
    found = {path for path in paths if path.name and (path == raster or path.suffix.lower() != ".ovr")}
    return found | {path.with_name(f"{path.name}.msk") for path in found if not _is_pam(path)}


def _is_pam(path: Path) -> bool:
    return path.name.lower().endswith(".aux.xml")


def _marks(path: Path) -> list[str | int]:
    """Name, size in bytes and time in ns; the name alone where there is none, or it is no plain file.

    Of PAM, what it says beside statistics in place of size and time; empty where that is all.
    """
    name = str(path.absolute())
    try:
        if not path.is_file():
            return [name]
        stat = path.stat()
        said = _without_statistics(path) if _is_pam(path) else None
    except (OSError, ValueError):
        return [name]
    if said is None:
        return [name, stat.st_size, stat.st_mtime_ns]
    return [name, said] if said else []


def _without_statistics(path: Path) -> str | None:
    """What a PAM file says beside statistics and histograms, as canonical XML; empty if that is all; None: it is none.

    Raises:
        OSError: it cannot be read.
    """
    try:
        root = ET.parse(path).getroot()
    except ET.ParseError:
        return None
    for parent in list(root.iter()):
        for child in list(parent):
            statistics = child.tag == "MDI" and child.get("key", "").startswith("STATISTICS_")
            if statistics or child.tag == "Histograms":
                parent.remove(child)
    for parent in reversed(list(root.iter())):  # the innermost first: what held only these is empty now
        for child in list(parent):
            if child.tag in ("Metadata", "PAMRasterBand") and not len(child):
                parent.remove(child)
    return ET.canonicalize(ET.tostring(root, encoding="unicode"), strip_text=True) if len(root) else ""
