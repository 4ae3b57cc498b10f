"""Kill ``edpct compress`` at ten random moments, run it again each time, and compare with an undisturbed run.

    python benchmarks/resume_check.py --kills 10 --seed 0 --out benchmarks/results/resume

Exit code 0 if the disturbed run's table has the undisturbed run's parameters and MACs, row by row, and at least one
stage was skipped after a kill because it was finished.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from edpct.bench.report.make import machine

EDPCT = (sys.executable, "-m", "edpct")
RECIPE = Path(__file__).parent / "recipes" / "resume-compress.toml"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--steps", type=int, default=60, help="distillation steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/resume"))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        result = check(Path(scratch), asked.kills, asked.steps, asked.seed)
    asked.out.mkdir(parents=True, exist_ok=True)
    record = {
        **machine(),
        "seed": asked.seed,
        "command": f"python benchmarks/resume_check.py --kills {asked.kills} --steps {asked.steps} --seed {asked.seed}",
        **result,
    }
    (asked.out / "resume.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: result[key] for key in ("equal", "skips_after_kills", "undisturbed_seconds")}, indent=1))
    return 0 if result["equal"] and result["skips_after_kills"] else 1


def check(scratch: Path, kills: int, steps: int, seed: int) -> dict[str, Any]:
    """Prepare a teacher, run once in peace and once under fire; what both tables say, and every kill."""
    run("data", "scenes", "--out", scratch / "scenes", "--train", 12, "--val", 4, "--size", 256)
    teach = ("--preset", "tiny", "--steps", 20, "--crop", 128, "--size", 256)
    run("train", "--data", scratch / "scenes", "--out", scratch / "teacher", *teach)
    began = time.monotonic()
    run(*compress(scratch, "undisturbed", steps))
    seconds = time.monotonic() - began
    print(f"undisturbed: {seconds:.0f} s", flush=True)
    rng = random.Random(seed)
    log = [disturb(scratch, steps, rng.uniform(0.05, 0.45) * seconds, number) for number in range(kills)]
    last = run(*compress(scratch, "disturbed", steps))
    tables = {name: table(scratch / name / "report.json") for name in ("undisturbed", "disturbed")}
    return {
        "undisturbed_seconds": round(seconds, 1),
        "kills": log,
        "last_run_skipped": skipped(last),
        "skips_after_kills": sum(len(entry["skipped"]) for entry in log[1:]) + len(skipped(last)),
        "tables": tables,
        "equal": tables["undisturbed"] == tables["disturbed"],
    }


def compress(scratch: Path, name: str, steps: int) -> tuple[object, ...]:
    teacher = scratch / "teacher" / "teacher.pt"
    return ("compress", "--teacher", teacher, "--out", scratch / name, "--recipe", RECIPE, "--steps", steps)


def disturb(scratch: Path, steps: int, delay: float, number: int) -> dict[str, Any]:
    """Start the run, kill it after ``delay`` seconds, and tell what it had skipped and begun by then."""
    command = [*EDPCT, *map(str, compress(scratch, "disturbed", steps))]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            _, text = process.communicate(timeout=delay)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            _, text = process.communicate()
    begun = re.findall(r"^\[\d+/\d+\] (\w+): (?!skipped)", text, re.MULTILINE)
    resumed = re.findall(r"going on after step \d+ of \d+", text)
    entry = {
        "after_seconds": round(delay, 1), "exit": process.returncode, "skipped": skipped(text),
        "killed_in": begun[-1] if begun else "start", "resumed": resumed,
    }  # fmt: skip
    print(f"kill {number + 1}: {entry}", flush=True)
    return entry


def skipped(text: str) -> list[str]:
    """Stages that a run's log says were skipped."""
    return re.findall(r"^\[\d+/\d+\] (\w+): skipped", text, re.MULTILINE)


def table(path: Path) -> list[list[Any]]:
    """What must be equal: name, parameters and MACs of every row."""
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return [[row["name"], row["runtime"], row["parameters"], row["macs"]] for row in rows]


def run(*arguments: object) -> str:
    """Run an edpct command to its end; its log."""
    done = subprocess.run([*EDPCT, *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"edpct {arguments[0]} failed ({done.returncode}):\n{done.stderr}")
    return done.stderr


if __name__ == "__main__":
    sys.exit(main())
