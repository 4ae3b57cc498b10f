"""Checking a whole data set: what is counted is right, what is wrong is found, and one bad file does not stop it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from layout_fixtures import save, write_class_table

from edpct.data.check import DataCheck, check_dataset
from edpct.data.findings import Finding, judge, percent
from edpct.data.layouts import open_dataset
from edpct.data.scenes import render_scene
from edpct.progress import Silent

SIDE = 256


def _scene(seed: int) -> np.ndarray:
    return render_scene(seed, SIDE, SIDE).image


def _make(root: Path, train: int = 2, val: int = 1) -> Path:
    """Made scenes; a quarter of each mask is land, the rest sea but for the first row, which is ignored."""
    write_class_table(root, ("land", "sea", "road"))
    mask = np.ones((SIDE, SIDE), np.uint8)
    mask[: SIDE // 2, : SIDE // 2] = 0
    mask[0] = 255
    for split, first, count in (("train", 0, train), ("val", 50, val)):
        for number in range(first, first + count):
            save(root / split / f"images/{number:02}.png", _scene(number))
            save(root / split / f"masks/{number:02}.png", mask)
    return root


def _check(root: Path, size: int = SIDE) -> tuple[DataCheck, list[Finding]]:
    dataset = open_dataset(root)
    check = check_dataset(dataset, size, Silent())
    return check, judge(check, dataset.structure)


def _said(findings: list[Finding], kind: str = "error") -> list[str]:
    return [finding.what for finding in findings if finding.kind == kind]


def test_sizes_and_shares_are_those_of_the_masks(tmp_path: Path) -> None:
    root = _make(tmp_path)
    save(root / "train/images/99.png", _scene(9)[:100, :200])
    save(root / "train/masks/99.png", np.zeros((100, 200), np.uint8))
    check, findings = _check(root)
    train = check.train
    assert (train.images, train.usable, train.small) == (3, 3, 1)
    assert train.smallest == (100, 200) and train.largest == (SIDE, SIDE) and train.pixels == 2 * SIDE**2 + 20_000
    land = 2 * (SIDE // 2 - 1) * SIDE // 2 + 20_000
    assert train.class_pixels == {"land": land, "sea": train.pixels - 2 * SIDE - land, "road": 0}
    assert train.ignored == pytest.approx(2 * SIDE / train.pixels)
    assert train.shares()["land"] == pytest.approx(land / (train.pixels - 2 * SIDE)) and train.absent() == ["road"]
    assert _said(findings) == []
    assert _said(findings, "warning") == [
        "No train mask shows road.",
        f"1 of 3 train images are smaller than {SIDE} pixels.",
        "No val mask shows road.",
    ]


def _break_image(root: Path) -> None:
    (root / "train/images/00.png").write_bytes(b"\x89PNG")


def _resize_mask(root: Path) -> None:
    save(root / "train/masks/00.png", np.zeros((5, 7), np.uint8))


def _remove_val(root: Path) -> None:
    for path in (root / "val/images").iterdir():
        path.unlink()


def _ignore(root: Path, split: str) -> None:
    for mask in (root / split / "masks").iterdir():
        save(mask, np.full((SIDE, SIDE), 255, np.uint8))


def _copy_into_val(root: Path) -> None:
    save(root / "val/images/50.png", np.roll(_scene(1), (-31, 0), (0, 1)))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_break_image, "1 file of train cannot be used."),
        (_resize_mask, "1 file of train cannot be used."),
        (_remove_val, "There are no val images in the layout 'folder'."),
        (
            lambda root: _ignore(root, "train"),
            "Every pixel of the train masks is ignored: there is nothing to learn from.",
        ),
        (lambda root: _ignore(root, "val"), "Every pixel of the val masks is ignored: there is nothing to score on."),
        (_copy_into_val, "1 of 1 val images show ground that is in train: 88 % of val/images/50.png is in "),
    ],
)
def test_what_would_stop_training_or_flatter_it_is_an_error(
    tmp_path: Path, spoil: Callable[[Path], None], said: str
) -> None:
    root = _make(tmp_path)
    spoil(root)
    check, findings = _check(root)
    assert [what[: len(said)] for what in _said(findings)] == [said]
    assert all(finding.hint for finding in findings) and check.train.images == 2


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    root = _make(tmp_path, train=4)
    _break_image(root)
    save(root / "train/masks/01.png", np.zeros((5, 7), np.uint8))
    save(root / "train/masks/02.png", np.full((SIDE, SIDE), 7, np.uint8))
    check, findings = _check(root)
    assert [problem.file for problem in check.train.problems] == ["train/images/00.png", "train/masks/01.png"]
    assert "is 7x5 pixels but its image is 256x256" in check.train.problems[1].what
    assert check.train.usable == 1 and [u.value for u in check.train.unknown] == ["7"] and len(_said(findings)) == 2


def test_unknown_colours_are_counted_over_files(tmp_path: Path) -> None:
    root = _make(tmp_path, train=3)
    colours = np.zeros((SIDE, SIDE, 3), np.uint8)
    colours[..., 0] = 10  # land
    colours[:2] = (1, 2, 3)
    save(root / "train/masks/00.png", colours)
    colours[5, 5] = (200, 100, 0)
    save(root / "train/masks/02.png", colours)
    check, findings = _check(root)
    first, second = check.train.unknown
    assert (first.value, first.files, first.pixels) == ("#010203", 2, 4 * SIDE)
    assert first.share == pytest.approx(4 * SIDE / (3 * SIDE**2)) and first.example == "train/masks/00.png"
    assert (second.value, second.files, second.pixels, second.example) == ("#C86400", 1, 1, "train/masks/02.png")
    assert _said(findings) == ["The train masks hold 2 colours or labels of no class, 0.52 % of the pixels."]


def test_every_usable_sample_is_shown_once(tmp_path: Path) -> None:
    root = _make(tmp_path, train=3, val=2)
    _break_image(root)
    dataset = open_dataset(root)
    shown = []
    check_dataset(dataset, SIDE, Silent(), lambda split, index, image, labels: shown.append((split, index)))
    assert shown == [("train", 1), ("train", 2), ("val", 0), ("val", 1)]


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.523, "52 %"), (0.0432, "4.3 %"), (0.0002, "0.02 %"), (1e-6, "under 0.01 %"), (0, "0.00 %"), (1, "100 %")],
)
def test_shares_keep_two_digits(share: float, text: str) -> None:
    assert percent(share) == text
