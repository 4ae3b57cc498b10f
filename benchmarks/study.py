"""Runs of a comparison, kept one by one, so that it goes on where it was stopped, on this machine or on another."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, TypeAlias

from edpct.bench.report.make import machine, versions
from edpct.data.fingerprint import data_fingerprint
from edpct.data.samples import Dataset
from edpct.errors import RunError
from edpct.models.checkpoint import load_checkpoint
from edpct.progress import Progress, Silent
from edpct.recipe import OptimiseSettings
from edpct.runtimes.artefact import sha256_of
from edpct.task import Task
from edpct.training.loop import Training
from edpct.training.objective import Learner

Key: TypeAlias = tuple[str, float, int, int, int, int]
"""Variant, value, seed, steps, batch, crop."""

PAUSE = 5.0  # seconds between two looks at what the other processes have done


@dataclass(frozen=True)
class Run:
    """One training of one variant.

    Attributes:
        value: what the variant was tuned by: a learning rate, or a weight.
        miou, iou: on val, in points.
        steps, batch, crop: the budget: so many steps, each of so many crops, each of so many pixels a side.
    """

    variant: str
    value: float
    seed: int
    steps: int
    batch: int
    crop: int
    miou: float
    iou: dict[str, float]
    loss: float
    seconds: float
    made: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        return self.variant, self.value, self.seed, self.steps, self.batch, self.crop


class Study:
    """Runs in a JSON file, one written as soon as it is there; several processes may work on one study.

    Args:
        path: the file; runs that it holds are not made again.
        made_of: by option, what all runs of the study are made of and their keys do not say, plain JSON values. The
            file keeps it; one that does not say it yet is taken to be of this.

    Raises:
        RunError: the file's runs are made of something else.
    """

    def __init__(self, path: Path, progress: Progress, made_of: Mapping[str, Any] | None = None) -> None:
        self.path, self.progress, self.made_of = path, progress, dict(made_of or {})
        _ = self.runs  # refused before anything is made

    @property
    def runs(self) -> list[Run]:
        """All that are there by now, those of other processes too."""
        if not self.path.exists():
            return []
        content = json.loads(self.path.read_text(encoding="utf-8"))
        refuse_other(self.path, content.get("made_of", {}), self.made_of)
        return [Run(**run) for run in content["runs"]]

    def all(self, keys: Sequence[Key], make: Callable[[Key], Run]) -> dict[Key, Run]:
        """The runs of these keys: read, or made and written.

        As many processes as there are cores may do this at once: each takes what no other is at, and all wait for the
        last one. What a process that died was at is taken anew.
        """
        while True:
            known = self._known()
            left = [key for key in keys if key not in known]
            if not left:
                return {key: known[key] for key in keys}
            if not sum([self._taken(key, make) for key in left]):
                time.sleep(PAUSE)  # other processes are at what is left

    def _taken(self, key: Key, make: Callable[[Key], Run]) -> bool:
        """Make a run, unless another process is at it."""
        with self._claim(key) as mine:
            if mine and key not in self._known():
                self._make(key, make)
        return mine

    def _make(self, key: Key, make: Callable[[Key], Run]) -> None:
        began = time.monotonic()
        run = make(key)
        made = {"machine": machine()["machine"], "versions": versions(), "date": date.today().isoformat()}
        run = Run(**{**asdict(run), "seconds": time.monotonic() - began, "made": made})
        self._add(run)
        self.progress.say(
            f"{run.variant}, {run.value:g}, seed {run.seed}: {run.miou:.2f} points in {run.seconds:.0f} s"
        )

    @contextmanager
    def _claim(self, key: Key) -> Iterator[bool]:
        """Whether this process may make the run; the system lets go of the claim of one that dies."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
        with self.path.with_name(f".{digest}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            try:
                yield True
            finally:
                Path(file.name).unlink(missing_ok=True)

    def _known(self) -> dict[Key, Run]:
        return {run.key: run for run in self.runs}

    def _add(self, run: Run) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            runs = [*self.runs, run]
            partial = self.path.with_suffix(".partial")
            said = {"made_of": self.made_of} if self.made_of else {}
            content = {**said, "runs": [asdict(each) for each in runs]}
            partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            partial.replace(self.path)

    def tuned(
        self,
        variants: Sequence[str],
        values: Callable[[str], Sequence[float]],
        seeds: int,
        budget: tuple[int, int, int],
        make: Callable[[Key], Run],
    ) -> dict[str, list[Run]]:
        """Every variant at each of its values on the first seed, then at the best of these on the others.

        Args:
            budget: steps, batch and crop, the same for all.
        """
        tries = {variant: values(variant) for variant in variants}
        turns = range(max(map(len, tries.values())))  # in turns, so that a study which is stopped has as much of each
        first = [
            (name, tries[name][turn], 0, *budget) for turn in turns for name in variants if turn < len(tries[name])
        ]
        tried = self.all(first, make)
        best = {}
        for variant in variants:
            mine = [run for key, run in tried.items() if key[0] == variant]
            best[variant] = max(mine, key=lambda run: run.miou)
        others = [(variant, best[variant].value, seed, *budget) for seed in range(1, seeds) for variant in variants]
        more = self.all(others, make)
        return {
            variant: [best[variant], *(run for key, run in more.items() if key[0] == variant)] for variant in variants
        }


def take_work(folder: Path, made_of: Mapping[str, Any]) -> None:
    """Make the folder of ``--work``, or take one that is of the same; one that does not say yet is taken to be of this.

    Raises:
        RunError: what it holds is made of something else.
    """
    said = folder / "made_of.json"
    if said.exists():
        refuse_other(folder, json.loads(said.read_text(encoding="utf-8")), made_of)
    folder.mkdir(parents=True, exist_ok=True)
    said.write_text(json.dumps(made_of, indent=1) + "\n", encoding="utf-8")


def refuse_other(path: Path, kept: Mapping[str, Any], made_of: Mapping[str, Any]) -> None:
    """Raise RunError where something is kept to be made of another thing than it is to be made of now."""
    if other := [f"--{name}" for name, value in made_of.items() if kept.get(name, value) != value]:
        raise RunError(
            f"What is in {path} was made with another {' and '.join(other)}.",
            "Give the same as then, or another --out and --work.",
        )


def weights_digest(checkpoint: Path) -> str:
    """SHA-256 of a network's tensors: the same for .pt and .safetensors, with whatever card."""
    digest = hashlib.sha256()
    for name, tensor in sorted(load_checkpoint(checkpoint).model.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def work_of(work: Path, dataset: Dataset, *files: Path) -> Path:
    """The folder in ``--work`` for what is made of a data set and of the content of files."""
    parts = [data_fingerprint(dataset), *map(sha256_of, files)]
    folder = work / hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def train_once(
    variant: str, value: float, seed: int, learner: Learner, dataset: Dataset, task: Task, settings: OptimiseSettings,
    folder: Path,
) -> Run:  # fmt: skip
    """Train a learner and measure it on val; an interrupted training goes on from what it left in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    history = Training(
        learner, dataset, task, settings,
        seed=seed, workspace=folder, fingerprint=folder.name, progress=Silent(), title=variant,
    ).run()  # fmt: skip
    shutil.rmtree(folder)
    last = history.measures[-1]
    iou = {name: 100 * share for name, share in zip(task.names, last.iou, strict=True) if share is not None}
    return Run(
        variant, value, seed, settings.steps, settings.batch, settings.crop,
        miou=100 * last.miou, iou=iou, loss=last.loss, seconds=history.seconds,
    )  # fmt: skip


def by_seed(variant: str, runs: Iterable[Run]) -> list[Run]:
    """The runs of a variant at the value that was best on the first seed, in the order of their seeds."""
    mine = [run for run in runs if run.variant == variant]
    first = [run for run in mine if run.seed == 0]
    if not first:
        return []
    value = max(first, key=lambda run: run.miou).value
    return sorted((run for run in mine if run.value == value), key=lambda run: run.seed)


def mean_and_spread(runs: Iterable[Run]) -> tuple[float, float]:
    """Mean and standard deviation of mIoU in points; the deviation is 0 for one run."""
    scores = [run.miou for run in runs]
    return statistics.mean(scores), statistics.stdev(scores) if len(scores) > 1 else 0.0


def written(runs: Sequence[Run]) -> str:
    """Mean ± standard deviation for a table; of one run, its score."""
    mean, spread = mean_and_spread(runs)
    return f"{mean:.2f} ± {spread:.2f}" if len(runs) > 1 else f"{mean:.2f}"


def made_on(runs: Sequence[Run]) -> str:
    """Machine, versions and days of runs, in a line."""
    machines = sorted({run.made["machine"]["cpu"] for run in runs})
    days = sorted({run.made["date"] for run in runs})
    used = runs[-1].made["versions"]
    tools = ", ".join(f"{name} {used[name]}" for name in ("edpct", "torch", "torchvision", "timm") if name in used)
    return f"{', '.join(machines)}; {days[0]}{f' to {days[-1]}' if len(days) > 1 else ''}; {tools}."


def public(arguments: list[str]) -> list[str]:
    """The arguments with DIR for folders, which are this machine's own."""
    folders = ("--data", "--work", "--out")
    return ["DIR" if before in folders else text for before, text in zip(["", *arguments], arguments, strict=False)]
