r"""Does ``edpct bench`` say what OpenVINO's own benchmark_app and a bare ONNX Runtime loop say of the same file?

    python benchmarks/agreement.py --engine student.onnx [--engine student-int8.onnx] [--rounds 10] [--threads 2]
        [--out benchmarks/results/agreement]

A round is a worker process of edpct (its clock, its warm-up) and the other program, taking short turns: A B, B A, A B,
... Both begin anew in every round, since a process keeps the memory it was given at its start, and that luck of the
draw can be worth some percent; a first round is run and not counted. The same frames as ``.npy``, the same number of
threads, one stream, float32 for what is not quantised; what OpenVINO says it did is read back and compared.

What is compared with what:

- OpenVINO: benchmark_app (``-api sync``) times the inference alone, inside the binding. That is edpct's scope
  ``compute``, whose clock is read in Python: some tens of microseconds more. Both hand the next frame over by reference
  before the clock starts (``-inference_only false``; left alone, benchmark_app would infer one frame again and again,
  and as uint8 without ``-ip f32``). benchmark_app warms up with one inference only: medians are compared, not means.
- ONNX Runtime: the loop times ``session.run``, from an array in host memory to a new array in host memory. That is
  edpct's scope ``transfer``.

The ratio of a round is the median over its turns of edpct's median over the other's beside it, so that what slows the
machine for longer than a turn cancels. The verdict is over the median of the rounds' ratios. The exit code is 0 if
every one lies within 3 % and the harness itself costs at most 50 microseconds a frame, 1 if not.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from idle_engine import harness_overhead
from other_programs import BARE_LOOP, BareLoop, BenchmarkApp, Program, Setup, find_benchmark_app
from PIL import Image

from edpct.bench.crew import Member
from edpct.bench.frames import Frames
from edpct.bench.report.make import load_average, machine
from edpct.bench.report.schema import Scope
from edpct.bench.report.tables import markdown_table
from edpct.bench.worker import Job
from edpct.cli.screen import screen
from edpct.data.scenes import render_scene
from edpct.errors import EdpctError, EngineError
from edpct.progress import Progress
from edpct.runtimes.artefact import card_of, sha256_of
from edpct.runtimes.inventory import cpu_cores
from edpct.runtimes.ports import Ports
from edpct.runtimes.session import Options

LIMIT = 0.03
OVERHEAD_LIMIT = 50.0  # microseconds
FRAMES, LEAST, WARM_UP = 8, 5, 10.0
BESIDE = 0.5  # seconds a round for the scope that is shown and not judged
RESAMPLES = 10_000
METHOD = (
    "{rounds} rounds, {threads} threads. A round is a new process of each side, taking short turns, the first one "
    "alternating; a turn is compared with the one beside it. Milliseconds: median of the rounds' medians. Ratio: "
    "edpct's median over the other's; median over turns, then over rounds, the 95 % interval of that (rounds drawn "
    "with replacement) and the range of the rounds. benchmark_app prints hundredths of a millisecond."
)


@dataclass(frozen=True)
class Rival:
    """Another program that times the same runtime.

    Attributes:
        scope: edpct's scope that holds what the program times.
        beside: another scope, shown for comparison and not judged.
        turns, seconds: turns a round, and the length of each.
        start: begins a round of it.
    """

    title: str
    runtime: str
    scope: Scope
    beside: Scope
    turns: int
    seconds: float
    start: Callable[[Setup], Program]


@dataclass(frozen=True)
class Round:
    """One round: medians of its turns in milliseconds, and the median of the turns' ratios."""

    edpct_ms: float
    other_ms: float
    beside_ms: float
    ratio: float


@dataclass(frozen=True)
class Verdict:
    """The rounds in short.

    Attributes:
        ratio: median of the rounds' ratios, edpct over the other; ``low``, ``high``: its 95 % interval, rounds drawn
            with replacement; ``least``, ``most``: range of the rounds.
        edpct_ms, other_ms, beside_ms: medians of the rounds' medians.
        within: the ratio is at most :data:`LIMIT` from 1.
        sure: the whole interval is.
    """

    ratio: float
    low: float
    high: float
    least: float
    most: float
    edpct_ms: float
    other_ms: float
    beside_ms: float
    within: bool
    sure: bool


