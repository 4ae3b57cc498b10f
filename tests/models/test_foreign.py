"""Networks of other packages: built, pruned and rebuilt; attention replaced; weights loaded."""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from edpct.card import Card
from edpct.data.scenes import SCENE_TASK
from edpct.errors import CheckpointError
from edpct.models.adopt import adopt
from edpct.models.architecture import Architecture, build_network, count_macs, count_parameters, rebuild
from edpct.models.attention import FusedAttention, ReducedAttention
from edpct.models.checkpoint import load_checkpoint, save_checkpoint
from edpct.models.factory import TRUST_VARIABLE, trust
from edpct.models.fit import fit_network
from edpct.models.foreign import Foreign
from edpct.models.names import parse_model

Halve = Callable[[nn.Module, list[nn.Module]], nn.Module]
TASK = SCENE_TASK.at_size(64, 64)
CLASSES = TASK.num_classes


@pytest.fixture(autouse=True)
def nobody_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRUST_VARIABLE, "")
    monkeypatch.setattr(sys, "path", list(sys.path))


# ---- networks of smp and torchvision


def test_names_are_read_in_any_case_and_unknown_ones_are_refused() -> None:
    smp = {"kind": "DeepLabV3Plus", "encoder": "resnet18", "num_classes": 5}
    assert parse_model("deeplabv3plus-ResNet18", 5) == Architecture(name="smp", config=smp)
    vision = {"name": "lraspp_mobilenet_v3_large", "num_classes": 5}
    assert parse_model("LRASPP_mobilenet_v3_large", 5) == Architecture(name="torchvision", config=vision)
    assert parse_model("Unet-tu-resnet18", 5).config["encoder"] == "tu-resnet18"
    with pytest.raises(CheckpointError, match=r"no network 'Unet-resnet8'\. Did you mean Unet-resnet18.*torchvision"):
        parse_model("Unet-resnet8", 5)
    for wrong in ("Unet-tu-hf-hub:some/one", "unets", "a/b.py:make", "m:f()"):
        with pytest.raises(CheckpointError):
            parse_model(wrong, 5)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("smp", {"kind": "from_pretrained", "encoder": "resnet18", "num_classes": 5}),
        ("smp", {"kind": "Unet", "encoder": "tu-hf-hub:some/one", "num_classes": 5}),
        ("torchvision", {"name": "resnet18", "num_classes": 5}),
        ("factory", {"factory": "os:system", "num_classes": 5}),
    ],
)
def test_a_description_reaches_only_segmentation_networks(name: str, config: dict[str, object]) -> None:
    with pytest.raises(CheckpointError):
        build_network(Architecture(name=name, config=config))


@pytest.mark.parametrize("name", ["FPN-mobilenet_v2", "Segformer-mit_b0", "lraspp_mobilenet_v3_large"])
def test_a_pruned_network_of_another_package_comes_back(tmp_path: Path, name: str, halve: Halve) -> None:
    torch.manual_seed(0)
    model, card = adopt(name, None, TASK, None)
    assert card.network == name and card.parameters == count_parameters(model)
    assert card.macs == count_macs(model, 64, 64)
    whole = {key: module.weight.shape[0] for key, module in model.named_modules() if hasattr(module, "weight")}
    inside = model.network
    head = inside.classifier if hasattr(inside, "classifier") else inside.segmentation_head
    outputs = [head.low_classifier, head.high_classifier] if hasattr(head, "low_classifier") else [head[0]]
    pruned = halve(model, outputs)
    kept = [k for k, m in pruned.named_modules() if hasattr(m, "weight") and m.weight.shape[0] >= whole[k]]
    assert {pruned.get_submodule(k) for k in kept} == set(outputs)
    image = torch.randn(2, 3, 64, 96)
    save_checkpoint(tmp_path / "net.safetensors", pruned, card)
    state = torch.get_rng_state()
    again = load_checkpoint(tmp_path / "net.safetensors").model
    assert torch.equal(torch.get_rng_state(), state), "reading a file changed the random numbers"
    with torch.no_grad():
        torch.testing.assert_close(again(image), pruned(image), atol=1e-5, rtol=1e-5)
        features = copy.deepcopy(again).features(image)
        assert tuple(features) == ("encoder", "decoder", "logits") and again.TAPS == ("encoder", "decoder")
        torch.testing.assert_close(again.classify(features), again(image))
    assert not any(module._forward_hooks for module in again.modules())


