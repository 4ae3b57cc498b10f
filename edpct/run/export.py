"""``edpct export``: a checkpoint as ONNX, compared with torch on real images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from edpct.bench.report.tables import Table
from edpct.card import Card
from edpct.data.samples import Dataset
from edpct.data.sampling import sample_labelled
from edpct.errors import ExportError
from edpct.export.fuse import fuse
from edpct.export.onnx_export import export_onnx
from edpct.export.parity import Parity, check_parity
from edpct.models.architecture import counted
from edpct.models.checkpoint import load_checkpoint
from edpct.progress import Progress
from edpct.recipe import ExportRecipe, FuseSettings
from edpct.run.datasets import dataset_of
from edpct.run.folder import full_disk_explained
from edpct.runtimes.ports import predictor
from edpct.runtimes.table import open_session
from edpct.task import Task

IMAGES = 8  # windows that are compared
SAME = 0.999  # share of pixels that a fused graph must give the plain graph's class


@dataclass(frozen=True)
class Exported:
    """What ``edpct export`` wrote and saw.

    Attributes:
        parity: of the graph without what is fused, with torch.
        fused: share of pixels of which the fused graph says what the plain one says; None where nothing is fused.
        real: whether the images were real ones; else they were noise.
    """

    path: Path
    card: Card
    parity: Parity
    fused: float | None
    real: bool


def export(
    checkpoint: Path, path: Path, data: Path | None, layout: str | None, recipe: ExportRecipe, progress: Progress
) -> Exported:
    """Write a checkpoint as ONNX; a file that is there stays as it is until the new one was compared.

    Args:
        data: dataset folder; None: where the checkpoint says that its data lay, else noise is compared.

    Raises:
        CheckpointError, ExportError: it cannot be loaded, run at this size, exported or fused, or computes something
            else than torch.
    """
    found = load_checkpoint(checkpoint)
    task = found.card.task if recipe.export.size is None else found.card.task.at_size(*recipe.export.size)
    card = counted(found.card.model_copy(update={"task": task}), found.model)
    known = data is not None or (card.data is not None and Path(card.data.directory).is_dir())
    dataset = dataset_of(card, data, layout, checkpoint) if known else None
    images, truth = _windows(dataset, task)
    with full_disk_explained(path.parent), TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as hidden:
        plain = Path(hidden, path.name)  # what is there under that name is replaced only by what was found to be right
        checked = plain.with_name(f"fused-{path.name}") if recipe.fuse.anything else plain
        export_onnx(found.model, card, plain, recipe.export, progress)
        parity = check_parity(found.model, plain, task, images, recipe.export.tolerance, truth)
        same = _fuse(plain, checked, card, recipe.fuse, images) if recipe.fuse.anything else None
        checked.replace(path)
    return Exported(path, card, parity, same, dataset is not None)


def _windows(dataset: Dataset | None, task: Task) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.uint8]]]:
    size = task.preprocessing
    if dataset is None:
        rng = np.random.default_rng(0)
        return [rng.integers(0, 256, (size.height, size.width, 3), dtype=np.uint8) for _ in range(IMAGES)], []
    shown = sample_labelled(dataset, "val", IMAGES, size.height, size.width, seed=0)
    return [window.image for window in shown], [window.labels for window in shown]


def _fuse(plain: Path, path: Path, card: Card, settings: FuseSettings, images: Sequence[NDArray[np.uint8]]) -> float:
    """Write the fused graph; how much of what it says is what the plain one says."""
    fuse(plain, path, card, settings)
    with open_session(plain, "onnxruntime") as before, open_session(path, "onnxruntime") as after:
        ours, theirs = predictor(after, card.task, path.name), predictor(before, card.task, path.name)
        same = float(np.mean([(ours(image) == theirs(image)).mean() for image in images]))
    if settings.argmax in ("off", "full") and same < SAME:
        raise ExportError(
            f"The fused graph says on {100 * (1 - same):.2f} % of the pixels something else than the plain one."
        )
    return same


def table_of(found: Exported) -> Table:
    """What was compared, a line each."""
    parity, images = found.parity, "windows of the val images" if found.real else "images of noise"
    lines = [
        [f"largest difference from torch on {parity.images} {images}", f"{parity.largest:.1e} of the logits' range"],
        ["same class as torch", f"{100 * parity.agreement:.3f} % of the pixels"],
    ]
    lines += [[f"IoU of {name}, from torch to ONNX", f"{change:+.3f} points"] for name, change in parity.iou.items()]
    if found.fused is not None:
        lines.append(["fused graph: same class as the plain one", f"{100 * found.fused:.3f} % of the pixels"])
    return ["", ""], lines
