"""Looking at a whole data set before hours of training are lost on it: every file once, every problem told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from edpct.data.overlap import OverlapFinder
from edpct.data.samples import Dataset, Labels, Sample, Split
from edpct.errors import DataError, UnknownLabelsError
from edpct.progress import Progress

SPLITS: tuple[Split, ...] = ("train", "val")
MOST_UNKNOWN = 500  # values that are listed; a mask saved as JPEG has tens of thousands
Box = tuple[int, int, int, int]
Show = Callable[[Split, int, NDArray[np.uint8], Labels], None]
"""Called with each sample that is in order: split, index in it, image (H, W, 3), labels (H, W)."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileProblem(_Table):
    """A file of the data set, and why it cannot be used, in one sentence."""

    file: str
    what: str
    hint: str = ""


class UnknownValue(_Table):
    """A colour (``#RRGGBB``) or label that is no class's.

    Attributes:
        files: how many masks hold it.
        pixels: how many of their pixels do.
        share: of the pixels of all readable images of the split, 0..1.
        example: a mask that holds it.
    """

    value: str
    files: int
    pixels: int
    share: float
    example: str


class SplitCheck(_Table):
    """What was seen of a split.

    Attributes:
        images: how many there are; ``usable``: how many can be trained on, image and mask.
        pixels: of all readable images.
        smallest, largest: height and width of the images with the fewest and the most pixels; None: none was readable.
        small: how many images are lower or narrower than the size asked about.
        class_pixels: of the usable samples, class by class.
        ignored: share of the usable samples' pixels, 0..1.
        problems: of files, in the order of the samples.
        unknown: colours and labels that are no class's, those in most pixels first, MOST_UNKNOWN at most.
        unknown_values, unknown_share: how many there are in all, and their share of the pixels, 0..1.
    """

    images: int
    usable: int
    pixels: int
    smallest: tuple[int, int] | None
    largest: tuple[int, int] | None
    small: int
    class_pixels: dict[str, int]
    ignored: float
    problems: tuple[FileProblem, ...]
    unknown: tuple[UnknownValue, ...]
    unknown_values: int
    unknown_share: float

    def shares(self) -> dict[str, float | None]:
        """Share of each class among the pixels that count, 0..1; None where none does."""
        total = sum(self.class_pixels.values())
        return {name: pixels / total if total else None for name, pixels in self.class_pixels.items()}

    def absent(self) -> list[str]:
        """Classes that no usable mask shows."""
        return [name for name, pixels in self.class_pixels.items() if not pixels]


class SharedGround(_Table):
    """A train and a val image that show the same ground; see :class:`edpct.data.overlap.Overlap`."""

    train: str
    val: str
    patches: int
    train_box: Box
    val_box: Box
    share: float


class DataCheck(_Table):
    """Everything that was seen of a data set.

    Files are named from ``directory`` on.

    Attributes:
        size: input height and width that images are compared with, pixels.
        overlaps: pairs of images, those with most in common first.
    """

    directory: str
    layout: str
    classes: tuple[str, ...]
    size: int
    train: SplitCheck
    val: SplitCheck
    overlaps: tuple[SharedGround, ...]

    def split(self, name: Split) -> SplitCheck:
        """What was seen of a split."""
        return self.train if name == "train" else self.val


