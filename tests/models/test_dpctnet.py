"""DP-CTNet: shapes, gradients, both paths at work, and the MACs that are counted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import stochastic_depth

from edpct.errors import CheckpointError
from edpct.models.architecture import Architecture, build_network, count_macs, count_parameters, rebuild
from edpct.models.blocks import Attention, TransformerBlock, to_map, to_tokens, upsample
from edpct.models.dpctnet import PRESETS, AddedPaths, DPCTNet, DPCTNetConfig, FeatureFusion, Fusion, dpctnet

CNN_PATH, TRANSFORMER_PATH = ("cnn8",), ("enter", "transformer16", "transformer32", "refinement")


@pytest.fixture(scope="module")
def tiny() -> DPCTNet:
    torch.manual_seed(0)
    return dpctnet("tiny", 7).eval()


def _image(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(seed))


# ---- shapes


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("size", [(32, 32), (64, 96), (128, 64)])
def test_logits_have_the_size_of_the_image(preset: str, size: tuple[int, int]) -> None:
    model = dpctnet(preset, 5).eval()
    with torch.no_grad():
        logits = model(_image(*size))
    assert logits.shape == (2, 5, *size) and torch.isfinite(logits).all()


def test_the_taps_have_the_strides_that_are_promised(tiny: DPCTNet) -> None:
    with torch.no_grad():
        features = tiny.features(_image(64, 96))
    assert {name: tuple(f.shape) for name, f in features.items()} == {
        "cnn": (2, 64, 8, 12),
        "transformer": (2, 64, 4, 6),
        "fused": (2, 64, 8, 12),
        "decoder": (2, 32, 16, 24),
    }
    assert tuple(features) == (*DPCTNet.TAPS, "decoder")


def test_an_image_does_not_depend_on_its_neighbours_in_the_batch(tiny: DPCTNet) -> None:
    images = _image(64, 64)
    with torch.no_grad():
        torch.testing.assert_close(tiny(images)[1:], tiny(images[1:]), atol=1e-5, rtol=1e-5)


def test_presets_grow(tiny: DPCTNet) -> None:
    sizes = [count_parameters(dpctnet(preset, 7)) for preset in ("tiny", "small", "base")]
    assert sizes[0] * 3 < sizes[1] and sizes[1] * 1.5 < sizes[2]


# ---- gradients and paths


def test_gradient_reaches_every_parameter() -> None:
    torch.manual_seed(0)
    model = dpctnet("tiny", 7).train()
    model(_image(64, 64)).square().mean().backward()
    without = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not bool(torch.isfinite(parameter.grad).all()) or not bool(parameter.grad.any())
    ]
    assert without == []


@pytest.mark.parametrize("path", [CNN_PATH, TRANSFORMER_PATH], ids=["cnn", "transformer"])
def test_the_output_depends_on_both_paths(tiny: DPCTNet, path: tuple[str, ...]) -> None:
    model = build_network(Architecture.of(tiny)).eval()
    model.load_state_dict(tiny.state_dict())
    with torch.no_grad():
        before = model(_image(64, 64))
        for part in path:
            for parameter in model.get_submodule(part).parameters():
                parameter.zero_()
        after = model(_image(64, 64))
    assert (after - before).abs().max() > 1e-2 * before.abs().max()


def test_the_transformer_sees_what_the_cnn_path_cannot(tiny: DPCTNet) -> None:
    """A change in one corner reaches the far corner through attention, and only through it."""
    image = _image(256, 256)[:1]
    changed = image.clone()
    changed[..., :16, :16] += 3.0
    with torch.no_grad():
        before, after = tiny.features(image), tiny.features(changed)
    far = {name: (after[name] - before[name]).abs()[..., -2:, -2:].max().item() for name in ("cnn", "transformer")}
    assert far["cnn"] == 0.0 and far["transformer"] > 0.0


# ---- parts left out, and backbones


def _config(**changes: object) -> DPCTNetConfig:
    return DPCTNetConfig.model_validate({"num_classes": 5, **PRESETS["tiny"], **changes})


@pytest.mark.parametrize(
    ("part", "gone", "taps"),
    [
        ("cnn", ("cnn4", "cnn8", "scale", "fusion"), ("transformer", "fused")),
        ("transformer", ("enter", "transformer16", "transformer32", "refinement", "scale", "fusion"), ("cnn", "fused")),
        ("refinement", ("refinement.local", "refinement.gate"), DPCTNet.TAPS),
        ("fusion", ("fusion.choose", "fusion.mix", "fusion.gate"), DPCTNet.TAPS),
    ],
)
def test_a_part_that_is_left_out_is_gone_and_the_rest_stays(
    part: str, gone: tuple[str, ...], taps: tuple[str, ...]
) -> None:
    torch.manual_seed(0)
    whole, less = DPCTNet(_config()), DPCTNet(_config(without=(part,))).train()
    missing = whole.state_dict().keys() - less.state_dict().keys()
    assert missing == {name for name in whole.state_dict() if name.startswith(tuple(f"{each}." for each in gone))}
    assert not less.state_dict().keys() - whole.state_dict().keys()
    logits = less(_image(64, 96))
    assert logits.shape == (2, 5, 64, 96) and less.TAPS == taps == tuple(less.features(_image(32, 32)))[:-1]
    logits.square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in less.parameters())
    rebuilt = rebuild(Architecture.of(less), less.state_dict()).eval()
    assert torch.equal(rebuilt(_image(32, 32)), less.eval()(_image(32, 32)))


def test_without_frm_and_ffm_scales_and_paths_are_added() -> None:
    model = DPCTNet(_config(without=("refinement", "fusion"))).eval()
    found = model.features(_image(64, 64))
    context = found["transformer"] * model.scale.weight.view(1, -1, 1, 1)
    torch.testing.assert_close(found["fused"], found["cnn"] + upsample(context, 2))


# ---- what is left out at random while training


@pytest.mark.parametrize("fusion", [FeatureFusion(4), AddedPaths()], ids=["FFM", "added"])
def test_some_samples_have_one_path_alone(fusion: Fusion) -> None:
    """Of 3,000 samples 0.4 have the CNN's map alone and 0.2 the transformer's: three standard deviations are 0.027."""
    torch.manual_seed(0)
    fusion.drop = 0.4
    local, context = torch.full((3000, 4, 1, 1), 2.0), torch.full((3000, 4, 1, 1), 5.0)
    if isinstance(fusion, FeatureFusion):
        _nothing_added(fusion)
    fused = fusion.train()(local, context)[:, 0, 0, 0]
    shares = [float((fused - value).abs().lt(1e-5).float().mean()) for value in (2.0, 5.0)]
    assert shares == pytest.approx([0.4, 0.2], abs=0.027)
    assert torch.equal(fusion.eval()(local, context), fusion(local, context))


def _nothing_added(fusion: FeatureFusion) -> None:
    """Leave what the gate chooses as it is."""
    for parameter in fusion.mix.parameters():
        nn.init.zeros_(parameter)


def test_blocks_are_skipped_while_training_and_never_in_use(tiny: DPCTNet) -> None:
    block = TransformerBlock(8, 2, 1, 2)
    block.drop = 0.5
    tokens = torch.randn(2000, 4, 8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    untouched = (block.train()(tokens, 2, 2) == tokens).all(dim=(1, 2)).float().mean()
    assert float(untouched) == pytest.approx(0.25, abs=0.03)  # neither attention nor MLP
    torch.testing.assert_close(block.eval()(tokens, 2, 2), block(tokens, 2, 2), rtol=0, atol=0)


def test_blocks_are_skipped_as_torchvision_skips_them() -> None:
    block = TransformerBlock(8, 2, 1, 2).train()
    block.drop = 0.3
    tokens = torch.randn(64, 4, 8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    ours = block(tokens, 2, 2)
    torch.manual_seed(0)
    half = tokens + stochastic_depth(block.attention(block.norm1(tokens), 2, 2), 0.3, "row")
    mlp = block.fc2(functional.gelu(block.fc1(block.norm2(half))))
    torch.testing.assert_close(ours, half + stochastic_depth(mlp, 0.3, "row"))


def test_a_network_drops_what_it_is_told_to_and_forgets_it_in_a_checkpoint() -> None:
    model = dpctnet("tiny", 5)
    model.drop(0.4, 0.2)
    assert model.fusion.drop == 0.4 and {m.drop for m in model.modules() if isinstance(m, TransformerBlock)} == {0.2}
    again = rebuild(Architecture.of(model), model.state_dict())
    assert again.fusion.drop == 0.0


def test_at_first_the_cnn_path_leads() -> None:
    torch.manual_seed(0)
    model = dpctnet("tiny", 5).eval()
    assert torch.equal(model.scale.weight, torch.full((64, 1, 1, 1), 0.1))


@pytest.mark.parametrize(("branch", "reached"), [("blocks", True), ("stem", False)])
def test_the_transformer_path_leaves_where_it_is_told_to(branch: str, reached: bool) -> None:
    torch.manual_seed(0)
    model = DPCTNet(_config(branch=branch)).eval()
    with torch.no_grad():
        before = model.features(_image(64, 64))
        for parameter in model.cnn4.parameters():
            parameter.mul_(0.5)
        after = model.features(_image(64, 64))
    assert not torch.equal(before["cnn"], after["cnn"])
    assert torch.equal(before["transformer"], after["transformer"]) is not reached


def test_a_configuration_of_before_the_branch_could_be_chosen_leaves_the_stem() -> None:
    old = {name: value for name, value in _config().model_dump().items() if name != "branch"}
    assert DPCTNetConfig.model_validate(old).branch == "stem"


@pytest.mark.parametrize(
    "changes", [{"without": ("cnn", "transformer")}, {"without": ("cnn",), "backbone": "resnet18"}]
)
def test_a_network_without_any_path_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="path"):
        _config(**changes)


@pytest.mark.parametrize("backbone", ["resnet18", "tf_efficientnet_lite0", "mobilenetv3_small_100"])
def test_a_backbone_of_timm_is_the_cnn_path(backbone: str) -> None:
    torch.manual_seed(0)
    model = dpctnet("tiny", 5, backbone).eval()
    reference = timm.create_model(backbone, features_only=True).eval()
    reference.load_state_dict({**reference.state_dict(), **model.backbone.timm.state_dict()})
    with torch.no_grad():
        ours, theirs = model.backbone.timm(_image(64, 64)), reference(_image(64, 64))
        assert model(_image(64, 64)).shape == (2, 5, 64, 64)
    assert [m.shape[-1] for m in ours] == [16, 8, 4]
    theirs = {m.shape[-1]: m for m in theirs}
    assert all(torch.allclose(m, theirs[m.shape[-1]], atol=1e-5) for m in ours)
    assert torch.equal(
        rebuild(Architecture.of(model), model.state_dict()).eval()(_image(32, 32)), model(_image(32, 32))
    )


@pytest.mark.parametrize("backbone", ["no_such_network", "hf-hub:someone/net", "vit_tiny_patch16_224"])
def test_a_backbone_that_cannot_be_used_is_refused(backbone: str) -> None:
    with pytest.raises(CheckpointError, match="backbone"):
        dpctnet("tiny", 5, backbone)


# ---- blocks


def test_tokens_and_maps_are_each_others_inverse() -> None:
    x = torch.randn(2, 5, 3, 4)
    tokens = to_tokens(x)
    assert tokens.shape == (2, 12, 5) and torch.equal(tokens[1, 4 + 2], x[1, :, 1, 2])
    assert torch.equal(to_map(tokens, 3, 4), x)


def test_upsampling_keeps_a_linear_ramp_in_the_middle() -> None:
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    up = upsample(ramp, 4)
    assert up.shape == (1, 1, 32, 32)
    at = (torch.arange(32) + 0.5) / 4 - 0.5  # half-pixel centres
    torch.testing.assert_close(up[0, 0, 16, 2:-2], at[2:-2])


def test_attention_is_torchs_multi_head_attention() -> None:
    torch.manual_seed(0)
    ours = Attention(24, heads=3, reduction=1)
    reference = nn.MultiheadAttention(24, 3, batch_first=True)
    with torch.no_grad():
        reference.in_proj_weight.copy_(torch.cat([ours.q.weight, ours.kv.weight]))
        reference.in_proj_bias.copy_(torch.cat([ours.q.bias, ours.kv.bias]))
        reference.out_proj.weight.copy_(ours.proj.weight)
        reference.out_proj.bias.copy_(ours.proj.bias)
    tokens = torch.randn(2, 12, 24)
    torch.testing.assert_close(ours(tokens, 3, 4), reference(tokens, tokens, tokens)[0], atol=1e-5, rtol=1e-4)


def test_reduced_attention_takes_keys_and_values_from_the_pooled_map() -> None:
    torch.manual_seed(0)
    attention = Attention(8, heads=2, reduction=2)
    tokens = torch.randn(1, 16, 8)
    pooled = torch.stack(
        [tokens[0, [r * 4 + c, r * 4 + c + 1, r * 4 + c + 4, r * 4 + c + 5]].mean(0) for r in (0, 2) for c in (0, 2)]
    )
    heads = []
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        q = attention.q(tokens)[0][:, part]
        k, v = attention.kv(pooled)[:, :8][:, part], attention.kv(pooled)[:, 8:][:, part]
        heads.append(torch.softmax(q @ k.T / 2.0, dim=1) @ v)
    torch.testing.assert_close(attention(tokens, 4, 4)[0], attention.proj(torch.cat(heads, dim=1)))


# ---- counting


class _Sketch(nn.Module):
    """A strided convolution, a depthwise one, attention over its tokens, and a Linear: all by hand below."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.attention = Attention(8, heads=2, reduction=1)
        self.linear = nn.Linear(8, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = self.depthwise(self.conv(image))
        return self.linear(self.attention(to_tokens(x), *x.shape[-2:]))


def test_macs_are_those_counted_by_hand() -> None:
    n = 8 * 12  # positions after the stride, of a 16 x 24 image
    by_hand = n * 8 * 3 * 9 + n * 8 * 9 + n * 8 * (8 + 16 + 8) + 2 * n * n * 8 + n * 8 * 5
    assert count_macs(_Sketch(), 16, 24) == by_hand


def test_parameters_are_those_counted_by_hand() -> None:
    attention = (8 * 8 + 8) + (8 * 16 + 16) + (8 * 8 + 8)
    assert count_parameters(_Sketch()) == 8 * 3 * 9 + (8 * 9 + 8) + attention + (8 * 5 + 5)


def test_counting_leaves_the_network_as_it_was() -> None:
    model = dpctnet("tiny", 7).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert count_macs(model, 64, 64) > 0 and model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c | {"num_classes": 1},
        lambda c: c | {"cnn_widths": (32,)},
        lambda c: c | {"width": 3},
    ],
)
def test_a_configuration_that_cannot_be_is_refused(
    tiny: DPCTNet, change: Callable[[dict[str, object]], dict[str, object]]
) -> None:
    with pytest.raises(ValueError, match="validation error"):
        DPCTNetConfig.model_validate(change(tiny.config.model_dump()))