def judge(rounds: Sequence[Round]) -> Verdict:
    """What the rounds say."""
    ratios = np.array([found.ratio for found in rounds])
    draws = np.random.default_rng(0).integers(0, len(ratios), (RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(ratios[draws], axis=1), [2.5, 97.5])
    ratio = float(np.median(ratios))
    edpct, other, beside = (
        float(np.median([getattr(found, name) for found in rounds])) for name in ("edpct_ms", "other_ms", "beside_ms")
    )
    return Verdict(
        ratio, float(low), float(high), float(ratios.min()), float(ratios.max()), edpct, other, beside,
        within=abs(ratio - 1) <= LIMIT,
        sure=bool(low >= 1 - LIMIT and high <= 1 + LIMIT),
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", type=Path, action="append", required=True, help="an .onnx of edpct; repeat")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=cpu_cores(), help="of each engine; all cores if not given")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/agreement"))
    asked = parser.parse_args()
    if min(asked.rounds, asked.threads) < 1:
        parser.error("--rounds and --threads are 1 or more")
    try:
        return agree(asked.engine, asked.rounds, asked.threads, asked.out, screen())
    except EdpctError as error:
        print(f"agreement: {error}", file=sys.stderr)
        return 2


def agree(engines: Sequence[Path], rounds: int, threads: int, out: Path, progress: Progress) -> int:
    """Measure, write, print; the exit code."""
    find_benchmark_app()
    load = load_average()
    overhead = {scope: asdict(harness_overhead(scope)) for scope in ("transfer", "compute")}
    results = []
    with tempfile.TemporaryDirectory() as folder:
        setups = [_setup(path, threads, Path(folder) / str(i)) for i, path in enumerate(engines)]
        turns = [(setup, rival) for setup in setups for rival in RIVALS]
        found: list[list[Round]] = [[] for _ in turns]
        settings: list[dict[str, Any]] = [{} for _ in turns]
        with progress.task("Rounds", (rounds + 1) * len(turns)) as update:
            for number in range(rounds + 1):
                for place, (setup, rival) in enumerate(turns):
                    one, settings[place] = play(setup, rival)
                    if number:  # the first fills the file cache and is not counted
                        found[place].append(one)
                    note = f"{setup.name}, {rival.title}: {one.edpct_ms:.2f} and {one.other_ms:.2f} ms"
                    update(number * len(turns) + place + 1, note)
    for (setup, rival), ones, said in zip(turns, found, settings, strict=True):
        verdict = asdict(judge(ones))
        facts: dict[str, Any] = {"engine": setup.name, "sha256": sha256_of(setup.engine), "runtime": rival.runtime}
        facts |= {"other": rival.title, "scope": rival.scope, "beside": rival.beside, "settings": said}
        results.append({**facts, **verdict, "rounds": [asdict(one) for one in ones]})
    record = {
        **machine(), "load_before": load, "command": f"python benchmarks/agreement.py {shlex.join(sys.argv[1:])}",
        "limit": LIMIT, "threads": threads, "overhead_limit_us": OVERHEAD_LIMIT,
        "overhead": overhead, "bare_loop": BARE_LOOP, "results": results,
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    text = page(record)
    (out / "report.md").write_text(text, encoding="utf-8")
    print(text)
    return 0 if passed(record) else 1


def _setup(path: Path, threads: int, folder: Path) -> Setup:
    """The frames of an engine, as encoded images for edpct and as normalised arrays for the others."""
    if path.suffix != ".onnx":
        raise EngineError(f"{path} is no .onnx file.", "Both programs open ONNX files.")
    task = card_of(path).task
    size = task.preprocessing
    images = []
    for seed in range(FRAMES):
        file = BytesIO()
        Image.fromarray(render_scene(seed, size.height, size.width).image).save(file, "JPEG", quality=95)
        images.append(file.getvalue())
    folder.mkdir()
    for number, feed in enumerate(Frames(images, Ports.plain(task)).feeds):
        np.save(folder / f"{number:02}.npy", feed["image"])
    return Setup(path.name, path, task, threads, tuple(images), folder)


def play(setup: Setup, rival: Rival) -> tuple[Round, dict[str, Any]]:
    """One round.

    Raises:
        EngineError: a program failed, or OpenVINO ran with other settings in one than in the other.
    """
    job = Job(setup.engine, rival.runtime, "", Options(threads=setup.threads), 1, setup.task, setup.images)
    with Member(job) as member, rival.start(setup) as other:
        details = member.open().details
        member.warm_up(WARM_UP)
        ours, theirs = take_turns(
            lambda: float(np.median(member.turn(rival.scope, rival.seconds, LEAST, settle=True).times)),
            lambda: other.turn(rival.seconds),
            rival.turns,
        )
        beside = float(np.median(member.turn(rival.beside, BESIDE, LEAST, settle=True).times))
    for name in other.settings.keys() & details.keys():
        if other.settings[name] != details[name]:
            raise EngineError(f"{rival.title} ran with {name} {other.settings[name]}, edpct with {details[name]}.")
    ratio = float(np.median(np.array(ours) / np.array(theirs)))
    found = Round(float(np.median(ours)), float(np.median(theirs)), beside, ratio)
    return found, {"edpct": details, rival.title: other.settings}


def take_turns(ours: Callable[[], float], theirs: Callable[[], float], turns: int) -> tuple[list[float], list[float]]:
    """A B, B A, A B, ...: who goes first alternates, so that being first is worth nothing."""
    found: tuple[list[float], list[float]] = ([], [])
    for number in range(turns):
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            found[side].append((ours, theirs)[side]())
    return found


RIVALS = (
    Rival("benchmark_app", "openvino", "compute", "transfer", 3, 1.0, BenchmarkApp),
    Rival("bare loop", "onnxruntime", "transfer", "compute", 10, 0.5, BareLoop),
)


def passed(record: dict[str, Any]) -> bool:
    """Whether every runtime agrees and the harness costs little."""
    cheap = all(found["wall"] <= OVERHEAD_LIMIT for found in record["overhead"].values())
    return cheap and all(result["within"] for result in record["results"])


def page(record: dict[str, Any]) -> str:
    """The record in Markdown."""
    header = ["engine", "edpct against", "scope", "edpct ms", "other ms", "ratio", "95 %", "rounds", "within 3 %"]
    lines = [
        [
            found["engine"], f"{found['other']} ({found['runtime']})", found["scope"], f"{found['edpct_ms']:.2f}",
            f"{found['other_ms']:.2f}", f"{found['ratio']:.3f}", f"{found['low']:.3f}–{found['high']:.3f}",
            f"{found['least']:.3f}–{found['most']:.3f}", in_words(found),
        ]
        for found in record["results"]
    ]  # fmt: skip
    beside = [
        f"{found['engine']}, {found['runtime']}: {found['beside_ms']:.2f} ms in the scope {found['beside']}"
        for found in record["results"]
    ]
    costs = [
        f"{scope} {found['wall']:.1f} µs a frame, of which {found['reported']:.1f} µs are reported as the engine's time"
        for scope, found in record["overhead"].items()
    ]
    host, load, counted = record["machine"], record["load_before"], len(record["results"][0]["rounds"])
    parts = [
        "# edpct bench beside benchmark_app and a bare ONNX Runtime loop",
        markdown_table(header, lines),
        METHOD.format(rounds=counted, threads=record["threads"]),
        f"Not judged, for comparison: {'; '.join(beside)}.",
        f"The harness with an engine that does nothing (limit {OVERHEAD_LIMIT:.0f} µs): {'; '.join(costs)}.",
        f"Agreement: {'yes' if passed(record) else 'no'}.",
    ]
    if load is not None and load > host["cores"] / 2:
        parts.append(f"The machine had been busy: the load average before was {load} on {host['cores']} cores.")
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    parts.append(f"{record['date']}, {host['cpu']}, {host['cores']} cores, {host['system']}; {versions}.")
    return "\n\n".join([*parts, f"Made with:\n\n    {record['command']}"]) + "\n"


def in_words(found: dict[str, Any]) -> str:
    """yes or no, and whether the rounds suffice to say so."""
    if not found["within"]:
        return "no"
    return "yes" if found["sure"] else "yes, but the interval reaches beyond"


if __name__ == "__main__":
    sys.exit(main())
