"""DP-CTNet: a CNN path and a transformer path, refined, fused and decoded to per-pixel logits.

A reconstruction. K. Zheng et al., IEEE JSTARS 18 (2025) 4074-4092, doi 10.1109/JSTARS.2025.3525634, is known to us by
its abstract: a dual-path network, a feature refinement module (FRM) that improves what the transformer learns, and a
feature fusion module (FFM) that merges both paths so that local features are not under-learned. Widths, depths and the
inside of both modules are ours::

    image ─ stem 1/4 ─┬─ CNN path: residual blocks 1/4 ── skip ──────────────────────────┐
                      │            residual blocks 1/8 ───────────────┐                  │
                      └─ transformer path: 1/8 ─ 1/16 ─ 1/32 ─ FRM ── FFM 1/8 ─ decoder 1/4 ─ logits 1/1
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from edpct.models.blocks import ChannelGate, ConvBNReLU, ResidualBlock, TransformerStage, upsample


class DPCTNetConfig(BaseModel):
    """Widths (channels) and depths (blocks) of DP-CTNet.

    Attributes:
        num_classes: channels of the logits.
        cnn_widths, cnn_depths: residual stages at strides 4 and 8.
        transformer_widths, transformer_depths, heads: stages at strides 16 and 32.
        mlp_ratio: hidden over outer width of the transformer's MLP.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_classes: int = Field(ge=2, le=255)
    cnn_widths: tuple[int, int]
    cnn_depths: tuple[int, int]
    transformer_widths: tuple[int, int]
    transformer_depths: tuple[int, int]
    heads: tuple[int, int]
    mlp_ratio: int = 4


PRESETS: dict[str, dict[str, object]] = {
    "tiny": {
        "cnn_widths": (32, 64), "cnn_depths": (1, 2),
        "transformer_widths": (96, 128), "transformer_depths": (1, 1), "heads": (3, 4), "mlp_ratio": 2,
    },
    "small": {
        "cnn_widths": (64, 128), "cnn_depths": (2, 3),
        "transformer_widths": (160, 256), "transformer_depths": (2, 2), "heads": (5, 8),
    },
    "base": {
        "cnn_widths": (96, 192), "cnn_depths": (2, 4),
        "transformer_widths": (256, 384), "transformer_depths": (3, 3), "heads": (8, 12),
    },
}  # fmt: skip


class FeatureRefinement(nn.Module):
    """FRM: brings the transformer's two scales together and sharpens them with local context and a channel gate.

    (B, C16, H/16, W/16) and (B, C32, H/32, W/32) to (B, C, H/16, W/16).
    """

    def __init__(self, fine: int, coarse: int, width: int) -> None:
        super().__init__()
        self.fine = nn.Conv2d(fine, width, 1)
        self.coarse = nn.Conv2d(coarse, width, 1)
        self.local = ConvBNReLU(width, width)
        self.gate = ChannelGate(width)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        merged = self.fine(fine) + upsample(self.coarse(coarse), 2)
        return merged + self.gate(self.local(merged))


class FeatureFusion(nn.Module):
    """FFM: a gate per position and channel chooses between local (CNN) and global (transformer) features.

    Two maps (B, C, H/8, W/8) to one of the same shape.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.choose = nn.Conv2d(2 * width, width, 1)
        self.mix = ConvBNReLU(width, width)
        self.gate = ChannelGate(width)

    def forward(self, local: Tensor, context: Tensor) -> Tensor:
        share = torch.sigmoid(self.choose(torch.cat((local, context), dim=1)))
        fused = context + share * (local - context)
        return fused + self.gate(self.mix(fused))


class DPCTNet(nn.Module):
    """Dual-path CNN and transformer for segmentation.

    Input (B, 3, H, W), float, H and W multiples of 32; output logits (B, num_classes, H, W).
    """

    TAPS = ("cnn", "transformer", "fused")
    PATHS: ClassVar[Mapping[str, str]] = {
        "stem": "CNN", "cnn4": "CNN", "cnn8": "CNN",
        "enter": "transformer", "transformer16": "transformer", "transformer32": "transformer",
        "refinement": "refinement", "fusion": "fusion",
        "lateral": "decoder", "decoder": "decoder", "classifier": "decoder",
    }  # fmt: skip

    def __init__(self, config: DPCTNetConfig) -> None:
        super().__init__()
        self.config = config
        fine, coarse = config.cnn_widths
        t16, t32 = config.transformer_widths
        self.stem = nn.Sequential(ConvBNReLU(3, fine // 2, stride=2), ConvBNReLU(fine // 2, fine, stride=2))
        self.cnn4 = nn.Sequential(*(ResidualBlock(fine) for _ in range(config.cnn_depths[0])))
        self.cnn8 = nn.Sequential(
            ConvBNReLU(fine, coarse, stride=2), *(ResidualBlock(coarse) for _ in range(config.cnn_depths[1]))
        )
        self.enter = ConvBNReLU(fine, fine, stride=2)
        self.transformer16 = TransformerStage(
            fine, t16, config.heads[0], 2, config.mlp_ratio, config.transformer_depths[0]
        )
        self.transformer32 = TransformerStage(
            t16, t32, config.heads[1], 1, config.mlp_ratio, config.transformer_depths[1]
        )
        self.refinement = FeatureRefinement(t16, t32, coarse)
        self.fusion = FeatureFusion(coarse)
        self.lateral = nn.Conv2d(coarse, fine, 1)
        self.decoder = ConvBNReLU(fine, fine)
        self.classifier = nn.Conv2d(fine, config.num_classes, 1)

    def features(self, image: Tensor) -> dict[str, Tensor]:
        """The maps of :attr:`TAPS`, each (B, C, H / s, W / s) with s = 8, 16, 8, and the decoder's with s = 4."""
        stem = self.stem(image)
        skip = self.cnn4(stem)
        local = self.cnn8(skip)
        fine = self.transformer16(self.enter(stem))
        context = self.refinement(fine, self.transformer32(fine))
        fused = self.fusion(local, upsample(context, 2))
        decoded = self.decoder(upsample(self.lateral(fused), 2) + skip)
        return {"cnn": local, "transformer": context, "fused": fused, "decoder": decoded}

    def classify(self, features: dict[str, Tensor]) -> Tensor:
        """Logits (B, num_classes, H, W) of what :meth:`features` returned."""
        return upsample(self.classifier(features["decoder"]), 4)

    def forward(self, image: Tensor) -> Tensor:
        return self.classify(self.features(image))


def dpctnet(preset: str, num_classes: int) -> DPCTNet:
    """DP-CTNet of a preset (``tiny``, ``small``, ``base``) with random weights."""
    return DPCTNet(DPCTNetConfig.model_validate({"num_classes": num_classes, **PRESETS[preset]}))
