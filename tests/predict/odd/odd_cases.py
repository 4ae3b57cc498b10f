"""What an odd input is: how it is made, and what is to come of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from odd_images import GREYS
from odd_server import Answer
from PIL import Image
from toy_engines import expected_classes

IGNORED = 255
Disk = Callable[..., Path]
"""disk(kilobytes, further options of the mount): where a file system of that size is."""


@dataclass(frozen=True)
class Meant:
    """One input, written.

    Attributes:
        source: what --input names.
        classes: (H, W), what is to come out; None: it is to be refused.
        said: part of the sentence that refuses it.
        more: further arguments.
        out: name of the output; chosen by the suffix of the input if empty.
        either: damage that may leave another sound image: a whole result or a refusal will do.
    """

    source: Path
    classes: NDArray[np.int64] | None = None
    said: str = ""
    more: tuple[str, ...] = ()
    out: str = ""
    either: bool = False


@dataclass(frozen=True)
class Case:
    """An input to be made in an empty folder."""

    kind: str
    name: str
    make: Callable[[Path], Meant] = field(repr=False)

    def __str__(self) -> str:
        return f"{self.kind}-{self.name}"


Cases = Iterator[Case]


def seen(image: NDArray[np.uint8], nothing: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    """The classes of an image (H, W, 3), and 255 where there is nothing."""
    classes = expected_classes(image, GREYS)
    return classes if nothing is None else np.where(nothing, IGNORED, classes)


def check_right(answer: Answer, meant: Meant, folder: Path, out: Path) -> None:
    """Exit 0, every pixel right, the raster's place kept, nothing beside the result."""
    assert answer.code == 0, answer
    assert_quiet(answer)
    assert "edpct: " not in answer.err, answer.err
    result = folder / f"result{out.suffix}"  # a name that every library takes
    result.symlink_to(out)
    found = whole(result)
    assert meant.classes is not None
    assert found.shape == meant.classes.shape, (found.shape, meant.classes.shape)
    wrong = np.argwhere(found != meant.classes)
    assert not len(wrong), f"{len(wrong)} pixels are wrong, the first at {wrong[0]}"
    if out.suffix.lower() in (".tif", ".tiff"):
        check_place(folder / meant.source, result)
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def check_place(source: Path, out: Path) -> None:
    """The map lies where the raster does."""
    with rasterio.open(source) as there, rasterio.open(out) as here:
        assert here.crs == there.crs
        np.testing.assert_array_equal(tuple(here.transform), tuple(there.transform))
        np.testing.assert_allclose(_points(here), _points(there), rtol=1e-12)
        assert not here.gcps[0] or here.gcps[1] == there.gcps[1]
        assert bool(here.rpcs) == bool(there.rpcs)
        assert not here.rpcs or here.rpcs.to_dict() == there.rpcs.to_dict()


def _points(file: Any) -> Any:
    return [(point.row, point.col, point.x, point.y) for point in file.gcps[0]]


def check_refused(answer: Answer, said: str, out: Path) -> None:
    """Exit 2, one sentence and a hint, nothing under the final name."""
    assert answer.code == 2, answer
    assert_quiet(answer)
    assert answer.err.count("edpct: ") == 1, answer.err
    at = answer.err.index("edpct: ")
    lines = answer.err[at:].splitlines()
    assert said in lines[0] and lines[0].endswith("."), answer.err
    assert len(lines) <= 2 and all(line.startswith("       ") for line in lines[1:]), answer.err
    assert not out.is_symlink() and not out.exists(), "something lies under the final name"
    if out.parent.is_dir():
        assert {path.name for path in out.parent.iterdir()} <= {f".{out.name}.part"}


def assert_quiet(answer: Answer) -> None:
    """Nobody else talks: neither Python nor a library."""
    for loud in ("Traceback", "Unexpected", "Warning", "ERROR", "bug in edpct", "CPLE_"):
        assert loud not in answer.out + answer.err, answer.err


def whole(out: Path) -> NDArray[np.uint8]:
    """All pixels of a result, decoded."""
    if out.suffix.lower() == ".png":
        with Image.open(out) as image:
            assert image.mode == "P"
            return np.asarray(image)
    with rasterio.open(out) as file:
        assert file.nodata == IGNORED and file.count == 1
        pixels: NDArray[np.uint8] = file.read(1)
        return pixels
