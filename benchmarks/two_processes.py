r"""The validation curves of one training in one process and in two on this machine, side by side.

    python benchmarks/two_processes.py [--steps 400] [--seeds 2] [--work runs/two-processes]
        [--out benchmarks/results/two_processes]

DP-CTNet tiny on made scenes: the same seed, the same crops, the same batch, which two processes share (``torchrun
--nproc-per-node 2 -m edpct train``). On the CPU each process normalises by its own half of the batch, so that the
curves differ by more than rounding; how far two seeds of one process are apart is the noise to compare that with.
Goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

from edpct.bench.report.make import machine, versions
from edpct.bench.report.tables import markdown_table

SIZE = 128
RECIPE = """preset = "tiny"
[train]
steps = {steps}
batch = 8
crop = {size}
validate_every = {every}
precision = "fp32"
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("runs/two-processes"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/two_processes"))
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    scenes, recipe = asked.work / "scenes", asked.work / "recipe.toml"
    recipe.write_text(RECIPE.format(steps=asked.steps, size=SIZE, every=max(1, asked.steps // 8)), encoding="utf-8")
    if not (scenes / "classes.json").exists():
        make = ("--train", "24", "--val", "8", "--size", str(SIZE))
        subprocess.run([sys.executable, "-m", "edpct", "data", "scenes", "--out", str(scenes), *make], check=True)
    curves = {
        f"{count} process{'es' if count > 1 else ''}, seed {seed}": train(scenes, recipe, asked.work, count, seed)
        for seed in range(asked.seeds)
        for count in (1, 2)
    }
    record = {
        **machine(),
        "versions": versions(),
        "command": f"python benchmarks/two_processes.py --steps {asked.steps} --seeds {asked.seeds}",
        "curves": curves,
        "differences": differences(curves),
    }
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "two_processes.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (asked.out / "two_processes.md").write_text(page(record), encoding="utf-8")
    print(page(record))
    return 0


def train(scenes: Path, recipe: Path, work: Path, count: int, seed: int) -> dict[str, Any]:
    """The history of one training: "measures" and "seconds"."""
    out = work / f"{count}-{seed}"
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)] if count > 1 else []
    arguments = ("--data", scenes, "--out", out, "--recipe", recipe, "--size", SIZE, "--seed", seed)
    # As many threads in all as one process is given.
    threads = max(1, (os.cpu_count() or 1) // count)
    subprocess.run(
        [sys.executable, *launch, "-m", "edpct", "train", *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)}, stdout=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    history = json.loads((out / "training.json").read_text(encoding="utf-8"))
    return {"measures": history["measures"], "seconds": history["seconds"]}


def differences(curves: dict[str, Any]) -> dict[str, float]:
    """Mean absolute differences of mIoU over a curve, in points, and of the loss."""
    seeds = sorted({name.rsplit(" ", 1)[1] for name in curves})
    ways = [(f"1 process, seed {seed}", f"2 processes, seed {seed}") for seed in seeds]
    noise = [(f"1 process, seed {a}", f"1 process, seed {b}") for a, b in combinations(seeds, 2)]
    return {
        f"{field} between {name}": statistics.fmean(_apart(curves, pair, field) for pair in pairs)
        for name, pairs in (("one and two processes", ways), ("seeds", noise))
        for field in ("miou", "loss")
        if pairs
    }


def _apart(curves: dict[str, Any], pair: tuple[str, str], field: str) -> float:
    first, second = ([measure[field] for measure in curves[name]["measures"]] for name in pair)
    factor = 100 if field == "miou" else 1
    return factor * statistics.fmean(abs(a - b) for a, b in zip(first, second, strict=True))


def page(record: dict[str, Any]) -> str:
    """Both curves as a table, and how far apart they are."""
    curves = record["curves"]
    steps = [measure["step"] for measure in next(iter(curves.values()))["measures"]]
    lines = [[name, *(f"{100 * m['miou']:.2f}" for m in curve["measures"])] for name, curve in curves.items()]
    losses = [[name, *(f"{m['loss']:.3f}" for m in curve["measures"])] for name, curve in curves.items()]
    header = ["", *(f"step {step}" for step in steps)]
    apart = [[name, f"{value:.3f}"] for name, value in record["differences"].items()]
    parts = [
        "# One training in one process and in two",
        "mIoU on val in percent:",
        markdown_table(header, lines),
        "Training loss since the validation before:",
        markdown_table(header, losses),
        "Mean absolute differences along a curve (mIoU in points):",
        markdown_table(["", "difference"], apart),
        f"Made with:\n\n    {record['command']}",
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(main())
