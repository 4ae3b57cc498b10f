"""The section about pruning."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from edpct.recipe.learning import RecoverySettings, SparseSettings
from edpct.recipe.section import Amount, Section

Criterion = Literal["l1", "l2", "bn-scale", "lamp", "fpgm", "taylor", "hessian", "random"]
BUDGETS = ("macs", "params", "ratio", "target_fps")
DEFAULT_BUDGET = ("macs", 0.1)


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
