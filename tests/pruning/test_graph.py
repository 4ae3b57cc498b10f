"""What may become narrower together, and narrower copies: against torch-pruning's own pruner and made networks."""

from __future__ import annotations

import pytest
import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn import functional as F

from edpct.errors import PruningError
from edpct.models.dpctnet import DPCTNet, dpctnet
from edpct.pruning.criteria import scorer
from edpct.pruning.graph import Group, PruningGraph
from edpct.pruning.widths import output_widths

IMAGE = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def tiny() -> DPCTNet:
    torch.manual_seed(0)
    return dpctnet("tiny", 7).eval()


@pytest.fixture(scope="module")
def graph(tiny: DPCTNet) -> PruningGraph:
    return PruningGraph(tiny, scorer("l2"))


def halves(graph: PruningGraph) -> dict[str, int]:
    return {group.name: group.width // 2 for group in graph.groups}


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


class Around(nn.Module):
    """A convolution before, the layers in question, two after."""

    def __init__(self, *middle: nn.Module, width: int) -> None:
        super().__init__()
        self.before, self.middle = nn.Conv2d(3, 16, 3, 2, 1), nn.Sequential(*middle)
        self.after, self.head = nn.Conv2d(width, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.after(F.relu(self.middle(F.relu(self.before(x)))))))


# ---- what belongs together


def test_the_groups_of_dpctnet_cover_every_layer_but_the_classifier(tiny: DPCTNet, graph: PruningGraph) -> None:
    layers = [layer for group in graph.groups for layer in group.layers]
    assert len(layers) == len(set(layers))
    assert set(layers) == set(output_widths(tiny)) - {"classifier"} and graph.outputs == ("classifier",)
    assert all(group.name in group.layers for group in graph.groups)


def test_only_what_an_attention_computes_comes_in_heads(graph: PruningGraph) -> None:
    """The tokens that flow into it are one part, of any width."""
    assert {group.name: (group.parts, group.width) for group in graph.groups if group.parts > 1} == {
        "transformer16.blocks.0.attention.q": (3, 32),
        "transformer32.blocks.0.attention.q": (4, 32),
    }
    widths = {group.name: group.width for group in graph.groups}
    assert (widths["transformer16.embed"], widths["transformer32.embed"]) == (96, 128)


def test_layers_that_are_added_are_one_group(graph: PruningGraph) -> None:
    tied = {frozenset(group.layers) for group in graph.groups}
    assert frozenset({"stem.1.0", "cnn4.0.conv2", "cnn4.1.conv2", "lateral"}) in tied
    tokens = ("embed", "positions", "blocks.0.attention.proj", "blocks.0.fc2")
    assert frozenset(f"transformer16.{name}" for name in tokens) in tied


def test_equal_dependencies_are_one_kind(graph: PruningGraph) -> None:
    kinds = {group.name: group.kind for group in graph.groups}
    assert kinds["cnn4.0.conv1.0"] == kinds["cnn4.1.conv1.0"]
    assert kinds["transformer16.blocks.0.fc1"] == kinds["transformer32.blocks.0.fc1"] != kinds["cnn4.0.conv1.0"]


