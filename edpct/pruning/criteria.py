"""By which channels go first: torch-pruning's importances under the names of the recipe.

===========  ==================================================================================================
l1, l2       magnitude of all weights of a group (Li et al., arXiv 1608.08710; DepGraph, arXiv 2301.12900)
bn-scale     scale of the group's batch norms (Network Slimming, arXiv 1708.06519); groups without one: l2
lamp         layer-adaptive magnitude (arXiv 2010.07611)
fpgm         distance to the geometric median of a layer's filters (arXiv 1811.00250)
taylor       first-order change of the loss (Molchanov et al., CVPR 2019); needs images
hessian      second-order change of the loss by the diagonal Fisher matrix (Optimal Brain Damage, 1989); needs images
random       none: the level that the others have to beat
===========  ==================================================================================================
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from edpct.errors import PruningError
from edpct.recipe import Criterion
from edpct.training.objective import label_terms

Scorer = Callable[[Any], Tensor]
Batch = tuple[Tensor, Tensor]
NEED_GRADIENTS: tuple[Criterion, ...] = ("taylor", "hessian")


def scorer(criterion: Criterion, seed: int = 0) -> Scorer:
    """The importance of the channels of a torch-pruning group, shape (channels,), float32, larger is kept longer.

    Criteria of :data:`NEED_GRADIENTS` read the gradients that :func:`accumulate_gradients` left on the parameters.
    """
    generator = torch.Generator().manual_seed(seed)
    l2 = tp.importance.GroupMagnitudeImportance(p=2)
    chosen: Callable[[Any], Tensor | None] = {
        "l1": lambda: tp.importance.GroupMagnitudeImportance(p=1),
        "l2": lambda: l2,
        "bn-scale": tp.importance.BNScaleImportance,
        "lamp": tp.importance.LAMPImportance,
        "fpgm": tp.importance.FPGMImportance,
        "taylor": tp.importance.GroupTaylorImportance,
        "hessian": tp.importance.GroupHessianImportance,
        "random": lambda: lambda group: torch.rand(len(group[0].idxs), generator=generator),
    }[criterion]()

    def score(group: Any) -> Tensor:
        found = chosen(group)
        if found is None or not isinstance(found, Tensor):
            found = l2(group)
        if found is None or not isinstance(found, Tensor):  # no layer of a kind that has a magnitude
            found = torch.ones(len(group[0].idxs))
        return torch.nan_to_num(found.detach().float().cpu())

    return score


def accumulate_gradients(model: nn.Module, criterion: Criterion, batches: Iterable[Batch], ignore_index: int) -> None:
    """Leave on ``parameter.grad`` what a criterion reads: the mean gradient, or its mean square over images (Fisher).

    The squares are taken here, image by image: torch-pruning 1.6.1's own accumulation keeps the last image only.

    Args:
        batches: images (1, 3, H, W), float32, normalised; labels (1, H, W), int64.

    Raises:
        PruningError: no image has a labelled pixel.
    """
    network = copy.deepcopy(model).eval().requires_grad_(True)  # a frozen model stays frozen; so do its statistics
    parameters = list(network.parameters())
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    counted = 0
    for image, labels in batches:
        if not bool((labels != ignore_index).any()):
            continue
        network.zero_grad(set_to_none=True)
        label_terms(network(image), labels, ignore_index, 0.0)["ce"].backward()
        for total, parameter in zip(sums, parameters, strict=True):
            if parameter.grad is not None:
                total += parameter.grad.square() if criterion == "hessian" else parameter.grad
        counted += 1
    if not counted:
        raise PruningError(
            f"The criterion '{criterion}' found no labelled pixel to take gradients of.", "Check --data."
        )
    for parameter, total in zip(model.parameters(), sums, strict=True):
        parameter.grad = total / counted
