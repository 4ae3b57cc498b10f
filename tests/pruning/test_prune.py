"""Pruning: the budget is met, every part shrinks, widths are what was asked for, and the network still learns."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edpct.errors import PruningError
from edpct.models.architecture import count_macs, count_parameters
from edpct.models.blocks import Attention
from edpct.models.dpctnet import DPCTNet, dpctnet
from edpct.progress import Silent
from edpct.pruning.prune import Pruned, kept_width, prune_by_ratio, prune_to_macs
from edpct.pruning.widths import LayerWidth, compare_widths, output_widths
from edpct.recipe import PruneSettings

SIZE = (128, 128)


@pytest.fixture(scope="module")
def teacher() -> DPCTNet:
    torch.manual_seed(0)
    return dpctnet("tiny", 7).eval()


@pytest.fixture(scope="module", params=[(0.3, 8), (0.5, 8), (0.3, 4), (0.5, 4)], ids=str)
def asked(request: pytest.FixtureRequest, teacher: DPCTNet) -> tuple[PruneSettings, Pruned]:
    settings = PruneSettings(macs=request.param[0], round_to=request.param[1])
    return settings, prune_to_macs(teacher, settings, SIZE, Silent())


# ---- the budget


def test_the_budget_is_met_from_below(asked: tuple[PruneSettings, Pruned], teacher: DPCTNet) -> None:
    settings, pruned = asked
    share = count_macs(pruned.model, *SIZE) / count_macs(teacher, *SIZE)
    assert settings.macs - 0.06 < share <= settings.macs  # tiny's widths go in steps of up to 6 points
    assert pruned.macs == count_macs(pruned.model, *SIZE) and pruned.teacher_macs == count_macs(teacher, *SIZE)
    assert pruned.parameters == count_parameters(pruned.model) < count_parameters(teacher)


def test_every_part_shrinks_and_only_the_classifier_keeps_its_outputs(
    asked: tuple[PruneSettings, Pruned], teacher: DPCTNet
) -> None:
    before, after = output_widths(teacher), output_widths(asked[1].model)
    assert {w.layer: (w.before, w.after) for w in asked[1].widths} == {n: (before[n], after[n]) for n in before}
    for part, _ in teacher.named_children():
        layers = [name for name in before if name.split(".")[0] == part]
        assert sum(after[n] for n in layers) < sum(before[n] for n in layers) or part == "classifier", part
    assert after["classifier"] == 7


def test_widths_and_head_dims_are_multiples_of_round_to(asked: tuple[PruneSettings, Pruned]) -> None:
    settings, pruned = asked
    widths = {name: width for name, width in output_widths(pruned.model).items() if name != "classifier"}
    assert [name for name, width in widths.items() if width % settings.round_to] == []
    attentions = [m for m in pruned.model.modules() if isinstance(m, Attention)]
    assert [a.heads for a in attentions] == [3, 4]  # heads stay, their dims shrink
    for attention in attentions:
        assert attention.q.out_features % attention.heads == 0
        assert attention.q.out_features // attention.heads % settings.round_to == 0
        assert attention.q.out_features // attention.heads < 32
        assert attention.kv.out_features == 2 * attention.q.out_features == 2 * attention.proj.in_features


def test_the_teacher_is_left_as_it_was(teacher: DPCTNet) -> None:
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    prune_by_ratio(teacher, 0.5, PruneSettings())
    after = teacher.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_a_smaller_budget_gives_a_smaller_network(teacher: DPCTNet) -> None:
    macs = [prune_to_macs(teacher, PruneSettings(macs=m), SIZE, Silent()).macs for m in (0.1, 0.25, 0.45)]
    assert macs[0] < macs[1] < macs[2]


def test_two_prunings_give_the_same_network(teacher: DPCTNet) -> None:
    first, second = (prune_by_ratio(teacher, 0.4, PruneSettings()).state_dict() for _ in range(2))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# ---- what is left


@pytest.mark.parametrize("importance", ["l1", "l2"])
def test_the_channel_that_is_all_zero_goes_and_the_strong_one_stays(importance: str) -> None:
    """The hidden layer of an MLP: channels with no weight go first."""
    torch.manual_seed(1)
    model = dpctnet("tiny", 7).eval()
    block = model.transformer16.blocks[0]
    with torch.no_grad():
        weak = torch.arange(0, 192, 2)
        for tensor in (block.fc1.weight, block.fc1.bias):
            tensor[weak] = 0.0
        block.fc2.weight[:, weak] = 0.0
    pruned = prune_by_ratio(model, 0.5, PruneSettings(importance=importance, round_to=8))
    left = pruned.transformer16.blocks[0].fc1.weight
    assert left.shape[0] == 96 and bool((left.abs().sum(dim=1) > 0).all())


def test_the_pruned_network_runs_and_learns(asked: tuple[PruneSettings, Pruned]) -> None:
    model = asked[1].model
    for mode in (False, True):
        assert model.train(mode)(torch.randn(2, 3, 64, 96)).shape == (2, 7, 64, 96)
    model.zero_grad()
    model(torch.randn(2, 3, 64, 64)).square().mean().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not bool(p.grad.any())] == []
    model.eval()


def test_a_frozen_teacher_is_pruned_too(teacher: DPCTNet) -> None:
    """Its parameters ask for no gradient, and torch-pruning follows the gradient's graph."""
    frozen = dpctnet("tiny", 7).requires_grad_(False)
    pruned = prune_by_ratio(frozen, 0.5, PruneSettings())
    assert count_parameters(pruned) < 0.5 * count_parameters(frozen)
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


