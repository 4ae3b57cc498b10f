"""Pruning: budgets are met, every part shrinks, the network still learns, and what cannot be done is said."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edpct.errors import PruningError
from edpct.models.architecture import count_macs, count_parameters
from edpct.models.blocks import Attention
from edpct.models.dpctnet import DPCTNet, dpctnet
from edpct.progress import Silent
from edpct.pruning.plan import kept_width
from edpct.pruning.prune import Budget, Pruned, Pruner, prune_by_ratio
from edpct.pruning.widths import LayerWidth, compare_widths, output_widths, widths_of_paths
from edpct.recipe import PruneSettings

SIZE = (64, 64)


@pytest.fixture(scope="module")
def teacher() -> DPCTNet:
    torch.manual_seed(0)
    return dpctnet("tiny", 7).eval()


@pytest.fixture(scope="module")
def pruner(teacher: DPCTNet) -> Pruner:
    return Pruner(teacher, PruneSettings(), SIZE, Silent())


@pytest.fixture(scope="module", params=[("macs", 0.2), ("macs", 0.35), ("macs", 0.5)], ids=str)
def asked(request: pytest.FixtureRequest, pruner: Pruner) -> tuple[Budget, Pruned]:
    budget = Budget(*request.param)
    return budget, pruner.to(budget)


class Small(nn.Module):
    """Quickly pruned; ``shift`` is a width that no layer tells of."""

    def __init__(self, fixed: bool = False) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 32, 3, 1, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 1, 1), nn.ReLU())
        self.decoder, self.head = nn.Conv2d(64, 32, 3, 1, 1), nn.Conv2d(32, 4, 1)
        self.register_buffer("shift", torch.zeros(1, 32, 1, 1) if fixed else torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.decoder(self.encoder(x)) + self.shift))


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = Small()

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


# ---- budgets


def test_the_budget_is_met_from_below_within_two_points(asked: tuple[Budget, Pruned], teacher: DPCTNet) -> None:
    budget, pruned = asked
    assert budget.amount - 0.02 < count_macs(pruned.model, *SIZE) / count_macs(teacher, *SIZE) <= budget.amount
    assert (pruned.macs, pruned.teacher_macs) == (count_macs(pruned.model, *SIZE), count_macs(teacher, *SIZE))
    assert (pruned.parameters, pruned.teacher_parameters) == (count_parameters(pruned.model), count_parameters(teacher))


def test_budgets_are_counts_too_and_of_parameters_too() -> None:
    model = Small()
    small = Pruner(model, PruneSettings(round_to=1), (32, 32), Silent())
    assert 0.95 * 4.7e6 < count_macs(small.to(Budget("macs", 4.7e6)).model, 32, 32) <= 4.7e6 < count_macs(model, 32, 32)
    whole = count_parameters(model)
    assert 0.95 * 16e3 < count_parameters(small.to(Budget("params", 16e3)).model) <= 16e3 < whole
    assert 0.28 < count_parameters(small.to(Budget("params", 0.3)).model) / whole <= 0.3


def test_a_count_over_what_the_network_has_leaves_it_as_it_is(pruner: Pruner) -> None:
    pruned = pruner.to(Budget("params", 1e12))
    assert pruned.parameters == pruned.teacher_parameters and pruned.macs == pruned.teacher_macs
    assert all(row.before == row.after for row in pruned.widths)


@pytest.mark.parametrize(
    ("budget", "text"),
    [
        (Budget("macs", 0.1), "10.0% of the MACs"),
        (Budget("macs", 4.7e9), "4.7 GMACs"),
        (Budget("params", 2.5e6), "2.5 M parameters"),
        (Budget("params", 1.0), "100.0% of the parameters"),
        (Budget("ratio", 0.25), "25.0% of the channels"),
    ],
)
def test_a_budget_in_words(budget: Budget, text: str) -> None:
    assert budget.text() == text


@pytest.mark.parametrize("round_to", [1, 8])
@pytest.mark.parametrize("ratio", [0.2, 0.37, 0.75])
def test_a_ratio_gives_every_layer_exactly_its_rounded_width(teacher: DPCTNet, ratio: float, round_to: int) -> None:
    pruned = output_widths(prune_by_ratio(teacher, ratio, PruneSettings(round_to=round_to), Silent()))
    for layer, width in output_widths(teacher).items():
        heads = {"q": 1, "kv": 2}.get(layer.rsplit(".", 1)[-1], 0) * (3 if layer.startswith("transformer16") else 4)
        parts = heads or 1
        expected = parts * kept_width(width // parts, 1 - ratio, round_to) if layer != "classifier" else 7
        assert pruned[layer] == expected, layer


def test_what_a_group_costs_does_not_depend_on_what_was_asked_before(pruner: Pruner) -> None:
    """Plans that keep the same number of channels of different groups are different plans."""
    for name in ("decoder.0", "cnn4.0.conv1.0", "enter.0"):
        model = pruner.graph.prune({name: 16})
        assert pruner.cost("macs", {name: 16}) == count_macs(model, *SIZE), name
        assert pruner.cost("params", {name: 16}) == count_parameters(model), name


def test_floors_are_kept(teacher: DPCTNet) -> None:
    pruner = Pruner(teacher, PruneSettings(), SIZE, Silent(), floors={"decoder.0": 0.7, "stem.0.0": 1.0})
    widths = output_widths(pruner.to(Budget("ratio", 0.75)).model)
    assert (widths["decoder.0"], widths["stem.0.0"], widths["stem.1.0"]) == (24, 16, 8)


# ---- what is left


def test_every_part_shrinks_and_only_the_classifier_keeps_its_outputs(
    asked: tuple[Budget, Pruned], teacher: DPCTNet
) -> None:
    before, after = output_widths(teacher), output_widths(asked[1].model)
    assert {w.layer: (w.before, w.after) for w in asked[1].widths} == {n: (before[n], after[n]) for n in before}
    for part, _ in teacher.named_children():
        layers = [name for name in before if name.split(".")[0] == part]
        assert sum(after[n] for n in layers) < sum(before[n] for n in layers) or part == "classifier", part
    assert after["classifier"] == 7


@pytest.mark.parametrize("round_to", [4, 8, 32])
def test_widths_and_heads_are_multiples_of_round_to(teacher: DPCTNet, round_to: int) -> None:
    model = prune_by_ratio(teacher, 0.6, PruneSettings(round_to=round_to), Silent())
    before, after = output_widths(teacher), output_widths(model)
    narrower = {name for name in after if after[name] < before[name]}
    assert [name for name in narrower if after[name] % round_to] == []
    assert {"cnn8.0.0", "transformer32.embed", "transformer32.blocks.0.attention.q"} <= narrower
    attentions = [module for module in model.modules() if isinstance(module, Attention)]
    assert [attention.heads for attention in attentions] == [3, 4]  # heads stay, their dims shrink
    for attention in attentions:
        assert attention.q.out_features % (attention.heads * min(round_to, 8)) == 0
        assert attention.kv.out_features == 2 * attention.q.out_features == 2 * attention.proj.in_features


def test_the_pruned_network_runs_and_learns(asked: tuple[Budget, Pruned]) -> None:
    model = asked[1].model
    for mode in (False, True):
        assert model.train(mode)(torch.randn(2, 3, 64, 96)).shape == (2, 7, 64, 96)
    model.zero_grad()
    model(torch.randn(2, 3, 64, 64)).square().mean().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not bool(p.grad.any())] == []
    model.eval()


@pytest.mark.parametrize("criterion", ["l1", "l2", "taylor", "hessian"])
def test_hidden_channels_with_no_weight_go(criterion: str) -> None:
    torch.manual_seed(1)
    model = dpctnet("tiny", 7).eval()
    block = model.transformer16.blocks[0]
    with torch.no_grad():
        weak = torch.arange(0, 192, 2)
        for tensor in (block.fc1.weight, block.fc1.bias):
            tensor[weak] = 0.0
        block.fc2.weight[:, weak] = 0.0
    batches = [(torch.randn(1, 3, 64, 64), torch.randint(0, 7, (1, 64, 64)))]
    pruned = Pruner(model, PruneSettings(criterion=criterion), SIZE, Silent(), batches).to(Budget("ratio", 0.5))
    left = pruned.model.transformer16.blocks[0].fc1.weight
    assert left.shape[0] == 96 and bool((left.abs().sum(dim=1) > 0).all())


@pytest.mark.parametrize("criterion", ["l2", "random", "taylor"])
def test_two_prunings_give_the_same_network(criterion: str) -> None:
    torch.manual_seed(0)
    model, batches = Small(), [(torch.randn(1, 3, 32, 32), torch.randint(0, 4, (1, 32, 32)))]
    settings = PruneSettings(criterion=criterion, scope="global")
    first, second = (
        Pruner(model, settings, (32, 32), Silent(), batches).to(Budget("macs", 0.4)).model.state_dict()
        for _ in range(2)
    )
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("criterion", ["l2", "taylor"])
def test_a_frozen_teacher_is_pruned_and_stays_as_it_was(criterion: str) -> None:
    """Its parameters ask for no gradient, and torch-pruning follows the gradient's graph."""
    frozen = dpctnet("tiny", 7).train().requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in frozen.state_dict().items()}
    batches = [(torch.randn(1, 3, 64, 64), torch.randint(0, 7, (1, 64, 64)))]
    pruner = Pruner(frozen, PruneSettings(criterion=criterion), SIZE, Silent(), batches)
    assert pruner.to(Budget("ratio", 0.5)).parameters < 0.5 * count_parameters(frozen)
    after = frozen.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert frozen.training and not any(p.requires_grad or p.grad is not None for p in frozen.parameters())


