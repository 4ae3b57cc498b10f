"""DP-CTNet: a CNN path and a transformer path, refined, fused and decoded to per-pixel logits.

A reconstruction. K. Zheng et al., IEEE JSTARS 18 (2025) 4074-4092, doi 10.1109/JSTARS.2025.3525634, is known to us by
its abstract: a dual-path network, a feature refinement module (FRM) that improves what the transformer learns, and a
feature fusion module (FFM) that merges both paths so that local features are not under-learned. Widths, depths and the
inside of both modules are ours::

    image ─ stem 1/4 ─ residual blocks 1/4 ─┬─ skip ────────────────────────────────────────────────┐
                                            ├─ CNN path: 1/8 ───────────────────────┐               │
                                            └─ transformer path: 1/16 ─ 1/32 ─ FRM ─ FFM 1/8 ─ decoder 1/4 ─ logits 1/1

Stem and CNN path may be any backbone of timm (:mod:`edpct.models.backbone`). Each part can be left out, to see what it
is worth.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from typing_extensions import Self

from edpct.models.backbone import BackbonePath
from edpct.models.blocks import (
    ChannelGate,
    ChannelScale,
    ConvBNReLU,
    ResidualBlock,
    TransformerBlock,
    TransformerStage,
    upsample,
)

CONTEXT = 0.1  # what the transformer's map is scaled by at first: the CNN path leads until the context helps
Part = Literal["cnn", "transformer", "refinement", "fusion"]


class DPCTNetConfig(BaseModel):
    """Widths (channels) and depths (blocks) of DP-CTNet.

    Attributes:
        num_classes: channels of the logits.
        backbone: network of timm that is stem and CNN path; None: ours, of ``cnn_widths`` and ``cnn_depths``.
        cnn_widths, cnn_depths: stages at strides 4 and 8, of so many residual blocks; the second begins with a strided
            convolution, and may be that alone. A backbone's maps are brought to these widths.
        branch: where the transformer path leaves the CNN path: behind the ``stem``, or behind the ``blocks`` at stride
            4. Without a CNN path, or with a backbone, both are the same map.
        transformer_widths, transformer_depths, heads: stages at strides 16 and 32.
        mlp_ratio: hidden over outer width of the transformer's MLP.
        without: parts that are left out, for an ablation. With one path there is nothing to fuse; without "refinement"
            the transformer's two scales are added, without "fusion" the two paths are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_classes: int = Field(ge=2, le=255)
    backbone: str | None = None
    cnn_widths: tuple[int, int]
    cnn_depths: tuple[int, int]
    branch: Literal["stem", "blocks"] = "stem"
    transformer_widths: tuple[int, int]
    transformer_depths: tuple[int, int]
    heads: tuple[int, int]
    mlp_ratio: int = 4
    without: tuple[Part, ...] = ()

    @model_validator(mode="after")
    def _has_a_path(self) -> Self:
        if {"cnn", "transformer"} <= set(self.without):
            raise ValueError("one of the two paths must stay")
        if self.backbone is not None and "cnn" in self.without:
            raise ValueError("a backbone is the CNN path; it cannot be left out")
        return self


PRESETS: dict[str, dict[str, object]] = {
    "tiny": {
        "cnn_widths": (32, 64), "cnn_depths": (2, 0), "branch": "blocks",
        "transformer_widths": (96, 128), "transformer_depths": (1, 1), "heads": (3, 4), "mlp_ratio": 2,
    },
    "small": {
        "cnn_widths": (64, 128), "cnn_depths": (2, 0), "branch": "blocks",
        "transformer_widths": (160, 256), "transformer_depths": (2, 2), "heads": (5, 8),
    },
    "base": {
        "cnn_widths": (96, 192), "cnn_depths": (3, 0), "branch": "blocks",
        "transformer_widths": (256, 384), "transformer_depths": (3, 3), "heads": (8, 12),
    },
}  # fmt: skip


