"""Pruning toward frames per second: narrower networks are built and timed, and what lies between is interpolated.

Latency is nearly linear in MACs, so a few probes suffice. What they have to cope with is a machine whose speed wanders:
the network that is handed over was timed twice, and where the two disagree, its neighbours are timed again as well.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from edpct.errors import PruningError
from edpct.progress import Progress
from edpct.pruning.plan import Plan
from edpct.pruning.prune import Budget, Pruned, Pruner
from edpct.run.speed import Probe, plan_key

MOST = 8  # networks built in one search
AIM = 1.01  # of the target: a little over it, since at least the target is wanted
NEAR = 0.02  # of the aim: a network is timed again, longer
ACCEPT = 0.025  # of the aim, by all its timings: taken
MISSED = 0.05  # of the target: said
KEPT = 3  # engines that stay on the disk, nearest the target, so that they can be timed again without a build
MARGIN = 0.01  # of a bracket: nearer to its ends nothing is tried first
SLIVER = 1e-6  # of the MACs


@dataclass(frozen=True)
class FpsSearch:
    """A network of the speed that was asked for.

    Attributes:
        fps, interval: of its engine, see :class:`edpct.run.speed.Probe`.
        probes: all networks that were timed, in order.
        seconds: of the search, former sittings included.
        note: a sentence where the network is not what was asked for; else empty.
    """

    pruned: Pruned
    fps: float
    interval: tuple[float, float]
    probes: tuple[Probe, ...]
    seconds: float
    note: str = ""


class Speed(Protocol):
    """What tells how fast a network is; :class:`edpct.run.speed.EngineSpeed` is one.

    Attributes:
        title: of the engine, for messages.
        spent: seconds of former sittings.
        drift: the machine's usual pace over the one that the speeds are given at.
    """

    title: str
    spent: float

    @property
    def drift(self) -> float: ...

    def measure(self, pruned: Pruned) -> Probe:
        """The network's speed, as it is known or from a first timing."""
        ...

    def again(self, pruned: Sequence[Pruned]) -> list[Probe]:
        """Networks timed once more, longer and in turns, joined with what was known."""
        ...

    def keep(self, keys: Collection[str]) -> None:
        """Remove the files of all networks but these."""
        ...


def prune_to_fps(pruner: Pruner, speed: Speed, target: float, progress: Progress) -> FpsSearch:
    """The network whose engine runs at ``target`` images a second, or a little more.

    Raises:
        PruningError: the narrowest network is slower.
        ExportError, QuantisationError, BuildError, EngineError: a network cannot be built, or does not run.
    """
    began, search = time.monotonic(), _Search(pruner, speed, target, progress)
    try:
        found = search.run()
    finally:
        speed.keep(())
    return replace(found, seconds=speed.spent + time.monotonic() - began)


@dataclass
class _Point:
    plan: Plan
    probe: Probe