def test_the_taps_are_the_encoders_end_and_the_heads_input() -> None:
    """UPerNet overwrites its encoder's list of maps; ours must be read before."""
    torch.manual_seed(0)
    model = build_network(parse_model("UPerNet-resnet18", 5)).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        features = model.features(image)
        torch.testing.assert_close(features["encoder"], model.network.encoder(image)[-1])
        torch.testing.assert_close(model.network.segmentation_head(features["decoder"]), features["logits"])


# ---- attention


@pytest.mark.parametrize("ratio", [1, 2])
def test_the_replaced_attention_of_mit_computes_the_same(ratio: int) -> None:
    mit = pytest.importorskip("segmentation_models_pytorch.encoders.mix_transformer")
    torch.manual_seed(0)
    original = mit.Attention(24, num_heads=3, qkv_bias=True, sr_ratio=ratio).eval()
    with torch.no_grad():
        for parameter in original.parameters():
            parameter.copy_(torch.randn_like(parameter))
        ours, tokens = ReducedAttention(copy.deepcopy(original)), torch.randn(2, 48, 24)
        assert ours.state_dict().keys() == original.state_dict().keys()
        torch.testing.assert_close(ours(tokens, 6, 8), original(tokens, 6, 8), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("mask", [None, "added", "kept", "causal"])
def test_the_replaced_attention_of_timm_computes_the_same(mask: str | None) -> None:
    timm = pytest.importorskip("timm.layers")
    torch.manual_seed(0)
    original = timm.Attention(24, num_heads=3, qkv_bias=True).eval()
    given = {None: {}, "causal": {"is_causal": True}}.get(mask)
    if given is None:
        added = torch.randn(10, 10)
        given = {"attn_mask": added if mask == "added" else added > -1}
    ours, tokens = FusedAttention(copy.deepcopy(original)), torch.randn(2, 10, 24)
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens, **given), original(tokens, **given), atol=1e-5, rtol=1e-5)


# ---- widths


class _Mixed(nn.Module):
    """Layers that keep their widths in different ways, made at any width."""

    def __init__(self, w: int, group: int = 4) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, w, 3, 2, 1)
        self.depthwise = nn.Conv2d(w, w * 2, 3, padding=1, groups=w)
        self.grouped = nn.Conv2d(2 * w, 2 * w, 3, padding=1, groups=group)
        self.norm = nn.GroupNorm(group, 2 * w)
        self.act = nn.PReLU(2 * w)
        self.plain = nn.LayerNorm(2 * w, elementwise_affine=False)
        self.attention = nn.MultiheadAttention(2 * w, 2, batch_first=True)
        self.up = nn.ConvTranspose2d(2 * w, w, 2, 2, groups=2)
        self.instance = nn.InstanceNorm2d(w, affine=True)
        self.shift = nn.Parameter(torch.randn(1, w, 1, 1))
        self.register_buffer("mean", torch.randn(1, w, 1, 1))
        self.register_buffer("fixed", torch.ones(1), persistent=False)
        self.head, self.second = nn.Conv2d(w, CLASSES, 1), nn.Conv2d(w, CLASSES, 1)
        self.second.weight = self.head.weight

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.act(self.norm(self.grouped(self.depthwise(self.enter(x)))))
        tokens = self.plain(x.flatten(2).transpose(1, 2))
        tokens = self.attention(tokens, tokens, tokens)[0]
        x = self.up(tokens.transpose(1, 2).reshape(x.shape)) * self.fixed
        x = self.instance(x) + self.shift - self.mean
        return {"out": self.head(x) + self.second(x)}


def wide(num_classes: int) -> nn.Module:
    """A factory in this module, for the tests below."""
    assert num_classes == CLASSES
    return _Mixed(16)


