"""What identifies a dataset: by it a finished training or stage is known to be of these images and labels."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from edpct.data.samples import Dataset
from edpct.errors import DataError


def data_fingerprint(dataset: Dataset) -> dict[str, Any]:
    """Layout and task of a dataset, and of both splits the names and sizes of the images and the content of the masks.

    A copy in another folder is the same dataset. Masks are what gets corrected, often without a change of size, and are
    small: they are read. Images are many times larger, and are not.

    Returns:
        Plain JSON values.

    Raises:
        DataError: a split is empty, or a file cannot be read.
    """
    files = [
        [*_named(dataset, sample.image), *_named(dataset, sample.mask, content=True)]
        for sample in (*dataset.split("train"), *dataset.split("val"))
    ]
    task = dataset.task.model_dump(mode="json")
    return {"layout": dataset.layout, "task": task, "train": len(dataset.train), "files": files}


def _named(dataset: Dataset, path: Path, content: bool = False) -> tuple[str, str | int]:
    try:
        mark = hashlib.sha256(path.read_bytes()).hexdigest() if content else path.stat().st_size
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.", "Check the path and its permissions.") from error
    return path.relative_to(dataset.root).as_posix(), mark
