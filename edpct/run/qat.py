"""Quantisation-aware training: distillation that goes on while the student is rounded as INT8 rounds it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from edpct.data.samples import Dataset
from edpct.data.sampling import sample_covering
from edpct.distillation.learner import DistilLearner
from edpct.export.fake_quantised import FakeQuantised
from edpct.models.checkpoint import Checkpoint
from edpct.progress import Progress
from edpct.recipe import DistilSettings, QatSettings
from edpct.training.loop import Training
from edpct.training.resume import History


def train_quantised(
    student: Checkpoint,
    teacher: nn.Module,
    dataset: Dataset,
    losses: DistilSettings,
    settings: QatSettings,
    calibration_images: int,
    seed: int,
    workspace: Path,
    progress: Progress,
) -> tuple[nn.Module, History]:
    """The student with weights that bear INT8, without quantisers, and what validation showed with them.

    Args:
        losses: whose weights the losses have; its steps and rates do not count here.
        calibration_images: windows of train that decide where activations are clipped.
        workspace: folder for the resume point; named after what decides the result.

    Raises:
        QuantisationError: NNCF cannot put quantisers into the student.
        TrainingError: see :func:`edpct.training.loop.Training`.
    """
    task = student.card.task
    size = task.preprocessing
    shown = sample_covering(dataset, "train", calibration_images, size.height, size.width, seed)
    torch.manual_seed(seed)
    progress.say("  Placing quantisers in the student.")
    quantised = FakeQuantised(student.model, [torch.from_numpy(size.apply(window.image)) for window in shown])
    learner = DistilLearner(quantised, teacher, losses, task.ignore_index, task.num_classes)
    history = Training(
        learner, dataset, task, settings,
        seed=seed, workspace=workspace, fingerprint=workspace.name, progress=progress,
        title="Training with INT8 rounding",
    ).run()  # fmt: skip
    return quantised.trained, history
