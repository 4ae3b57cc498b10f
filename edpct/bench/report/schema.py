"""What a report holds: the one definition of its JSON, from which the published JSON Schema is made.

After a change, raise :data:`SCHEMA` and write the published schema again::

    python -m edpct.bench.report.schema > edpct/bench/report/report.schema.json

Shares (mIoU, IoU, accuracy) lie in 0..1, latencies are milliseconds, sizes are bytes, temperatures are degrees Celsius.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edpct.errors import RunError

SCHEMA: Literal[2] = 2
Scope = Literal["compute", "transfer", "end_to_end"]
SCOPES: tuple[Scope, ...] = ("compute", "transfer", "end_to_end")
Answer = Literal["yes", "no", "unknown"]


class Part(BaseModel):
    """Base of the report's parts: unknown keys are refused, values do not change."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class LatencyReport(Part):
    """Time of one inference (of a whole batch) in one scope.

    Attributes:
        p50, p90, p95, p99: percentiles over all inferences.
        interval: 95 % confidence interval of the median.
        runs: how many inferences were timed.
        rounds: the median of every turn, in order; their spread shows how steady the machine was.
        quantiles: at 0, 1, ..., 100 percent, for the picture of the distribution.
        phases: medians of the parts (decode, preprocess, infer, argmax); end to end only.
        fps: batch * 1000 / p50.
    """

    p50: float
    p90: float
    p95: float
    p99: float
    interval: tuple[float, float]
    runs: int
    rounds: tuple[float, ...]
    quantiles: tuple[float, ...]
    phases: dict[str, float] = {}
    fps: float


class ThroughputReport(Part):
    """Several requests in flight at once: frames a second over all of them, and the median latency of one request."""

    streams: int
    fps: float
    p50: float
    frames: int
    rounds: tuple[float, ...] = Field(description="frames a second of every turn, in order")


class WarmUpReport(Part):
    """What ran before anything was timed, and whether the rate had settled by then."""

    seconds: float
    runs: int
    steady: bool


class MemoryReport(Part):
    """Memory of the engine's own process: before the engine was opened, and the peak until the end of timing.

    Attributes:
        device: growth of the GPU's used memory by opening and warming up; None on a CPU or where it cannot be read.
    """

    before: int
    peak: int
    device: int | None = None


class AccuracyReport(Part):
    """Accuracy over the whole set, from one confusion matrix; see :mod:`edpct.data.accuracy`.

    Attributes:
        miou: mean of ``iou`` over the classes that occur.
        interval: 95 % interval of the mIoU, images drawn with replacement (bootstrap).
        difference: 95 % interval of this mIoU less the reference's, the same images drawn for both; None for the
            reference itself.
        iou, f1, boundary_iou: by class name; None for a class in neither truth nor prediction.
        boundary_miou: mean of ``boundary_iou`` over the classes that occur.
        overall: pixels that are right over pixels counted.
        pixels, images: how many were counted.
    """

    miou: float
    interval: tuple[float, float]
    difference: tuple[float, float] | None = None
    iou: dict[str, float | None]
    f1: dict[str, float | None]
    boundary_miou: float
    boundary_iou: dict[str, float | None]
    overall: float
    pixels: int
    images: int


class StateReport(Part):
    """Power and state of the machine while a row was timed; what no sensor told is None or "unknown".

    Attributes:
        watts: mean over the timed turns.
        joules_per_frame: energy over the frames timed, in the scope "transfer".
        temperature: highest seen, degrees Celsius.
        clocks: lowest and highest seen, MHz, by name ("cpu", "gpu").
        throttled: whether the machine said that it slowed itself down meanwhile.
        sources: which sensors answered ("RAPL package-0").
        settings: what the machine is set to ("governor": "performance", "nvpmodel": "MAXN").
        notes: sentences about what could not be read, and what to do.
    """

    watts: float | None = None
    joules_per_frame: float | None = None
    temperature: float | None = None
    clocks: dict[str, tuple[float, float]] = {}
    throttled: Answer = "unknown"
    sources: tuple[str, ...] = ()
    settings: dict[str, str] = {}
    notes: tuple[str, ...] = ()


class RowReport(Part):
    """One engine on one runtime with one set of options.

    Attributes:
        details: what the runtime says it did (version, provider, inference precision, threads).
        open_seconds: loading, compiling and, for TensorRT for RTX, building kernels; never part of a latency.
        latency: by scope; a scope that was not asked for is missing.
    """

    name: str
    file: str
    sha256: str
    network: str
    precision: str
    input: tuple[int, int]
    parameters: int
    macs: int
    file_bytes: int
    runtime: str
    device: str
    batch: int = 1
    options: dict[str, int | bool] = {}
    details: dict[str, str]
    open_seconds: float
    warm_up: WarmUpReport
    latency: dict[Scope, LatencyReport]
    throughput: ThroughputReport | None = None
    memory: MemoryReport
    accuracy: AccuracyReport | None = None
    state: StateReport = StateReport()

    @property
    def label(self) -> str:
        """What tells this row from the others of a report."""
        parts = [self.name, f"{self.runtime} {self.device}" if self.device != "cpu" else self.runtime]
        parts += [f"batch {self.batch}"] if self.batch > 1 else []
        parts += ["CUDA graph"] if self.options.get("cuda_graph") else []
        return ", ".join(parts)


class FailureReport(Part):
    """A row that was asked for and could not be measured, and why."""

    name: str
    runtime: str
    reason: str


class MachineReport(Part):
    """Where it was measured; ``load`` is the load average of the minute before."""

    cpu: str
    cores: int
    memory_bytes: int
    system: str
    gpu: str | None = None
    load: float | None = None


class DataReport(Part):
    """What accuracy was measured on and what was fed while timing."""

    name: str
    layout: str
    split: str
    images: int
    classes: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]


class StageReport(Part):
    """One stage of a compression: its time and what it has to say."""

    name: str
    seconds: float
    facts: dict[str, Any] = {}


class Report(Part):
    """Everything that one bench measured.

    Attributes:
        command: the command that made it.
        reference: name of the engine that the others are compared with.
        sittings: 1, or more where the bench was stopped and went on.
        pictures: file name of the sheet of pictures, beside the report.
    """

    schema_version: Literal[2] = SCHEMA
    date: str
    command: str
    machine: MachineReport
    versions: dict[str, str]
    settings: dict[str, Any]
    seed: int = 0
    data: DataReport | None = None
    reference: str
    sittings: int = 1
    rows: tuple[RowReport, ...] = Field(min_length=1)
    failures: tuple[FailureReport, ...] = ()
    stages: tuple[StageReport, ...] = ()
    recipe: dict[str, Any] | None = None
    pictures: str | None = None

    def reference_row(self) -> RowReport:
        """The first row of the reference engine; the first row where it was not measured."""
        return next((row for row in self.rows if row.name == self.reference), self.rows[0])


def report_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a report's JSON."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Report.model_json_schema(mode="serialization"),
        "title": f"edpct report, version {SCHEMA}",
    }


def read_report(path: Path) -> Report:
    """A report from its JSON file.

    Raises:
        RunError: no such file, no JSON, of another version, or not a report.
    """
    try:
        return Report.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"There is no report {path}.", "Write one with: edpct bench … --json FILE") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path} cannot be read: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise RunError(
            f"{path} is no report of this version (schema {SCHEMA}): {where}: {first['msg']}.",
            "Measure again with: edpct bench … --json FILE",
        ) from error


if __name__ == "__main__":
    print(json.dumps(report_schema(), indent=1))  # noqa: T201
