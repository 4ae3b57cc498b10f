"""What only a GPU can show, in one command: plans built, loaded, compared, scored, and timed beside the alternatives.

    python benchmarks/gpu_check.py --run runs/dubai/run [--data DIR] [--work runs/gpu] [--out benchmarks/results/gpu]

RUN is a run folder of ``edpct compress``. The steps:

1. graphs: FP32, FP16 and INT8 ONNX files of teacher and student (the teacher's FP16 and INT8 are made here);
2. plans: every graph with every TensorRT that is installed;
3. parity: logits of every plan, and of ONNX Runtime on the GPU, against the FP32 graph on ONNX Runtime's CPU provider;
4. bench: mIoU and latency in turns: plans with and without CUDA graph, ONNX Runtime's CUDA provider, torch eager and
   torch.compile, one process each.

Writes one JSON file named after the GPU: the report of ``edpct bench`` with parity, GPU and failures beside it. A step
that fails is noted and the others go on; the exit code is then 1. ``--without-gpu`` does all that needs no GPU, with
the CPU's runtimes in place of the GPU's: that is how this file is tested, and its result is named ``cpu``.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edpct.bench.measure import bench
from edpct.bench.report.claim import headline
from edpct.bench.report.make import load_average, make_report
from edpct.bench.report.tables import markdown_table, scopes_table_of, table_of
from edpct.bench.requests import Request, find_dataset
from edpct.cli.screen import screen
from edpct.data.layouts import open_dataset
from edpct.data.samples import Dataset
from edpct.data.sampling import sample_windows
from edpct.errors import EdpctError, EngineError
from edpct.export.build import build_plan
from edpct.export.fp16 import convert_fp16
from edpct.export.int8 import quantise_int8
from edpct.export.parity import Parity, compare_logits, infer
from edpct.export.targets import TARGETS
from edpct.progress import Progress
from edpct.recipe import BenchSettings
from edpct.runtimes.artefact import card_of
from edpct.runtimes.gpu import probe_gpu
from edpct.runtimes.session import Options
from edpct.runtimes.table import open_session

PRECISIONS = ("fp32", "fp16", "int8")
PARITY_IMAGES, CALIBRATION_IMAGES = 8, 64


@dataclass
class Check:
    """One run of this script: where things lie, and what has gone wrong so far."""

    run: Path
    work: Path
    device: str
    dataset: Dataset | None
    progress: Progress
    failures: list[dict[str, str]] = field(default_factory=list)

    def attempt(self, step: str, work: Callable[[], Any]) -> Any:
        """The result of a step; None, and its reason noted, where it fails."""
        try:
            return work()
        except EdpctError as error:
            self.failures.append({"step": step, "reason": str(error)})
            self.progress.say(f"Failed: {step}: {error}")
            return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--work", type=Path, default=Path("runs/gpu"), help="graphs and plans made here, and reused")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gpu"))
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--without-gpu", action="store_true")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out, which takes minutes")
    asked = parser.parse_args()
    settings = BenchSettings(seconds=asked.seconds, rounds=asked.rounds)
    try:
        return check(asked, settings, screen())
    except EdpctError as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return 2


def check(asked: argparse.Namespace, settings: BenchSettings, progress: Progress) -> int:
    """All steps; 0 if every one of them succeeded."""
    gpu = probe_gpu()
    if not gpu.available and not asked.without_gpu:
        raise EngineError(
            f"This machine has no NVIDIA GPU ({gpu.reason}).", "Run it on one that has, or with --without-gpu."
        )
    for name in ("teacher.onnx", "student.onnx"):
        card_of(asked.run / name)  # refuses a folder that is no run
    given = open_dataset(asked.data) if asked.data is not None else None
    dataset = find_dataset([card_of(asked.run / "teacher.onnx")], given, progress)
    for folder in (asked.work, asked.out):
        folder.mkdir(parents=True, exist_ok=True)
    job = Check(asked.run, asked.work, "cpu" if asked.without_gpu else "cuda", dataset, progress)
    graphs = make_graphs(job)
    plans = build_plans(job, graphs)
    requests = rows(job, graphs, plans, compiled=not asked.no_compile)
    parity = compare_all(job, graphs, requests)
    load, journal = load_average(), asked.work / "journal.jsonl"
    measured = bench(requests, dataset, settings, progress, journal)
    report = make_report(measured, dataset, settings, load, reference="teacher fp32")
    record = {"gpu": asdict(gpu), "parity": parity, "failures": job.failures, "report": report.model_dump(mode="json")}
    name = "cpu" if asked.without_gpu else re.sub(r"[^A-Za-z0-9]+", "-", gpu.devices[0].name).strip("-").lower()
    target = asked.out / f"{name}.json"
    target.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    journal.unlink()
    for table in (table_of(report), scopes_table_of(report), parity_table(parity)):
        print(markdown_table(*table) + "\n")
    print(f"{headline(report)}\n\nWrote {target}.")
    return 1 if job.failures or report.failures else 0


def make_graphs(job: Check) -> dict[str, Path]:
    """Step 1: ``teacher fp32``, ``teacher fp16``, ... to ONNX files."""
    graphs: dict[str, Path] = {}
    for network in ("teacher", "student"):
        source = job.run / f"{network}.onnx"
        graphs[f"{network} fp32"] = source
        for precision in PRECISIONS[1:]:
            made = job.attempt(f"{network} {precision}", partial(_graph, job, source, precision))
            if made is not None:
                graphs[f"{network} {precision}"] = made
    return graphs


def _graph(job: Check, source: Path, precision: str) -> Path:
    """The graph that the run has, or one made in the work folder."""
    name = f"{source.stem}-{precision}.onnx"
    if (job.run / name).is_file():
        return job.run / name
    target, card = job.work / name, card_of(source)
    if target.is_file():
        return target
    if precision == "fp16":
        convert_fp16(source, target, card)
        return target
    if job.dataset is None:
        raise EngineError("INT8 calibration needs images.", "Give them with --data DIR.")
    size = card.task.preprocessing
    images = sample_windows(job.dataset, "train", CALIBRATION_IMAGES, size.height, size.width, seed=0)
    quantise_int8(source, target, card, images)
    return target


def build_plans(job: Check, graphs: dict[str, Path]) -> dict[tuple[str, str], Path]:
    """Step 2: (name, runtime) to plan, for every TensorRT that is installed and can build here."""
    plans: dict[tuple[str, str], Path] = {}
    for target, row in TARGETS.items():
        if not row.installed or row.preset or (row.needs_gpu and job.device == "cpu"):
            continue
        for name, graph in graphs.items():
            plan = job.work / f"{name.replace(' ', '-')}-{target}.plan"
            step = f"plan of {name} by {row.builder}"
            if job.attempt(step, partial(build_plan, graph, plan, target, job.progress)) is not None:
                plans[name, row.builder] = plan
    return plans


def rows(job: Check, graphs: dict[str, Path], plans: dict[tuple[str, str], Path], compiled: bool) -> list[Request]:
    """Step 4's rows: plans (on a GPU), ONNX Runtime and torch on the device."""
    found: list[Request] = []
    if job.device == "cuda":
        found += [
            Request(name, plan, runtime, options=Options(cuda_graph=graph))
            for (name, runtime), plan in plans.items()
            for graph in (False, True)
        ]
    found += [Request(name, graph, "onnxruntime", job.device) for name, graph in graphs.items()]
    ways = ("torch", "torch-compile") if compiled else ("torch",)
    for network, checkpoint in checkpoints(job.run).items():
        found += [Request(f"{network} fp32", checkpoint, name, job.device) for name in ways]
    return found


