"""Accuracy of a torch network over the val split, in windows of its input size, which may overlap."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edpct.data.accuracy import Accuracy, ConfusionMatrix, accuracy_of
from edpct.data.samples import Dataset
from edpct.data.tiling import cover, windows_of
from edpct.errors import DataError
from edpct.progress import Progress
from edpct.task import Preprocessing, Task
from edpct.training.processes import processes, summed, together


def check_val(dataset: Dataset, progress: Progress) -> None:
    """Find a validation image that cannot be used before training, not at the first validation.

    Raises:
        DataError: there is none, one cannot be read, or every pixel is ignored.
    """
    samples, labelled = dataset.split("val"), False
    with progress.task("Checking val", len(samples)) as update:
        for done, sample in enumerate(samples, 1):
            _, labels = dataset.read(sample)
            labelled = labelled or bool((labels != dataset.task.ignore_index).any())
            update(done, "")
    if not labelled:
        raise DataError(
            f"There is nothing to score on in {dataset.root}: every pixel of the val masks is ignored.",
            "Check the masks, the class table and its ignore index.",
        )


def validate(
    model: nn.Module, dataset: Dataset, task: Task, device: torch.device | str = "cpu", overlap: float = 0.0
) -> Accuracy:
    """Accuracy over the val split; the images are divided among the processes where there are several.

    Args:
        model: gives logits (1, C, H, W) for images (1, 3, H, W).
        task: at the size of the windows.
        overlap: share of a window, 0..1, that the next one covers, too. Where several do, the mean of their softmax
            decides, as in MMSegmentation's sliding inference; each pixel is counted once. At 0 the first window
            decides, which is how engines are measured.

    Raises:
        DataError: an image or mask cannot be read.
    """
    training = model.training
    model.eval()
    try:
        matrix = together(lambda: _count(model, dataset, task, device, overlap))
    finally:
        model.train(training)
    shape = matrix.counts.shape
    counts = summed(matrix.counts.ravel().tolist(), device)  # exact in float64 up to 2^53 pixels
    return accuracy_of(np.array(counts).astype(np.int64).reshape(shape))


@torch.no_grad()
def _count(
    model: nn.Module, dataset: Dataset, task: Task, device: torch.device | str, overlap: float
) -> ConfusionMatrix:
    """Pixels of this process's share of the images."""
    state, size = processes(), task.preprocessing
    matrix = ConfusionMatrix(task.num_classes, task.ignore_index)
    for sample in dataset.split("val")[state.process_index :: state.num_processes]:
        image, labels = dataset.read(sample)
        if overlap > 0:
            matrix.add(labels, _blended(model, image, size, task.num_classes, device, overlap))
            continue
        for window in windows_of(image, labels, size.height, size.width, task.ignore_index):
            matrix.add(window.labels, _logits(model, window.image, size, device).argmax(0).cpu().numpy())
    return matrix


def _blended(
    model: nn.Module, image: NDArray[np.uint8], size: Preprocessing, classes: int, device: torch.device | str,
    overlap: float,
) -> NDArray[np.int64]:  # fmt: skip
    """Labels (H, W) of a whole image, int64."""
    # At a pixel every class has as many windows, so that the greatest sum is the greatest mean.
    total = torch.zeros(classes, *image.shape[:2])
    for window, area in cover(image, size.height, size.width, overlap):
        rows, columns = (part.stop - part.start for part in area)
        share = _logits(model, window, size, device).float().softmax(0).cpu()
        total[:, area[0], area[1]] += share[:, :rows, :columns]
    labels: NDArray[np.int64] = total.argmax(0).numpy()
    return labels


def _logits(model: nn.Module, image: NDArray[np.uint8], size: Preprocessing, device: torch.device | str) -> Tensor:
    """(C, H, W) of one window (H, W, 3), uint8."""
    batch = torch.from_numpy(size.apply(image)).to(device).contiguous(memory_format=torch.channels_last)
    logits: Tensor = model(batch)[0]
    return logits
