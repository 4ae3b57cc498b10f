"""UAVid: oblique views of streets from 50 m, 4K frames of video sequences.

Lyu et al., "UAVid: A Semantic Segmentation Dataset for UAV Imagery", ISPRS Journal 165 (2020), arXiv 1810.10438. The
labels of uavid_test are not public, so that validation is uavid_val. Background clutter is a class, and scored.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from edpct.data.layouts.masks import colours_of, read_coloured
from edpct.data.samples import Dataset, Sample, pair_up
from edpct.task import ClassInfo, Task

CLASSES = (
    ClassInfo(name="building", colour=(128, 0, 0)),
    ClassInfo(name="road", colour=(128, 64, 128)),
    ClassInfo(name="static car", colour=(192, 0, 192)),
    ClassInfo(name="tree", colour=(0, 128, 0)),
    ClassInfo(name="low vegetation", colour=(128, 128, 0)),
    ClassInfo(name="human", colour=(64, 64, 0)),
    ClassInfo(name="moving car", colour=(64, 0, 128)),
    ClassInfo(name="background clutter", colour=(0, 0, 0)),
)


def open_layout(root: Path) -> Dataset:
    """uavid_train and uavid_val as they are distributed."""
    task = Task(classes=CLASSES)
    train, val = (_samples(root / f"uavid_{split}") for split in ("train", "val"))
    return Dataset(root, "uavid", task, train, val, partial(read_coloured, colours_of(task)))


def recognise(root: Path) -> bool:
    """Whether there is a split."""
    return (root / "uavid_train").is_dir() or (root / "uavid_val").is_dir()


def _samples(folder: Path) -> tuple[Sample, ...]:
    sequences = sorted(path.parent for path in folder.glob("seq*/Images") if path.is_dir())
    return tuple(pair for sequence in sequences for pair in pair_up(sequence / "Images", sequence / "Labels"))
