"""The other programs of :mod:`agreement`: OpenVINO's benchmark_app and a bare ONNX Runtime loop."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edpct.errors import EngineError
from edpct.task import Task

PATIENCE = 600.0  # seconds
# Knows nothing of edpct. Arguments: engine, threads, seconds of warm-up, seconds, folder of frames.
BARE_LOOP = """\
import glob, json, sys, time
import numpy, onnxruntime
engine, threads, warm, seconds, folder = sys.argv[1], *map(float, sys.argv[2:5]), sys.argv[5]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(threads)
session = onnxruntime.InferenceSession(engine, options, providers=["CPUExecutionProvider"])
name = session.get_inputs()[0].name
frames = [{name: numpy.load(file)} for file in sorted(glob.glob(folder + "/*.npy"))]
runs, begin = [], time.perf_counter()
while time.perf_counter() - begin < warm + seconds or len(runs) < 5:
    start = time.perf_counter()
    session.run(None, frames[len(runs) % len(frames)])
    runs.append((start - begin, time.perf_counter() - start))
print(json.dumps([1000 * took for at, took in runs if at >= warm] or [1000 * runs[-1][1]]))
"""
BARE_WARM_UP = 1.0


@dataclass(frozen=True)
class Setup:
    """One engine, and what both sides are given."""

    name: str
    engine: Path
    task: Task
    threads: int
    seconds: float
    images: tuple[bytes, ...]
    frames: Path


def find_benchmark_app() -> str:
    """OpenVINO's benchmark_app, which pip puts beside the interpreter.

    Raises:
        EngineError: it is not there.
    """
    found = shutil.which("benchmark_app", path=str(Path(sys.executable).parent)) or shutil.which("benchmark_app")
    if found is None:
        raise EngineError("There is no benchmark_app beside this Python.", "Install it with: pip install openvino")
    return found


def benchmark_app(setup: Setup) -> tuple[float, dict[str, str]]:
    """Median latency of OpenVINO's own program, and the settings that it read back."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            find_benchmark_app(), "-m", str(setup.engine), "-d", "CPU", "-api", "sync", "-hint", "none",
            "-nstreams", "1", "-nthreads", str(setup.threads), "-infer_precision", "f32", "-ip", "f32",
            "-layout", "[NCHW]", "-inference_only", "false", "-i", str(setup.frames),
            "-t", str(math.ceil(setup.seconds)), "-report_type", "no_counters", "-json_stats", "true",
            "-report_folder", folder,
        ]  # fmt: skip
        log = _output(command, "benchmark_app")
        return parse_benchmark_app(json.loads((Path(folder) / "benchmark_report.json").read_text()), log)


def parse_benchmark_app(report: dict[str, Any], log: str) -> tuple[float, dict[str, str]]:
    """Median in milliseconds from its report, settings from its log, named as edpct's sessions name them.

    Raises:
        EngineError: it did not get as far.
    """
    results = report.get("execution_results", {})
    if "latency (ms)" not in results:
        raise EngineError(f"benchmark_app reports no latency: {results.get('error', 'no reason given')}.")
    if "random values" in log:
        raise EngineError("benchmark_app did not take the frames that it was given.")
    said = dict(re.findall(r"\]\s+([A-Z_]+): (.+)", log))
    precision = re.sub(r"<Type: 'float(\d+)'>", r"f\1", said.get("INFERENCE_PRECISION_HINT", "unknown"))
    settings = {
        "precision": precision,
        "threads": said.get("INFERENCE_NUM_THREADS", "unknown"),
        "streams": said.get("NUM_STREAMS", "unknown"),
        "pinning": said.get("ENABLE_CPU_PINNING", "unknown"),
    }
    return float(results["latency (ms)"]), settings


def bare_loop(setup: Setup) -> tuple[float, dict[str, str]]:
    """Median of a bare ONNX Runtime loop."""
    numbers = (setup.threads, BARE_WARM_UP, setup.seconds)
    command = [sys.executable, "-c", BARE_LOOP, str(setup.engine), *map(str, numbers), str(setup.frames)]
    return parse_bare_loop(_output(command, "The bare loop")), {"threads": str(setup.threads)}


def parse_bare_loop(output: str) -> float:
    """The median of the times that it printed as its last line."""
    return float(np.median(json.loads(output.strip().splitlines()[-1])))


def _output(command: Sequence[str], title: str) -> str:
    """What a program printed; its errors become ours."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"{title} did not end within {PATIENCE:.0f} seconds.") from error
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise EngineError(f"{title} failed with exit code {done.returncode}: {last}")
    return done.stdout
