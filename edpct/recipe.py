"""What a run is asked to do: one validated model with its defaults; :mod:`edpct.recipe_file` reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from typing_extensions import Self

Precision = Literal["auto", "fp32", "bf16"]
Criterion = Literal["l1", "l2", "bn-scale", "lamp", "fpgm", "taylor", "hessian", "random"]
BUDGETS = ("macs", "params", "ratio", "target_fps")
DEFAULT_BUDGET = ("macs", 0.1)


LEAST_COUNT = 1000  # of MACs or parameters; a number between 1 and this is a mistake


def _amount(value: object) -> object:
    """A share or a count from text such as "0.3", "30%", "2.5M" or "4.7G"."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    factor = {"%": 0.01, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}.get(text[-1:].upper())
    try:
        return float(text[:-1]) * factor if factor is not None else float(text)
    except ValueError:
        raise ValueError("give a share such as 0.3 or 30%, or a count such as 2.5M or 4.7G") from None


def _share_or_count(value: float) -> float:
    if 1 < value < LEAST_COUNT:
        raise ValueError(f"{value:g} is more than the whole; give a share up to 1, or a count such as 2.5M or 4.7G")
    return value


Amount = Annotated[float, BeforeValidator(_amount), Field(gt=0, allow_inf_nan=False), AfterValidator(_share_or_count)]