class AddedScales(nn.Module):
    """The transformer's two scales brought to one width and added: what stands in for the FRM where it is left out.

    (B, C16, H/16, W/16) and (B, C32, H/32, W/32) to (B, C, H/16, W/16).
    """

    def __init__(self, fine: int, coarse: int, width: int) -> None:
        super().__init__()
        self.fine = nn.Conv2d(fine, width, 1)
        self.coarse = nn.Conv2d(coarse, width, 1)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        return self.fine(fine) + upsample(self.coarse(coarse), 2)


class FeatureRefinement(AddedScales):
    """FRM: brings the transformer's two scales together and sharpens them with local context and a channel gate."""

    def __init__(self, fine: int, coarse: int, width: int) -> None:
        super().__init__(fine, coarse, width)
        self.local = ConvBNReLU(width, width)
        self.gate = ChannelGate(width)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        merged = super().forward(fine, coarse)
        return merged + self.gate(self.local(merged))


class Fusion(nn.Module):
    """Two maps (B, C, H/8, W/8), local (CNN) and context (transformer), to one of the same shape.

    Attributes:
        drop: share of the samples that, while training, have the local map alone; half as many have the context alone.
            On little data the two paths otherwise explain the training ground together, and fail together elsewhere.
    """

    drop: float = 0.0

    def alone(self, local: Tensor) -> tuple[Tensor, Tensor]:
        """Which samples have the local map alone, and which the context: bool, (B, 1, 1, 1)."""
        lot = torch.rand(len(local), 1, 1, 1, device=local.device)
        return lot < self.drop, (lot >= self.drop) & (lot < 1.5 * self.drop)


