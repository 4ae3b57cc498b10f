"""What edpct's own loop costs, for :mod:`agreement`: timed with an engine that does nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

from edpct.bench.frames import Frames
from edpct.bench.latency import take_turn
from edpct.bench.report.schema import Scope
from edpct.runtimes.ports import Ports
from edpct.runtimes.session import Arrays, Session, TensorSpec, check_feeds
from edpct.task import ClassInfo, Preprocessing, Task


@dataclass(frozen=True)
class Overhead:
    """What the harness costs with an engine that does nothing, microseconds.

    Attributes:
        wall: of the loop for each frame, everything included.
        reported: median of what it would report as the engine's time.
    """

    wall: float
    reported: float


class Idle(Session):
    """An engine that checks its input, as every engine does, and computes nothing."""

    def __init__(self, size: Preprocessing) -> None:
        self.runtime, self.device, self.details = "idle", "cpu", {}
        self.inputs = (TensorSpec("image", np.dtype(np.float32), (1, 3, size.height, size.width)),)
        self.outputs = ()

    def bind(self, feeds: Arrays) -> None:
        check_feeds(self.inputs, feeds)

    def execute(self) -> None:
        pass

    def fetch(self) -> Arrays:
        return {}

    def fork(self) -> Session:
        return self

    def close(self) -> None:
        pass


def harness_overhead(scope: Scope, seconds: float = 0.2, repeats: int = 5) -> Overhead:
    """Time an engine that does nothing with edpct's own loop; the median of some repeats."""
    task = Task(classes=tuple(ClassInfo(name=name, colour=(0, 0, 0)) for name in ("one", "other")))
    size = task.preprocessing
    file = BytesIO()
    Image.new("RGB", (size.width, size.height)).save(file, "PNG")
    frames = Frames([file.getvalue()] * 8, Ports.plain(task))
    walls, reported = [], []
    for _ in range(repeats):
        began = time.perf_counter()
        times = take_turn(Idle(size), frames, scope, seconds, least=5, settle=False).times
        walls.append(1e6 * (time.perf_counter() - began) / len(times))
        reported.append(1e3 * float(np.median(times)))
    return Overhead(float(np.median(walls)), float(np.median(reported)))