class TwoHeads(nn.Module):
    """As LR-ASPP: the logits are the sum of two heads, one of them enlarged."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 24, 3, 2, 1)
        self.low, self.high = nn.Conv2d(16, 5, 1), nn.Conv2d(24, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = F.relu(self.fine(x))
        high = F.interpolate(self.high(F.relu(self.coarse(fine))), scale_factor=2.0)
        return F.interpolate(self.low(fine) + high, scale_factor=2.0)


def test_both_heads_whose_sum_is_the_logits_keep_their_width() -> None:
    graph = PruningGraph(TwoHeads().eval(), scorer("l2"))
    assert graph.outputs == ("high", "low")
    pruned = graph.prune(halves(graph))
    assert output_widths(pruned) == {"fine": 8, "coarse": 12, "low": 5, "high": 5}
    assert pruned(IMAGE).shape == (1, 5, 64, 64)


# ---- narrower copies


@pytest.mark.parametrize(
    ("middle", "width", "expected"),
    [
        ([nn.Conv2d(16, 16, 3, 1, 1, groups=16)], 16, {"before": 8, "middle.0": 8}),
        ([nn.Conv2d(16, 32, 3, 1, 1, groups=2)], 32, {"before": 8, "middle.0": 16}),
        ([nn.ConvTranspose2d(16, 24, 2, 2)], 24, {"before": 8, "middle.0": 12}),
        ([nn.ConvTranspose2d(16, 16, 4, 2, 1, groups=16)], 16, {"before": 8, "middle.0": 8}),
        ([nn.GroupNorm(4, 16), nn.Conv2d(16, 24, 1)], 24, {"before": 8, "middle.1": 12}),
        ([nn.Conv2d(16, 24, 1, groups=2), nn.GroupNorm(3, 24)], 24, {"before": 8, "middle.0": 12}),
        # torch-pruning narrows these wrongly, so what touches them stays:
        ([nn.ConvTranspose2d(16, 32, 2, 2, groups=2)], 32, {"before": 16, "middle.0": 32}),
        ([nn.Conv2d(16, 32, 3, 1, 1, groups=16)], 32, {"before": 16, "middle.0": 32}),
        ([nn.Conv2d(16, 8, 3, 1, 1, groups=8)], 8, {"before": 16, "middle.0": 8}),
    ],
    ids=[
        "depthwise", "grouped", "transposed", "transposed depthwise", "group norm", "groups of 2 and 3",
        "transposed grouped", "several outputs a group", "several inputs a group",
    ],
)  # fmt: skip
def test_convolutions_of_all_kinds_are_narrowed_and_run(
    middle: list[nn.Module], width: int, expected: dict[str, int]
) -> None:
    model = Around(*middle, width=width).eval()
    graph = PruningGraph(model, scorer("l2"))
    pruned = graph.prune(halves(graph))
    assert output_widths(pruned) == {**expected, "after": 4, "head": 4}
    assert pruned(IMAGE).shape == model(IMAGE).shape


def silence(model: Around, group: Group, channels: list[int]) -> list[int]:
    """Make these channels of every part of the middle's group do nothing and return where they are."""
    rows = [part * group.width + channel for part in range(group.parts) for channel in channels]
    (layer,) = model.middle
    with torch.no_grad():
        (layer.weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight)[rows] = 0.0
        layer.bias[rows] = 0.0
        model.after.weight[:, rows] = 0.0
    return rows


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(16, 24, 3, 1, 1), nn.Conv2d(16, 24, 3, 1, 1, groups=2), nn.ConvTranspose2d(16, 24, 2, 2)],
    ids=["plain", "grouped", "transposed"],
)
def test_channels_that_do_nothing_go_and_the_logits_stay(layer: nn.Module) -> None:
    torch.manual_seed(0)
    model = Around(layer, width=24).eval()
    (group,) = (g for g in PruningGraph(model, scorer("l2")).groups if g.name == "middle.0")
    rows = silence(model, group, [0, 3, 5])
    pruned = PruningGraph(model, scorer("l2")).prune({"middle.0": group.width - 3})
    stay = [row for row in range(24) if row not in rows]
    assert torch.equal(pruned.after.weight, model.after.weight[:, stay])
    torch.testing.assert_close(pruned(IMAGE), model(IMAGE))


def test_head_channels_that_do_nothing_go_and_the_logits_stay() -> None:
    torch.manual_seed(0)
    model = dpctnet("tiny", 7).eval()
    attention = model.transformer16.blocks[0].attention
    rows = [32 * head + channel for head in range(3) for channel in (1, 2, 30, 31)]
    with torch.no_grad():
        for tensor in (attention.q.weight, attention.q.bias):
            tensor[rows] = 0.0
        for tensor in (attention.kv.weight, attention.kv.bias):
            tensor[[*rows, *(96 + row for row in rows)]] = 0.0
        attention.proj.weight[:, rows] = 0.0
        attention.q.weight *= (28 / 32) ** 0.5  # the scale of the weights follows the head's width
        attention.q.bias *= (28 / 32) ** 0.5
        expected = model(IMAGE)
        attention.q.weight /= (28 / 32) ** 0.5
        attention.q.bias /= (28 / 32) ** 0.5
    pruned = PruningGraph(model, scorer("l2")).prune({"transformer16.blocks.0.attention.q": 28})
    left = pruned.transformer16.blocks[0].attention
    assert (left.q.out_features, left.kv.out_features, left.proj.in_features) == (84, 168, 84)
    assert torch.equal(left.q.weight, attention.q.weight[[row for row in range(96) if row not in rows]])
    with torch.no_grad():
        # softmax(q k / sqrt(28)) of the pruned against softmax(q' k / sqrt(32)) with q' = q sqrt(32 / 28)
        left.q.weight *= 28 / 32
        left.q.bias *= 28 / 32
        torch.testing.assert_close(pruned(IMAGE), expected, rtol=1e-4, atol=1e-5)


