"""Training that pushes the channels which will go toward zero before they go, so that their going costs less."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from edpct.pruning.graph import ROOTS, TRACE_SIZE, heads_of
from edpct.pruning.guard import Opaques, left_out, time_limit
from edpct.recipe import SparseSettings
from edpct.training.objective import SupervisedLearner

GROWTH_EVERY = 50  # steps between two raises of the growing regularisation


class SparseLearner(SupervisedLearner):
    """Trains a network on labels with torch-pruning's sparsity regularisers.

    ``group-lasso`` is the group norm regularisation of DepGraph (Fang et al., CVPR 2023, arXiv 2301.12900),
    ``growing-reg`` that of Wang et al. (ICLR 2021, arXiv 2012.09243).

    Args:
        outputs: layers that give the logits; they are not pushed.
        leave_out: modules that stay as they are; they learn, but what is tied to their widths is not pushed.
        seconds: time limit on following the widths.

    Raises:
        PruningError: the network cannot be followed in time.
    """

    def __init__(
        self,
        model: nn.Module,
        outputs: Sequence[str],
        settings: SparseSettings,
        ignore_index: int,
        num_classes: int,
        leave_out: Sequence[str] = (),
        seconds: float = 60.0,
    ) -> None:
        super().__init__(model, ignore_index, num_classes, settings.dice, 0.0, {})
        self._kind, self._steps = settings.kind, 0
        model.eval().requires_grad_(True)
        ignored = [model.get_submodule(name) for name in outputs]
        with left_out(model, leave_out) as opaques, time_limit(seconds, model):
            pruner = _pruner(model, settings, ignored, opaques)
        # What is left out is a network's own again, and no longer in the graph; the groups hold the layers themselves.
        pruner._groups = [group for group in pruner._groups if not opaques.touched(group)]
        self._pruner = (pruner,)  # in a tuple: it is no part of the network

    def get_extra_state(self) -> dict[str, Any]:
        """For a resume point: steps taken, and how far the regularisation of each group has grown."""
        return {"steps": self._steps, "grown": {name: grown[group] for name, group, grown in self._growing()}}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """What :meth:`get_extra_state` returned."""
        self._steps = state["steps"]
        for name, group, grown in self._growing():
            grown[group] = state["grown"][name]

    def _growing(self) -> Iterator[tuple[str, Any, dict[Any, Tensor]]]:
        """Every group by the name of the layer it is reached from, and where its growing regularisation is kept."""
        pruner = self._pruner[0]
        names = {module: name for name, module in self.model.named_modules()}
        for group in pruner._groups if self._kind == "growing-reg" else ():
            yield names[group[0].dep.target.module], group, pruner.group_reg

    def regularise(self) -> None:
        """Add the regulariser's gradient to what the loss left."""
        pruner = self._pruner[0]
        self._steps += 1
        if self._kind == "growing-reg" and self._steps % GROWTH_EVERY == 0:
            pruner.update_reg()
        pruner.regularize(self.model)


def _pruner(model: nn.Module, settings: SparseSettings, ignored: list[nn.Module], opaques: Opaques) -> Any:
    common: dict[str, Any] = {
        "importance": tp.importance.GroupMagnitudeImportance(p=2, normalizer=None),
        "reg": settings.strength,
        "ignored_layers": ignored,
        "num_heads": heads_of(model),
        "out_channel_groups": {},
        "in_channel_groups": {},
        "root_module_types": list(ROOTS),
        "customized_pruners": opaques.customized_pruners,
    }
    image = torch.zeros(1, 3, TRACE_SIZE, TRACE_SIZE)
    if settings.kind == "growing-reg":
        return tp.pruner.GrowingRegPruner(model, image, delta_reg=settings.strength, **common)
    return tp.pruner.GroupNormPruner(model, image, **common)
