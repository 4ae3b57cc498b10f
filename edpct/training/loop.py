"""The one training loop, for teacher and student: AdamW, autocast, validation, early stop, log, exact resume.

With several processes (``accelerate launch``, ``torchrun``) each takes its part of every batch, and gradients are those
of the whole batch's loss: a part weighs as much as it has counted pixels, so that cross-entropy is the mean over the
batch's pixels however it is cut. Micro-batches (``accumulate``) are weighed in the same way. What is no mean over
pixels, such as Dice, is the weighted mean of the parts' values. Statistics of batch normalisation are taken over all
processes on GPUs (SyncBatchNorm); on the CPU, where torch has none, every process normalises by its own crops, and
the main one's running statistics are kept.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from edpct.data.samples import Dataset
from edpct.errors import EdpctError, TrainingError
from edpct.progress import Progress, Silent
from edpct.recipe import OptimiseSettings
from edpct.task import Task
from edpct.training.averaging import moving_average
from edpct.training.crops import CropDataset, crop_loader
from edpct.training.interrupt import interrupts_held
from edpct.training.log import MIOU, RATE, SECONDS, SPEED, STEP, TrainingLog, iou_columns
from edpct.training.objective import Learner, single_crops_explained
from edpct.training.processes import (
    copy_from_main,
    from_main,
    lost_processes_explained,
    on_cpu,
    raise_together,
    share_out,
    summed,
    together,
)
from edpct.training.resume import History, Means, Measure, load_point, save_point
from edpct.training.schedule import rate_share
from edpct.training.validation import check_val, validate

MAX_GRADIENT_NORM = 5.0
LOSS = "loss"
WORKERS = 4  # processes that make crops for a GPU


@dataclass
class Training:
    """One training of a learner, in place.

    Attributes:
        task: the dataset's task at the size to validate at.
        workspace: folder for the log and the resume point; training goes on from there if one is found. With several
            processes only the main one reads and writes it.
        fingerprint: identifies settings and data; a resume point with another one is refused.
        title: what progress calls it.

    Raises:
        TrainingError: a resume point does not fit, a batch has fewer crops than parts, or all labels are ignored.
        DataError: an image or mask of either split cannot be used.
        MissingPackageError: TensorBoard is asked for and not installed.
    """

    learner: Learner
    dataset: Dataset
    task: Task
    settings: OptimiseSettings
    seed: int
    workspace: Path
    fingerprint: str
    progress: Progress
    title: str

    def __post_init__(self) -> None:
        # Autocast is ours: Accelerate keeps one precision for the whole process, and not every run wants the same.
        self.accelerator = Accelerator(mixed_precision="no", cpu=on_cpu())
        self.device, self.processes = self.accelerator.device, self.accelerator.num_processes
        if not self.accelerator.is_main_process:
            self.progress = Silent()
        self.bf16 = use_bf16(self.settings.precision)
        self.whole = True  # weights, statistics and step count belong together: fit for a resume point
        self._check_parts()
        self.crops = together(self._read)
        if self.processes > 1 and self.device.type == "cuda":
            self.learner = nn.SyncBatchNorm.convert_sync_batchnorm(self.learner)
        # Convolutions are up to twice as fast on images whose channels lie side by side.
        self.learner = self.learner.to(memory_format=torch.channels_last)
        groups = _decay_groups(self.learner, self.settings.weight_decay)
        optimiser = torch.optim.AdamW(groups, lr=self.settings.lr)
        self.schedule = LambdaLR(optimiser, lambda step: rate_share(step, self.settings))
        self.learner, self.optimiser = self.accelerator.prepare(self.learner, optimiser)
        self.plain: Learner = self.accelerator.unwrap_model(self.learner)
        self.average = moving_average(self.plain.model, self.settings.ema) if self.settings.ema > 0 else None
        self.best: dict[str, Tensor] | None = None  # weights, where training may stop early
        self.history = History()
        self.since_row, self.since_validation = Means(), Means()
        self.step = 0
        self._resume()
        self.log = together(self._open_log)

    def _check_parts(self) -> None:
        parts = self.settings.accumulate * self.processes
        if self.settings.batch < parts:
            raise TrainingError(
                f"A batch of {self.settings.batch} crops cannot be cut into {parts} parts "
                f"({self.processes} processes, accumulate {self.settings.accumulate}).",
                "Raise batch, or take fewer processes.",
            )

    def _read(self) -> CropDataset:
        check_val(self.dataset, self.progress)
        return CropDataset(self.dataset, self.task.preprocessing, self.settings, self.seed, self.progress)

    def _open_log(self) -> TrainingLog | None:
        if not self.accelerator.is_main_process:
            return None
        return TrainingLog(self.workspace, self.task.names, self.step, self.settings.tensorboard)

    def run(self) -> History:
        """Train to the last step, or until it gets no better, and return what validation showed.

        The learner ends on the CPU, in eval mode, with the weights to deliver: the last ones, their moving average,
        or those that validated best, as the settings say.

        Raises:
            TrainingError: the loss is not finite, a part of a batch is too small, or another process is gone.
            RunError: a resume point or the log cannot be written.
        """
        self.began = time.monotonic()
        try:
            with lost_processes_explained():
                self._train()
        except KeyboardInterrupt:
            if self.whole:
                self._save()
            raise
        finally:
            if self.log is not None:
                self.log.close()
        self._deliver()
        return self.history

    def _train(self) -> None:
        recent: deque[float] = deque(maxlen=20)
        bar = self.progress.task(self.title, self.settings.steps, self.step)
        with bar as update, interrupts_held() as interrupted, closing(self._batches()) as batches:
            while not self._over():
                images, labels = self._fetch(batches)
                self.whole = False
                recent.append(self._advance(images, labels))
                if self._due(self.settings.validate_every):
                    self._validate()
                self._write_row()
                self.whole = True
                if self._due(self.settings.save_every) or self._over():
                    self._save()
                note = f"mIoU {self.history.measures[-1].miou:.3f}" if self.history.measures else ""
                update(self.step, f"loss {sum(recent) / len(recent):.3f}  {note}")
                if any(summed([interrupted()], self.device)):
                    raise KeyboardInterrupt

    def _due(self, every: int) -> bool:
        return self.step == self.settings.steps or (every > 0 and self.step % every == 0)

    def _over(self) -> bool:
        """At the last step, or after ``patience`` validations that were no better than the best before them."""
        found, patience = self.history.measures, self.settings.patience
        worse = len(found) - 1 - self.history.best if patience and found else 0
        return self.step >= self.settings.steps or (patience > 0 and worse >= patience)

    # ---- a step

    def _batches(self) -> Generator[Any]:
        """This process's part of every batch that is left; crop i is the same whoever makes it.

        Closing it ends the loader's processes at once. Where a traceback keeps the loader's iterator, they live until
        that is collected, and torch then waits five seconds for each.
        """
        batch, part = self.settings.batch, share_out(self.settings.batch)
        rest = [range(batch * s + part.start, batch * s + part.stop) for s in range(self.step, self.settings.steps)]
        cuda = self.device.type == "cuda"
        yield from crop_loader(self.crops, rest, workers=WORKERS if cuda else 0, pin_memory=cuda)

    def _fetch(self, batches: Iterator[Any]) -> tuple[Tensor, Tensor]:
        """The next part; an image that has become unreadable in one process stops all."""
        found = next(batches)
        failed = found if isinstance(found, EdpctError) else None
        if any(summed([failed is not None], self.device)):
            raise_together(failed)
        images, labels = found
        return images, labels

    def _advance(self, images: Tensor, labels: Tensor) -> float:
        """One optimiser step; returns the loss of the whole batch."""
        began = time.monotonic()
        self._training_mode()
        # What a network draws (dropout) is a function of seed and step, so that a resumed run draws the same.
        drawn = np.random.SeedSequence((self.seed, self.step, self.accelerator.process_index))
        torch.manual_seed(int(drawn.generate_state(1)[0]))
        with single_crops_explained():
            values = self._backward(images, labels)
        if not math.isfinite(values[LOSS]):
            raise TrainingError(
                f"The loss became {values[LOSS]} at step {self.step + 1}.",
                "Lower the learning rate (lr) or use precision fp32.",
            )
        self.plain.regularise()
        self.accelerator.clip_grad_norm_(self.learner.parameters(), MAX_GRADIENT_NORM)
        self.rate = self.optimiser.param_groups[0]["lr"]
        self.optimiser.step()
        self.schedule.step()
        self.optimiser.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.plain.model)
        self.step += 1
        self.since_validation.add({LOSS: values[LOSS]})
        self.since_row.add({**values, SECONDS: time.monotonic() - began})
        return values[LOSS]

    def _training_mode(self) -> None:
        self.learner.train()
        if self.step >= (1 - self.settings.hold_statistics) * self.settings.steps:
            for module in self.learner.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def _backward(self, images: Tensor, labels: Tensor) -> dict[str, float]:
        """Gradients of the whole batch's loss, in micro-batches; returns loss and terms over all processes."""
        cuts = self.settings.accumulate
        counted = [int((part != self.task.ignore_index).sum()) for part in labels.tensor_split(cuts)]
        (total,) = summed([sum(counted)], self.device)
        values: dict[str, float] = {}
        parts = zip(images.tensor_split(cuts), labels.tensor_split(cuts), counted, strict=True)
        for number, (pixels, truth, count) in enumerate(parts, 1):
            share = count / total if total else 1 / (cuts * self.processes)
            pixels = pixels.to(self.device, non_blocking=True).contiguous(memory_format=torch.channels_last)
            truth = truth.to(self.device, non_blocking=True)
            with self._synchronised(number == cuts):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                    found = self.learner(pixels, truth)
                    terms = torch.stack(list(found.values()))
                    loss = terms.sum()
                # Several processes' gradients are averaged, and should be added up.
                self.accelerator.backward(loss * (share * self.processes))
            for name, value in zip((LOSS, *found), torch.cat([loss[None], terms]).tolist(), strict=True):
                values[name] = values.get(name, 0.0) + share * value
        return dict(zip(values, summed(list(values.values()), self.device), strict=True))

    def _synchronised(self, wanted: bool) -> AbstractContextManager[None]:
        """Gradients are exchanged once a step, with the last micro-batch."""
        return nullcontext() if wanted else self.accelerator.no_sync(self.learner)

    # ---- between steps

    def _validate(self) -> None:
        model = self.plain.model if self.average is None else self.average.module
        copy_from_main(model)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            accuracy = validate(model, self.dataset, self.task, self.device, self.settings.overlap)
        loss = self.since_validation.take()[LOSS]
        self.history.measures.append(Measure(self.step, loss, accuracy.miou, accuracy.iou))
        if self.settings.patience and self.history.best == len(self.history.measures) - 1:
            self.best = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def _write_row(self) -> None:
        """A row of the log, every so many steps and where the step was validated."""
        last = self.history.measures[-1] if self.history.measures else None
        validated = last is not None and last.step == self.step
        if not validated and not self._due(self.settings.log_every):
            return
        means = self.since_row.take()
        seconds = self.history.seconds + time.monotonic() - self.began
        row = {STEP: self.step, SECONDS: round(seconds, 2), RATE: self.rate}
        row[SPEED] = round(self.settings.batch / max(means.pop(SECONDS), 1e-9), 2)
        if last is not None and validated:
            row |= {MIOU: last.miou, **dict(zip(iou_columns(self.task.names), last.iou, strict=True))}
        if self.log is not None:
            self.log.write(row | means)

    def _deliver(self) -> None:
        """Put the weights that were asked for into the learner's network."""
        self.history.delivered = self.step
        if self.best is not None:
            self.plain.model.load_state_dict(self.best)
            self.history.delivered = self.history.measures[self.history.best].step
        elif self.average is not None:
            self.plain.model.load_state_dict(self.average.module.state_dict())
        self.plain.to("cpu").eval()
        self.plain.to(memory_format=torch.contiguous_format)

    def _save(self) -> None:
        """Write a resume point."""
        now = time.monotonic()
        self.history.seconds += now - self.began
        self.began = now
        if self.accelerator.is_main_process:
            parts = {
                "learner": self.plain.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "schedule": self.schedule.state_dict(),
                "average": self.average.state_dict() if self.average is not None else None,
                "best": self.best,
                "since_row": asdict(self.since_row),
                "since_validation": asdict(self.since_validation),
            }
            save_point(self.workspace, self.fingerprint, self.step, parts, self.history)

    def _resume(self) -> None:
        point = from_main(lambda: load_point(self.workspace, self.fingerprint))
        if point is None:
            return
        self.plain.load_state_dict(point["learner"])
        self.optimiser.load_state_dict(point["optimiser"])
        self.schedule.load_state_dict(point["schedule"])
        if self.average is not None:
            self.average.load_state_dict(point["average"])
        self.best = point["best"]
        self.since_row, self.since_validation = Means(**point["since_row"]), Means(**point["since_validation"])
        self.history, self.step = History.from_dict(point["history"]), point["step"]
        self.progress.say(f"{self.title}: going on after step {self.step} of {self.settings.steps}.")


def use_bf16(precision: str) -> bool:
    """Whether to train under bf16 autocast; ``auto`` where the device computes bf16 natively."""
    if precision != "auto":
        return precision == "bf16"
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def _decay_groups(learner: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weight decay on matrices and kernels only; norms and biases go without, as is usual for AdamW."""
    parameters = [p for p in learner.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
