r"""What AKD costs a training step: seconds and memory beside a step with KL alone.

    python benchmarks/akd_cost.py [--teacher T --student S] [--sizes 512 256] [--batch 8] [--rounds 15]
        [--threads N] [--device cuda] [--out benchmarks/results/akd_cost]

A step is what training does: teacher and student forward under autocast (bf16 where the device computes it natively),
backward, clipping and AdamW; images and labels are random. Without checkpoints the teacher is DP-CTNet small and the
student DP-CTNet tiny, of five classes. Steps with and without AKD are timed in turns in one process, so that what slows
the machine slows both; memory is the peak of a process that takes three steps of one kind.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import torch
from study import public
from torch import nn

from edpct.bench.memory import peak_bytes, reset_peak
from edpct.bench.report.make import machine, versions
from edpct.bench.report.tables import markdown_table
from edpct.distillation.learner import DistilLearner
from edpct.errors import EdpctError
from edpct.models.checkpoint import load_checkpoint
from edpct.models.dpctnet import dpctnet
from edpct.recipe import AKDSettings, DistilSettings
from edpct.training.loop import MAX_GRADIENT_NORM, use_bf16

CLASSES, IGNORE = 5, 255
WAYS = {"KL": DistilSettings(akd=AKDSettings(pixel=0, relation=0, prototype=0)), "KL + AKD": DistilSettings()}
LIMITS = {"seconds": 0.15, "megabytes": 300}  # that AKD may add
MEMORY_STEPS = 3
WARM_UP = 2


@dataclass(frozen=True)
class Cost:
    """Both ways at one size of square images: seconds of each step, in turns; peak memory in bytes."""

    size: int
    seconds: dict[str, list[float]]
    peak: dict[str, int]

    @property
    def ratios(self) -> list[float]:
        """With AKD over without, round by round."""
        return [akd / kl for kl, akd in zip(*(self.seconds[way] for way in WAYS), strict=True)]

    @property
    def added_megabytes(self) -> float:
        kl, akd = (self.peak[way] for way in WAYS)
        return (akd - kl) / 1e6


class Steps:
    """Training steps of one way on one random batch."""

    def __init__(self, way: str, size: int, asked: argparse.Namespace) -> None:
        torch.manual_seed(0)
        student, teacher, classes = networks(asked)
        self.device = torch.device(asked.device)
        learner = DistilLearner(student, teacher, WAYS[way], IGNORE, classes)
        self.learner = learner.to(self.device, memory_format=torch.channels_last).train()
        self.optimiser = torch.optim.AdamW(self.learner.parameters(), lr=1e-4)
        images = torch.randn(asked.batch, 3, size, size, device=self.device)
        self.images = images.contiguous(memory_format=torch.channels_last)
        self.labels = torch.randint(0, classes, (asked.batch, size, size), device=self.device)

    def one(self) -> float:
        """Seconds of a step."""
        began = self._now()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=use_bf16("auto")):
            loss = torch.stack(list(self.learner(self.images, self.labels).values())).sum()
        loss.backward()
        nn.utils.clip_grad_norm_(self.learner.parameters(), MAX_GRADIENT_NORM)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return self._now() - began

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def networks(asked: argparse.Namespace) -> tuple[nn.Module, nn.Module, int]:
    """Student, teacher and their number of classes."""
    if asked.teacher is None:
        return dpctnet("tiny", CLASSES), dpctnet("small", CLASSES), CLASSES
    teacher = load_checkpoint(asked.teacher)
    return load_checkpoint(asked.student).model, teacher.model, teacher.card.task.num_classes


def main() -> int:
    asked = arguments()
    torch.set_num_threads(asked.threads)
    try:
        if asked.memory_of is not None:
            print(peak(asked.memory_of, asked.sizes[0], asked))
            return 0
        costs = [cost(size, asked) for size in asked.sizes]
    except EdpctError as error:
        print(f"akd_cost: {error}", file=sys.stderr)
        return 2
    asked.out.mkdir(parents=True, exist_ok=True)
    facts = {
        **machine(), "device": device_name(asked), "threads": asked.threads, "batch": asked.batch,
        "bf16": use_bf16("auto"), "networks": described(asked), "limits": LIMITS,
        "costs": [asdict(found) for found in costs],
    }  # fmt: skip
    (asked.out / "akd_cost.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    text = page(costs, asked)
    (asked.out / "akd_cost.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, help="a checkpoint; --student too")
    parser.add_argument("--student", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 256])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/akd_cost"))
    parser.add_argument("--memory-of", choices=tuple(WAYS), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.rounds < 2:
        parser.error("--rounds: at least 2")
    if (asked.teacher is None) != (asked.student is None):
        parser.error("give --teacher and --student, or neither")
    return asked


def cost(size: int, asked: argparse.Namespace) -> Cost:
    """Memory first, each way in a process of its own; then the steps in turns, the first of a round changing."""
    peaks = {way: measured_apart(way, size, asked) for way in WAYS}
    steps = {way: Steps(way, size, asked) for way in WAYS}
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for turn in range(-WARM_UP, asked.rounds):
        for way in list(WAYS) if turn % 2 else list(WAYS)[::-1]:
            took = steps[way].one()
            if turn >= 0:
                seconds[way].append(took)
    return Cost(size, seconds, peaks)


def measured_apart(way: str, size: int, asked: argparse.Namespace) -> int:
    command = [sys.executable, __file__, "--memory-of", way, "--sizes", str(size), "--batch", str(asked.batch)]
    command += ["--threads", str(asked.threads), "--device", asked.device]
    if asked.teacher is not None:
        command += ["--teacher", str(asked.teacher), "--student", str(asked.student)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return int(done.stdout.split()[-1])


def peak(way: str, size: int, asked: argparse.Namespace) -> int:
    """The most memory, in bytes, of the device (allocated tensors) or of this process (resident)."""
    steps = Steps(way, size, asked)
    reset_peak()
    for _ in range(MEMORY_STEPS):
        steps.one()
    if asked.device == "cuda":
        return torch.cuda.max_memory_allocated()
    if not (found := peak_bytes()):
        raise EdpctError("This system does not tell a process's peak memory (VmHWM).", "Measure on Linux.")
    return found


def device_name(asked: argparse.Namespace) -> str:
    here: dict[str, str] = machine()["machine"]
    return torch.cuda.get_device_name() if asked.device == "cuda" else here["cpu"]


def described(asked: argparse.Namespace) -> str:
    if asked.teacher is None:
        return "teacher DP-CTNet small, student DP-CTNet tiny, random weights"
    names = [load_checkpoint(path).card.network for path in (asked.teacher, asked.student)]
    return f"teacher {names[0]}, student {names[1]}"


def added(ratios: list[float]) -> str:
    """Median and quartiles of what is added, in percent."""
    low, middle, high = (100 * (ratio - 1) for ratio in statistics.quantiles(ratios, n=4))
    return f"{middle:+.1f} % ({low:+.1f} to {high:+.1f})"


def page(costs: list[Cost], asked: argparse.Namespace) -> str:
    header = ["images", "losses", "s a step", "fastest to slowest", "AKD adds to the time", "peak MB", "AKD adds, MB"]
    lines = []
    for found in costs:
        for way in WAYS:
            seconds = found.seconds[way]
            line = [f"{asked.batch} x {found.size} x {found.size}", way, f"{statistics.median(seconds):.3f}"]
            line += [f"{min(seconds):.3f} to {max(seconds):.3f}", "", f"{found.peak[way] / 1e6:.0f}", ""]
            if way != "KL":
                low, middle, high = (
                    statistics.quantiles(found.ratios, n=4) if len(found.ratios) > 1 else found.ratios * 3
                )
                line[4] = f"{100 * (middle - 1):+.1f} % ({100 * (low - 1):+.1f} to {100 * (high - 1):+.1f})"
                line[6] = f"{found.added_megabytes:+.0f}"
            lines.append(line)
    used = versions()
    kept = "tensors on the device" if asked.device == "cuda" else "the process"
    precision = "bf16 autocast" if use_bf16("auto") else "fp32"
    parts = [
        "# What AKD costs a training step",
        (
            f"The {described(asked)}; {precision}; {asked.rounds} rounds in turns. Seconds: the median. What AKD adds\n"
            f"to the time: median and quartiles of the rounds' ratios. Memory: the peak of {kept}."
        ),
        markdown_table(header, lines),
        f"{device_name(asked)}, {asked.threads} threads, {date.today().isoformat()}; torch {used['torch']}.",
        "Made with:\n\n    " + " ".join(["python", "benchmarks/akd_cost.py", *public(sys.argv[1:])]),
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(main())
