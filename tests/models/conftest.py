"""Pruning as torch-pruning does it by itself, so that these tests do not depend on edpct's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn


@pytest.fixture(scope="session")
def halve() -> Callable[[nn.Module, list[nn.Module]], nn.Module]:
    """``halve(model, outputs)`` halves every layer of a network in place, but for the layers that give its logits."""
    import torch_pruning as tp

    from edpct.models.blocks import HeadedAttention

    def prune(model: nn.Module, outputs: list[nn.Module]) -> nn.Module:
        heads: dict[nn.Module, int] = {}
        for module in model.eval().modules():
            if isinstance(module, HeadedAttention):
                heads |= module.headed()
        tp.pruner.BasePruner(
            model, torch.zeros(1, 3, 64, 64), tp.importance.GroupMagnitudeImportance(p=1), pruning_ratio=0.5,
            ignored_layers=outputs, num_heads=heads, prune_head_dims=True, out_channel_groups={},
        ).step()  # fmt: skip
        return model

    return prune
