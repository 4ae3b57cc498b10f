"""Structured pruning toward a share of the MACs. torch-pruning does the dependency graph; the budget is ours."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch_pruning as tp
from torch import nn

from edpct.errors import PruningError
from edpct.models.architecture import count_macs, count_parameters
from edpct.models.blocks import Attention
from edpct.models.dpctnet import DPCTNet
from edpct.progress import Progress
from edpct.pruning.widths import LayerWidth, compare_widths, output_widths
from edpct.recipe import PruneSettings

SEARCH_STEPS = 10
TOLERANCE = 0.01  # of the teacher's MACs
TRACE_SIZE = 64  # widths do not depend on the image's size, and a small one is traced faster


@dataclass(frozen=True)
class Pruned:
    """A pruned network.

    Attributes:
        ratio: share of channels removed per layer that met the budget, 0..1.
        macs, teacher_macs: multiply-accumulates at the task's size.
        widths: every layer before and after.
    """

    model: nn.Module
    ratio: float
    macs: int
    teacher_macs: int
    parameters: int
    widths: tuple[LayerWidth, ...]


def prune_to_macs(model: DPCTNet, settings: PruneSettings, size: tuple[int, int], progress: Progress) -> Pruned:
    """A narrower copy of ``model`` that keeps ``settings.macs`` of its MACs, or as little less as rounding allows.

    MACs fall by steps (widths are rounded), so the channel ratio is found by bisection over real prunings.

    Args:
        size: height and width that MACs are counted at.

    Raises:
        PruningError: the budget is under what the narrowest network needs, or a part did not shrink.
    """
    teacher_macs = count_macs(model, *size)
    budget = settings.macs * teacher_macs
    low, high = 0.0, 1.0
    best: tuple[float, nn.Module, int] | None = None
    tried: dict[tuple[float, ...], int] = {}
    with progress.task("Pruning", SEARCH_STEPS) as update:
        for step in range(SEARCH_STEPS):
            ratio = (low + high) / 2
            plan = tuple(_ratios(model, 1 - ratio, settings.round_to).values())
            if plan not in tried:  # neighbouring ratios often round to the same widths
                candidate = prune_by_ratio(model, ratio, settings)
                tried[plan] = macs = count_macs(candidate, *size)
                if macs <= budget and (best is None or macs > best[2]):
                    best = (ratio, candidate, macs)
            macs = tried[plan]
            update(step + 1, f"{macs / teacher_macs:.1%} of MACs")
            low, high = (low, ratio) if macs <= budget else (ratio, high)
            if 0 <= budget - macs <= TOLERANCE * teacher_macs:
                break
        update(SEARCH_STEPS, "")
    if best is None:
        raise PruningError(
            f"No pruning reaches {settings.macs:.1%} of the MACs with widths in steps of {settings.round_to}.",
            "Ask for more MACs, or lower [prune] round_to.",
        )
    ratio, pruned, macs = best
    asked = {module for module, share in _ratios(model, 1 - ratio, settings.round_to).items() if share > 0}
    names = {name for name, module in model.named_modules() if module in asked and module is not model.classifier}
    widths = compare_widths(output_widths(model), pruned, names)
    return Pruned(pruned, ratio, macs, teacher_macs, count_parameters(pruned), widths)


def prune_by_ratio(model: DPCTNet, ratio: float, settings: PruneSettings) -> nn.Module:
    """A copy of ``model`` with this share of every layer's channels removed, least important first.

    Heads stay; their dims shrink. The classifier keeps its outputs.
    """
    pruned = copy.deepcopy(model).eval()
    for parameter in pruned.parameters():
        parameter.requires_grad_(True)  # torch-pruning follows the autograd graph
    heads: dict[nn.Module, int] = {}
    for module in pruned.modules():
        if isinstance(module, Attention):
            heads |= {module.q: module.heads, module.kv: module.heads}
    pruner = tp.pruner.BasePruner(
        pruned,
        torch.zeros(1, 3, TRACE_SIZE, TRACE_SIZE),
        importance=tp.importance.GroupMagnitudeImportance(p={"l1": 1, "l2": 2}[settings.importance]),
        pruning_ratio=ratio,
        pruning_ratio_dict=_ratios(pruned, 1 - ratio, settings.round_to),
        ignored_layers=[pruned.classifier],
        num_heads=heads,
        prune_head_dims=True,
        out_channel_groups={},  # the default is one mutable dict for all pruners
    )
    pruner.step()
    return pruned


def kept_width(width: int, keep: float, round_to: int) -> int:
    """``keep`` of a width, rounded to a multiple of ``round_to``, never under one multiple and never over the width."""
    return min(width, max(round_to, round(width * keep / round_to) * round_to))


def _ratios(model: nn.Module, keep: float, round_to: int) -> dict[nn.Module, float]:
    """The ratio that gives every layer its rounded width.

    torch-pruning's own ``round_to`` rounds down, and skips a layer that it would round to nothing: narrow layers and
    attention head dims then stay as wide as they were.
    """
    ratios: dict[nn.Module, float] = {}
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            ratios[module] = _ratio(module.weight.shape[0], keep, round_to)
    for module in model.modules():
        if isinstance(module, Attention):
            ratios[module.q] = ratios[module.kv] = _ratio(module.q.out_features // module.heads, keep, round_to)
    return ratios


def _ratio(width: int, keep: float, round_to: int) -> float:
    # torch-pruning keeps int(width * (1 - ratio)); half a channel on top keeps float error out of that.
    kept = kept_width(width, keep, round_to)
    return 0.0 if kept == width else 1 - (kept + 0.5) / width
