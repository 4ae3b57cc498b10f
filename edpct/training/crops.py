"""Random training crops, each a function of (seed, index) alone, so that a resumed run sees what it would have seen."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tvf

from edpct.data.samples import Dataset
from edpct.progress import Progress
from edpct.recipe import OptimiseSettings
from edpct.task import Preprocessing

CACHE_BYTES = 4 << 30  # decoded images kept in memory; what is beyond is decoded anew for every crop


class CropDataset(TorchDataset):
    """Augmented crops of a dataset's train split.

    Item ``i`` is (image (3, crop, crop) float32 normalised, labels (crop, crop) int64). Random position and zoom, the
    eight symmetries of the square (aerial views have no up), brightness, contrast and saturation.
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
        self.areas = self._read_all(progress)
        self.photometric = v2.ColorJitter(brightness=0.25, contrast=0.25, saturation=0.25)

    def _read_all(self, progress: Progress) -> NDArray[np.float64]:
        """Check every image before hours of training depend on it; keep what fits in memory."""
        areas = np.zeros(len(self.samples))
        room = CACHE_BYTES
        with progress.task("Reading images", len(self.samples)) as update:
            for index, sample in enumerate(self.samples):
                image, labels = self.dataset.read(sample)
                areas[index] = labels.size
                room -= image.nbytes + labels.nbytes
                if room > 0:
                    self.cache[index] = (image, labels)
                update(index + 1, "")
        return areas / areas.sum()

    def __len__(self) -> int:
        return self.settings.steps * self.settings.batch

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng((self.seed, index))
        source = int(rng.choice(len(self.samples), p=self.areas))
        image, labels = self.cache.get(source) or self.dataset.read(self.samples[source])
        side = max(1, round(self.settings.crop / rng.uniform(*self.settings.scale)))
        area = self._place(rng, labels.shape, side)
        pixels, truth = self._resize(image[area].copy(), labels[area].copy())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**31)))
            pixels = self.photometric(pixels)
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))
        array = np.rot90(pixels.permute(1, 2, 0).numpy(), turns)
        truth = torch.rot90(truth, turns)
        if flip:
            array, truth = array[:, ::-1], truth.flip(1)
        return torch.from_numpy(self.preprocessing.apply(np.ascontiguousarray(array))[0]), truth.long().contiguous()

    def _place(self, rng: np.random.Generator, shape: tuple[int, ...], side: int) -> tuple[slice, slice]:
        height, width = min(side, shape[0]), min(side, shape[1])
        top = int(rng.integers(shape[0] - height + 1))
        left = int(rng.integers(shape[1] - width + 1))
        return slice(top, top + height), slice(left, left + width)

    def _resize(self, image: NDArray[np.uint8], labels: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
        """To crop size; what an image is too small for is padded with the ignore index, aspect kept."""
        side = self.settings.crop
        factor = side / max(image.shape[:2])
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
