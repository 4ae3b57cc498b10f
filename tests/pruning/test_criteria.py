"""Which channels are important: closed forms on known weights, and every name on real groups."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edpct.errors import PruningError
from edpct.models.dpctnet import DPCTNet, dpctnet
from edpct.pruning.criteria import NEED_GRADIENTS, Batch, accumulate_gradients, scorer
from edpct.pruning.graph import PruningGraph
from edpct.recipe import Criterion

NAMES: tuple[Criterion, ...] = get_args(Criterion)
IGNORE = 255


class Two(nn.Module):
    """Two convolutions, with or without a batch norm between them; the channels between them are the one group."""

    def __init__(self, width: int = 6, norm: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width) if norm else nn.Identity()
        self.last = nn.Conv2d(width, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.norm(self.first(x))))


def scores_of(model: nn.Module, criterion: Criterion, seed: int = 0) -> Tensor:
    (group,) = PruningGraph(model, scorer(criterion, seed)).groups
    return group.scores


def relative(scores: Tensor) -> Tensor:
    return scores.detach() / scores.detach().mean()


def pictures(count: int, size: int = 64, classes: int = 4) -> list[Batch]:
    generator = torch.Generator().manual_seed(3)
    return [
        (
            (1 + index) * torch.randn(1, 3, size, size, generator=generator),
            torch.randint(0, classes, (1, size, size), generator=generator),
        )
        for index in range(count)
    ]


@pytest.fixture
def two() -> Two:
    torch.manual_seed(0)
    return Two().eval()


@pytest.fixture(scope="module")
def tiny() -> DPCTNet:
    torch.manual_seed(0)
    return dpctnet("tiny", 4).eval()


# ---- every name


@pytest.mark.parametrize("criterion", NAMES)
def test_every_criterion_scores_every_group_of_dpctnet(tiny: DPCTNet, criterion: Criterion) -> None:
    if criterion in NEED_GRADIENTS:
        accumulate_gradients(tiny, criterion, pictures(1), IGNORE)
    try:
        groups = PruningGraph(tiny, scorer(criterion)).groups
    finally:
        tiny.zero_grad(set_to_none=True)
    assert len(groups) == 15
    for group in groups:
        assert group.scores.dtype == torch.float32 and bool(torch.isfinite(group.scores).all())
        assert bool((group.scores >= 0).all()) and not group.scores.requires_grad, group.name
    assert all(float(group.scores.std()) > 0 for group in groups if criterion != "bn-scale")


@pytest.mark.parametrize("criterion", [name for name in NAMES if name not in ("random", "fpgm")])
def test_the_criterion_finds_the_channel_that_does_nothing(criterion: Criterion) -> None:
    torch.manual_seed(0)
    model = Two(norm=True).eval()
    with torch.no_grad():
        for tensor in (model.first.weight, model.first.bias, model.norm.weight, model.norm.bias):
            tensor[2] = 0.0
        model.last.weight[:, 2] = 0.0
    if criterion in NEED_GRADIENTS:
        accumulate_gradients(model, criterion, pictures(2, 16), IGNORE)
    scores = scores_of(model, criterion)
    assert int(scores.argmin()) == 2 and int((scores == 0).sum()) == 1


# ---- closed forms


@pytest.mark.parametrize(("criterion", "power"), [("l1", 1), ("l2", 2)])
def test_magnitude_is_the_sum_over_the_weights_of_both_layers(two: Two, criterion: Criterion, power: int) -> None:
    weights = two.first.weight.abs().pow(power).sum((1, 2, 3)) + two.last.weight.abs().pow(power).sum((0, 2, 3))
    torch.testing.assert_close(relative(scores_of(two, criterion)), relative(weights))


def test_bn_scale_is_the_batch_norms_gamma() -> None:
    torch.manual_seed(0)
    model = Two(norm=True).eval()
    gamma = torch.tensor([0.5, -3.0, 0.1, 1.0, -0.2, 2.0])
    with torch.no_grad():
        model.norm.weight.copy_(gamma)
        model.first.weight[2] *= 100  # would be kept by its magnitude
    torch.testing.assert_close(relative(scores_of(model, "bn-scale")), relative(gamma.abs()))


def test_bn_scale_is_l2_where_there_is_no_batch_norm(two: Two) -> None:
    assert torch.equal(scores_of(two, "bn-scale"), scores_of(two, "l2"))


def test_lamp_divides_by_all_that_is_not_smaller(two: Two) -> None:
    squares = two.first.weight.square().sum((1, 2, 3)) + two.last.weight.square().sum((0, 2, 3))
    expected = torch.stack([s / squares[squares >= s].sum() for s in squares])
    torch.testing.assert_close(scores_of(two, "lamp"), expected.detach())


def test_fpgm_finds_a_duplicate_filter_first() -> None:
    model = Two(5).eval()
    with torch.no_grad():
        model.first.weight.zero_()
        for channel, place in enumerate((0, 1, 2, 1, 4)):  # 1 and 3 are the same; all others are equally far apart
            model.first.weight[channel].view(-1)[place] = 1.0
        model.last.weight.fill_(0.3)
    scores = scores_of(model, "fpgm")
    assert set(scores.argsort()[:2].tolist()) == {1, 3}
    torch.testing.assert_close(relative(scores), relative(torch.tensor([4.0, 3.0, 4.0, 3.0, 4.0])))


def gradients(model: Two, batch: Batch) -> tuple[Tensor, Tensor]:
    """Of the mean cross-entropy over the labelled pixels, by hand: softmax minus truth, then the chain rule."""
    image, labels = batch
    before = F.conv2d(image, model.first.weight, model.first.bias, padding=1)
    hidden = before.relu()
    share = F.conv2d(hidden, model.last.weight, model.last.bias).softmax(1)
    counted = labels != IGNORE
    error = share - F.one_hot(labels.masked_fill(~counted, 0), 4).permute(0, 3, 1, 2)
    error = error * counted / counted.sum()
    last = torch.einsum("bchw,bdhw->cd", error, hidden)[..., None, None]
    back = torch.einsum("bchw,cd->bdhw", error, model.last.weight[..., 0, 0]) * (before > 0)
    windows = F.unfold(image, 3, padding=1).view(1, 27, *image.shape[-2:])
    first = torch.einsum("bdhw,bkhw->dk", back, windows).view_as(model.first.weight)
    return first, last


def two_layers(model: Two, of_first: Tensor, of_last: Tensor) -> Tensor:
    return of_first.sum((1, 2, 3)) + of_last.sum((0, 2, 3))


def test_taylor_is_weight_times_the_mean_gradient(two: Two) -> None:
    batches = pictures(2, 8)
    batches[0][1][0, :3] = IGNORE
    with torch.no_grad():
        (f1, l1), (f2, l2) = (gradients(two, batch) for batch in batches)
        first, last = two.first.weight * (f1 + f2) / 2, two.last.weight * (l1 + l2) / 2
    accumulate_gradients(two, "taylor", batches, IGNORE)
    torch.testing.assert_close(two.first.weight.grad, (f1 + f2) / 2, rtol=1e-4, atol=1e-6)
    expected = relative(two_layers(two, first.abs(), last.abs()))
    torch.testing.assert_close(relative(scores_of(two, "taylor")), expected, rtol=1e-4, atol=1e-5)


def test_hessian_is_squared_weight_times_the_mean_squared_gradient_of_all_images(two: Two) -> None:
    batches = pictures(2, 8)
    with torch.no_grad():
        (f1, l1), (f2, l2) = (gradients(two, batch) for batch in batches)
        w1, w2 = two.first.weight.square(), two.last.weight.square()
        both = relative(two_layers(two, w1 * (f1**2 + f2**2) / 2, w2 * (l1**2 + l2**2) / 2))
        last_alone = relative(two_layers(two, w1 * f2**2, w2 * l2**2))
    accumulate_gradients(two, "hessian", batches, IGNORE)
    scores = relative(scores_of(two, "hessian"))
    torch.testing.assert_close(scores, both, rtol=1e-4, atol=1e-5)
    assert float((scores - last_alone).abs().max()) > 1e-2


@pytest.mark.parametrize("criterion", ["l1", "l2", "taylor", "hessian"])
@pytest.mark.parametrize(("stage", "heads", "width"), [("transformer16", 3, 96), ("transformer32", 4, 128)])
def test_an_attention_is_scored_by_queries_keys_values_and_what_reads_them(
    tiny: DPCTNet, criterion: Criterion, stage: str, heads: int, width: int
) -> None:
    attention = tiny.get_submodule(f"{stage}.blocks.0.attention")
    generator = torch.Generator().manual_seed(1)
    for parameter in tiny.parameters():
        parameter.grad = torch.rand(parameter.shape, generator=generator)
    try:
        groups = PruningGraph(tiny, scorer(criterion)).groups
        queries, both, out = (
            {"l1": p.abs(), "l2": p**2, "taylor": (p * p.grad).abs(), "hessian": p**2 * p.grad}[criterion].detach()
            for p in (attention.q.weight, attention.kv.weight, attention.proj.weight)
        )
    finally:
        tiny.zero_grad(set_to_none=True)
    total = queries.sum(1) + both[:width].sum(1) + both[width:].sum(1) + out.sum(0)
    (found,) = (group for group in groups if f"{stage}.blocks.0.attention.q" in group.layers)
    assert (found.parts, found.width) == (heads, width // heads)
    torch.testing.assert_close(relative(found.scores), relative(total.view(heads, -1).mean(0)))


def test_random_is_told_by_its_seed(two: Two) -> None:
    first, again, other = (scores_of(two, "random", seed) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


# ---- gradients


@pytest.mark.parametrize("criterion", NEED_GRADIENTS)
def test_images_without_a_labelled_pixel_do_not_count(two: Two, criterion: Criterion) -> None:
    (image, labels), blank = pictures(1, 8)[0], torch.full((1, 8, 8), IGNORE)
    accumulate_gradients(two, criterion, [(image, labels)], IGNORE)
    alone = [parameter.grad.clone() for parameter in two.parameters()]
    accumulate_gradients(two, criterion, [(image, blank), (image, labels), (image, blank)], IGNORE)
    assert all(torch.equal(p.grad, before) for p, before in zip(two.parameters(), alone, strict=True))


@pytest.mark.parametrize("batches", [[], [(torch.zeros(1, 3, 8, 8), torch.full((1, 8, 8), IGNORE))]])
def test_where_all_pixels_are_ignored_there_is_no_gradient_to_take(two: Two, batches: list[Batch]) -> None:
    with pytest.raises(PruningError) as caught:
        accumulate_gradients(two, "taylor", batches, IGNORE)
    assert caught.value.what == "The criterion 'taylor' found no labelled pixel to take gradients of."
    assert caught.value.hint == "Check --data."
    assert all(parameter.grad is None for parameter in two.parameters())


def test_nothing_but_the_gradients_changes() -> None:
    model = Two(norm=True).train().requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    accumulate_gradients(model, "hessian", pictures(2, 8), IGNORE)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model.training and not any(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is not None for parameter in model.parameters())
