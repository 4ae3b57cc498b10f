"""A report made of what was measured: machine, versions, command and date beside the rows."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

from edpct import __version__
from edpct.bench.measure import Measured
from edpct.bench.report.schema import DataReport, MachineReport, Report, RowReport
from edpct.bench.scoring import Scores, difference_interval
from edpct.data.samples import Dataset
from edpct.errors import DataError
from edpct.recipe import BenchSettings
from edpct.runtimes.gpu import probe_gpu
from edpct.runtimes.inventory import cpu_cores, cpu_name, memory_bytes

VERSIONED = (
    "numpy", "torch", "torch-pruning", "onnx", "onnxruntime", "onnxruntime-gpu", "openvino", "nncf", "tensorrt-rtx",
    "tensorrt", "pycuda",
)  # fmt: skip
_FINENESS = ("fp32", "fp16", "int8")


def make_report(
    measured: Measured, dataset: Dataset | None, settings: BenchSettings, load: float | None, **more: Any
) -> Report:
    """The report of a bench.

    Args:
        load: the load average before it began, see :func:`load_average`.
        more: further fields of the report (seed, reference, pictures, failures seen earlier).
    """
    earlier = tuple(more.pop("failures", ()))
    fields = {"command": command(), **more}
    reference = fields.pop("reference", None) or reference_of(measured.rows)
    return Report(
        date=date.today().isoformat(),
        machine=machine_report(load),
        versions=versions(),
        settings=settings.model_dump(mode="json"),
        data=data_report(dataset) if dataset is not None else None,
        sittings=measured.sittings,
        reference=reference,
        rows=_compared(measured, reference),
        failures=(*earlier, *measured.failures),
        **fields,
    )


def _compared(measured: Measured, reference: str) -> tuple[RowReport, ...]:
    """The rows, each accuracy with its interval of the difference to the reference engine's on the same runtime."""
    pairs = list(zip(measured.rows, measured.scores, strict=True))
    theirs = {row.runtime: scores for row, scores in reversed(pairs) if row.name == reference and scores is not None}
    return tuple(_with_difference(row, scores, reference, theirs) for row, scores in pairs)


def _with_difference(row: RowReport, scores: Scores | None, reference: str, theirs: dict[str, Scores]) -> RowReport:
    if row.accuracy is None or scores is None or row.name == reference or not theirs:
        return row
    other = theirs.get(row.runtime) or next(iter(theirs.values()))
    try:
        difference = difference_interval(scores, other)
    except DataError:  # cut into windows of another size, so that not the same pixels were counted
        return row
    return row.model_copy(update={"accuracy": row.accuracy.model_copy(update={"difference": difference})})


def reference_of(rows: Sequence[RowReport]) -> str:
    """The engine that the others are compared with: the heaviest, in the finest precision; the first of equals."""
    return min(rows, key=lambda row: (-row.macs, _FINENESS.index(row.precision))).name


def data_report(dataset: Dataset) -> DataReport:
    """What the accuracy was measured on."""
    return DataReport(
        name=dataset.root.name,
        layout=dataset.layout,
        split="val",
        images=len(dataset.split("val")),
        classes=dataset.task.names,
        colours=tuple(info.colour for info in dataset.task.classes),
    )


def machine_report(load: float | None = None) -> MachineReport:
    """Processor, memory, system and GPU."""
    gpu = probe_gpu()
    return MachineReport(
        cpu=cpu_name(),
        cores=cpu_cores(),
        memory_bytes=memory_bytes(),
        system=platform.platform(),
        gpu=", ".join(device.name for device in gpu.devices) or None,
        load=load,
    )


def versions() -> dict[str, str]:
    """The versions that matter, of what is installed."""
    found = {}
    for name in VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {"edpct": __version__, "python": platform.python_version(), **found}


def machine() -> dict[str, Any]:
    """Date, machine and versions as plain JSON values, for records of other kinds."""
    return {
        "date": date.today().isoformat(),
        "machine": machine_report().model_dump(mode="json", exclude_none=True),
        "versions": versions(),
    }


def load_average() -> float | None:
    """Processes that wanted to run, on average over the last minute; None where the system does not count."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def command() -> str:
    """The command that is running, to be repeated."""
    return shlex.join([Path(sys.argv[0]).stem.replace("__main__", "edpct"), *sys.argv[1:]])
