"""Maps that were made before: a tag in each says of which job, so that the same command does not make them again."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edpct.errors import DataError
from edpct.predict.part import is_text
from edpct.predict.raster.ground import Census
from edpct.predict.raster.read import gdal_errors, rasterio_module

TAG = "EDPCT_JOB"
ROWS = 512  # that are counted at a time: a row of tiles


def job_of(facts: dict[str, Any]) -> str:
    """What a map's tag holds: a hash of all that the map depends on, plain JSON values."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def was_made(path: Path, job: str) -> bool:
    """Whether a file is the whole result of a job; results appear at once, so that none is there in part."""
    if not (is_text(str(path)) and path.is_file()):
        return False
    try:
        with _opened(path) as file:
            return bool(file.tags().get(TAG) == job)
    except gdal_errors():
        return False


def count(path: Path, census: Census) -> None:
    """Add the pixels of a map.

    Raises:
        DataError: it is damaged.
    """
    try:
        with _opened(path) as file:
            for first in range(0, file.height, ROWS):
                last = min(first + ROWS, file.height)
                census.append(file.read(1, window=((first, last), (0, file.width))))
    except gdal_errors() as error:
        raise DataError(f"{path} was made before, and is damaged.", "Remove it.") from error


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    rasterio = rasterio_module()
    with rasterio.Env(), warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path) as file:
            yield file
