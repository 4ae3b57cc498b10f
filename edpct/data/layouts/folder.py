"""``classes.json`` and train/ and val/, each with images/ and masks/; masks hold class indices or class colours."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from edpct.data.layouts import CLASS_FILE
from edpct.data.layouts.geotiff import recognise as is_georeferenced
from edpct.data.layouts.masks import read_class_table, read_indices_or_colours
from edpct.data.samples import Dataset, Sample, Split, pair_up


def open_layout(root: Path) -> Dataset:
    """The splits are what the folders say."""
    task = read_class_table(root)

    def samples(split: Split) -> tuple[Sample, ...]:
        images = root / split / "images"
        return pair_up(images, root / split / "masks") if images.is_dir() else ()

    decode = partial(read_indices_or_colours, task)
    return Dataset(root, "folder", task, samples("train"), samples("val"), decode)


def recognise(root: Path) -> bool:
    """Whether there is a class table and a folder of images that are not georeferenced."""
    there = any((root / split / "images").is_dir() for split in ("train", "val"))
    return there and (root / CLASS_FILE).is_file() and not is_georeferenced(root)
