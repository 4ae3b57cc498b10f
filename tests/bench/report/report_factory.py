"""Reports for the tests of tables, page and comparison: small, and with numbers that can be checked by hand."""

from __future__ import annotations

from typing import Any

from edpct.bench.report.schema import (
    AccuracyReport,
    DataReport,
    LatencyReport,
    MachineReport,
    MemoryReport,
    Report,
    RowReport,
    StateReport,
    WarmUpReport,
)


def make_latency(p50: float = 10.0, batch: int = 1, **more: Any) -> LatencyReport:
    """Latency with a 95 % interval of 1 % to both sides, four equal turns, and a tail that ends at twice the median."""
    values: dict[str, Any] = {
        "p50": p50,
        "p90": 1.2 * p50,
        "p95": 1.4 * p50,
        "p99": 1.8 * p50,
        "interval": (0.99 * p50, 1.01 * p50),
        "runs": 200,
        "rounds": (p50,) * 4,
        "quantiles": tuple(p50 * (0.9 + 0.002 * i) if i <= 50 else p50 * (1 + 0.02 * (i - 50)) for i in range(101)),
        "fps": batch * 1000 / p50,
    }
    return LatencyReport(**{**values, **more})


def make_accuracy(iou: dict[str, float | None], **more: Any) -> AccuracyReport:
    """Accuracy with these IoU, an interval of 2 points to both sides, and boundary IoU of half the IoU."""
    seen = [value for value in iou.values() if value is not None]
    miou = sum(seen) / max(len(seen), 1)
    values: dict[str, Any] = {
        "miou": miou,
        "interval": (miou - 0.02, miou + 0.02),
        "iou": iou,
        "f1": {name: None if value is None else 2 * value / (1 + value) for name, value in iou.items()},
        "boundary_miou": miou / 2,
        "boundary_iou": {name: None if value is None else value / 2 for name, value in iou.items()},
        "overall": 0.8,
        "pixels": 1000,
        "images": 3,
    }
    return AccuracyReport(**{**values, **more})


def make_row(name: str = "teacher", runtime: str = "openvino", p50: float = 10.0, **more: Any) -> RowReport:
    """A row with the scope "transfer" and a quiet machine that says that it was not throttled."""
    values: dict[str, Any] = {
        "name": name,
        "file": f"{name}.onnx",
        "sha256": "0" * 64,
        "network": "DP-CTNet tiny",
        "precision": "fp32",
        "input": (512, 512),
        "parameters": 2_000_000,
        "macs": 4_000_000_000,
        "file_bytes": 8_000_000,
        "runtime": runtime,
        "device": "cpu",
        "details": {"version": "1", "threads": "2"},
        "open_seconds": 0.5,
        "warm_up": WarmUpReport(seconds=1.0, runs=100, steady=True),
        "latency": {"transfer": make_latency(p50, batch=more.get("batch", 1))},
        "memory": MemoryReport(before=50_000_000, peak=150_000_000),
        "state": StateReport(throttled="no"),
    }
    return RowReport(**{**values, **more})


def make_report(*rows: RowReport, **more: Any) -> Report:
    """A report of these rows, or of one."""
    found = rows or (make_row(),)
    values: dict[str, Any] = {
        "date": "2026-01-02",
        "command": "edpct bench --engine teacher.onnx",
        "machine": MachineReport(cpu="A CPU", cores=4, memory_bytes=8 * 2**30, system="Linux", load=0.1),
        "versions": {"edpct": "0.2.0", "numpy": "2.0"},
        "settings": {"seconds": 6.0, "rounds": 4},
        "reference": found[0].name,
        "rows": found,
    }
    return Report(**{**values, **more})


def make_pair(**more: Any) -> Report:
    """A teacher and an INT8 student: a quarter of the MACs, 4 times as fast, a class that lost 10 points."""
    teacher = make_row(accuracy=make_accuracy({"land": 0.6, "water": 0.8}))
    student = make_row(
        "INT8",
        p50=2.5,
        precision="int8",
        macs=1_000_000_000,
        file_bytes=2_000_000,
        accuracy=make_accuracy({"land": 0.64, "water": 0.7}),
    )
    return make_report(teacher, student, **more)


def make_data(*classes: str) -> DataReport:
    """Data with these classes."""
    colours = tuple((40 * i, 100, 200) for i in range(len(classes)))
    return DataReport(name="fields", layout="folder", split="val", images=3, classes=classes, colours=colours)