def test_plain_convolutions_are_pruned_as_torch_pruning_prunes_them() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(),
        nn.Conv2d(32, 24, 3), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 5, 1),
    ).eval()  # fmt: skip
    graph = PruningGraph(model, scorer("l1"))
    ours = graph.prune({"0": 12, "3": 24, "5": 18})
    tp.pruner.BasePruner(
        model, IMAGE, tp.importance.GroupMagnitudeImportance(p=1), pruning_ratio=0.25, ignored_layers=[model[8]]
    ).step()
    assert output_widths(ours) == {"0": 12, "3": 24, "5": 18, "8": 5}
    assert all(torch.equal(ours.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def test_dpctnet_is_pruned_as_torch_pruning_prunes_it(tiny: DPCTNet) -> None:
    graph = PruningGraph(tiny, scorer("l1"))
    ours = graph.prune(halves(graph))
    model = graph.prune({})  # a copy
    heads = {
        layer: attention.heads
        for attention in (model.transformer16.blocks[0].attention, model.transformer32.blocks[0].attention)
        for layer in (attention.q, attention.kv)
    }
    tp.pruner.BasePruner(
        model, IMAGE, tp.importance.GroupMagnitudeImportance(p=1), pruning_ratio=0.5,
        ignored_layers=[model.classifier], num_heads=heads, prune_head_dims=True, out_channel_groups={},
    ).step()  # fmt: skip
    assert shapes(ours) == shapes(model)
    with torch.no_grad():
        assert ours(IMAGE).shape == model(IMAGE).shape


def test_a_copy_without_weights_has_the_same_shapes(graph: PruningGraph) -> None:
    kept = {group.name: group.width - group.width // 4 for group in graph.groups}
    bare = graph.prune(kept, weights=False)
    assert shapes(bare) == shapes(graph.prune(kept))
    assert all(tensor.is_meta for tensor in bare.state_dict().values())


def test_a_group_that_is_not_named_stays(tiny: DPCTNet, graph: PruningGraph) -> None:
    pruned = graph.prune({"decoder.0": 10})
    before = output_widths(tiny)
    assert {n: w for n, w in output_widths(pruned).items() if w != before[n]} == {"decoder.0": 10}
    assert torch.equal(graph.prune({})(IMAGE), tiny(IMAGE))


def test_the_model_that_was_given_is_not_changed() -> None:
    model = dpctnet("tiny", 3).train().requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    graph = PruningGraph(model, scorer("l2"), leave_out=("fusion",))
    graph.prune(halves(graph))
    graph.prune(halves(graph), weights=False)
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert model.training and not any(parameter.requires_grad for parameter in model.parameters())
    assert shapes(graph.prune({})) == {name: tuple(tensor.shape) for name, tensor in before.items()}


# ---- leaving out, and refusals


@pytest.mark.parametrize("name", ["cnn4.1", "fusion", "transformer16.blocks.0.attention"])
def test_what_is_left_out_keeps_its_widths_and_the_rest_shrinks(tiny: DPCTNet, name: str) -> None:
    graph = PruningGraph(tiny, scorer("l2"), leave_out=(name,))
    assert not any(layer.startswith(f"{name}.") for group in graph.groups for layer in group.layers)
    pruned = graph.prune(halves(graph))
    assert type(pruned.get_submodule(name)) is type(tiny.get_submodule(name))
    assert shapes(pruned.get_submodule(name)) == shapes(tiny.get_submodule(name))
    before, after = output_widths(tiny), output_widths(pruned)
    assert after["stem.0.0"] == before["stem.0.0"] // 2 and after["decoder.0"] == before["decoder.0"] // 2
    assert pruned(IMAGE).shape == (1, 7, 64, 64)


@pytest.mark.parametrize("model", [nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1))])
def test_a_network_of_outputs_only_has_nothing_to_prune(model: nn.Module) -> None:
    with pytest.raises(PruningError, match=r"^The network has no layer that can become narrower\."):
        PruningGraph(model, scorer("l2"))


def test_a_network_that_does_not_run_is_refused_in_a_sentence() -> None:
    with pytest.raises(PruningError, match=r"^The widths of the network cannot be followed: .*--leave-out"):
        PruningGraph(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(9, 4, 1)), scorer("l2"))


def test_layers_that_a_depthwise_convolution_ties_together_are_narrowed_each_by_itself() -> None:
    """DeepLabV3+ has it: two maps are concatenated, and a depthwise convolution follows. None may lose all channels."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.deep, self.skip = nn.Conv2d(3, 64, 3, padding=1), nn.Conv2d(3, 16, 3, padding=1)
            self.depthwise = nn.Conv2d(80, 80, 3, padding=1, groups=80)
            self.mix, self.head = nn.Conv2d(80, 32, 1), nn.Conv2d(32, 5, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            both = torch.cat((self.deep(x), self.skip(x)), dim=1)
            return self.head(self.mix(self.depthwise(both)).relu())

    model = Tied()
    with torch.no_grad():
        model.skip.weight *= 1e-3  # by far the least important, were they ranked together
    graph = PruningGraph(model, scorer("l2"))
    assert {group.name: group.width for group in graph.groups} == {"deep": 64, "skip": 16, "mix": 32}
    pruned = graph.prune({"deep": 24, "skip": 8, "mix": 16})
    assert (pruned.deep.out_channels, pruned.skip.out_channels) == (24, 8)
    assert (pruned.depthwise.out_channels, pruned.depthwise.groups, pruned.mix.in_channels) == (32, 32, 32)
    assert pruned(torch.zeros(1, 3, 16, 16)).shape == (1, 5, 16, 16)