class Section(BaseModel):
    """Base of the recipe's sections: unknown keys are refused, values do not change."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class OptimiseSettings(Section):
    """The training loop that teacher and student share.

    Attributes:
        steps: optimiser steps.
        batch: crops a step.
        crop: side of a square training crop in pixels, a multiple of 32.
        lr: peak learning rate of AdamW; linear warm-up over ``warmup`` of the steps, then cosine to zero.
        dice: weight of the soft Dice loss beside cross-entropy.
        scale: range of the random zoom a crop is taken at.
        precision: ``bf16`` autocast, ``fp32``, or ``auto``: bf16 where the device computes it natively.
        validate_every: steps between two validations; 0: only at the end.
        save_every: steps between two resume points.
    """

    steps: int = Field(2000, ge=1)
    batch: int = Field(8, ge=1)
    crop: int = Field(256, ge=64, multiple_of=32)
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup: float = Field(0.05, ge=0, lt=1)
    dice: float = Field(0.5, ge=0)
    scale: tuple[float, float] = (0.5, 1.5)
    precision: Precision = "auto"
    validate_every: int = Field(500, ge=0)
    save_every: int = Field(50, ge=1)

    @field_validator("scale")
    @classmethod
    def _scale_rises(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if not 0 < scale[0] <= scale[1]:
            raise ValueError("give two zooms above 0, the smaller first")
        return scale


class TeachSettings(OptimiseSettings):
    """Teacher training.

    Attributes:
        auxiliary: weight of the heads that ask each path to classify by itself; they exist only while training.
    """

    auxiliary: float = Field(0.4, ge=0)


class RecoverySettings(OptimiseSettings):
    """Training on labels after each pruning but the last, where it goes in several; ``steps`` are for each."""

    steps: int = Field(200, ge=1)
    validate_every: int = Field(0, ge=0)


class SparseSettings(OptimiseSettings):
    """Training before the pruning that pushes the weights of channels which will go toward zero.

    Attributes:
        kind: ``group-lasso`` (DepGraph, Fang et al. 2023), ``growing-reg`` (Wang et al. 2021), or ``none``.
        strength: regularisation coefficient.
    """

    kind: Literal["none", "group-lasso", "growing-reg"] = "none"
    strength: float = Field(1e-4, gt=0)
    steps: int = Field(500, ge=1)
    validate_every: int = Field(0, ge=0)


class PruneSettings(Section):
    """Structured pruning: a budget, which channels go first, and what must not go.

    One of ``macs``, ``params``, ``ratio`` and ``target_fps`` is the budget; none of them: a tenth of the MACs.

    Attributes:
        macs: multiply-accumulates to keep at most: a share (up to 1) or a count ("4.7G").
        params: parameters to keep at most, likewise ("2.5M").
        ratio: share of every layer's channels that goes, 0..1.
        target_fps: images a second of the built engine, timed while searching.
        on: where that is timed: RUNTIME or RUNTIME:DEVICE.
        precision: of the engine that is timed.
        min_miou, max_miou_drop: bounds in points of mIoU (0..100); pruning goes in steps and stops before them.
        criterion: by which the importance of channels is told; see :mod:`edpct.pruning.criteria`. The default had the
            highest mean in benchmarks/results/criteria.
        scope: channels are ranked within a layer (``local``), in the whole network (``global``), or among layers of the
            same kind (``isomorphic``, Fang et al. 2024).
        iterations: prunings on the way to the budget, with recovery training after each but the last; 0: one, or four
            where there is a bound on mIoU.
        images: windows looked at by criteria that need gradients and by the measure of mIoU.
        round_to: every width is a multiple of this; ``auto``: 32 for INT8 on tensor cores, else 8.
        leave_out: modules that are left as they are, together with what is tied to their widths.
        graph_seconds: time limit on following the widths through the network.
        spare: file of ``edpct sensitivity``; layers keep the width under which mIoU falls by more than ``spare_drop``.
        spare_drop: points of mIoU.
    """

    macs: Amount | None = None
    params: Amount | None = None
    ratio: float | None = Field(None, gt=0, lt=1)
    target_fps: float | None = Field(None, gt=0)
    on: str = "openvino"
    precision: Literal["int8", "fp16", "fp32"] = "int8"
    min_miou: float | None = Field(None, ge=0, le=100)
    max_miou_drop: float | None = Field(None, gt=0, le=100)
    criterion: Criterion = "fpgm"
    scope: Literal["local", "global", "isomorphic"] = "local"
    iterations: int = Field(0, ge=0, le=100)
    images: int = Field(16, ge=1)
    round_to: int | Literal["auto"] = "auto"
    leave_out: tuple[str, ...] = ()
    graph_seconds: float = Field(60.0, gt=0)
    spare: Path | None = None
    spare_drop: float = Field(2.0, gt=0)
    recovery: RecoverySettings = RecoverySettings()
    sparse: SparseSettings = SparseSettings()

    @field_validator("round_to", mode="before")
    @classmethod
    def _whole_step(cls, step: object) -> object:
        if step != "auto" and (not isinstance(step, int) or isinstance(step, bool) or step < 1):
            raise ValueError('give a whole number from 1 on, or "auto"')
        return step

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        given = [name for name in BUDGETS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"the budget is given twice, as {given[0]} and as {given[1]}; give one")
        return self

    @property
    def budget(self) -> tuple[str, float]:
        """Which budget was asked for, a name of :data:`BUDGETS`, and how much."""
        for name in BUDGETS:
            if (value := getattr(self, name)) is not None:
                return name, float(value)
        return DEFAULT_BUDGET

    @property
    def width_step(self) -> int:
        """Widths are multiples of this."""
        if self.round_to != "auto":
            return self.round_to
        return 32 if self.on.startswith("tensorrt") and self.target_fps and self.precision == "int8" else 8


class AKDSettings(Section):
    """Weights of angle knowledge distillation's three readings; see :mod:`edpct.distillation.akd`.

    Attributes:
        tokens: positions kept per image for the relation mode's triplets (its cost grows with the cube).
    """

    pixel: float = Field(1.0, ge=0)
    relation: float = Field(1.0, ge=0)
    prototype: float = Field(1.0, ge=0)
    tokens: int = Field(64, ge=3, le=256)


class DistilSettings(OptimiseSettings):
    """Distillation: the loop of :class:`OptimiseSettings`, AKD, and KL on logits beside it.

    Attributes:
        kl: weight of the Kullback-Leibler divergence of the logits (Hinton et al. 2015).
        temperature: softens both distributions of that divergence.
    """

    akd: AKDSettings = AKDSettings()
    kl: float = Field(1.0, ge=0)
    temperature: float = Field(2.0, gt=0)


class ExportSettings(Section):
    """torch to ONNX.

    Attributes:
        size: input height and width in pixels; the checkpoint's own where it is not given.
        opset: ONNX opset, 18 or later (the exporter cannot lower Pad to 17).
        simplify: run onnxsim, in a process of its own.
        tolerance: largest |ONNX - torch| of the logits, relative to their range.
        open_batch: leave the batch axis open, so that ``edpct bench --batch`` can sweep it.
    """

    size: tuple[int, int] | None = None
    opset: int = Field(18, ge=18, le=23)
    simplify: bool = True
    tolerance: float = Field(1e-3, gt=0)
    open_batch: bool = False


class QuantiseSettings(Section):
    """FP16 and INT8.

    Attributes:
        calibration_images: windows of training images shown to the INT8 calibration.
    """

    calibration_images: int = Field(64, ge=1)


class BuildSettings(Section):
    """TensorRT plans. ``auto`` takes TensorRT, else TensorRT for RTX, else builds nothing and says so."""

    target: Literal["auto", "tensorrt", "rtx", "none"] = "auto"


class BenchSettings(Section):
    """Measuring.

    Attributes:
        runtimes: what ``edpct compress`` measures on.
        seconds: least time spent timing each engine in each scope, over all its turns.
        runs: least number of inferences timed in each scope, over all turns.
        rounds: how often the engines take turns.
        warm_up: seconds that an engine may take to reach a steady rate.
        threads: CPU threads per engine; 0: all cores.
        batch: images an inference; several give a sweep.
        streams: 1: latency only; more: also the throughput with that many requests in flight.
        cuda_graph: launch TensorRT engines as one CUDA graph; ``both`` measures each way.
    """

    runtimes: tuple[Literal["openvino", "onnxruntime"], ...] = Field(("openvino", "onnxruntime"), min_length=1)
    seconds: float = Field(3.0, gt=0)
    runs: int = Field(24, ge=1)
    rounds: int = Field(6, ge=1)
    warm_up: float = Field(10.0, gt=0)
    threads: int = Field(0, ge=0)
    batch: tuple[Annotated[int, Field(ge=1)], ...] = Field((1,), min_length=1)
    streams: int = Field(1, ge=1)
    cuda_graph: Literal["on", "off", "both"] = "on"


class TrainRecipe(Section):
    """What ``edpct train`` is asked to do."""

    seed: int = Field(0, ge=0)
    preset: Literal["tiny", "small", "base"] = "small"
    train: TeachSettings = TeachSettings()


class CompressRecipe(Section):
    """What ``edpct compress`` is asked to do: one section per stage."""

    seed: int = Field(0, ge=0)
    prune: PruneSettings = PruneSettings()
    distil: DistilSettings = DistilSettings()
    export: ExportSettings = ExportSettings()
    quantise: QuantiseSettings = QuantiseSettings()
    build: BuildSettings = BuildSettings()
    bench: BenchSettings = BenchSettings()