class FeatureFusion(Fusion):
    """FFM: a gate per position and channel chooses between local and global features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.choose = nn.Conv2d(2 * width, width, 1)
        self.mix = ConvBNReLU(width, width)
        self.gate = ChannelGate(width)

    def forward(self, local: Tensor, context: Tensor) -> Tensor:
        share = torch.sigmoid(self.choose(torch.cat((local, context), dim=1)))
        if self.training and self.drop:
            only_local, only_context = self.alone(local)
            share = share.masked_fill(only_local, 1.0).masked_fill(only_context, 0.0)
        fused = context + share * (local - context)
        return fused + self.gate(self.mix(fused))


class AddedPaths(Fusion):
    """What stands in for the FFM where it is left out."""

    def forward(self, local: Tensor, context: Tensor) -> Tensor:
        if self.training and self.drop:
            only_local, only_context = self.alone(local)
            return local.masked_fill(only_context, 0.0) + context.masked_fill(only_local, 0.0)
        return local + context


class DPCTNet(nn.Module):
    """Dual-path CNN and transformer for segmentation.

    Input (B, 3, H, W), float, H and W multiples of 32; output logits (B, num_classes, H, W).

    Attributes:
        TAPS: maps that distillation may tap, at strides 8, 16 and 8; of one network, those that are there.

    Raises:
        CheckpointError: timm has no such backbone, or it has no maps at strides 4, 8 and 16.
    """

    TAPS: tuple[str, ...] = ("cnn", "transformer", "fused")
    PATHS: ClassVar[Mapping[str, str]] = {
        "stem": "CNN", "cnn4": "CNN", "cnn8": "CNN", "backbone": "CNN",
        "enter": "transformer", "transformer16": "transformer", "transformer32": "transformer",
        "refinement": "refinement", "scale": "fusion", "fusion": "fusion",
        "lateral": "decoder", "decoder": "decoder", "classifier": "decoder",
    }  # fmt: skip

    def __init__(self, config: DPCTNetConfig) -> None:
        super().__init__()
        self.config = config
        fine, coarse = config.cnn_widths
        self.TAPS = tuple(tap for tap in DPCTNet.TAPS if tap not in config.without)
        if config.backbone is not None:
            self.backbone = BackbonePath(config.backbone, config.cnn_widths)
        else:
            self.stem = nn.Sequential(ConvBNReLU(3, fine // 2, stride=2), ConvBNReLU(fine // 2, fine, stride=2))
            if "cnn" not in config.without:
                self.cnn4 = nn.Sequential(*(ResidualBlock(fine) for _ in range(config.cnn_depths[0])))
                blocks = (ResidualBlock(coarse) for _ in range(config.cnn_depths[1]))
                self.cnn8 = nn.Sequential(ConvBNReLU(fine, coarse, stride=2), *blocks)
        if "transformer" not in config.without:
            t16, t32 = config.transformer_widths
            depths, heads, ratio = config.transformer_depths, config.heads, config.mlp_ratio
            self.enter = ConvBNReLU(fine, fine, stride=2)
            self.transformer16 = TransformerStage(fine, t16, heads[0], 2, ratio, depths[0])
            self.transformer32 = TransformerStage(t16, t32, heads[1], 1, ratio, depths[1])
            refinement = AddedScales if "refinement" in config.without else FeatureRefinement
            self.refinement = refinement(t16, t32, coarse)
        if not {"cnn", "transformer"} & set(config.without):
            self.scale = ChannelScale(coarse, CONTEXT)
            self.fusion = AddedPaths() if "fusion" in config.without else FeatureFusion(coarse)
        self.lateral = nn.Conv2d(coarse, fine, 1)
        self.decoder = ConvBNReLU(fine, fine)
        self.classifier = nn.Conv2d(fine, config.num_classes, 1)

    def drop(self, paths: float, blocks: float) -> None:
        """Leave parts out at random while training: of the fusion's two maps, and of the transformer's blocks.

        Args:
            paths: see :class:`Fusion`, 0..2/3.
            blocks: see :class:`edpct.models.blocks.TransformerBlock`, 0..1.
        """
        for module in self.modules():
            if isinstance(module, Fusion):
                module.drop = paths
            elif isinstance(module, TransformerBlock):
                module.drop = blocks

    def features(self, image: Tensor) -> dict[str, Tensor]:
        """The maps of :attr:`TAPS`, each (B, C, H / s, W / s), and the decoder's with s = 4."""
        found: dict[str, Tensor] = {}
        if self.config.backbone is not None:
            entry, found["cnn"] = self.backbone(image)
            skip = entry
        else:
            entry = skip = self.stem(image)
            if "cnn" in self.TAPS:
                skip = self.cnn4(entry)
                found["cnn"] = self.cnn8(skip)
        if "transformer" in self.TAPS:
            fine = self.transformer16(self.enter(skip if self.config.branch == "blocks" else entry))
            found["transformer"] = self.refinement(fine, self.transformer32(fine))
            if "cnn" in self.TAPS:
                found["fused"] = self.fusion(found["cnn"], upsample(self.scale(found["transformer"]), 2))
            else:
                found["fused"] = upsample(found["transformer"], 2)
        else:
            found["fused"] = found["cnn"]
        found["decoder"] = self.decoder(upsample(self.lateral(found["fused"]), 2) + skip)
        return found

    def classify(self, features: dict[str, Tensor]) -> Tensor:
        """Logits (B, num_classes, H, W) of what :meth:`features` returned."""
        return upsample(self.classifier(features["decoder"]), 4)

    def forward(self, image: Tensor) -> Tensor:
        return self.classify(self.features(image))


def dpctnet(preset: str, num_classes: int, backbone: str | None = None) -> DPCTNet:
    """DP-CTNet of a preset (``tiny``, ``small``, ``base``) with random weights.

    Args:
        backbone: network of timm that takes the place of the preset's stem and CNN path.

    Raises:
        CheckpointError: timm has no such backbone, or it has no maps at strides 4, 8 and 16.
    """
    return DPCTNet(DPCTNetConfig.model_validate({"num_classes": num_classes, "backbone": backbone, **PRESETS[preset]}))
