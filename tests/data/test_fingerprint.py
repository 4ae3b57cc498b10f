"""A dataset's fingerprint: any corrected label changes it, a copy of the folder does not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edpct.data.fingerprint import data_fingerprint
from edpct.data.layouts import open_dataset
from edpct.errors import DataError


@pytest.fixture
def folder(scenes: Path, tmp_path: Path) -> Path:
    """The scenes as BMP files, whose size says nothing of what is in them."""
    root = Path(shutil.copytree(scenes, tmp_path / "data"))
    for file in root.glob("*/*/*.png"):
        Image.fromarray(np.asarray(Image.open(file).convert("RGB"))).save(file.with_suffix(".bmp"))
        file.unlink()
    return root


def correct(mask: Path) -> None:
    """One pixel gets the label of its neighbour; size and time of the file stay."""
    before = mask.stat()
    pixels = np.array(Image.open(mask))
    row, column = np.argwhere((pixels[:, 1:] != pixels[:, :-1]).any(-1))[0]
    pixels[row, column] = pixels[row, column + 1]
    Image.fromarray(pixels).save(mask)
    os.utime(mask, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert mask.stat().st_size == before.st_size


def _rename_image(root: Path) -> None:
    for kind in ("images", "masks"):
        first = min((root / "train" / kind).iterdir())
        first.rename(first.with_stem("other"))


def _regrow_image(root: Path) -> None:
    with min((root / "val/images").iterdir()).open("ab") as file:
        file.write(b"\0")


def _brighten_image(root: Path) -> None:
    """All of it, as a correction of colours does; name, size and time of the file stay."""
    image = min((root / "train/images").iterdir())
    pixels, before = np.asarray(Image.open(image)), image.stat()
    Image.fromarray(np.minimum(pixels, 254) + 1).save(image)
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert image.stat().st_size == before.st_size


def _move_between_splits(root: Path) -> None:
    for kind in ("images", "masks"):
        last = max((root / "train" / kind).iterdir())
        last.rename(root / "val" / kind / f"0-{last.name}")


@pytest.mark.parametrize(
    "change",
    [
        lambda root: correct(min((root / "train/masks").iterdir())),
        lambda root: correct(max((root / "val/masks").iterdir())),
        _rename_image, _regrow_image, _brighten_image, _move_between_splits,
        lambda root: (root / "classes.json").write_text((root / "classes.json").read_text().replace("road", "way")),
    ],
    ids=["train mask", "val mask", "name", "size", "colours", "split", "class"],
)  # fmt: skip
def test_whatever_changes_the_data_changes_its_fingerprint(folder: Path, change: Callable[[Path], object]) -> None:
    before = data_fingerprint(open_dataset(folder))
    change(folder)
    assert data_fingerprint(open_dataset(folder)) != before


def test_a_copy_is_the_same_data(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "elsewhere", copy_function=shutil.copyfile))  # with times of its own
    assert data_fingerprint(open_dataset(copy)) == data_fingerprint(open_dataset(folder))


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_file_that_is_gone_is_named(folder: Path, kind: str) -> None:
    dataset = open_dataset(folder)
    gone = min((folder / "val" / kind).iterdir())
    gone.unlink()
    with pytest.raises(DataError) as caught:
        data_fingerprint(dataset)
    assert caught.value.what == f"{gone} cannot be read: No such file or directory."
