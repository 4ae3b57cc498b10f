"""Random training crops, each a function of (seed, index) alone, so that a resumed run sees what it would have seen."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, default_collate
from torch.utils.data import Dataset as TorchDataset
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tvf

from edpct.data.samples import Dataset
from edpct.errors import EdpctError, TrainingError
from edpct.progress import Progress
from edpct.recipe import OptimiseSettings
from edpct.task import Preprocessing

BLOCK = 32  # pixels; a class has a place where it takes BLOCK_SHARE of such a square
BLOCK_SHARE = 0.25
CACHE_BYTES = 4 << 30  # decoded images kept in memory; what is beyond is decoded anew for every crop


class CropDataset(TorchDataset):
    """Augmented crops of a dataset's train split.

    Item ``i`` is (image (3, crop, crop) float32 normalised, labels (crop, crop) int64). Random position and zoom, the
    eight symmetries of the square (aerial views have no up), brightness, contrast, saturation, hue, colour or none. A
    share ``settings.balance`` of the crops holds a place of a class drawn with equal chances: rare classes are seen.
    """

    def __init__(
        self,
        dataset: Dataset,
        preprocessing: Preprocessing,
        settings: OptimiseSettings,
        seed: int,
        progress: Progress,
    ) -> None:
        self.dataset = dataset
        self.samples = dataset.split("train")
        self.preprocessing = preprocessing
        self.settings = settings
        self.seed = seed
        self.cache: dict[int, tuple[NDArray[np.uint8], NDArray[np.uint8]]] = {}
        self.chances, shown = self._read_all(progress)
        self.places = _places(shown, dataset.task.num_classes)
        self.photometric = v2.Compose([
            v2.ColorJitter(settings.jitter, settings.jitter, settings.saturation, settings.hue),
            v2.RandomGrayscale(settings.grayscale),
        ])  # fmt: skip

    def _read_all(self, progress: Progress) -> tuple[NDArray[np.float64], list[NDArray[np.bool_]]]:
        """Check every image before hours of training depend on it; keep what fits in memory.

        Returns:
            The chance of each image to be drawn, and what :func:`_shown_in_blocks` says of it.

        Raises:
            DataError: an image or mask cannot be used.
            TrainingError: every pixel is ignored.
        """
        areas = np.zeros(len(self.samples))
        learnable = False
        shown = []
        room = CACHE_BYTES
        with progress.task("Reading images", len(self.samples)) as update:
            for index, sample in enumerate(self.samples):
                image, labels = self.dataset.read(sample)
                areas[index] = labels.size
                learnable = learnable or bool((labels != self.dataset.task.ignore_index).any())
                shown.append(_shown_in_blocks(labels, self.dataset.task.num_classes))
                room -= image.nbytes + labels.nbytes
                if room > 0:
                    self.cache[index] = (image, labels)
                update(index + 1, "")
        if not learnable:
            raise TrainingError(
                f"There is nothing to learn from in {self.dataset.root}: every pixel of the train masks is ignored.",
                "Check the masks, the class table and its ignore index.",
            )
        chances = areas**self.settings.area_power
        return chances / chances.sum(), shown

    def __len__(self) -> int:
        return self.settings.steps * self.settings.batch

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng((self.seed, index))
        source, place = self._draw(rng)
        image, labels = self.cache.get(source) or self.dataset.read(self.samples[source])
        side = max(1, round(self.settings.crop / rng.uniform(*self.settings.scale)))
        area = _place(rng, labels.shape, side, place)
        pixels, truth = self._resize(image[area].copy(), labels[area].copy(), side)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**31)))
            pixels = self.photometric(pixels)
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))
        array = np.rot90(pixels.permute(1, 2, 0).numpy(), turns)
        truth = torch.rot90(truth, turns)
        if flip:
            array, truth = array[:, ::-1], truth.flip(1)
        return torch.from_numpy(self.preprocessing.apply(np.ascontiguousarray(array))[0]), truth.long().contiguous()

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, Tensor]] | EdpctError:
        """The items of a batch; or the error of one, to be raised in the main process.

        torch raises what fails in a worker anew, with the worker's traceback as its only argument.
        """
        try:
            return [self[index] for index in indices]
        except EdpctError as error:
            return error

    def _draw(self, rng: np.random.Generator) -> tuple[int, tuple[int, int] | None]:
        """An image, by its chance, and perhaps a pixel (row, column) of it that the crop must hold."""
        if rng.random() >= self.settings.balance or not self.places:
            return int(rng.choice(len(self.samples), p=self.chances)), None
        found = self.places[int(rng.integers(len(self.places)))]
        source, row, column = found[int(rng.integers(len(found)))]
        return int(source), (int(row), int(column))

    def _resize(self, image: NDArray[np.uint8], labels: NDArray[np.uint8], drawn: int) -> tuple[Tensor, Tensor]:
        """A square of ``drawn`` pixels, or what an image has of it, to crop size; the rest is padding, and ignored."""
        side = self.settings.crop
        factor = side / drawn
        size = [max(1, round(image.shape[0] * factor)), max(1, round(image.shape[1] * factor))]
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
        truth = torch.from_numpy(np.ascontiguousarray(labels))[None]
        pixels = tvf.resize(tv_tensors.Image(pixels), size, antialias=True).as_subclass(Tensor)
        truth = tvf.resize(tv_tensors.Mask(truth), size).as_subclass(Tensor)
        padding = [0, 0, side - size[1], side - size[0]]
        if any(padding):
            pixels = tvf.pad(pixels, padding)
            truth = tvf.pad(truth, padding, fill=self.dataset.task.ignore_index)
        return pixels, truth[0]


def crop_loader(
    crops: CropDataset, batches: Sequence[Sequence[int]], workers: int, pin_memory: bool
) -> DataLoader[Any]:
    """Batches of crops, made by so many processes beside this one; 0: by this one.

    Args:
        batches: the crops of each.

    Returns:
        What gives for each batch images (B, 3, crop, crop) float32 and labels (B, crop, crop) int64, or the EdpctError
        that one of its crops met.
    """
    return DataLoader(
        crops, batch_sampler=batches, num_workers=workers, pin_memory=pin_memory,
        collate_fn=_collated, worker_init_fn=_deaf_to_interrupts,
    )  # fmt: skip


def _collated(items: list[tuple[Tensor, Tensor]] | EdpctError) -> Any:
    return items if isinstance(items, EdpctError) else default_collate(items)


def _deaf_to_interrupts(worker: int) -> None:
    """A terminal sends Ctrl-C to every process; the main one finishes its step, and needs the workers for it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _shown_in_blocks(labels: NDArray[np.uint8], classes: int) -> NDArray[np.bool_]:
    """Which classes take a good part of each block of BLOCK x BLOCK pixels: (classes, rows, columns), bool."""
    rows, columns = (max(1, length // BLOCK) for length in labels.shape)
    cut = labels[: rows * BLOCK, : columns * BLOCK]
    if min(labels.shape) < BLOCK:
        return np.stack([np.full((1, 1), (labels == label).any()) for label in range(classes)])
    blocks = cut.reshape(rows, BLOCK, columns, BLOCK)
    return np.stack([(blocks == label).mean(axis=(1, 3)) >= BLOCK_SHARE for label in range(classes)])


def _places(blocks: list[NDArray[np.bool_]], classes: int) -> list[NDArray[np.int64]]:
    """For each class that has any, the blocks that show it: (n, 3), image, row and column of the block's middle."""
    found = []
    for label in range(classes):
        places = [
            np.column_stack((np.full(len(where), source), where * BLOCK + BLOCK // 2))
            for source, shown in enumerate(blocks)
            if len(where := np.argwhere(shown[label]))
        ]
        if places:
            found.append(np.concatenate(places))
    return found


def _place(
    rng: np.random.Generator, shape: tuple[int, ...], side: int, held: tuple[int, int] | None
) -> tuple[slice, slice]:
    """A random square of ``side`` pixels in an image, or what fits; around the pixel ``held`` where one is given."""
    area = []
    for axis in (0, 1):
        length = min(side, shape[axis])
        first, last = 0, shape[axis] - length
        if held is not None:
            first, last = max(first, held[axis] - length + 1), min(last, held[axis])
        start = int(rng.integers(min(first, last), last + 1))
        area.append(slice(start, start + length))
    return area[0], area[1]
