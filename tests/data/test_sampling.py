"""Which windows stand for a split: all images before one is seen twice, and rare classes where they are wanted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edpct.data.samples import Dataset, Sample, read_mask
from edpct.data.sampling import sample_covering, sample_labelled
from edpct.data.tiling import Window
from edpct.task import ClassInfo, Task

TASK = Task(classes=tuple(ClassInfo(name=name, colour=(i, i, i)) for i, name in enumerate("abc")))
SIDE = 20


def dataset_of(folder: Path, masks: list[np.ndarray]) -> Dataset:
    """One image, of one grey value, for each mask."""
    samples = []
    for index, mask in enumerate(masks):
        Image.fromarray(np.full((*mask.shape, 3), index, np.uint8)).save(folder / f"{index}.png")
        Image.fromarray(mask.astype(np.uint8)).save(folder / f"{index}-mask.png")
        samples.append(Sample(folder / f"{index}.png", folder / f"{index}-mask.png"))
    return Dataset(folder, "folder", TASK, tuple(samples), (), lambda path: np.asarray(read_mask(path)))


def flat(label: int, side: int = SIDE) -> np.ndarray:
    return np.full((side, side), label)


def images_of(found: list[Window]) -> list[int]:
    return [int(window.image[0, 0, 0]) for window in found]


@pytest.fixture
def mostly_a(tmp_path: Path) -> Dataset:
    """Ten images of class a, and one each of b and c."""
    return dataset_of(tmp_path, [flat(0)] * 10 + [flat(1), flat(2)])


@pytest.mark.parametrize("seed", range(5))
def test_a_rare_class_is_among_the_few_that_are_chosen(mostly_a: Dataset, seed: int) -> None:
    found = sample_covering(mostly_a, "train", 6, SIDE, SIDE, seed)
    shown = [int(window.labels[0, 0]) for window in found]
    assert sorted(shown[:3]) == [0, 1, 2], "any number of the first windows covers the classes"
    assert shown[3:] == [0, 0, 0]
    assert len(set(images_of(found))) == 6


def test_classes_are_balanced_where_they_can_be(tmp_path: Path) -> None:
    data = dataset_of(tmp_path, [flat(0)] * 6 + [flat(1)] * 6 + [flat(2)] * 6)
    shown = [int(window.labels[0, 0]) for window in sample_covering(data, "train", 9, SIDE, SIDE, 0)]
    assert [shown.count(label) for label in range(3)] == [3, 3, 3]


def test_a_speck_does_not_count_as_shown(tmp_path: Path) -> None:
    speck, patch = flat(0), flat(0)
    speck[0, :3] = 1  # 3 of 400 pixels
    patch[:2, :2] = 1  # 4 of 400
    data = dataset_of(tmp_path, [speck] * 5 + [patch])
    for seed in range(4):
        assert 5 in images_of(sample_covering(data, "train", 3, SIDE, SIDE, seed)[:2])


def test_the_same_seed_gives_the_same_windows_and_no_more_than_there_are(mostly_a: Dataset) -> None:
    first, second = (images_of(sample_covering(mostly_a, "train", 5, SIDE, SIDE, 3)) for _ in range(2))
    assert first == second
    assert sorted(images_of(sample_covering(mostly_a, "train", 99, SIDE, SIDE, 3))) == list(range(12))


def test_all_images_are_seen_before_one_is_seen_twice(tmp_path: Path) -> None:
    data = dataset_of(tmp_path, [flat(0, 2 * SIDE)] * 4)
    found = images_of(sample_labelled(data, "train", 8, SIDE, SIDE, 0))
    assert sorted(found[:4]) == sorted(found[4:]) == [0, 1, 2, 3]


def test_windows_without_any_label_are_taken_too(tmp_path: Path) -> None:
    data = dataset_of(tmp_path, [flat(255)] * 3)
    assert len(sample_covering(data, "train", 2, SIDE, SIDE, 0)) == 2