def check_dataset(dataset: Dataset, size: int, progress: Progress, show: Show | None = None) -> DataCheck:
    """Read every image and mask of both splits once, going on after those that cannot be used.

    Args:
        size: input height and width that the network will have, pixels.
        show: called with every sample that is in order.
    """
    finder = OverlapFinder()
    checked: dict[Split, SplitCheck] = {}
    done = 0
    with progress.task("Checking", len(dataset.train) + len(dataset.val)) as update:
        for split in SPLITS:
            tally = _Tally(dataset, size)
            for index, sample in enumerate(dataset.train if split == "train" else dataset.val):
                image = tally.read_image(sample)
                if image is not None:
                    finder.add(split, index, image)
                    labels = tally.read_labels(sample, image)
                    if labels is not None and show is not None:
                        show(split, index, image, labels)
                done += 1
                update(done, split)
            checked[split] = tally.result()
    overlaps = tuple(
        SharedGround(
            train=_within(dataset, dataset.train[found.train].image),
            val=_within(dataset, dataset.val[found.val].image),
            patches=found.patches,
            train_box=found.train_box,
            val_box=found.val_box,
            share=found.share,
        )
        for found in finder.find()
    )
    return DataCheck(
        directory=str(dataset.root),
        layout=dataset.layout,
        classes=dataset.task.names,
        size=size,
        train=checked["train"],
        val=checked["val"],
        overlaps=overlaps,
    )


def _within(dataset: Dataset, path: Path) -> str:
    """A file as the report names it: from the data set's folder on."""
    return path.relative_to(dataset.root).as_posix()


class _Tally:
    """Counts over one split."""

    def __init__(self, dataset: Dataset, size: int) -> None:
        self.dataset = dataset
        self.size = size
        self.images = self.usable = self.pixels = self.small = 0
        self.sizes: set[tuple[int, int]] = set()
        self.counts = np.zeros(256, np.int64)
        self.problems: list[FileProblem] = []
        self.unknown_pixels: Counter[str] = Counter()
        self.unknown_files: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def read_image(self, sample: Sample) -> NDArray[np.uint8] | None:
        """The image, (H, W, 3), uint8; None, and a problem noted, where it cannot be read."""
        self.images += 1
        try:
            image = self.dataset.decode_image(sample.image)
        except DataError as error:
            self.problems.append(
                FileProblem(file=_within(self.dataset, sample.image), what=error.what, hint=error.hint)
            )
            return None
        height, width = image.shape[:2]
        self.sizes.add((height, width))
        self.pixels += height * width
        self.small += min(height, width) < self.size
        return image

    def read_labels(self, sample: Sample, image: NDArray[np.uint8]) -> Labels | None:
        """The labels of an image, (H, W), uint8; None, and a problem noted, where they cannot be used."""
        try:
            labels = self.dataset.read_labels(sample, (image.shape[0], image.shape[1]))
        except UnknownLabelsError as error:
            self.unknown_pixels.update(error.pixels)
            self.unknown_files.update(error.pixels.keys())
            self.examples = dict.fromkeys(error.pixels, _within(self.dataset, sample.mask)) | self.examples
            return None
        except DataError as error:
            self.problems.append(FileProblem(file=_within(self.dataset, sample.mask), what=error.what, hint=error.hint))
            return None
        self.usable += 1
        self.counts += np.bincount(labels.ravel(), minlength=256)
        return labels

    def result(self) -> SplitCheck:
        """What was counted."""
        task = self.dataset.task
        by_area = sorted(self.sizes, key=lambda size: size[0] * size[1])
        counted = int(self.counts.sum())
        return SplitCheck(
            images=self.images,
            usable=self.usable,
            pixels=self.pixels,
            smallest=by_area[0] if by_area else None,
            largest=by_area[-1] if by_area else None,
            small=self.small,
            class_pixels={name: int(self.counts[label]) for label, name in enumerate(task.names)},
            ignored=int(self.counts[task.ignore_index]) / counted if counted else 0.0,
            problems=tuple(self.problems),
            unknown=tuple(
                UnknownValue(
                    value=value,
                    files=self.unknown_files[value],
                    pixels=pixels,
                    share=pixels / self.pixels,
                    example=self.examples[value],
                )
                for value, pixels in self.unknown_pixels.most_common(MOST_UNKNOWN)
            ),
            unknown_values=len(self.unknown_pixels),
            unknown_share=sum(self.unknown_pixels.values()) / self.pixels if self.pixels else 0.0,
        )
