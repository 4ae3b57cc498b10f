"""What a run is asked to do: one validated model; defaults here, TOML over them, command-line flags on top."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from edpct.errors import RecipeError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Precision = Literal["auto", "fp32", "bf16"]


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


class PruneSettings(Section):
    """Structured pruning.

    Attributes:
        macs: share of the teacher's MACs that the student keeps, 0..1.
        round_to: every width is a multiple of this (8 suits FP16 tensor cores and AVX-512).
        importance: criterion by which channels go.
    """

    macs: float = Field(0.1, gt=0, lt=1)
    round_to: int = Field(8, ge=1)
    importance: Literal["l1", "l2"] = "l2"


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


R = TypeVar("R", bound=Section)


def load_recipe(kind: type[R], path: Path | None, flags: dict[str, Any]) -> R:
    """Make a recipe from defaults, a TOML file and flags, the later winning.

    Args:
        kind: the recipe's class.
        path: a TOML file, or None.
        flags: dotted setting to value ("distil.steps": 100); values that are None count as not given.

    Raises:
        RecipeError: no such file, no TOML, an unknown setting, a value out of range.
    """
    values = _read_toml(path) if path is not None else {}
    for dotted, value in flags.items():
        if value is not None:
            _set(values, dotted.split("."), value)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        origin = f"{path}: " if path is not None else ""
        raise RecipeError(
            f"{origin}setting '{where}': {first['msg']}.", "See the settings with: edpct recipe"
        ) from error


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(f"There is no recipe {path}.", "Write one with: edpct recipe > recipe.toml") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path} cannot be read as TOML: {error}.") from error


def _set(values: dict[str, Any], parts: list[str], value: Any) -> None:
    for part in parts[:-1]:
        inner = values.setdefault(part, {})
        if not isinstance(inner, dict):
            return  # no table: validation refuses it by its name
        values = inner
    values[parts[-1]] = value


def recipe_toml(kind: type[Section]) -> str:
    """The defaults of a recipe as TOML text, ready to be edited."""
    lines: list[str] = []
    _write_table(kind().model_dump(mode="json"), "", lines)
    return "\n".join(lines).strip() + "\n"


def _write_table(values: dict[str, Any], prefix: str, lines: list[str]) -> None:
    nested = {key: value for key, value in values.items() if isinstance(value, dict)}
    for key, value in values.items():
        if key not in nested and value is not None:
            lines.append(f"{key} = {_toml_value(value)}")
    for key, value in nested.items():
        name = f"{prefix}{key}"
        lines.extend(["", f"[{name}]"])
        _write_table(value, f"{name}.", lines)


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    return repr(value)
