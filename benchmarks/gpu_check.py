"""What only a GPU can show, in one command: plans built, loaded, timed and scored beside torch and ONNX Runtime.

    python benchmarks/gpu_check.py --run runs/dubai/run [--data DIR] [--out benchmarks/results/gpu]

RUN is a run folder of ``edpct compress``. For every TensorRT that is installed, the plans of teacher and student are
built anew on this machine, then measured in turns with the ONNX files on ONNX Runtime's CUDA provider (where it has
one) and the student's checkpoint on torch. Writes one JSON file named after the GPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edpct.bench.engines import Request, bench, card_of, find_dataset
from edpct.bench.report import markdown_table, report_data, table_of
from edpct.cli.screen import screen
from edpct.data.layouts import open_dataset
from edpct.errors import EdpctError, EngineError
from edpct.export.build import BUILDERS, build_plan
from edpct.progress import Progress
from edpct.recipe import BenchSettings
from edpct.runtimes.gpu import probe_gpu
from edpct.runtimes.table import open_session

GRAPHS = ("teacher.onnx", "student.onnx", "student-fp16.onnx", "student-int8.onnx")
TORCH_ROWS = ("student.safetensors",)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gpu"))
    asked = parser.parse_args()
    try:
        return check(asked.run, asked.data, asked.out, screen())
    except EdpctError as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return 2


def check(run: Path, data: Path | None, out: Path, progress: Progress) -> int:
    """Build, measure, write; exit code 0 if every row that was tried could be measured."""
    gpu = probe_gpu()
    if not gpu.available:
        raise EngineError(f"This machine has no NVIDIA GPU ({gpu.reason}).", "Run it on one that has.")
    out.mkdir(parents=True, exist_ok=True)
    requests, failures = usable(plan_requests(run, out, progress) + other_requests(run))
    given = open_dataset(data) if data is not None else None
    dataset = find_dataset([card_of(request.path) for request in requests], given, progress)
    settings = BenchSettings(seconds=10.0, rounds=5)
    rows = bench(requests, dataset, settings, progress)
    name = re.sub(r"[^A-Za-z0-9]+", "-", gpu.devices[0].name).strip("-").lower()
    record = report_data(rows, gpu=asdict(gpu), failures=failures, command=" ".join(["python", *sys.argv]))
    (out / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(markdown_table(*table_of(record)))
    for failure in failures:
        print(f"failed: {failure['row']}: {failure['reason']}", file=sys.stderr)
    return 1 if failures else 0


def plan_requests(run: Path, out: Path, progress: Progress) -> list[Request]:
    """Build every graph with every TensorRT that is installed; a row for each plan."""
    requests = []
    for target, row in BUILDERS.items():
        if importlib.util.find_spec(row.module) is None:
            continue
        for name in GRAPHS:
            plan = out / f"{Path(name).stem}-{target}.plan"
            build_plan(run / name, plan, target, progress)
            requests.append(Request(f"{Path(name).stem} plan", plan, row.name, accuracy=True))
    return requests


def other_requests(run: Path) -> list[Request]:
    """The same networks on ONNX Runtime's CUDA provider and on torch."""
    onnx = [Request(Path(name).stem, run / name, "onnxruntime", accuracy=True, device="cuda") for name in GRAPHS]
    torch = [
        Request(f"{Path(name).stem} torch", run / name, "torch", accuracy=True, device="cuda") for name in TORCH_ROWS
    ]
    return onnx + torch


def usable(requests: list[Request]) -> tuple[list[Request], list[dict[str, Any]]]:
    """The rows whose engine opens, and why the others do not."""
    good: list[Request] = []
    bad: list[dict[str, Any]] = []
    for request in requests:
        try:
            open_session(request.path, request.runtime, device=request.device).close()
            good.append(request)
        except EdpctError as error:
            bad.append({"row": request.name, "runtime": request.runtime, "reason": str(error)})
    if not good:
        raise EngineError("No engine of the run opens on this GPU.", "See: edpct doctor")
    return good, bad


if __name__ == "__main__":
    sys.exit(main())
