"""From one number, the share of channels to keep, to the width of every group; and the share that meets a budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch

from edpct.pruning.graph import Group

Scope = Literal["local", "global", "isomorphic"]
Plan = dict[str, int]  # channels that each part of a group keeps, by the group's name
HEAD_STEP = 8  # what a matrix product over one head's channels wants in half precision
LEAST_SHARE = 0.05  # of a group's width that global ranking leaves; without it whole layers go, and the network breaks
SHARE_STEP = 1e-3  # shares nearer than this to each other are not told apart
NEAR = 0.01  # of the budget: less than this under it is met
TRIALS = 24  # groups tried one by one to fill a budget up


class Planner:
    """Widths of all groups for a share of channels to keep.

    Args:
        scope: what the channels are ranked among, see :class:`edpct.recipe.PruneSettings`.
        step: every width is a multiple of this, all parts taken together.
        floors: least share of a group's channels to keep, by name; 0 where not named.
    """

    def __init__(self, groups: Sequence[Group], scope: Scope, step: int, floors: Mapping[str, float]) -> None:
        self.groups = tuple(groups)
        self.steps = {group.name: part_step(step, group.parts, group.headed) for group in groups}
        self.floors = floors
        self._ranked: dict[str, torch.Tensor] = {}
        if scope != "local":
            kinds = {group.name: group.kind if scope == "isomorphic" else "all" for group in groups}
            for kind in set(kinds.values()):
                scores = torch.cat([group.scores.repeat(group.parts) for group in groups if kinds[group.name] == kind])
                ranked = scores.sort(descending=True).values
                self._ranked |= {name: ranked for name, other in kinds.items() if other == kind}

    def at(self, keep: float) -> Plan:
        """The widths at a share 0..1; they fall with it, none to less than one step."""
        return {group.name: self._kept(group, keep) for group in self.groups}

    def narrowest(self) -> Plan:
        """The least widths that :meth:`at` gives."""
        return self.at(0.0)

    def _kept(self, group: Group, keep: float) -> int:
        share = keep
        if group.name in self._ranked:
            ranked = self._ranked[group.name]
            count = round(keep * len(ranked))
            least = ranked[count - 1] if count else math.inf
            share = max(LEAST_SHARE, float((group.scores >= least).float().mean()))
        step = self.steps[group.name]
        floor = math.ceil(group.width * self.floors.get(group.name, 0.0) / step - 1e-6) * step
        return max(kept_width(group.width, share, step), min(group.width, floor))


def kept_width(width: int, keep: float, round_to: int) -> int:
    """``keep`` of a width, rounded to a multiple of ``round_to``, never under one multiple and never over the width."""
    return min(width, max(round_to, round(width * keep / round_to) * round_to))


def part_step(step: int, parts: int, headed: bool) -> int:
    """The step of one part's width, such that all parts together go in ``step`` and a head suits matrix products."""
    if parts == 1:
        return step
    least = min(step, HEAD_STEP) if headed else 1
    return next(size for size in range(least, step * least + 1, least) if size * parts % step == 0)


def meet(planner: Planner, cost: Callable[[Plan], float], budget: float) -> Plan | None:
    """The widest plan found whose cost is at most the budget; None if the narrowest costs more.

    Costs fall by steps, since widths are rounded. So the share is found by bisection; of the groups that the next
    larger share would widen, as many are widened as the budget allows; what is still free goes to single groups.

    Args:
        cost: of a plan; asked once for each.
    """
    known: dict[tuple[int, ...], float] = {}

    def asked(plan: Plan) -> float:
        key = tuple(plan.values())
        if key not in known:
            known[key] = cost(plan)
        return known[key]

    low, high = 0.0, 1.0
    if asked(planner.at(low)) > budget:
        return None
    if asked(planner.at(high)) <= budget:
        return planner.at(high)
    while high - low > SHARE_STEP and planner.at(low) != planner.at(high):
        middle = (low + high) / 2
        low, high = (middle, high) if asked(planner.at(middle)) <= budget else (low, middle)
    plan = _widened(planner.at(low), planner.at(high), asked, budget)
    return _filled(plan, planner, asked, budget)


def _widened(narrow: Plan, wide: Plan, cost: Callable[[Plan], float], budget: float) -> Plan:
    """The narrow plan with as many groups as possible, taken in their order, at their width in the wide one."""
    different = [name for name in narrow if narrow[name] != wide[name]]
    low, high = 0, len(different)  # with all of them it is over the budget
    while high - low > 1:
        middle = (low + high) // 2
        plan = narrow | {name: wide[name] for name in different[:middle]}
        low, high = (middle, high) if cost(plan) <= budget else (low, middle)
    return narrow | {name: wide[name] for name in different[:low]}


def _filled(plan: Plan, planner: Planner, cost: Callable[[Plan], float], budget: float) -> Plan:
    """The plan with single groups one step wider, those first that kept the least of their width."""
    widths = {group.name: group.width for group in planner.groups}
    refused: set[str] = set()
    for _ in range(TRIALS):
        free = [name for name in plan if name not in refused and plan[name] < widths[name]]
        if not free or cost(plan) >= (1 - NEAR) * budget:
            break
        name = min(free, key=lambda name: plan[name] / widths[name])
        wider = plan | {name: min(widths[name], plan[name] + planner.steps[name])}
        if cost(wider) <= budget:
            plan = wider
        else:
            refused.add(name)
    return plan
