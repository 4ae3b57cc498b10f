"""How fast a pruned network is: built as it will be used, timed as it will be shown, and kept in a journal."""

from __future__ import annotations

import hashlib
import json
import shutil
import statistics
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from edpct.bench.journal import Journal
from edpct.bench.pace import compare_pace
from edpct.bench.report.make import machine_report, versions
from edpct.bench.requests import Request
from edpct.card import Card
from edpct.data.samples import Dataset
from edpct.errors import RecipeError
from edpct.export.build import build_plan
from edpct.export.fp16 import convert_fp16
from edpct.export.int8 import quantise_int8
from edpct.export.onnx_export import export_onnx
from edpct.progress import Progress, Silent
from edpct.pruning.plan import Plan
from edpct.pruning.prune import Pruned
from edpct.recipe import BenchSettings, ExportSettings, PruneSettings, Target
from edpct.runtimes.gpu import require_gpu
from edpct.runtimes.session import Options
from edpct.runtimes.table import RUNTIMES

JOURNAL = "probes.jsonl"
CALIBRATION_IMAGES = 8  # speed does not depend on the scales
DRIFT = 0.05  # between two timings: the machine changed meanwhile, and the later one counts
FIRST, AGAIN = 0.75, 2.0  # of the bench's seconds
# Runtimes that open plans, and what these are built for.
PLANS: dict[str, Target] = {"tensorrt": "tensorrt", "tensorrt-rtx": "rtx"}


@dataclass(frozen=True)
class Probe:
    """One network's speed, over all its timings.

    Attributes:
        key: of its widths.
        macs: share (0..1) of the unpruned network's.
        fps: images a second, batch 1, scope ``transfer``, at the pace that the machine had when the first network was
            timed; times :attr:`EngineSpeed.drift`, at its usual pace.
        interval: 95 % confidence interval of ``fps``.
        runs: inferences behind it.
        timings: how often it was timed.
        drifted: the last timing disagreed with those before, so that it alone counts.
        seconds: that building and timing took.
    """

    key: str
    macs: float
    fps: float
    interval: tuple[float, float]
    runs: int
    timings: int = 1
    drifted: bool = False
    seconds: float = 0.0

    def joined(self, new: Probe) -> Probe:
        """Both timings as one: weighted by their runs, or the new one alone where they disagree."""
        total, seconds = self.timings + new.timings, self.seconds + new.seconds
        if abs(new.fps / self.fps - 1) > DRIFT:
            return Probe(self.key, self.macs, new.fps, new.interval, new.runs, total, True, seconds)
        runs = self.runs + new.runs
        fps = runs / (self.runs / self.fps + new.runs / new.fps)
        low, high = min(self.interval[0], new.interval[0]), max(self.interval[1], new.interval[1])
        return Probe(self.key, self.macs, fps, (low, high), runs, total, False, seconds)


def parse_target(on: str) -> tuple[str, str | None]:
    """Runtime and device (None: the runtime's first) of ``RUNTIME`` or ``RUNTIME:DEVICE``.

    Raises:
        RecipeError: the runtime is unknown or opens no built engines, or it has no such device.
    """
    runtime, _, device = on.partition(":")
    known = [row.name for row in RUNTIMES.values() if row.name in PLANS or ".onnx" in row.suffixes]
    if runtime not in known:
        what = "opens checkpoints, not built engines" if runtime in RUNTIMES else "is unknown"
        raise RecipeError(f"The runtime '{runtime}' of [prune] on {what}.", f"Choose from: {', '.join(known)}.")
    row = RUNTIMES[runtime]
    if device and device not in row.devices:
        raise RecipeError(
            f"{row.title} has no device '{device}', which [prune] on names.", f"Choose from: {', '.join(row.devices)}."
        )
    return runtime, device or None


def plan_key(plan: Plan) -> str:
    """Twelve hexadecimal digits that widths are told apart by."""
    return hashlib.sha256(json.dumps(sorted(plan.items())).encode()).hexdigest()[:12]


