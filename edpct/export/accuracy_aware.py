"""INT8 that holds its mIoU: what costs too much accuracy goes back to FP32, group by group, as little as is needed.

A group of layers is quantised or not as a whole. Where everything in INT8 loses more than is allowed, each group is
quantised alone, which tells what it costs (leaving out one alone tells nothing where two are bad); then groups are left
out together, those first that cost most for each multiply-accumulate, until the loss is within the limit. Losses are
measured on windows of the train split that calibration does not see, so that val stays unseen.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edpct.card import Card
from edpct.data.accuracy import measure_accuracy
from edpct.data.tiling import Window
from edpct.export.graph import read_graph
from edpct.export.int8 import quantise_int8
from edpct.export.layers import Layer, groups_of, int8_share, layers_of
from edpct.progress import Progress
from edpct.recipe import Calibration
from edpct.runtimes.ports import predictor
from edpct.runtimes.session import Options
from edpct.runtimes.table import RUNTIMES, open_session

Images = Sequence[NDArray[np.uint8]]
TRIAL_IMAGES = 8  # that the graphs which only tell a group's cost are calibrated on
PREFERRED = ("openvino", "onnxruntime")  # runs INT8 fastest first


@dataclass(frozen=True)
class GroupLoss:
    """What one group costs.

    Attributes:
        macs: share (0..1) of the network's multiply-accumulates.
        loss: points of mIoU that it costs when it alone is in INT8.
        int8: whether it stayed in INT8.
    """

    name: str
    layers: int
    macs: float
    loss: float
    int8: bool


@dataclass(frozen=True)
class Guarded:
    """How INT8 was held within its limit; losses are points of mIoU on the windows that it was measured on.

    Attributes:
        loss: of the graph that was written.
        loss_of_all: with everything in INT8.
        limit: what was allowed.
        share: of the multiply-accumulates (0..1) that are INT8.
        groups: in the order of the graph; empty where everything in INT8 was good enough.
        windows: how many were measured on.
        faster: how many times as fast everything in INT8 would be; None where it is, or where that was not timed.
    """

    loss: float
    loss_of_all: float
    limit: float
    share: float
    groups: tuple[GroupLoss, ...]
    windows: int
    faster: float | None = None


def quantise_within(
    source: Path,
    target: Path,
    card: Card,
    images: Images,
    windows: Sequence[Window],
    limit: float,
    progress: Progress,
    calibration: Calibration = "minmax",
    everything: Path | None = None,
) -> Guarded:
    """Write the INT8 version of an FP32 ONNX file that loses at most ``limit`` points of mIoU.

    Args:
        images: to calibrate on, (H, W, 3), uint8, at the card's input size.
        windows: labelled, to measure on; neither of the val split.
        calibration: see :func:`edpct.export.int8.quantise_int8`.
        everything: file that keeps the graph with everything in INT8, where some of it had to go.

    Raises:
        QuantisationError: no calibration images, or NNCF cannot quantise the graph.
        EngineError: no CPU runtime opens the graphs.
    """
    search = _Search(source, target, card, images, windows, calibration)
    search.write(target, (), images)
    before = search.miou(source)
    loss_of_all = loss = before - search.miou(target)
    groups: tuple[GroupLoss, ...] = ()
    if loss > limit:
        if everything is not None:
            shutil.copy(target, everything)
        progress.say(f"All in INT8 loses {loss:.2f} points of mIoU (allowed: {limit:g}); looking for what costs most.")
        costs = search.costs(before, progress)
        left_out: list[str] = []
        for group in sorted(costs, key=lambda g: -g.loss / max(g.macs, 1e-9)):
            left_out.append(group.name)
            search.write(target, left_out, images)
            loss = before - search.miou(target)
            progress.say(f"  with {', '.join(left_out)} in FP32: {loss:.2f} points")
            if loss <= limit:
                break
        groups = tuple(GroupLoss(g.name, g.layers, g.macs, g.loss, int8=g.name not in left_out) for g in costs)
    share = int8_share(layers_of(read_graph(target)))
    return Guarded(loss, loss_of_all, limit, share, groups, len(windows))


def fastest_runtime() -> str:
    """The CPU runtime that runs INT8 fastest, of those installed."""
    return next(name for name in PREFERRED if RUNTIMES[name].missing_package() is None)


class _Search:
    """One graph, its groups, and the means to quantise some of them and to measure what comes out."""

    def __init__(
        self,
        source: Path,
        target: Path,
        card: Card,
        images: Images,
        windows: Sequence[Window],
        calibration: Calibration,
    ) -> None:
        self.source, self.card, self.images, self.windows = source, card, images, windows
        self.groups = groups_of(layers_of(read_graph(source)))
        self.trial = target.with_name(f".{target.stem}-trial.onnx")
        self.runtime = fastest_runtime()
        self.calibration = calibration

    def write(self, path: Path, left_out: Iterable[str], images: Images) -> None:
        names = [layer.name for group in left_out for layer in self.groups[group]]
        quantise_int8(self.source, path, self.card, images, leave=names, calibration=self.calibration)

    def miou(self, path: Path) -> float:
        """In points, 0..100."""
        task = self.card.task
        with open_session(path, self.runtime, options=Options()) as session:
            predict = predictor(session, task, path.name)
            return 100 * measure_accuracy(predict, self.windows, task.num_classes, task.ignore_index).miou

    def costs(self, before: float, progress: Progress) -> list[GroupLoss]:
        """What each group costs alone, calibrated on a few images; ``before`` is the mIoU in FP32."""
        few = self.images[:TRIAL_IMAGES]
        total = sum(layer.macs for group in self.groups.values() for layer in group) or 1
        found = []
        try:
            with progress.task("What each group costs in INT8", len(self.groups)) as update:
                for done, (name, members) in enumerate(self.groups.items(), 1):
                    self.write(self.trial, [other for other in self.groups if other != name], few)
                    loss = before - self.miou(self.trial)
                    found.append(GroupLoss(name, len(members), _macs(members) / total, loss, int8=True))
                    update(done, f"{name}: {loss:.2f} points")
        finally:
            self.trial.unlink(missing_ok=True)
        return found


def _macs(layers: Iterable[Layer]) -> int:
    return sum(layer.macs for layer in layers)
