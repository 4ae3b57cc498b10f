"""The one training loop, for teacher and student: AdamW, warm-up and cosine, autocast, validation, exact resume."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from edpct.data.accuracy import Accuracy, measure_accuracy
from edpct.data.samples import Dataset
from edpct.data.tiling import windows
from edpct.errors import TrainingError
from edpct.progress import Progress
from edpct.recipe import OptimiseSettings
from edpct.task import Task
from edpct.training.crops import CropDataset
from edpct.training.interrupt import interrupts_held
from edpct.training.objective import Learner
from edpct.training.resume import History, Measure, load_point, save_point

MAX_GRADIENT_NORM = 5.0


@dataclass
class Training:
    """One training of a learner, in place.

    Attributes:
        task: the dataset's task at the size to validate at.
        workspace: folder for the resume point; training goes on from there if one is found.
        fingerprint: identifies settings and data; a resume point with another one is refused.
        title: what progress calls it.

    Raises:
        TrainingError: a resume point does not fit.
        DataError: an image or mask of either split cannot be used.
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
        self.accelerator = Accelerator(mixed_precision="no")
        self.bf16 = use_bf16(self.settings.precision)
        self.whole = True  # weights, statistics and step count belong together: fit for a resume point
        _read_val(self.dataset, self.progress)
        self.crops = CropDataset(self.dataset, self.task.preprocessing, self.settings, self.seed, self.progress)
        # Convolutions are up to twice as fast on images whose channels lie side by side.
        self.learner = self.learner.to(memory_format=torch.channels_last)
        groups = _decay_groups(self.learner, self.settings.weight_decay)
        optimiser = torch.optim.AdamW(groups, lr=self.settings.lr)
        steps, warmup = self.settings.steps, self.settings.warmup
        self.schedule = LambdaLR(optimiser, lambda step: warmup_cosine(step, steps, warmup))
        self.learner, self.optimiser = self.accelerator.prepare(self.learner, optimiser)
        self.history = History()
        self.step = 0
        self._resume()

    def run(self) -> History:
        """Train to the last step and return what validation showed; the learner ends on the CPU, in eval mode.

        Raises:
            TrainingError: the loss is not finite.
            RunError: a resume point cannot be written.
        """
        steps = self.settings.steps
        losses: list[float] = []  # since the last validation
        began = time.monotonic()
        note = f"mIoU {self.history.measures[-1].miou:.3f}" if self.history.measures else ""
        try:
            with self.progress.task(self.title, steps, self.step) as update, interrupts_held() as release:
                for images, labels in self._batches():
                    self.whole = False
                    losses.append(self._advance(images, labels))
                    loss = sum(losses[-20:]) / len(losses[-20:])
                    every = self.settings.validate_every
                    if self.step == steps or (every and self.step % every == 0):
                        note = f"mIoU {self._validate(losses):.3f}"
                    self.whole = True
                    if self.step % self.settings.save_every == 0 or self.step == steps:
                        began = self._save(began)
                    update(self.step, f"loss {loss:.3f}  {note}")
                    release()
        except KeyboardInterrupt:
            if self.whole:
                self._save(began)
            raise
        trained = self.accelerator.unwrap_model(self.learner).to("cpu").eval()
        trained.to(memory_format=torch.contiguous_format)
        return self.history

    def _batches(self) -> DataLoader:
        rest = range(self.step * self.settings.batch, self.settings.steps * self.settings.batch)
        cuda = self.accelerator.device.type == "cuda"
        loader = DataLoader(
            self.crops, self.settings.batch, sampler=rest, num_workers=4 if cuda else 0, pin_memory=cuda
        )
        return self.accelerator.prepare(loader)

    def _advance(self, images: Tensor, labels: Tensor) -> float:
        self._training_mode()
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.bf16):
            loss = torch.stack(list(self.learner(images, labels).values())).sum()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"The loss became {value} at step {self.step + 1}.",
                "Lower the learning rate (lr) or use precision fp32.",
            )
        self.accelerator.backward(loss)
        self.accelerator.unwrap_model(self.learner).regularise()
        self.accelerator.clip_grad_norm_(self.learner.parameters(), MAX_GRADIENT_NORM)
        self.optimiser.step()
        self.schedule.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.step += 1
        return value

    def _training_mode(self) -> None:
        self.learner.train()
        if self.step >= (1 - self.settings.hold_statistics) * self.settings.steps:
            for module in self.learner.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def _validate(self, losses: list[float]) -> float:
        model = self.accelerator.unwrap_model(self.learner).model
        with torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.bf16):
            accuracy = validate(model, self.dataset, self.task, self.accelerator.device)
        loss = sum(losses) / len(losses)
        self.history.measures.append(Measure(self.step, loss, accuracy.miou, accuracy.iou))
        losses.clear()
        return accuracy.miou

    def _save(self, began: float) -> float:
        """Write a resume point; returns the time from which the next stretch counts."""
        now = time.monotonic()
        self.history.seconds += now - began
        if self.accelerator.is_main_process:
            parts = {
                "learner": self.accelerator.unwrap_model(self.learner).state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "schedule": self.schedule.state_dict(),
            }
            save_point(self.workspace, self.fingerprint, self.step, parts, self.history)
        return now

    def _resume(self) -> None:
        point = load_point(self.workspace, self.fingerprint)
        if point is None:
            return
        self.accelerator.unwrap_model(self.learner).load_state_dict(point["learner"])
        self.optimiser.load_state_dict(point["optimiser"])
        self.schedule.load_state_dict(point["schedule"])
        self.history, self.step = History.from_dict(point["history"]), point["step"]
        self.progress.say(f"{self.title}: going on after step {self.step} of {self.settings.steps}.")


def _read_val(dataset: Dataset, progress: Progress) -> None:
    """Find a validation image that cannot be used before training, not at the first validation."""
    samples = dataset.split("val")
    with progress.task("Checking val", len(samples)) as update:
        for done, sample in enumerate(samples, 1):
            dataset.read(sample)
            update(done, "")


def validate(model: nn.Module, dataset: Dataset, task: Task, device: torch.device | str = "cpu") -> Accuracy:
    """Accuracy of a torch network over the val split, in windows of the task's input size."""
    size = task.preprocessing
    training = model.training
    model.eval()

    @torch.no_grad()
    def predict(image):  # type: ignore[no-untyped-def]
        batch = torch.from_numpy(size.apply(image)).to(device).contiguous(memory_format=torch.channels_last)
        logits = model(batch)
        return logits.argmax(1)[0].cpu().numpy()

    cut = windows(dataset, "val", size.height, size.width)
    accuracy = measure_accuracy(predict, cut, task.num_classes, task.ignore_index)
    model.train(training)
    return accuracy


def warmup_cosine(step: int, steps: int, warmup: float) -> float:
    """Share of the peak learning rate at a step: linear from 0 over ``warmup`` of the steps, then cosine to 0."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rising) / max(1, steps - rising))))


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