# ---- the table of widths


def test_the_layers_of_dpctnet_are_told_by_their_path(asked: tuple[Budget, Pruned], teacher: DPCTNet) -> None:
    paths = {row.layer: row.path for row in asked[1].widths}
    assert set(paths.values()) == {"CNN", "transformer", "refinement", "fusion", "decoder"}
    assert (paths["stem.0.0"], paths["enter.0"], paths["lateral"], paths["classifier"]) == (
        "CNN", "transformer", "decoder", "decoder",
    )  # fmt: skip
    assert {name.split(".")[0] for name in paths} == set(teacher.PATHS) - {"backbone"}
    totals = widths_of_paths(asked[1].widths)
    assert sum(before for before, _ in totals.values()) == sum(output_widths(teacher).values())
    assert all(after < before for before, after in totals.values())


def test_other_networks_are_told_by_their_outermost_modules() -> None:
    settings = PruneSettings(round_to=4)
    for model, prefix in ((Small(), ""), (Wrapped(), "network.")):
        rows = Pruner(model, settings, (32, 32), Silent()).to(Budget("ratio", 0.5)).widths
        assert rows == (
            LayerWidth(f"{prefix}encoder.0", "encoder", 32, 16), LayerWidth(f"{prefix}encoder.2", "encoder", 64, 32),
            LayerWidth(f"{prefix}decoder", "decoder", 32, 16), LayerWidth(f"{prefix}head", "head", 4, 4),
        )  # fmt: skip
        assert widths_of_paths(rows) == {"encoder": (96, 48), "decoder": (32, 16), "head": (4, 4)}


