"""Pruning as a run does it: with the data's help, in steps with recovery, and toward the speed of the built engine."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edpct.data.samples import Dataset
from edpct.data.sampling import sample_labelled, sample_windows
from edpct.errors import DataError, PruningError
from edpct.models.architecture import count_macs, count_parameters
from edpct.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edpct.progress import Progress
from edpct.pruning.criteria import NEED_GRADIENTS, Batch
from edpct.pruning.prune import Budget, Pruned, Pruner
from edpct.pruning.sensitivity import check_fits, floors, load_sensitivity
from edpct.pruning.sparse import SparseLearner
from edpct.pruning.widths import LayerWidth, compare_widths, output_widths
from edpct.recipe import BenchSettings, ExportSettings, OptimiseSettings, PruneSettings
from edpct.run.fps import prune_to_fps
from edpct.run.speed import CALIBRATION_IMAGES, JOURNAL, EngineSpeed
from edpct.task import Task
from edpct.training.loop import Training
from edpct.training.objective import Learner, SupervisedLearner
from edpct.training.validation import validate

BOUNDED_ITERATIONS = 4  # prunings on the way to a budget that a bound on mIoU may stop


@dataclass
class Pruning:
    """One pruning of a teacher.

    Attributes:
        dataset: needed by criteria with gradients, bounds, recovery, sparse training; else optional.
        workspace: folder for what an interrupted pruning left.
    """

    teacher: Checkpoint
    settings: PruneSettings
    dataset: Dataset | None
    seed: int
    workspace: Path
    progress: Progress
    export: ExportSettings
    bench: BenchSettings
    facts: dict[str, Any] = field(default_factory=dict)

    def run(self) -> nn.Module:
        """The pruned network; ``facts`` then says what was asked, what came out, and how.

        Raises:
            PruningError: the budget or a bound cannot be met.
            DataError: data is needed and was not given.
        """
        if self.settings.spare is not None:
            check_fits(load_sensitivity(self.settings.spare), self._pruner(self.teacher.model).graph.groups)
        source = self._sparse(copy.deepcopy(self.teacher.model))
        kind, amount = self.settings.budget
        fast = self._fast(source, amount) if kind == "target_fps" else None
        budget = Budget("macs", float(fast.macs)) if fast is not None else Budget(kind, amount)
        whole = fast is not None and self._iterations == 1
        model = fast.model if fast is not None and whole else self._in_steps(source, budget)
        self._tell(model)
        return model

    def _fast(self, source: nn.Module, target: float) -> Pruned:
        """The network whose engine is as fast as asked."""
        size = self._task.preprocessing
        if self.dataset is not None:
            images = sample_windows(self.dataset, "train", CALIBRATION_IMAGES, size.height, size.width, self.seed)
        else:
            images = _noise(CALIBRATION_IMAGES, size.height, size.width, self.seed)
        card = self.teacher.card
        speed = EngineSpeed(
            card, images, self.dataset, self.settings, self.export, self.bench, self.workspace, self.progress
        )
        found = prune_to_fps(self._pruner(source), speed, target, self.progress)
        self.progress.say(f"  {found.fps:.1f} FPS on {speed.title} after {found.seconds:.0f} s of searching.")
        if found.note:
            self.progress.say(f"  {found.note}")
        self.facts["speed"] = {
            "engine": speed.title, "fps": found.fps, "interval": found.interval, "seconds": found.seconds,
            "note": found.note, "probes": [asdict(probe) for probe in found.probes],
        }  # fmt: skip
        (self.workspace / JOURNAL).unlink(missing_ok=True)
        return found.pruned

    # ---- one or several prunings

    def _in_steps(self, source: nn.Module, budget: Budget) -> nn.Module:
        """Prune on the way to the budget, and stop before the mIoU falls under its bound."""
        count, least = self._iterations, self._least_miou()
        model, taken = source, []
        for number in range(1, count + 1):
            candidate = self._step(model, source, budget, number, count, recover=number < count or least is not None)
            entry: dict[str, Any] = {"step": number, "macs": self._macs(candidate)}
            if least is not None:
                entry["miou"] = self._miou(candidate)
                if entry["miou"] < least:
                    self._stop(entry, count, least)
                    break
            taken.append(entry)
            model = candidate
        if count > 1:
            self.facts["steps"] = taken
        return model

    def _step(
        self, model: nn.Module, source: nn.Module, budget: Budget, number: int, count: int, recover: bool
    ) -> nn.Module:
        """One pruning and its recovery; an interrupted run finds those that were finished."""
        file = self.workspace / f".step-{number}.safetensors"
        if file.exists():
            return load_checkpoint(file).model
        candidate = self._pruner(model).to(self._part(budget, source, number, count)).model
        if recover:
            self._train(candidate, self.settings.recovery, number, f"Recovering after step {number} of {count}")
        save_checkpoint(file, candidate, self.teacher.card)
        return candidate

    def _stop(self, entry: dict[str, Any], count: int, least: float) -> None:
        """Say why pruning ends before its budget.

        Raises:
            PruningError: already its first step is too much.
        """
        fell = f"{entry['macs'] / 1e9:.2f} GMACs, with an mIoU of {100 * entry['miou']:.2f} %"
        if entry["step"] == 1:
            raise PruningError(
                f"The first of {count} steps of pruning, to {fell}, is already under the bound of {100 * least:.2f} %.",
                "Raise steps in [prune.recovery], take more iterations, or allow a lower mIoU.",
            )
        self.facts["stopped"] = {**entry, "bound": least}
        self.progress.say(f"  Stopped before {fell}: the bound is {100 * least:.2f} %.")

    def _part(self, budget: Budget, source: nn.Module, number: int, count: int) -> Budget:
        """What is left after so many of all steps, each taking the same share of what is there."""
        if count == 1:
            return budget
        if budget.kind == "ratio":
            return Budget("ratio", 1 - (1 - budget.amount) ** (1 / count))
        whole = self._macs(source) if budget.kind == "macs" else count_parameters(source)
        return Budget(budget.kind, whole * (budget.of(whole) / whole) ** (number / count))

    @property
    def _iterations(self) -> int:
        if self.settings.iterations:
            return self.settings.iterations
        bounded = self.settings.min_miou is not None or self.settings.max_miou_drop is not None
        return BOUNDED_ITERATIONS if bounded else 1

    def _pruner(self, model: nn.Module) -> Pruner:
        settings, task = self.settings, self._task
        size = task.preprocessing
        batches: list[Batch] = []
        if settings.criterion in NEED_GRADIENTS:
            data = self._data(f"The criterion '{settings.criterion}'")
            batches = labelled_batches(data, task, settings.images, self.seed)
        pruner = Pruner(
            model, settings, (size.height, size.width), self.progress,
            batches=batches, ignore_index=task.ignore_index, seed=self.seed,
        )  # fmt: skip
        if settings.spare is not None:
            self._spare(pruner, settings.spare)
        return pruner

    def _spare(self, pruner: Pruner, file: Path) -> None:
        """Keep what the sensitivity analysis found dear; its shares are of the teacher's widths."""
        sensitivity = load_sensitivity(file)
        groups = pruner.graph.groups
        before = {group.name: group.width for group in sensitivity.groups}
        least = floors(sensitivity, self.settings.spare_drop)
        pruner.planner.floors = {
            group.name: min(1.0, least.get(group.name, 0.0) * before.get(group.name, 0) / group.width)
            for group in groups
        }

    # ---- what the data is needed for

    def _sparse(self, model: nn.Module) -> nn.Module:
        sparse = self.settings.sparse
        if sparse.kind == "none":
            return model
        file = self.workspace / ".sparse.safetensors"
        if file.exists():
            return load_checkpoint(file).model
        learner = SparseLearner(
            model, self._pruner(model).graph.outputs, sparse, self._task.ignore_index, self._task.num_classes,
            leave_out=self.settings.leave_out, seconds=self.settings.graph_seconds,
        )  # fmt: skip
        self._learn(learner, sparse, "sparse", "Sparse training")
        save_checkpoint(file, model, self.teacher.card)
        return model

    def _train(self, model: nn.Module, settings: OptimiseSettings, number: int, title: str) -> None:
        learner = SupervisedLearner(model, self._task.ignore_index, self._task.num_classes, settings.dice, 0.0, {})
        self._learn(learner, settings, f"recovery-{number}", title)

    def _learn(self, learner: Learner, settings: OptimiseSettings, name: str, title: str) -> None:
        folder = self.workspace / f".{name}"
        folder.mkdir(exist_ok=True)
        torch.manual_seed(self.seed)
        Training(
            learner, self._data(title), self._task, settings,
            seed=self.seed, workspace=folder, fingerprint=f"{self.workspace.name} {name}", progress=self.progress,
            title=title,
        ).run()  # fmt: skip

    def _least_miou(self) -> float | None:
        """The bound on mIoU, 0..1."""
        bounds = []
        if self.settings.min_miou is not None:
            bounds.append(self.settings.min_miou / 100)
        if self.settings.max_miou_drop is not None:
            self.facts["teacher_miou"] = self._miou(self.teacher.model)
            bounds.append(self.facts["teacher_miou"] - self.settings.max_miou_drop / 100)
        return max(bounds) if bounds else None

    def _miou(self, model: nn.Module) -> float:
        """On val, 0..1."""
        with self.progress.task("mIoU", 1) as update:
            found = validate(model, self._data("A bound on mIoU"), self._task).miou or 0.0
            update(1, f"{100 * found:.2f} %")
        return found

    def _data(self, purpose: str) -> Dataset:
        if self.dataset is None:
            raise DataError(f"{purpose} needs data.", "Give it with --data DIR.")
        return self.dataset

    # ---- what came out

    def _tell(self, model: nn.Module) -> None:
        teacher = self.teacher.model
        rows = widths_of(teacher, model)
        self.facts |= {
            "asked": dict([self.settings.budget]),
            "criterion": self.settings.criterion,
            "scope": self.settings.scope,
            "macs_share": self._macs(model) / self._macs(teacher),
            "parameters_share": count_parameters(model) / count_parameters(teacher),
            "widths": [asdict(row) for row in rows],
        }

    @property
    def _task(self) -> Task:
        return self.teacher.card.task

    def _macs(self, model: nn.Module) -> int:
        size = self._task.preprocessing
        return count_macs(model, size.height, size.width)


def widths_of(teacher: nn.Module, model: nn.Module) -> tuple[LayerWidth, ...]:
    """Every layer's width in the teacher and in the pruned network."""
    return compare_widths(output_widths(teacher), model, set())


def labelled_batches(dataset: Dataset, task: Task, count: int, seed: int) -> list[Batch]:
    """Single training windows as (1, 3, H, W) float32 and their labels (1, H, W) int64."""
    size = task.preprocessing
    found = sample_labelled(dataset, "train", count, size.height, size.width, seed)
    return [
        (torch.from_numpy(size.apply(window.image)), torch.from_numpy(window.labels[None].astype(np.int64)))
        for window in found
    ]


def _noise(count: int, height: int, width: int, seed: int) -> list[NDArray[np.uint8]]:
    """Images for engines that are only timed, where there is no data."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)]
