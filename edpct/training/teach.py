"""Training a teacher from scratch: the stage behind ``edpct train``."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from edpct.card import Card, DataSource
from edpct.data.fingerprint import data_fingerprint
from edpct.data.samples import Dataset
from edpct.errors import RunError
from edpct.models.architecture import count_macs, count_parameters
from edpct.models.checkpoint import load_checkpoint, save_checkpoint
from edpct.models.dpctnet import PRESETS, DPCTNet, dpctnet
from edpct.models.pretrained import HUB, PACKAGE, load_backbone, normalisation
from edpct.progress import Progress
from edpct.recipe import TeachSettings, TrainRecipe
from edpct.runtimes.content import sha256_of
from edpct.task import Task
from edpct.training.loop import Training
from edpct.training.objective import SupervisedLearner, tap_widths
from edpct.training.processes import from_main, processes
from edpct.training.resume import RESUME_FILE, History

TEACHER_FILE = "teacher.pt"
HISTORY_FILE = "training.json"


@dataclass(frozen=True)
class TaughtTeacher:
    """The outcome of a training: where the checkpoint lies, its card, and what validation showed."""

    checkpoint: Path
    card: Card
    history: History


def teach(recipe: TrainRecipe, dataset: Dataset, out: Path, size: tuple[int, int], progress: Progress) -> TaughtTeacher:
    """Train a DP-CTNet on a dataset; goes on where an earlier call with the same recipe was stopped.

    With several processes, the main one alone reads and writes ``out``, and the others wait for it.

    Args:
        out: folder for ``teacher.pt``, ``training.json`` and ``log.csv``.
        size: input height and width that the teacher is validated, exported and measured at.

    Raises:
        TrainingError: see :func:`edpct.training.loop.Training`.
        CheckpointError: the backbone is unknown to timm, or its weights cannot be had.
        RunError: ``out`` holds a teacher of another recipe or of other data.
    """
    task = _task(recipe, dataset, size)
    data = from_main(lambda: _data(recipe, dataset))
    fingerprint = _fingerprint(recipe, data, size)
    finished = from_main(lambda: _finished(out, fingerprint, data))
    if finished is not None:
        progress.say(f"{finished.checkpoint} is finished with these settings; nothing to do.")
        return finished
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    model = dpctnet(recipe.preset, task.num_classes, recipe.backbone)
    if recipe.backbone_weights is not None:
        load_backbone(model, recipe.backbone_weights)
    settings = recipe.train
    history = Training(
        learner_of(model, task, settings), dataset, task, settings,
        seed=recipe.seed, workspace=out, fingerprint=fingerprint, progress=progress, title=f"Training {recipe.preset}",
    ).run()  # fmt: skip
    card = Card(
        network=" on ".join(filter(None, (f"DP-CTNet {recipe.preset}", recipe.backbone))),
        task=task,
        parameters=count_parameters(model),
        macs=count_macs(model, *size),
        data=DataSource(directory=str(dataset.root.resolve()), layout=dataset.layout),
    )
    if processes().is_main_process:
        settings_used = recipe.model_dump(mode="json")
        record = {"fingerprint": fingerprint, "data": data, "recipe": settings_used, **history.as_dict()}
        (out / HISTORY_FILE).write_text(json.dumps(record, indent=1), encoding="utf-8")
        save_checkpoint(out / TEACHER_FILE, model, card)
        (out / RESUME_FILE).unlink(missing_ok=True)
    return TaughtTeacher(out / TEACHER_FILE, card, history)


def learner_of(model: nn.Module, task: Task, settings: TeachSettings) -> SupervisedLearner:
    """What trains a network on labels: a DP-CTNet with auxiliary heads, its parts left out at random."""
    taps: dict[str, int] = {}
    if isinstance(model, DPCTNet):
        model.drop(settings.drop_paths, settings.drop_blocks)
        if settings.auxiliary > 0:
            taps = tap_widths(model, tuple(tap for tap in model.TAPS if tap != "fused"))
    return SupervisedLearner(
        model, task.ignore_index, task.num_classes, settings.dice, settings.auxiliary, taps, settings.boundary
    )


def _task(recipe: TrainRecipe, dataset: Dataset, size: tuple[int, int]) -> Task:
    """The dataset's task at a size; with the normalisation that pretrained weights were made for."""
    task = dataset.task.at_size(*size)
    if recipe.backbone is None or recipe.backbone_weights is None:
        return task
    mean, std = normalisation(recipe.backbone)
    return task.model_copy(update={"preprocessing": task.preprocessing.model_copy(update={"mean": mean, "std": std})})


def _finished(out: Path, fingerprint: str, data: str) -> TaughtTeacher | None:
    checkpoint, record = out / TEACHER_FILE, out / HISTORY_FILE
    if not checkpoint.exists():
        return None
    try:
        values = json.loads(record.read_text(encoding="utf-8"))
        same, same_data = values["fingerprint"] == fingerprint, values["data"] == data
    except (OSError, ValueError, KeyError):
        same, same_data = False, True
    if not same:
        other = "settings" if same_data else "data: images, masks or the backbone's weights have changed since"
        raise RunError(f"{checkpoint} is a teacher of other {other}.", "Choose another --out.")
    return TaughtTeacher(checkpoint, load_checkpoint(checkpoint).card, History.from_dict(values))


def _data(recipe: TrainRecipe, dataset: Dataset) -> str:
    """Hash of the files that decide the result: the dataset's, and the backbone's weights where they are a file."""
    source = recipe.backbone_weights
    file = None if source in (None, HUB, PACKAGE) else Path(source)
    weights = sha256_of(file) if file is not None and file.is_file() else None  # one that is missing is refused later
    return hashlib.sha256(json.dumps([data_fingerprint(dataset), weights]).encode()).hexdigest()


def _fingerprint(recipe: TrainRecipe, data: str, size: tuple[int, int]) -> str:
    """Hash of what decides the result: recipe, network and data."""
    network = PRESETS[recipe.preset]  # the same name may stand for another network in another version
    return hashlib.sha256(json.dumps([recipe.model_dump(mode="json"), network, size, data]).encode()).hexdigest()