def test_a_layer_that_did_not_shrink_is_refused_by_its_name() -> None:
    model = nn.ModuleDict({"a": nn.Linear(4, 8), "b": nn.Sequential(nn.Conv2d(3, 4, 1), nn.Linear(2, 6))})
    before = {"a": 16, "b.0": 4, "b.1": 6}
    with pytest.raises(PruningError, match=r"^Pruning left the layer 'b\.1' as wide as it was \(6 channels\)\. "):
        compare_widths(before, model, asked={"a", "b.1"})
    rows = compare_widths(before, model, asked={"a"})
    assert rows == (LayerWidth("a", "a", 16, 8), LayerWidth("b.0", "b", 4, 4), LayerWidth("b.1", "b", 6, 6))


# ---- refusals


@pytest.mark.parametrize(
    ("budget", "text"), [(Budget("macs", 0.01), "1.0% of the MACs"), (Budget("params", 9e3), "0.009 M parameters")]
)
def test_a_budget_under_the_narrowest_network_is_refused_with_what_can_be_reached(
    pruner: Pruner, teacher: DPCTNet, budget: Budget, text: str
) -> None:
    narrowest = pruner.graph.prune(pruner.planner.narrowest())
    least = count_macs(narrowest, *SIZE) / count_macs(teacher, *SIZE)
    if budget.kind == "params":
        least = count_parameters(narrowest) / count_parameters(teacher)
    with pytest.raises(PruningError) as caught:
        pruner.to(budget)
    assert caught.value.what == (
        f"No pruning reaches {text}: the narrowest network, with widths in steps of 8, keeps {least:.1%}."
    )
    assert caught.value.hint == "Let more of it stay, or lower [prune] round_to."


@pytest.mark.parametrize("budget", [Budget("ratio", 0.5), Budget("macs", 0.5), Budget("params", 0.5)], ids=str)
def test_a_network_that_counts_on_a_fixed_width_is_refused_with_what_to_do(budget: Budget) -> None:
    with pytest.raises(PruningError) as caught:
        Pruner(Small(fixed=True), PruneSettings(), (32, 32), Silent()).to(budget)
    assert caught.value.what.startswith("The pruned network does not run: ") and caught.value.what.endswith(".")
    assert caught.value.hint == "Part of it counts on a fixed width; name that module with --leave-out."


def test_the_layer_whose_width_is_fixed_can_be_left_out() -> None:
    settings = PruneSettings(leave_out=("decoder",))
    pruned = Pruner(Small(fixed=True), settings, (32, 32), Silent()).to(Budget("ratio", 0.5))
    assert output_widths(pruned.model)["decoder"] == 32 and output_widths(pruned.model)["encoder.0"] < 32


def test_a_network_with_nothing_to_prune_is_refused() -> None:
    with pytest.raises(PruningError, match="The network has no layer that can become narrower"):
        Pruner(nn.Sequential(nn.Conv2d(3, 4, 1)), PruneSettings(), (32, 32), Silent())


def test_a_module_that_is_not_there_cannot_be_left_out(teacher: DPCTNet) -> None:
    with pytest.raises(PruningError, match=r"no module 'fusoin'.*fusion"):
        Pruner(teacher, PruneSettings(leave_out=("fusoin",)), SIZE, Silent())
