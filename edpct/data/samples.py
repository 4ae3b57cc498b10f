"""Reading images and label masks, with every way they can be wrong turned into one sentence."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from edpct.errors import DataError, UnknownLabelsError
from edpct.task import Task

Split = Literal["train", "val"]
Labels = NDArray[np.uint8]
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
# Larger than any single aerial frame; rasters beyond it are for windowed reading.
MAX_PIXELS = 400_000_000
# What is done to an image for each orientation that its EXIF data may say; 1 is upright.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
LYING = (5, 6, 7, 8)  # height is width


@dataclass(frozen=True)
class Sample:
    """One image and its mask on disk."""

    image: Path
    mask: Path


def read_image(path: Path) -> NDArray[np.uint8]:
    """An image file as (H, W, 3), uint8, RGB, turned as its EXIF data says.

    Raises:
        DataError: missing, damaged, too large, or not 8 bits a channel.
    """
    with_rgb = _open(path, "image").convert("RGB")
    return np.array(with_rgb)  # a copy: torch wants memory that can be written


def read_size(path: Path) -> tuple[int, int]:
    """Height and width of an image file as :func:`read_image` gives it, in pixels, from its header alone.

    Of a PNG, EXIF data behind the pixels are not looked for.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # said where its pixels are read
            with Image.open(path) as image:
                size = image.height, image.width
                if image.format != "TIFF" and _orientation(image) in LYING:  # a TIFF is turned by Pillow already
                    return size[::-1]
                return size
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as an image.", "Copy it again.") from error


@dataclass(frozen=True)
class Dataset:
    """Samples of a split, the task they were labelled for, and how files become images and labels.

    The functions can be pickled, so that a dataset can be handed to another process.

    Attributes:
        decode_mask: reads a mask file to (H, W), uint8: class indices and the task's ignore index.
        decode_image: reads an image file to (H, W, 3), uint8, RGB.
        decode_size: reads no more than the height and width of an image file.
        reconcile: labels of a pair whose sizes agree, after image and mask were compared further, (H, W), uint8;
            raises DataError where they are not of the same ground. None: nothing more to compare.
        structure: what the layout looks like, one sentence; the hint where a split is empty.
    """

    root: Path
    layout: str
    task: Task
    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    decode_mask: Callable[[Path], Labels]
    decode_image: Callable[[Path], NDArray[np.uint8]] = read_image
    decode_size: Callable[[Path], tuple[int, int]] = read_size
    reconcile: Callable[[Sample, Labels], Labels] | None = None
    structure: str = ""

    def split(self, name: Split) -> tuple[Sample, ...]:
        """The samples of a split.

        Raises:
            DataError: the split is empty.
        """
        samples = self.train if name == "train" else self.val
        if not samples:
            raise DataError(f"{self.root} has no {name} images in the layout '{self.layout}'.", self.structure)
        return samples

    def read(self, sample: Sample) -> tuple[NDArray[np.uint8], Labels]:
        """Image (H, W, 3) RGB and labels (H, W), both uint8.

        Raises:
            DataError: unreadable, of different sizes, or with labels out of range.
        """
        image = self.decode_image(sample.image)
        return image, self.read_labels(sample, (image.shape[0], image.shape[1]))

    def read_labels(self, sample: Sample, size: tuple[int, int]) -> Labels:
        """Labels (H, W), uint8, of a sample whose image has ``size`` (H, W).

        Raises:
            DataError: unreadable, of another size, or with labels out of range.
        """
        labels = self.decode_mask(sample.mask)
        if labels.shape != size:
            raise DataError(
                f"The mask {sample.mask} is {labels.shape[1]}x{labels.shape[0]} pixels but its image is "
                f"{size[1]}x{size[0]}.",
                "Masks must have the size of their images.",
            )
        check_labels(labels, self.task, sample.mask)
        return labels if self.reconcile is None else self.reconcile(sample, labels)


def read_mask(path: Path) -> Image.Image:
    """A mask file as a Pillow image, pixels loaded, turned as its EXIF data says.

    Raises:
        DataError: missing or damaged.
    """
    return _open(path, "mask")