class EngineSpeed:
    """The speed of engines that are really built; what was timed stays in ``probes.jsonl``, so that a search goes on.

    A machine that others use, or that grows hot, changes its pace within minutes, by more than two candidates differ.
    So the first network (the unpruned one) is timed in turns with every other, and the ratio counts: it sets the pace.

    Args:
        card: of the unpruned network, at the size to export.
        images: for INT8 calibration, (H, W, 3) uint8 at that size; the first few are taken.
        dataset: whose images are timed with; None: noise.
        pruning: for ``on`` and ``precision``.
        export, timing: as for the final engine, so that its speed is the one found here.
        workspace: where engines are built; the caller removes :data:`JOURNAL` there.

    Raises:
        RecipeError: see :func:`parse_target`.
        EngineError, MissingPackageError: the runtime does not work on this machine.
    """

    def __init__(
        self, card: Card, images: Sequence[NDArray[np.uint8]], dataset: Dataset | None, pruning: PruneSettings,
        export: ExportSettings, timing: BenchSettings, workspace: Path, progress: Progress,
    ) -> None:  # fmt: skip
        self._card, self._images, self._dataset, self._workspace = card, images, dataset, workspace
        self._export, self._timing, self._progress, self._precision = export, timing, progress, pruning.precision
        self._runtime, self._device = parse_target(pruning.on)
        row = RUNTIMES[self._runtime]
        self.title = f"{pruning.on} {pruning.precision}"
        if row.needs_gpu:
            require_gpu(Path(f"an engine for {row.title}"))
        if (missing := row.missing_package()) is not None:
            raise missing
        graph = "cuda_graph" in row.options and timing.cuda_graph != "off"
        self._options = Options(timing.threads if "threads" in row.options else 0, cuda_graph=graph)
        self._journal = Journal(workspace / JOURNAL, self._identity(pruning))
        self._known: dict[str, Probe] = {}
        self._pacemaker: Pruned | None = None
        self._paces: list[float] = []  # its images a second, at every timing
        # Handed out one by one, as they were taken: so a search that is begun again takes the same way.
        self._former: dict[str, list[tuple[Probe, float]]] = {}
        for entry in self._journal.found("timing"):
            probe = Probe(**{**entry["probe"], "interval": tuple(entry["probe"]["interval"])})
            self._former.setdefault(probe.key, []).append((probe, entry["pace"]))
        self.spent = sum(probe.seconds for timings in self._former.values() for probe, _ in timings)

    def _identity(self, pruning: PruneSettings) -> str:
        """What must be the same for a timing of an earlier sitting to count."""
        facts = [
            self._card.model_dump(mode="json"), pruning.on, pruning.precision, asdict(self._options),
            self._export.model_dump(mode="json"), self._timing.model_dump(mode="json"), versions(),
            machine_report().model_dump(mode="json"), self._dataset is None,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    @property
    def pace(self) -> float:
        """Images a second of the first network, at the machine's usual pace; 0 before anything was timed."""
        return statistics.median(self._paces) if self._paces else 0.0

    @property
    def drift(self) -> float:
        """The machine's usual pace over the one it had when the first network was timed."""
        return self.pace / self._paces[0] if self._paces else 1.0

    def measure(self, pruned: Pruned) -> Probe:
        """Build and time a network, unless it is known; the first one sets the pace.

        Raises:
            ExportError, QuantisationError, BuildError, EngineError: it cannot be built, or does not run.
        """
        key = plan_key(pruned.kept)
        self._pacemaker = self._pacemaker or pruned
        return self._known[key] if key in self._known else self._timed([pruned], first=True)[0]

    def again(self, pruned: Sequence[Pruned]) -> list[Probe]:
        """Time networks once more, longer and in turns; those whose files are gone are built again.

        Raises:
            ExportError, QuantisationError, BuildError, EngineError: as :meth:`measure`.
        """
        return self._timed(pruned, first=False)

    def keep(self, keys: Collection[str]) -> None:
        """Remove the files of all networks but these and, unless there are none, the one that sets the pace."""
        stay = {*keys, plan_key(self._pacemaker.kept)} if keys and self._pacemaker is not None else set(keys)
        for folder in self._workspace.glob("probe-*"):
            if folder.name.removeprefix("probe-") not in stay:
                shutil.rmtree(folder, ignore_errors=True)

    def _timed(self, asked: Sequence[Pruned], first: bool) -> list[Probe]:
        fresh = {}
        for pruned in asked:
            key = plan_key(pruned.kept)
            if former := self._former.get(key):
                self._add(*former.pop(0))
            else:
                fresh[key] = pruned
        if fresh:
            self._time(fresh, first)
        return [self._known[plan_key(pruned.kept)] for pruned in asked]

    def _time(self, asked: dict[str, Pruned], first: bool) -> None:
        """Time networks and the one that sets the pace in turns."""
        assert self._pacemaker is not None
        leader = plan_key(self._pacemaker.kept)
        requests, built, began = list[Request](), dict[str, float](), time.monotonic()
        for key, pruned in {leader: self._pacemaker, **asked}.items():
            path = self._engine(key, pruned.model)
            requests.append(Request(key, path, self._runtime, self._device or "", options=self._options))
            built[key] = time.monotonic() - began
            began = time.monotonic()
        seconds = self._timing.seconds * (FIRST if first else AGAIN)
        paces = compare_pace(requests, self._dataset, seconds, self._timing.warm_up)
        share = (time.monotonic() - began) / len(asked)
        found = {request.name: pace for request, pace in zip(requests, paces, strict=True)}
        at_first = self._paces[0] if self._paces else found[leader].fps
        for key, pruned in asked.items():
            own, macs = found[key], pruned.macs / pruned.teacher_macs
            interval = (at_first * own.interval[0], at_first * own.interval[1])
            probe = Probe(key, macs, at_first * own.ratio, interval, own.runs, seconds=built[key] + share)
            self._add(probe, found[leader].fps)
            self._journal.add("timing", probe=asdict(probe), pace=found[leader].fps)

    def _add(self, probe: Probe, pace: float) -> None:
        self._paces.append(pace)
        known = self._known.get(probe.key)
        self._known[probe.key] = known.joined(probe) if known is not None else probe

    def _engine(self, key: str, model: nn.Module) -> Path:
        """The built engine; files get their names when they are whole, so one of an earlier sitting is taken."""
        folder = self._workspace / f"probe-{key}"
        folder.mkdir(parents=True, exist_ok=True)
        graph = folder / f"{self._precision}.onnx"
        engine = graph.with_suffix(".plan") if self._runtime in PLANS else graph
        if not engine.exists():
            self._write_graph(model, folder / "fp32.onnx", graph)
            if self._runtime in PLANS:
                build_plan(graph, engine, PLANS[self._runtime], Silent())
        return engine

    def _write_graph(self, model: nn.Module, fp32: Path, graph: Path) -> None:
        export_onnx(model, self._card, fp32, self._export, self._progress)
        if self._precision == "fp16":
            convert_fp16(fp32, graph, self._card)
        elif self._precision == "int8":
            quantise_int8(fp32, graph, self._card, self._images[:CALIBRATION_IMAGES])
