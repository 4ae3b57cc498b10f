"""Any backbone of timm as the CNN path of DP-CTNet."""

from __future__ import annotations

import importlib
from typing import Any

from torch import Tensor, nn

from edpct.errors import CheckpointError, MissingPackageError
from edpct.models.blocks import upsample
from edpct.models.zoo import first_line

STRIDES = (4, 8, 16)  # of a backbone's maps that the path takes


class BackbonePath(nn.Module):
    """A backbone of timm at strides 4, 8 and 16, brought to the widths of the path.

    Its map at stride 16 is added to that at stride 8, so that what a pretrained backbone learnt deeper is not lost.

    Args:
        name: as ``timm.create_model`` takes it; built with random weights, nothing is downloaded.
        widths: channels at strides 4 and 8.

    Raises:
        CheckpointError: timm has no such network, or it has no maps at these strides.
        MissingPackageError: timm is not installed.
    """

    def __init__(self, name: str, widths: tuple[int, int]) -> None:
        super().__init__()
        fine, coarse = widths
        self.timm = build_backbone(name)
        given = dict(zip(self.timm.feature_info.reduction(), self.timm.feature_info.channels(), strict=True))
        self.fine = nn.Conv2d(given[4], fine, 1)
        self.coarse = nn.Conv2d(given[8], coarse, 1)
        self.deep = nn.Conv2d(given[16], coarse, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The maps (B, fine, H/4, W/4) and (B, coarse, H/8, W/8) of an image (B, 3, H, W)."""
        fine, coarse, deep = self.timm(image)
        return self.fine(fine), self.coarse(coarse) + upsample(self.deep(deep), 2)


def build_backbone(name: str) -> Any:
    """The part of a timm network that gives maps at strides 4, 8 and 16, with random weights.

    Raises:
        CheckpointError: timm has no such network, or it has no maps at these strides.
        MissingPackageError: timm is not installed.
    """
    timm = _package()
    if name not in timm.list_models():  # which holds what timm can build by itself: no "hf-hub:..." is fetched
        raise CheckpointError(
            f"timm has no backbone '{name}'.", "Its names: python -c 'import timm; print(timm.list_models())'"
        )
    try:
        strides = timm.create_model(name, pretrained=False, features_only=True).feature_info.reduction()
        wanted = [strides.index(stride) for stride in STRIDES]
        return timm.create_model(name, pretrained=False, features_only=True, out_indices=wanted)
    except Exception as error:  # timm's networks refuse in many ways
        raise CheckpointError(
            f"The backbone {name} gives no maps at strides 4, 8 and 16 ({first_line(error)}).",
            "Choose one such as resnet18, mobilenetv3_large_100 or tf_efficientnet_lite0.",
        ) from error


def _package() -> Any:
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        raise MissingPackageError("timm", "building this backbone", "compress") from error
