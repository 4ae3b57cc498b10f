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
from typing import Any, Protocol

import numpy as np

from edpct.errors import EngineError
from edpct.task import Task

PATIENCE = 600.0  # seconds
SETTLE = 0.2  # seconds before each turn that are not counted, as edpct has them
# Knows nothing of edpct. Arguments: engine, threads, seconds of warm-up, folder of frames. A line "settle seconds" on
# its input is a turn, and one line of times in milliseconds the answer.
BARE_LOOP = """\
import glob, json, sys, time
import numpy, onnxruntime
engine, threads, warm, folder = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = threads
session = onnxruntime.InferenceSession(engine, options, providers=["CPUExecutionProvider"])
name = session.get_inputs()[0].name
frames = [{name: numpy.load(file)} for file in sorted(glob.glob(folder + "/*.npy"))]
def loop(seconds, least):
    times, begin = [], time.perf_counter()
    while time.perf_counter() - begin < seconds or len(times) < least:
        start = time.perf_counter()
        session.run(None, frames[len(times) % len(frames)])
        times.append(1000 * (time.perf_counter() - start))
    return times
loop(warm, 1)
for line in sys.stdin:
    settle, seconds = map(float, line.split())
    loop(settle, 1)
    print(json.dumps(loop(seconds, 5)), flush=True)
"""
BARE_WARM_UP = 1.0


@dataclass(frozen=True)
class Setup:
    """One engine, and what both sides are given."""

    name: str
    engine: Path
    task: Task
    threads: int
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


class Program(Protocol):
    """The other program while a round lasts; leaving its ``with`` block ends it."""

    def turn(self, seconds: float) -> float:
        """Median latency of one turn, in milliseconds."""
        ...

    @property
    def settings(self) -> dict[str, str]:
        """What it says about threads, precision and the like, named as edpct's sessions name them."""
        ...

    def __enter__(self) -> Program: ...

    def __exit__(self, *error: object) -> None: ...


class BenchmarkApp:
    """OpenVINO's own program: a process of its own for every turn, since it takes no orders."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self.settings: dict[str, str] = {}

    def turn(self, seconds: float) -> float:
        setup = self._setup
        with tempfile.TemporaryDirectory() as folder:
            command = [
                find_benchmark_app(), "-m", str(setup.engine), "-d", "CPU", "-api", "sync", "-hint", "none",
                "-nstreams", "1", "-nthreads", str(setup.threads), "-infer_precision", "f32", "-ip", "f32",
                "-layout", "[NCHW]", "-inference_only", "false", "-i", str(setup.frames),
                "-t", str(math.ceil(seconds)), "-report_type", "no_counters", "-json_stats", "true",
                "-report_folder", folder,
            ]  # fmt: skip
            log = _output(command, "benchmark_app")
            report = json.loads((Path(folder) / "benchmark_report.json").read_text())
        median, self.settings = parse_benchmark_app(report, log)
        return median

    def __enter__(self) -> BenchmarkApp:
        return self

    def __exit__(self, *error: object) -> None:
        pass


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


class BareLoop:
    """A bare ONNX Runtime loop: one process for all turns of a round, idle in between."""

    def __init__(self, setup: Setup) -> None:
        self.settings = {"threads": str(setup.threads)}
        numbers = (str(setup.threads), str(BARE_WARM_UP))
        self._process = subprocess.Popen(
            [sys.executable, "-c", BARE_LOOP, str(setup.engine), *numbers, str(setup.frames)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def turn(self, seconds: float) -> float:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(f"{SETTLE} {seconds}\n")
            self._process.stdin.flush()
            return parse_bare_loop(self._process.stdout.readline())
        except (OSError, IndexError, ValueError) as error:
            raise EngineError(f"The bare loop failed with exit code {self._process.wait()}.") from error

    def __enter__(self) -> BareLoop:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()


def parse_bare_loop(output: str) -> float:
    """The median of the times that it printed as its last line; IndexError or ValueError where there are none."""
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
