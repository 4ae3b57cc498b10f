"""The point from which an interrupted training goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from edpct.errors import RunError, TrainingError

RESUME_FILE = "resume.pt"


@dataclass(frozen=True)
class Measure:
    """One validation: after how many steps, mean training loss since the last one, mIoU and per-class IoU in 0..1."""

    step: int
    loss: float
    miou: float
    iou: tuple[float | None, ...]


@dataclass
class History:
    """What training has shown so far.

    Attributes:
        seconds: time spent in training, earlier attempts included.
        delivered: the step whose weights came out; None while training.
    """

    measures: list[Measure] = field(default_factory=list)
    seconds: float = 0.0
    delivered: int | None = None

    @property
    def result(self) -> Measure:
        """The validation of the weights that came out; of the last ones while training."""
        return next((m for m in self.measures if m.step == self.delivered), self.measures[-1])

    @property
    def best(self) -> int:
        """Which of the measures has the greatest mIoU, the first of equals; there must be one."""
        return max(range(len(self.measures)), key=lambda index: self.measures[index].miou)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values; seconds to a tenth."""
        measures = [asdict(m) for m in self.measures]
        return {"measures": measures, "seconds": round(self.seconds, 1), "delivered": self.delivered}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> History:
        """What :meth:`as_dict` returned."""
        measures = [Measure(**{**m, "iou": tuple(m["iou"])}) for m in values["measures"]]
        return cls(measures, values["seconds"], values.get("delivered"))


@dataclass
class Means:
    """Means over steps, of values that not every step need have (it then counts as 0)."""

    sums: dict[str, float] = field(default_factory=dict)
    steps: int = 0

    def add(self, values: Mapping[str, float]) -> None:
        """Count a step."""
        self.steps += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def take(self) -> dict[str, float]:
        """The means since the last call, which begin anew; empty where there was no step."""
        means = {name: total / self.steps for name, total in self.sums.items()}
        self.sums, self.steps = {}, 0
        return means


def save_point(workspace: Path, fingerprint: str, step: int, parts: dict[str, Any], history: History) -> None:
    """Write a resume point; the former one stays until this one is whole.

    Raises:
        RunError: the disk is full, or the folder cannot be written.
    """
    partial = workspace / f".{RESUME_FILE}.partial"
    try:
        torch.save({"fingerprint": fingerprint, "step": step, "history": history.as_dict(), **parts}, partial)
        partial.replace(workspace / RESUME_FILE)
    except (OSError, RuntimeError) as error:  # torch says a full disk as RuntimeError
        partial.unlink(missing_ok=True)
        raise RunError(
            f"The resume point in {workspace} cannot be written; the one before it is kept.",
            "Free some space and run the same command again.",
        ) from error


def load_point(workspace: Path, fingerprint: str) -> dict[str, Any] | None:
    """The resume point of a workspace, or None where there is none.

    Raises:
        TrainingError: it belongs to other settings or other data, or is damaged.
    """
    path = workspace / RESUME_FILE
    if not path.exists():
        return None
    try:
        point: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for a damaged file
        raise TrainingError(f"{path} is damaged.", "Delete it to start again.") from error
    if point["fingerprint"] != fingerprint:
        raise TrainingError(
            f"{path} was written with other settings or other data.",
            "Choose another --out, or delete it to start again.",
        )
    return point
