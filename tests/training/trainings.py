"""What the tests of training share: a small learner, a short training, and somebody who presses Ctrl-C."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from edpct.data.samples import Dataset
from edpct.data.scenes import SCENE_TASK
from edpct.models.dpctnet import dpctnet
from edpct.progress import Progress, Silent, Update
from edpct.recipe import TeachSettings
from edpct.training.loop import Training
from edpct.training.objective import Learner, SupervisedLearner, label_terms, tap_widths
from edpct.training.resume import History

IGNORE = 255
STEPS = 6
SETTINGS = TeachSettings(steps=STEPS, batch=2, crop=64, precision="fp32", validate_every=0, save_every=50)


class Plain(Learner):
    """Two convolutions without batch normalisation, on cross-entropy alone; ``drop`` puts dropout between them."""

    def __init__(self, drop: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Dropout(drop), nn.Conv2d(8, 7, 1)]
        self.model = nn.Sequential(*layers)

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return label_terms(self.model(images), labels, IGNORE, 0.0)


def learner_of(seed: int = 0) -> SupervisedLearner:
    torch.manual_seed(seed)
    model = dpctnet("tiny", 7)
    return SupervisedLearner(model, IGNORE, 7, 0.5, 0.4, tap_widths(model, ("cnn", "transformer")))


def fit(
    learner: Learner,
    dataset: Dataset,
    workspace: Path,
    progress: Progress | None = None,
    settings: TeachSettings = SETTINGS,
    fingerprint: str = "a",
) -> History:
    workspace.mkdir(exist_ok=True)
    return Training(
        learner, dataset, SCENE_TASK.at_size(128, 128), settings,
        seed=3, workspace=workspace, fingerprint=fingerprint, progress=progress or Silent(), title="Training",
    ).run()  # fmt: skip


class Interrupting(Silent):
    """Somebody presses Ctrl-C when the bar ``title`` shows ``at``."""

    def __init__(self, at: int, title: str = "Training") -> None:
        self.at, self.title = at, title
        self.said: list[str] = []
        self.seen: list[int] = []
        self.start = 0

    @contextmanager
    def task(self, title: str, total: int, start: int = 0) -> Iterator[Update]:
        def update(done: int, note: str) -> None:
            if title == self.title:
                self.seen.append(done)
                if done == self.at:
                    raise KeyboardInterrupt

        if title == self.title:
            self.start = start
        yield update

    def say(self, text: str) -> None:
        self.said.append(text)


def same(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
