"""From a share to widths: steps, scopes and floors on hand-made groups; budgets against a search through all shares."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch

from edpct.pruning.graph import Group
from edpct.pruning.plan import Plan, Planner, kept_width, meet, part_step


def group(name: str, scores: object, parts: int = 1, kind: str = "conv") -> Group:
    return Group(name, (name,), parts, torch.as_tensor(scores, dtype=torch.float32), kind)


def rising(name: str, width: int, parts: int = 1) -> Group:
    return group(name, torch.arange(width), parts)


# ---- one width


@pytest.mark.parametrize(
    ("width", "keep", "round_to", "kept"),
    [
        (64, 0.5, 8, 32),
        (64, 0.55, 8, 32),  # 35.2 is nearer to 32 than to 40
        (64, 0.6, 8, 40),  # 38.4 is nearer to 40
        (64, 0.01, 8, 8),  # never under one multiple
        (64, 1.0, 8, 64),
        (64, 0.99, 8, 64),
        (12, 0.5, 8, 8),
        (12, 0.95, 8, 8),  # 11.4 is nearer to 8 than to 16
        (15, 1.0, 8, 15),  # 16 would be over the width
        (4, 0.5, 8, 4),  # narrower than one multiple: stays
        (10, 0.33, 1, 3),
    ],
)
def test_kept_width(width: int, keep: float, round_to: int, kept: int) -> None:
    assert kept_width(width, keep, round_to) == kept


@pytest.mark.parametrize(
    ("step", "heads", "expected"),
    [
        (8, 1, 8), (32, 1, 32), (3, 1, 3),
        (4, 3, 4), (8, 3, 8), (8, 5, 8), (8, 8, 8), (8, 12, 8), (4, 12, 4), (1, 3, 1),
        (32, 3, 32), (32, 5, 32),  # 3 and 5 share no factor with 32
        (32, 8, 8), (32, 12, 8),  # 8 * 8 and 12 * 8 are multiples of 32 already
        (16, 6, 8),
    ],
)  # fmt: skip
def test_the_step_of_a_part_is_the_least_that_suits_the_whole_and_a_head(step: int, heads: int, expected: int) -> None:
    assert part_step(step, heads, headed=True) == expected


@pytest.mark.parametrize("step", [1, 4, 8, 12, 20, 32])
@pytest.mark.parametrize("parts", [2, 3, 5, 7, 8, 12])
def test_all_parts_together_are_a_multiple_of_the_step(step: int, parts: int) -> None:
    found = part_step(step, parts, headed=True)
    assert found * parts % step == 0 and found % min(step, 8) == 0


@pytest.mark.parametrize(("step", "parts", "expected"), [(8, 32, 1), (8, 2, 4), (32, 4, 8), (8, 3, 8), (32, 32, 1)])
def test_groups_of_a_convolution_or_a_norm_go_in_smaller_steps_than_heads(step: int, parts: int, expected: int) -> None:
    assert part_step(step, parts, headed=False) == expected


# ---- all widths


def test_local_ranking_keeps_the_same_share_of_every_group() -> None:
    groups = [rising("a", 64), group("b", torch.zeros(16)), rising("heads", 32, parts=3)]
    planner = Planner(groups, "local", 8, {})
    assert planner.at(1.0) == {"a": 64, "b": 16, "heads": 32}
    assert planner.at(0.5) == {"a": 32, "b": 8, "heads": 16}
    assert planner.narrowest() == {"a": 8, "b": 8, "heads": 8}


def test_global_ranking_keeps_the_best_channels_wherever_they_are() -> None:
    weak, strong = group("weak", np.arange(40)), group("strong", 100 + np.arange(40))
    planner = Planner([weak, strong], "global", 1, {})
    assert planner.at(0.5) == {"weak": 2, "strong": 40}  # of 80 the 40 best; 5 % of the other are left
    assert planner.at(0.75) == {"weak": 20, "strong": 40}
    assert planner.at(0.25) == {"weak": 2, "strong": 20}


def test_global_ranking_keeps_the_share_of_all_channels() -> None:
    generator = np.random.default_rng(0)
    scores = [generator.permutation(600)[200 * i : 200 * (i + 1)] + 600 * generator.random(200) for i in range(3)]
    planner = Planner([group(str(i), s) for i, s in enumerate(scores)], "global", 1, {})
    for share in (0.3, 0.5, 0.8):
        limit = np.sort(np.concatenate(scores))[round((1 - share) * 600)]
        assert planner.at(share) == {str(i): int((s >= limit).sum()) for i, s in enumerate(scores)}
        assert sum(planner.at(share).values()) == round(share * 600)


def test_a_head_counts_as_often_as_there_are_heads() -> None:
    """Keeping the 10 channels of 4 heads is keeping 40 of 80."""
    planner = Planner([group("heads", 100 + np.arange(10), parts=4), group("conv", np.arange(40))], "global", 1, {})
    assert planner.at(0.5) == {"heads": 10, "conv": 2}


def test_isomorphic_ranking_compares_within_a_kind() -> None:
    groups = [
        group("a", np.arange(40)), group("b", 100 + np.arange(40)),
        group("c", 5000 + np.arange(40), kind="mlp"), group("d", 9000 + np.arange(40), kind="mlp"),
    ]  # fmt: skip
    assert Planner(groups, "isomorphic", 1, {}).at(0.5) == {"a": 2, "b": 40, "c": 2, "d": 40}
    assert Planner(groups, "global", 1, {}).at(0.5) == {"a": 2, "b": 2, "c": 40, "d": 40}
    assert Planner(groups, "local", 1, {}).at(0.5) == dict.fromkeys("abcd", 20)


@pytest.mark.parametrize("scope", ["local", "global", "isomorphic"])
def test_widths_rise_with_the_share_in_steps_and_never_under_one(scope: str) -> None:
    generator = torch.Generator().manual_seed(0)
    groups = [
        group(f"{width} {parts}", torch.rand(width, generator=generator) * width, parts, kind=str(width % 3))
        for width, parts in ((64, 1), (40, 1), (24, 1), (32, 3), (16, 5), (4, 1))
    ]
    planner = Planner(groups, scope, 8, {})
    plans = [planner.at(share) for share in np.linspace(0, 1, 41)]
    for found in groups:
        widths = [plan[found.name] for plan in plans]
        assert widths == sorted(widths) and widths[-1] == found.width
        assert all(width == found.width or width % 8 == 0 for width in widths) and widths[0] >= min(8, found.width)
    assert planner.narrowest() == plans[0]


@pytest.mark.parametrize("scope", ["local", "global"])
def test_floors_hold_whatever_the_share(scope: str) -> None:
    planner = Planner([rising("a", 64), rising("b", 64), rising("c", 20)], scope, 8, {"a": 0.55, "c": 0.99})
    assert planner.narrowest() == {"a": 40, "b": 8, "c": 20}  # 35.2 of 64: 32 would be under the floor
    assert planner.at(0.9)["a"] >= 56


# ---- budgets


def quadratic(plan: Plan) -> float:
    """As a chain of layers costs: the products of neighbours."""
    widths = [3, *plan.values(), 7]
    return float(sum(a * b for a, b in pairwise(widths)))


def uneven(plan: Plan) -> float:
    return sum(weight * width for weight, width in zip((1.0, 50.0, 3.0, 400.0), plan.values(), strict=True))


GROUPS = [rising("a", 64), rising("b", 96), rising("c", 32, parts=3), rising("d", 24)]


@pytest.mark.parametrize("cost", [quadratic, uneven])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 0.97])
@pytest.mark.parametrize("step", [1, 8])
def test_a_met_budget_is_no_worse_than_the_best_single_share(
    cost: Callable[[Plan], float], share: float, step: int
) -> None:
    planner = Planner(GROUPS, "local", step, {})
    budget = share * cost(planner.at(1.0))
    every = [cost(planner.at(keep)) for keep in np.linspace(0, 1, 401)]
    best = max((found for found in every if found <= budget), default=None)
    plan = meet(planner, cost, budget)
    assert best is not None and plan is not None
    assert 0.999 * best <= cost(plan) <= budget
    assert all(width == 24 or width % step == 0 for width in plan.values())
    if step == 1:
        assert cost(plan) >= 0.97 * budget


def test_what_one_share_leaves_free_is_filled_up_group_by_group() -> None:
    """Four equal layers in steps of half their width: a common share could only use half or all of the cost."""
    planner = Planner([rising(name, 16) for name in "abcd"], "local", 8, {})
    plan = meet(planner, lambda plan: float(sum(plan.values())), 50.0)
    assert plan is not None and sorted(plan.values()) == [8, 8, 16, 16]


def test_every_plan_is_asked_for_its_cost_once() -> None:
    asked: list[tuple[int, ...]] = []

    def cost(plan: Plan) -> float:
        asked.append(tuple(plan.values()))
        return quadratic(plan)

    planner = Planner(GROUPS, "local", 4, {})
    assert meet(planner, cost, 0.4 * quadratic(planner.at(1.0))) is not None
    assert len(asked) == len(set(asked)) > 3


@pytest.mark.parametrize("scope", ["local", "global", "isomorphic"])
def test_the_edges_of_what_can_be_met(scope: str) -> None:
    planner = Planner(GROUPS, scope, 8, {})
    least, most = quadratic(planner.narrowest()), quadratic(planner.at(1.0))
    assert meet(planner, quadratic, least - 1) is None
    assert meet(planner, quadratic, least) == planner.narrowest()
    assert meet(planner, quadratic, most) == planner.at(1.0) == meet(planner, quadratic, 2 * most)


def test_equal_scores_everywhere_still_meet_a_budget() -> None:
    """Ranked together they all stay or all go; the budget lies between."""
    planner = Planner([group(name, torch.ones(64)) for name in "abcd"], "global", 8, {})
    plan = meet(planner, uneven, 0.5 * uneven(planner.at(1.0)))
    assert plan is not None and uneven(planner.narrowest()) < uneven(plan) <= 0.5 * uneven(planner.at(1.0))
