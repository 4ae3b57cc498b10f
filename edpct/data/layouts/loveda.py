"""LoveDA: rural and urban scenes of three Chinese cities, 0.3 m, 1024 x 1024 pixels.

Wang et al., "LoveDA: A Remote Sensing Land-Cover Dataset for Domain Adaptive Semantic Segmentation", NeurIPS 2021
Datasets and Benchmarks, arXiv 2110.08733. Masks hold 0 for no data and 1 to 7 for the classes. The labels of Test are
not public, so that papers report Val, as is done here, or the server's score on Test.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from edpct.data.samples import Dataset, Labels, Sample, pair_up, read_mask, relabel
from edpct.errors import DataError
from edpct.task import IGNORE_INDEX, ClassInfo, Task

CLASSES = (
    ClassInfo(name="background", colour=(255, 255, 255)),
    ClassInfo(name="building", colour=(255, 0, 0)),
    ClassInfo(name="road", colour=(255, 255, 0)),
    ClassInfo(name="water", colour=(0, 0, 255)),
    ClassInfo(name="barren", colour=(159, 129, 183)),
    ClassInfo(name="forest", colour=(0, 255, 0)),
    ClassInfo(name="agriculture", colour=(255, 195, 128)),
)
LABELS = {0: IGNORE_INDEX} | {number: number - 1 for number in range(1, 8)}
REGIONS = ("Rural", "Urban")


def open_layout(root: Path) -> Dataset:
    """Train and Val as they are distributed; Test has no masks."""
    train, val = (_samples(root, split) for split in ("Train", "Val"))
    return Dataset(root, "loveda", Task(classes=CLASSES), train, val, partial(_read_mask, LABELS))


def recognise(root: Path) -> bool:
    """Whether a region has its folder of images."""
    return any((folder / "images_png").is_dir() for split in ("Train", "Val") for folder in _regions(root, split))


def _samples(root: Path, split: str) -> tuple[Sample, ...]:
    folders = [folder for folder in _regions(root, split) if (folder / "images_png").is_dir()]
    return tuple(pair for folder in folders for pair in pair_up(folder / "images_png", folder / "masks_png"))


def _regions(root: Path, split: str) -> list[Path]:
    """Folders of the regions; unpacking Train.zip within a folder Train makes Train/Train."""
    nested = root / split / split
    return [(nested if nested.is_dir() else root / split) / region for region in REGIONS]


def _read_mask(table: dict[int, int], path: Path) -> Labels:
    mask = read_mask(path)
    if mask.mode not in ("L", "P"):
        raise DataError(
            f"The mask {path} has the pixel format {mask.mode}, where LoveDA's are 8-bit numbers.",
            "Use the masks as the data set is distributed.",
        )
    return relabel(np.asarray(mask), table, path)
