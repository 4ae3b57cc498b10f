"""Sparse training: what is left out of pruning is neither followed nor pushed."""

from __future__ import annotations

import pytest
import torch
from test_guard import Net
from torch import nn

from edpct.errors import PruningError
from edpct.pruning.criteria import scorer
from edpct.pruning.graph import PruningGraph
from edpct.pruning.sparse import SparseLearner
from edpct.recipe import SparseSettings

KINDS = ("group-lasso", "growing-reg")
LEFT_OUT = ("encoder.attention",)  # its widths, followed, never end


def settings_of(kind: str) -> SparseSettings:
    return SparseSettings.model_validate({"kind": kind, "strength": 0.01})


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_out_and_what_is_tied_to_it_is_not_pushed(kind: str) -> None:
    model = Net()
    graph = PruningGraph(model, scorer("l2"), LEFT_OUT)
    modules = dict(model.named_modules())
    learner = SparseLearner(model, graph.outputs, settings_of(kind), 255, 5, leave_out=LEFT_OUT)
    assert dict(model.named_modules()) == modules
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    learner.regularise()
    pushed = {name for name, module in modules.items() if isinstance(module, nn.Conv2d) and module.weight.grad.any()}
    # Inputs go with the outputs of the layer before: the head's do, those of "a" stay.
    assert {layer for group in graph.groups for layer in group.layers} == {"a", "b"} and pushed == {"a", "b", "head"}
    assert not bool((model.a.weight.grad * model.a.weight < 0).any())


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_that_cannot_be_followed_is_refused_in_time(kind: str) -> None:
    with pytest.raises(PruningError, match=r"'encoder\.attention' took longer than 1 s"):
        SparseLearner(Net(), ["head"], settings_of(kind), 255, 5, seconds=1.0)