def test_layers_of_many_kinds_take_the_widths_of_their_tensors(tmp_path: Path) -> None:
    """The reference is the same network written narrower."""
    torch.manual_seed(0)
    narrow, name = _Mixed(8).eval(), f"{__name__}:wide"
    trust(name)
    architecture = parse_model(name, CLASSES)
    path = tmp_path / "net.safetensors"
    card = Card(network="mixed", task=TASK, parameters=1, macs=1)
    save_checkpoint(path, Foreign(narrow, architecture, {}), card)
    again = load_checkpoint(path).model
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(again(image), narrow(image)["out"])
    assert again.network.second.weight is again.network.head.weight and count_parameters(again) == count_parameters(
        narrow
    )
    names = ("in_channels", "out_channels", "groups", "num_channels", "num_features", "num_parameters", "embed_dim",
             "normalized_shape")  # fmt: skip
    for (where, ours), theirs in zip(again.network.named_modules(), narrow.modules(), strict=True):
        for attribute in names:
            assert getattr(ours, attribute, None) == getattr(theirs, attribute, None), f"{where}.{attribute}"


def test_a_depthwise_transposed_convolution_stays_depthwise() -> None:
    torch.manual_seed(0)
    wide_one, narrow = (nn.Sequential(nn.ConvTranspose2d(w, w, 2, 2, groups=w)) for w in (8, 3))
    fit_network(wide_one, narrow.state_dict())
    x = torch.randn(1, 3, 4, 4)
    assert wide_one[0].groups == 3 and torch.equal(wide_one(x), narrow(x))


def test_macs_of_torchs_own_attention_are_counted() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.attention = nn.Conv2d(3, 8, 1), nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.enter(x).flatten(2).transpose(1, 2)
            return self.attention(tokens, tokens, tokens, need_weights=False)[0]

    assert count_macs(Tokens(), 8, 8) == 64 * 24 + 64 * 8 * 32 + 2 * 64 * 64 * 8


# ---- weights


@pytest.fixture(scope="module")
def lraspp() -> nn.Module:
    torch.manual_seed(3)
    return build_network(parse_model("lraspp_mobilenet_v3_large", CLASSES)).network


@pytest.mark.parametrize("prefix", ["", "module.", "model.network."])
@pytest.mark.parametrize("wrapping", [None, "state_dict", "model"])
def test_weights_are_found_under_prefixes_and_keys(
    tmp_path: Path, lraspp: nn.Module, prefix: str, wrapping: str | None
) -> None:
    state = {f"{prefix}{key}": value for key, value in lraspp.state_dict().items()}
    torch.save({wrapping: state, "epoch": 3} if wrapping else state, tmp_path / "w.pth")
    model, _ = adopt("lraspp_mobilenet_v3_large", tmp_path / "w.pth", TASK, None)
    assert all(torch.equal(value, lraspp.state_dict()[key]) for key, value in model.network.state_dict().items())


LAST = "classifier.low_classifier.bias"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop(LAST), f"1 tensor is missing (first: {LAST})"),
        (lambda s: s.update(a=torch.zeros(1), b=torch.zeros(1)), "2 tensors are without a place (first: a)"),
        (lambda s: s.update({LAST: torch.zeros(3)}), f"of another shape (first: {LAST}, (3,) instead of ({CLASSES},))"),
        (lambda s: s.update({LAST: torch.zeros(CLASSES, dtype=torch.int8)}), "1 tensor is of another type"),
        (lambda s: s[LAST].fill_(float("nan")), f"the weights '{LAST}' hold NaN or infinity"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    tmp_path: Path, lraspp: nn.Module, change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    state = {key: value.clone() for key, value in lraspp.state_dict().items()}
    change(state)
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=re.escape(message)):
        adopt("lraspp_mobilenet_v3_large", tmp_path / "w.safetensors", TASK, None)


def test_tensors_of_another_network_are_refused(lraspp: nn.Module) -> None:
    architecture = parse_model("FPN-mobilenet_v2", CLASSES)
    with pytest.raises(CheckpointError, match="The tensors are not those of 'smp': "):
        rebuild(architecture, lraspp.state_dict())
