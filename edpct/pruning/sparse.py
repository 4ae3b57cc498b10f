"""Training that pushes the channels which will go toward zero before they go, so that their going costs less."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch_pruning as tp
from torch import nn

from edpct.pruning.graph import ROOTS, TRACE_SIZE, heads_of
from edpct.recipe import SparseSettings
from edpct.training.objective import SupervisedLearner

GROWTH_EVERY = 50  # steps between two raises of the growing regularisation


class SparseLearner(SupervisedLearner):
    """Trains a network on labels with torch-pruning's sparsity regularisers.

    ``group-lasso`` is the group norm regularisation of DepGraph (Fang et al., CVPR 2023, arXiv 2301.12900),
    ``growing-reg`` that of Wang et al. (ICLR 2021, arXiv 2012.09243).

    Args:
        outputs: layers that give the logits; they are not pushed.
    """

    def __init__(
        self,
        model: nn.Module,
        outputs: Sequence[str],
        settings: SparseSettings,
        ignore_index: int,
        num_classes: int,
    ) -> None:
        super().__init__(model, ignore_index, num_classes, settings.dice, 0.0, {})
        self._kind, self._steps = settings.kind, 0
        model.eval().requires_grad_(True)
        common: dict[str, Any] = {
            "importance": tp.importance.GroupMagnitudeImportance(p=2, normalizer=None),
            "ignored_layers": [model.get_submodule(name) for name in outputs],
            "num_heads": heads_of(model),
            "out_channel_groups": {},
            "in_channel_groups": {},
            "root_module_types": list(ROOTS),
        }
        image = torch.zeros(1, 3, TRACE_SIZE, TRACE_SIZE)
        if settings.kind == "growing-reg":
            pruner = tp.pruner.GrowingRegPruner(
                model, image, reg=settings.strength, delta_reg=settings.strength, **common
            )
        else:
            pruner = tp.pruner.GroupNormPruner(model, image, reg=settings.strength, **common)
        self._pruner = (pruner,)  # in a tuple: it is no part of the network

    def regularise(self) -> None:
        """Add the regulariser's gradient to what the loss left."""
        pruner = self._pruner[0]
        self._steps += 1
        if self._kind == "growing-reg" and self._steps % GROWTH_EVERY == 0:
            pruner.update_reg()
        pruner.regularize(self.model)