# ---- refusals


def test_a_budget_under_the_narrowest_network_is_refused(teacher: DPCTNet) -> None:
    with pytest.raises(PruningError) as caught:
        prune_to_macs(teacher, PruneSettings(macs=0.01), SIZE, Silent())
    assert "1.0%" in caught.value.what and caught.value.what.endswith(" of 8.") and ". " not in caught.value.what
    assert caught.value.hint == "Ask for more MACs, or lower [prune] round_to."


def test_a_layer_that_did_not_shrink_is_refused_by_its_name() -> None:
    model = nn.ModuleDict({"a": nn.Linear(4, 8), "b": nn.Sequential(nn.Conv2d(3, 4, 1), nn.Linear(2, 6))})
    before = {"a": 16, "b.0": 4, "b.1": 6}
    with pytest.raises(PruningError, match=r"^Pruning left the layer 'b\.1' as wide as it was \(6 channels\)\. "):
        compare_widths(before, model, asked={"a", "b.1"})
    rows = compare_widths(before, model, asked={"a"})
    assert rows == (LayerWidth("a", 16, 8), LayerWidth("b.0", 4, 4), LayerWidth("b.1", 6, 6))


def test_a_mild_budget_is_met_though_narrow_layers_stay(teacher: DPCTNet) -> None:
    pruned = prune_to_macs(teacher, PruneSettings(macs=0.9), SIZE, Silent())
    assert 0.6 * pruned.teacher_macs < pruned.macs <= 0.9 * pruned.teacher_macs


# ---- rounding


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


@pytest.mark.parametrize("round_to", [1, 4, 8])
@pytest.mark.parametrize("ratio", [0.2, 0.37, 0.75])
def test_layers_get_exactly_their_rounded_width(teacher: DPCTNet, ratio: float, round_to: int) -> None:
    pruned = output_widths(prune_by_ratio(teacher, ratio, PruneSettings(round_to=round_to)))
    before = output_widths(teacher)
    for layer in ("stem.0.0", "stem.1.0", "cnn8.0.0", "transformer16.embed", "transformer32.blocks.0.fc1", "decoder.0"):
        assert pruned[layer] == kept_width(before[layer], 1 - ratio, round_to), layer
