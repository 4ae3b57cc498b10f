"""What identifies a dataset: by it a finished training or stage is known to be of these images and labels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edpct.data.samples import Dataset
from edpct.errors import DataError

PART = 4096  # bytes


def data_fingerprint(dataset: Dataset) -> dict[str, Any]:
    """Layout and task of a dataset, and names and content of the masks and images of both splits.

    A copy in another folder is the same dataset. Masks are what gets corrected, often in a few pixels, and are small:
    they are read. Images are many times larger, and what changes one changes all of it (colours, place, compression):
    their size, beginning, middle and end are looked at.

    Returns:
        Plain JSON values.

    Raises:
        DataError: a split is empty, or a file cannot be read.
    """
    files = [
        [_named(dataset, sample.image, _parts), _named(dataset, sample.mask, Path.read_bytes)]
        for sample in (*dataset.split("train"), *dataset.split("val"))
    ]
    task = dataset.task.model_dump(mode="json")
    return {"layout": dataset.layout, "task": task, "train": len(dataset.train), "files": files}


def _named(dataset: Dataset, path: Path, content: Callable[[Path], bytes]) -> list[str]:
    """Its name within the dataset, and a hash of its content."""
    try:
        mark = hashlib.sha256(content(path)).hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.", "Check the path and its permissions.") from error
    return [path.relative_to(dataset.root).as_posix(), mark]


def _parts(path: Path) -> bytes:
    """Size of a file, and :data:`PART` bytes from its beginning, middle and end."""
    size = path.stat().st_size
    with path.open("rb", buffering=0) as file:
        found = [str(size).encode()]
        for start in (0, size // 2, size - PART):
            file.seek(max(start, 0))
            found.append(file.read(PART))
    return b" ".join(found)