class _Search:
    """The networks that were timed, and which to time next."""

    def __init__(self, pruner: Pruner, speed: Speed, target: float, progress: Progress) -> None:
        self.pruner, self.speed, self.target, self.progress = pruner, speed, target, progress
        self.points: dict[str, _Point] = {}  # by the key of the widths, in the order they were timed

    def run(self) -> FpsSearch:
        whole = self._probe(self.pruner.by({group.name: group.width for group in self.pruner.planner.groups}))
        point = self._confirmed(whole) if self._miss(whole) >= -MISSED else whole
        if point.probe.fps < self.goal:
            self._floor()
            point = self._narrowed()
        return self._result(point, self._note(point, whole))

    def _floor(self) -> None:
        """Time the narrowest network; refuse a target that it does not reach."""
        floor = self._probe(self.pruner.by(self.pruner.planner.narrowest()))
        if floor.probe.fps < self.goal:  # nothing is refused by a single timing
            floor = self._confirmed(floor)
        if self._miss(floor) < -ACCEPT:
            raise PruningError(
                f"No pruning reaches {self.target:g} FPS: the narrowest network, with widths in steps of "
                f"{self.pruner.settings.width_step}, keeps {100 * floor.probe.macs:.1f} % of the MACs and runs at "
                f"{self._now(floor):.1f} FPS on {self.speed.title}.",
                "Ask for fewer, take another runtime or precision, a smaller input with --size, or a smaller "
                "[prune] round_to.",
            )

    def _narrowed(self) -> _Point:
        """Probe until one is accepted, none is left to try, or there were enough."""
        while (accepted := self._accepted()) is None and len(self.points) < MOST:
            if (pruned := self._next()) is None:
                break
            point = self._probe(pruned)
            if odd := self._contradicting(point):
                self._again([point, *odd[:2]])
        return accepted or self._confirmed(self._nearest())

    def _probe(self, pruned: Pruned) -> _Point:
        probe = self.speed.measure(pruned)
        point = self.points[probe.key] = _Point(pruned.kept, probe)
        self._say(point)
        self.speed.keep([near.probe.key for near in sorted(self.points.values(), key=self._off)[:KEPT]])
        return point

    def _accepted(self) -> _Point | None:
        """The network nearest the aim, if it is near enough by more than one timing."""
        while True:
            best = min(self.points.values(), key=self._off)
            if best.probe.timings > 1:
                return best if self._off(best) <= ACCEPT else None
            if self._off(best) > NEAR:
                return None
            self._confirmed(best)

    def _confirmed(self, point: _Point) -> _Point:
        """Time a network again; if the machine has changed since, also those next to it, which were timed before."""
        if point.probe.timings > 1:
            return point
        self._again([point])
        if point.probe.drifted:
            others = [other for other in self.points.values() if other is not point]
            if others:
                self.progress.say("  The machine's speed has changed; what was timed before is timed again.")
                self._again(sorted(others, key=lambda other: abs(other.probe.macs - point.probe.macs))[:2])
        return point

    def _contradicting(self, point: _Point) -> list[_Point]:
        """Wider networks that seem clearly faster than this one, and narrower ones that seem clearly slower."""
        own = point.probe
        return [
            other
            for other in self.points.values()
            if (other.probe.macs - own.macs) * (other.probe.fps / own.fps - 1) > 0
            and abs(other.probe.fps / own.fps - 1) > MISSED
        ]

    def _again(self, points: Sequence[_Point]) -> None:
        probes = self.speed.again([self.pruner.by(point.plan) for point in points])
        for point, probe in zip(points, probes, strict=True):
            point.probe = probe
            self._say(point)

    def _bracket(self) -> tuple[_Point, _Point] | None:
        """The widest network that is fast enough, and the narrowest wider one, which is too slow."""
        aim = AIM * self.goal
        fast = max(
            (p for p in self.points.values() if p.probe.fps >= aim), key=lambda p: p.probe.macs, default=None
        )  # fmt: skip
        if fast is None:
            return None
        wider = (p for p in self.points.values() if p.probe.macs > fast.probe.macs)
        slow = min(wider, key=lambda p: p.probe.macs, default=None)
        return None if slow is None else (fast, slow)

    def _next(self) -> Pruned | None:
        """A network that was not timed yet, within the bracket."""
        if (bracket := self._bracket()) is None:
            return None
        fast, slow = bracket[0].probe, bracket[1].probe
        for share in self._shares(fast, slow):
            pruned = self.pruner.to(Budget("macs", share))
            if plan_key(pruned.kept) not in self.points and fast.macs < pruned.macs / pruned.teacher_macs < slow.macs:
                return pruned
        return None

    def _shares(self, fast: Probe, slow: Probe) -> Iterator[float]:
        """By interpolation, else by halves, else the widest network under the bracket's upper end."""
        aim = 1 / (AIM * self.goal)
        under, over = aim - 1 / fast.fps, 1 / slow.fps - aim
        later = [point.probe.fps >= AIM * self.goal for point in list(self.points.values())[2:]]
        if len(later) > 1 and later[-1] == later[-2]:  # one end stays for good: Illinois' way with the false position
            under, over = (under, over / 2) if later[-1] else (under / 2, over)
        wide = slow.macs - fast.macs
        yield fast.macs + wide * min(max(under / (under + over), MARGIN), 1 - MARGIN)
        yield fast.macs + wide / 2
        yield slow.macs - SLIVER

    def _nearest(self) -> _Point:
        """The best there is: near the target, or else the slowest of those that are fast enough."""
        points = list(self.points.values())
        near = [point for point in points if abs(self._miss(point)) <= MISSED]
        fast = [point for point in points if point.probe.fps >= self.goal]
        return min(near or points, key=self._off) if near or not fast else min(fast, key=lambda p: p.probe.fps)

    @property
    def goal(self) -> float:
        """The target at the pace that speeds are kept at."""
        return self.target / self.speed.drift

    def _now(self, point: _Point) -> float:
        """Images a second at the machine's usual pace."""
        return point.probe.fps * self.speed.drift

    def _miss(self, point: _Point) -> float:
        """How far over the target, as a share of it."""
        return point.probe.fps / self.goal - 1

    def _off(self, point: _Point) -> float:
        return abs(point.probe.fps / (AIM * self.goal) - 1)

    def _say(self, point: _Point) -> None:
        probe = point.probe
        speed = f"{self._now(point):.1f} FPS on {self.speed.title}"
        self.progress.say(f"  {100 * probe.macs:.1f} % of the MACs: {speed} (target {self.target:g})")

    def _note(self, point: _Point, whole: _Point) -> str:
        if point is whole:
            return f"The unpruned network already runs at {self._now(point):.1f} FPS, so nothing was pruned."
        if abs(self._miss(point)) <= MISSED:
            return ""
        tried = f"{len(self.points)} networks were built, with widths in steps of {self.pruner.settings.width_step}"
        return f"{tried}; the nearest to {self.target:g} FPS runs at {self._now(point):.1f}."

    def _result(self, point: _Point, note: str) -> FpsSearch:
        probes = tuple(each.probe for each in self.points.values())
        low, high = (self.speed.drift * end for end in point.probe.interval)
        return FpsSearch(self.pruner.by(point.plan), self._now(point), (low, high), probes, 0.0, note)