def checkpoints(run: Path) -> dict[str, Path]:
    """The weights that a run folder holds: the teacher's in its stage, the student's at the top."""
    teachers = sorted((run / "stages").glob("teacher-*/weights.safetensors"), key=lambda path: path.stat().st_mtime)
    found = {"teacher": teachers[-1]} if teachers else {}
    return {**found, "student": run / "student.safetensors"}


def compare_all(job: Check, graphs: dict[str, Path], requests: Sequence[Request]) -> list[dict[str, Any]]:
    """Step 3: every row but torch's against the FP32 graph of its network on ONNX Runtime's CPU provider."""
    compared = []
    for request in requests:
        if request.runtime.startswith("torch"):
            continue
        reference = graphs[f"{request.name.split()[0]} fp32"]
        label = f"{request.name} on {request.runtime}{', CUDA graph' if request.options.cuda_graph else ''}"
        found = job.attempt(f"parity of {label}", partial(parity, job, request, reference))
        if found is not None:
            compared.append({"row": label, **asdict(found)})
    return compared


def parity(job: Check, request: Request, reference: Path) -> Parity:
    """One row against the FP32 graph."""
    task = card_of(request.path).task
    size = task.preprocessing
    feeds = [size.apply(image) for image in _images(job, size.height, size.width)]
    with (
        open_session(reference, "onnxruntime") as theirs,
        open_session(request.path, request.runtime, device=request.device, options=request.options) as ours,
    ):
        return compare_logits(infer(theirs), infer(ours), feeds, task)


def _images(job: Check, height: int, width: int) -> list[Any]:
    if job.dataset is not None:
        return sample_windows(job.dataset, "val", PARITY_IMAGES, height, width, seed=0)
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(PARITY_IMAGES)]


def parity_table(parity: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and cells."""
    header = ["parity with FP32 on the CPU", "largest difference, % of the logits' range", "same class, % of pixels"]
    return header, [[row["row"], f"{100 * row['largest']:.3f}", f"{100 * row['agreement']:.2f}"] for row in parity]


if __name__ == "__main__":
    sys.exit(main())
