"""Quantisers in a torch network: what they compute by hand, what they leave alone, and what training moves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edpct.errors import QuantisationError
from edpct.export.fake_quantised import FakeQuantised
from edpct.models.checkpoint import load_checkpoint


class OneConvolution(nn.Module):
    """The least that can be distilled: one map, and logits from it by one convolution."""

    TAPS = ("map",)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.last = nn.Conv2d(4, 2, 1)

    def features(self, image: Tensor) -> dict[str, Tensor]:
        return {"map": torch.relu(self.norm(self.first(image)))}

    def classify(self, features: dict[str, Tensor]) -> Tensor:
        return self.last(features["map"])


@pytest.fixture
def network() -> OneConvolution:
    torch.manual_seed(0)
    return OneConvolution().eval()


@pytest.fixture
def quantised(network: OneConvolution) -> FakeQuantised:
    torch.manual_seed(1)
    return FakeQuantised(network, [torch.randn(1, 3, 16, 16) for _ in range(4)])


def rounded(weight: Tensor) -> Tensor:
    """Symmetric, each output channel by its own largest weight, in 127 steps."""
    scale = weight.abs().amax((1, 2, 3), keepdim=True) / 127
    return (weight / scale).round() * scale


def test_weights_are_rounded_as_int8_rounds_them() -> None:
    """Lit by one map at a time, far beyond what calibration saw, logits show one column of the weights."""
    torch.manual_seed(0)
    network = OneConvolution().eval()
    with torch.no_grad():
        network.first.weight.copy_(torch.eye(4, 3)[:, :, None, None])
    quantised = FakeQuantised(network, [torch.randn(1, 3, 16, 16) for _ in range(4)])
    expected = rounded(network.last.weight.detach())[:, :, 0, 0]
    for lit in range(3):
        image = torch.zeros(1, 3, 16, 16)
        image[:, lit] = 100.0
        with torch.no_grad():
            column = (quantised(image)[0, :, 0, 0] - network.last.bias) / expected[:, lit]
        # The one factor is where activations are clipped: the largest of 4 x 256 normal numbers.
        assert torch.allclose(column[0], column[1], rtol=1e-4)
        assert 2 < float(column[0]) < 5.5
        assert not torch.allclose(network.last.weight[:, lit, 0, 0], expected[:, lit], rtol=1e-4)


def test_the_network_that_went_in_is_left_alone(network: OneConvolution, quantised: FakeQuantised) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    image, labels = torch.randn(2, 3, 16, 16), torch.randint(0, 2, (2, 16, 16))
    quantised.train()
    optimiser = torch.optim.SGD([p for p in quantised.parameters() if p.requires_grad], lr=0.1)
    nn.functional.cross_entropy(quantised(image), labels).backward()
    optimiser.step()
    after = quantised.trained.state_dict()
    assert after.keys() == before.keys()
    assert not torch.equal(after["first.weight"], before["first.weight"])
    assert torch.equal(after["norm.running_mean"], before["norm.running_mean"])  # held
    assert not torch.equal(after["norm.weight"], before["norm.weight"])
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in before.items())


def test_only_the_networks_own_weights_are_trained(network: OneConvolution, quantised: FakeQuantised) -> None:
    trained = {tuple(p.shape) for p in quantised.parameters() if p.requires_grad}
    assert trained == {tuple(p.shape) for p in network.parameters()}
    assert sum(p.requires_grad for p in quantised.parameters()) == len(list(network.parameters()))


def test_a_dpctnet_shows_its_maps_and_loses_little(tiny_teacher: Path) -> None:
    model = load_checkpoint(tiny_teacher).model
    torch.manual_seed(0)
    images = [torch.randn(1, 3, 64, 64) for _ in range(2)]
    quantised = FakeQuantised(model, images).eval()
    with torch.no_grad():
        expected, found = model.eval().features(images[0]), quantised.features(images[0])
        logits = model(images[0])
    assert set(quantised.TAPS) == set(model.TAPS) and found.keys() == {*model.TAPS, "logits"}
    assert [found[tap].shape for tap in model.TAPS] == [expected[tap].shape for tap in model.TAPS]
    difference = (quantised.classify(found) - logits).abs().max() / (logits.max() - logits.min())
    assert 1e-5 < float(difference) < 0.1  # rounded, and not more than that
    assert quantised(torch.randn(2, 3, 96, 96)).shape == (2, 7, 96, 96)  # other batch, other size


def test_images_are_needed(network: OneConvolution) -> None:
    with pytest.raises(QuantisationError, match="at least one image"):
        FakeQuantised(network, [])


def test_a_network_that_branches_on_values(network: OneConvolution) -> None:
    class Refuses(OneConvolution):
        def features(self, image: Tensor) -> dict[str, Tensor]:
            raise RuntimeError("no way\nsecond line")

    with pytest.raises(QuantisationError, match=r"NNCF cannot put quantisers into this network: .*no way$"):
        FakeQuantised(Refuses(), [torch.zeros(1, 3, 8, 8)])
