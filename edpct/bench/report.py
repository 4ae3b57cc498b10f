"""The table of a bench: as data, as JSON, as Markdown."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from importlib import metadata
from typing import Any

from edpct import __version__
from edpct.bench.engines import Row
from edpct.runtimes.inventory import cpu_cores, cpu_name

SCHEMA = 1
UNSTEADY = 1.3  # slowest over fastest turn of one engine, above which the reader is told
VERSIONED = (
    "numpy",
    "torch",
    "torch-pruning",
    "onnx",
    "onnxruntime",
    "openvino",
    "nncf",
    "tensorrt-rtx",
    "tensorrt",
)


def report_data(rows: Sequence[Row], **more: Any) -> dict[str, Any]:
    """Everything that was measured, with machine, versions and date, as plain JSON values.

    Args:
        more: further top-level entries (stages, seed).
    """
    return {"schema": SCHEMA, **machine(), **more, "rows": [_row(row) for row in rows]}


def machine() -> dict[str, Any]:
    """Date, processor, system and the versions that matter."""
    versions = {}
    for name in VERSIONED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "date": date.today().isoformat(),
        "machine": {"cpu": cpu_name(), "cores": cpu_cores(), "system": platform.platform()},
        "versions": {"edpct": __version__, "python": platform.python_version(), **versions},
    }


def _row(row: Row) -> dict[str, Any]:
    score = row.accuracy
    names = row.card.task.names
    return {
        "name": row.name,
        "file": row.path.name,
        "network": row.card.network,
        "precision": row.card.precision,
        "input": [row.card.task.preprocessing.height, row.card.task.preprocessing.width],
        "parameters": row.card.parameters,
        "macs": row.card.macs,
        "file_bytes": row.file_bytes,
        "runtime": row.runtime,
        "device": row.device,
        "details": row.details,
        "fps": row.latency.fps,
        "latency_ms": asdict(row.latency),
        "miou": score.miou if score else None,
        "iou": dict(zip(names, score.iou, strict=True)) if score else None,
        "overall_accuracy": score.overall if score else None,
    }


def table_of(report: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the table: a line per engine, a column of FPS per runtime."""
    runtimes = list(dict.fromkeys(row["runtime"] for row in report["rows"]))
    engines: dict[str, list[dict[str, Any]]] = {}
    for row in report["rows"]:
        engines.setdefault(row["name"], []).append(row)
    header = ["", "precision", "M params", "GMACs", "mIoU %"]
    header += [f"FPS {name}" for name in runtimes] + ["p99 ms", "file MB"]
    lines = []
    for name, rows in engines.items():
        first = rows[0]
        miou = next((row["miou"] for row in rows if row["miou"] is not None), None)
        fps = {row["runtime"]: f"{row['fps']:.1f}" for row in rows}
        lines.append(
            [name, first["precision"], f"{first['parameters'] / 1e6:.2f}", f"{first['macs'] / 1e9:.2f}"]
            + ["–" if miou is None else f"{100 * miou:.2f}"]
            + [fps.get(runtime, "–") for runtime in runtimes]
            + [f"{first['latency_ms']['p99']:.1f}", f"{first['file_bytes'] / 1e6:.2f}"]
        )
    return header, lines


def class_table_of(report: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the per-class IoU, in percent; empty where no accuracy was measured."""
    scored = [row for row in report["rows"] if row["iou"] is not None]
    if not scored:
        return [], []
    names = list(scored[0]["iou"])
    lines = [
        [row["name"], *(("–" if row["iou"][c] is None else f"{100 * row['iou'][c]:.1f}") for c in names)]
        for row in scored
    ]
    return ["IoU %", *names], lines


def markdown_table(header: Sequence[str], lines: Sequence[Sequence[str]], numbers: bool = True) -> str:
    """A Markdown table; with ``numbers``, all columns but the first go to the right."""
    rule = ["---"] + ["--:" if numbers else "---"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *lines))


def method_of(report: dict[str, Any]) -> str:
    """What the numbers of the table include, and how steady the machine was."""
    first = report["rows"][0]
    size, runtime = "x".join(map(str, first["input"])), first["runtime"]
    text = (
        f"Batch 1 at {size}. FPS = 1000 / median latency in ms, from normalised image to logits at full size, both in "
        f"host memory; the engines take turns; p99 on {runtime}. mIoU over the val split from one confusion matrix, "
        f"measured on the engine itself by {runtime}. Precision is what the graph stores: on a CPU, FP16 graphs and "
        "what INT8 graphs leave in floating point are computed in FP32."
    )
    drift = max(max(row["latency_ms"]["rounds"]) / min(row["latency_ms"]["rounds"]) for row in report["rows"])
    if drift > UNSTEADY:
        text += (
            f" The machine was not steady: an engine's median changed by up to {drift:.1f} times from turn to turn. "
            "Something else may have been running; compare engines within this table only."
        )
    return text


def machine_line(report: dict[str, Any]) -> str:
    """One line that says where and with what the numbers were measured."""
    host = report["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    details = report["rows"][0]["details"] if report["rows"] else {}
    threads = f", {details['threads']} threads" if "threads" in details else ""
    return f"{report['date']}, {host['cpu']}, {host['cores']} cores{threads}, {host['system']}; {versions}."