def _open(path: Path, what: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DataError(f"The {what} {path} is larger than {MAX_PIXELS // 1_000_000} megapixels.")
                if image.mode.startswith(("I", "F")) and what == "image":
                    raise DataError(f"The image {path} has more than 8 bits a channel.", "Convert it to 8-bit RGB.")
                image.load()
                turn = TURNS.get(_orientation(image))
                return image.copy() if turn is None else image.transpose(turn)
    except FileNotFoundError as error:
        raise DataError(f"There is no {what} {path}.") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(f"The {what} {path} is too large to be read whole.", "Cut it into tiles first.") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise DataError(f"The {what} {path} cannot be read: damaged, cut short, or no image.") from error


def _orientation(image: Image.Image) -> int:
    """What the EXIF data say that were read so far; 1 where there are none, or they are damaged."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Not image.getexif(): that of a PNG would decode all pixels to look behind them.
            return int(Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged in many ways; the pixels are whole
        return 1


def check_labels(labels: Labels, task: Task, path: Path) -> None:
    """Refuse labels that are neither a class nor the ignore index.

    Raises:
        UnknownLabelsError: names the file, the first such label and the number of classes.
    """
    counts = np.bincount(labels.ravel(), minlength=256)
    wrong = [int(label) for label in np.flatnonzero(counts) if label >= task.num_classes and label != task.ignore_index]
    if wrong:
        raise UnknownLabelsError(
            f"The mask {path} holds the label {wrong[0]}, but there are {task.num_classes} classes "
            f"(0 to {task.num_classes - 1}) and ignore index {task.ignore_index}.",
            "Add the class to the class table or mark those pixels with the ignore index.",
            {str(label): int(counts[label]) for label in wrong},
        )


def decode_colours(rgb: NDArray[np.uint8], table: dict[tuple[int, int, int], int], path: Path) -> Labels:
    """Colours to labels.

    Args:
        rgb: (H, W, 3), uint8.
        table: colour to label; every colour that occurs must be in it.
        path: for the message.

    Raises:
        UnknownLabelsError: a colour that is not in the table.
    """
    codes = rgb[..., 0].astype(np.uint32) << 16 | rgb[..., 1].astype(np.uint32) << 8 | rgb[..., 2]
    labels = np.full(codes.shape, -1, np.int16)
    for (r, g, b), label in table.items():
        labels[codes == (r << 16 | g << 8 | b)] = label
    if (labels < 0).any():
        values, counts = np.unique(codes[labels < 0], return_counts=True)
        pixels = {f"#{int(values[i]):06X}": int(counts[i]) for i in np.argsort(-counts, kind="stable")}
        others = f", nor are {len(pixels) - 1} others in it" if len(pixels) > 1 else ""
        raise UnknownLabelsError(
            f"The mask {path} holds the colour {next(iter(pixels))}, which is no class's{others}.",
            "Complete the class table.",
            pixels,
        )
    return labels.astype(np.uint8)


def relabel(values: NDArray[np.uint8], table: dict[int, int], path: Path) -> Labels:
    """Numbers of a set's own to labels.

    Args:
        values: (H, W), uint8.
        table: number to label; every number that occurs must be in it.
        path: for the message.

    Raises:
        UnknownLabelsError: a number that is not in the table.
    """
    counts = np.bincount(values.ravel(), minlength=256)
    wrong = {str(value): int(counts[value]) for value in np.flatnonzero(counts) if int(value) not in table}
    if wrong:
        raise UnknownLabelsError(
            f"The mask {path} holds the number {next(iter(wrong))}, but the data set has {min(table)} to {max(table)}.",
            "Use the masks as the data set is distributed.",
            wrong,
        )
    lookup = np.zeros(256, np.uint8)
    lookup[list(table)] = list(table.values())
    return lookup[values]


def list_images(directory: Path) -> list[Path]:
    """Image files of a folder, sorted by name."""
    return sorted(p for p in directory.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))


def pair_up(images: Path, masks: Path) -> tuple[Sample, ...]:
    """Images and masks of equal stem in two folders.

    Raises:
        DataError: an image without a mask.
    """
    by_stem = {path.stem: path for path in list_images(masks)} if masks.is_dir() else {}
    found = list_images(images)
    alone = [image for image in found if image.stem not in by_stem]
    if alone:
        others = f", nor have {len(alone) - 1} others" if len(alone) > 1 else ""
        raise DataError(f"The image {alone[0]} has no mask in {masks}{others}.", "A mask has the name of its image.")
    return tuple(Sample(image, by_stem[image.stem]) for image in found)
