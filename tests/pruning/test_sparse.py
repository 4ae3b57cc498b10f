"""Sparse training: what is left out of pruning is neither followed nor pushed; a resume goes on as if undisturbed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_guard import Net
from torch import Tensor, nn

from edpct.data.layouts import open_dataset
from edpct.data.scenes import SCENE_TASK
from edpct.errors import PruningError
from edpct.progress import Silent
from edpct.pruning import sparse
from edpct.pruning.criteria import scorer
from edpct.pruning.graph import PruningGraph
from edpct.pruning.sparse import SparseLearner
from edpct.recipe import SparseSettings
from edpct.training.loop import Training

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


class Plain(nn.Sequential):
    def features(self, image: Tensor) -> dict[str, Tensor]:
        return {"logits": self(image)}

    def classify(self, features: dict[str, Tensor]) -> Tensor:
        return features["logits"]


class Stopped(SparseLearner):
    """Somebody presses Ctrl-C in the step after ``last``."""

    last = 3

    def regularise(self) -> None:
        if self._steps == self.last:
            raise KeyboardInterrupt
        super().regularise()


@pytest.mark.parametrize("last", [3, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_sparse_training_ends_at_the_same_bits(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, last: int
) -> None:
    """The regularisation grows every other step, before and after the interruption, and counts much."""
    monkeypatch.setattr(sparse, "GROWTH_EVERY", 2)
    monkeypatch.setattr(Stopped, "last", last)
    asked = {"kind": kind, "strength": 1.0, "steps": 7, "batch": 2, "crop": 64, "precision": "fp32", "save_every": 1}
    settings = SparseSettings.model_validate(asked)
    task = SCENE_TASK.at_size(64, 64)

    def train(learner: type[SparseLearner], folder: Path) -> nn.Module:
        torch.manual_seed(0)
        model = Plain(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
            nn.Conv2d(8, 7, 1),
        )  # fmt: skip
        folder.mkdir(exist_ok=True)
        Training(
            learner(model, ["5"], settings, 255, 7), open_dataset(scenes), task, settings,
            seed=0, workspace=folder, fingerprint="a", progress=Silent(), title="Sparse training",
        ).run()  # fmt: skip
        return model

    straight = train(SparseLearner, tmp_path / "a").state_dict()
    with pytest.raises(KeyboardInterrupt):
        train(Stopped, tmp_path / "b")
    resumed = train(SparseLearner, tmp_path / "b").state_dict()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
