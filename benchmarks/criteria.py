r"""The criteria of pruning compared on the Dubai imagery: same budget of MACs, same recovery training, several seeds.

    python benchmarks/criteria.py --data DIR --teacher runs/dubai/teacher/teacher.pt [--steps 120] [--seeds 3]

Every criterion prunes the teacher in one shot; the pruned network is then trained on labels alone for the same number
of the same crops (a seed decides the crops, and the channels that ``random`` takes). Measured on val, before and after
that training. Goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import torch
from study import work_of

from edpct.bench.report.make import machine, versions
from edpct.bench.report.tables import markdown_table
from edpct.cli.screen import screen
from edpct.data.layouts import open_dataset
from edpct.data.samples import Dataset
from edpct.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edpct.progress import Progress
from edpct.pruning.criteria import NEED_GRADIENTS
from edpct.pruning.prune import Budget, Pruner
from edpct.recipe import OptimiseSettings, PruneSettings
from edpct.run.pruning import labelled_batches
from edpct.training.loop import Training
from edpct.training.objective import SupervisedLearner
from edpct.training.validation import validate

VARIANTS = [
    *((criterion, "local") for criterion in ("l1", "l2", "bn-scale", "lamp", "fpgm", "taylor", "hessian", "random")),
    *((criterion, scope) for criterion in ("l2", "taylor") for scope in ("global", "isomorphic")),
]


@dataclass(frozen=True)
class Result:
    """One pruning with one recovery; mIoU in points."""

    criterion: str
    scope: str
    seed: int
    macs: float
    parameters: int
    pruning_seconds: float
    before: float
    after: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/criteria"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/criteria"))
    parser.add_argument("--macs", type=float, default=0.2)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--only", nargs="*", default=[], metavar="CRITERION", help="work on these and make no table")
    asked = parser.parse_args()
    dataset, progress = open_dataset(asked.data, "dubai"), screen()
    training = OptimiseSettings(steps=asked.steps, lr=asked.lr, validate_every=0)
    variants = [variant for variant in VARIANTS if not asked.only or variant[0] in asked.only]
    work = work_of(asked.work, dataset, asked.teacher)
    results = list(run(asked.teacher, dataset, variants, asked.macs, training, asked.seeds, work, progress))
    if asked.only:
        return
    card = load_checkpoint(asked.teacher).card
    teacher = 100 * (validate(load_checkpoint(asked.teacher).model, dataset, card.task).miou or 0)
    keep(results, asked, training, teacher, card.network)


def run(
    teacher: Path, dataset: Dataset, variants: list[tuple[str, str]], macs: float, training: OptimiseSettings,
    seeds: int, work: Path, progress: Progress,
) -> Iterator[Result]:  # fmt: skip
    """All results, seed by seed, so that a run that is stopped has as many of each; finished ones are read."""
    for seed in range(seeds):
        for criterion, scope in variants:
            folder = work / f"{criterion}-{scope}-{macs}-{training.steps}-{training.lr}-{seed}"
            file = folder / "result.json"
            if not file.exists():
                folder.mkdir(parents=True, exist_ok=True)
                result = one(teacher, dataset, criterion, scope, macs, training, seed, folder, progress)
                file.write_text(json.dumps(asdict(result)), encoding="utf-8")
            yield (found := Result(**json.loads(file.read_text(encoding="utf-8"))))
            progress.say(f"{criterion} {scope} seed {seed}: {found.before:.2f} -> {found.after:.2f} points")


def one(
    teacher: Path, dataset: Dataset, criterion: str, scope: str, macs: float, training: OptimiseSettings, seed: int,
    folder: Path, progress: Progress,
) -> Result:  # fmt: skip
    """Prune, measure, train, measure; only ``random`` prunes differently from seed to seed."""
    name = f"{criterion}-{scope}-{macs}" + (f"-{seed}" if criterion == "random" else "")
    file, facts = folder.parent / f"{name}.safetensors", folder.parent / f"{name}.json"
    if not facts.exists():
        pruned_once(teacher, dataset, criterion, scope, macs, seed, file, facts, progress)
    known = json.loads(facts.read_text(encoding="utf-8"))
    after = recover(load_checkpoint(file), dataset, training, seed, folder, progress)
    return Result(criterion, scope, seed, after=after, **known)


def pruned_once(
    teacher: Path, dataset: Dataset, criterion: str, scope: str, macs: float, seed: int, file: Path, facts: Path,
    progress: Progress,
) -> None:  # fmt: skip
    """Write the pruned network, and what is known of it before recovery."""
    checkpoint = load_checkpoint(teacher)
    task, size = checkpoint.card.task, checkpoint.card.task.preprocessing
    settings = PruneSettings.model_validate({"macs": macs, "criterion": criterion, "scope": scope})
    began = time.monotonic()
    batches = labelled_batches(dataset, task, settings.images, 0) if criterion in NEED_GRADIENTS else []
    pruner = Pruner(
        checkpoint.model, settings, (size.height, size.width), progress,
        batches=batches, ignore_index=task.ignore_index, seed=seed,
    )  # fmt: skip
    pruned = pruner.to(Budget("macs", macs))
    known = {
        "pruning_seconds": time.monotonic() - began,
        "macs": pruned.macs / pruned.teacher_macs,
        "parameters": pruned.parameters,
        "before": 100 * (validate(pruned.model, dataset, task).miou or 0),
    }
    save_checkpoint(file, pruned.model, checkpoint.card)
    facts.write_text(json.dumps(known), encoding="utf-8")


def recover(
    pruned: Checkpoint, dataset: Dataset, training: OptimiseSettings, seed: int, folder: Path, progress: Progress
) -> float:
    """Train a pruned network on labels; its mIoU on val in points."""
    torch.manual_seed(seed)
    task = pruned.card.task
    learner = SupervisedLearner(pruned.model, task.ignore_index, task.num_classes, training.dice, 0.0, {})
    history = Training(
        learner, dataset, task, training,
        seed=seed, workspace=folder, fingerprint=folder.name, progress=progress, title=f"Recovering {folder.name}",
    ).run()  # fmt: skip
    return 100 * (history.measures[-1].miou or 0)


def mean_and_spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values) if len(values) > 1 else 0.0:.2f}"


def keep(
    results: list[Result], asked: argparse.Namespace, training: OptimiseSettings, teacher: float, name: str
) -> None:
    """Write the table and the data behind it."""
    asked.out.mkdir(parents=True, exist_ok=True)
    level = {found.seed: found.after for found in results if found.criterion == "random"}
    rows = []
    for criterion, scope in VARIANTS:
        own = [result for result in results if (result.criterion, result.scope) == (criterion, scope)]
        after = [result.after for result in own]
        gain = [result.after - level[result.seed] for result in own]
        rows.append((statistics.mean(after), [
            criterion, scope, f"{100 * own[0].macs:.1f}", f"{own[0].parameters / 1e6:.2f}",
            f"{statistics.mean(result.before for result in own):.2f}",
            mean_and_spread(after), " ".join(f"{value:.2f}" for value in after),
            mean_and_spread(gain) if criterion != "random" else "–",
        ]))  # fmt: skip
    rows.sort(key=lambda row: -row[0])
    head = ["criterion", "scope", "MACs %", "M parameters", "mIoU % at once", "recovered", "each seed", "over random"]
    facts = {
        "date": date.today().isoformat(), "machine": machine(), "versions": versions(),
        "teacher": {"network": name, "miou": teacher}, "macs": asked.macs, "recovery": training.model_dump(mode="json"),
        "results": [asdict(result) for result in results],
    }  # fmt: skip
    (asked.out / "criteria.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    setting = (
        f"Each criterion prunes it in one shot; then {training.steps} steps of {training.batch} crops on labels\n"
        f"alone, learning rate {training.lr:g}, {asked.seeds} seeds; mean ± standard deviation. The last column\n"
        f"is taken seed by seed, since a seed's crops are the same for all. {date.today().isoformat()}."
    )
    command = (
        f"python benchmarks/criteria.py --data DIR --teacher {asked.teacher} --macs {asked.macs} --steps "
        f"{training.steps} --lr {training.lr:g} --seeds {asked.seeds}"
    )
    text = (
        f"# Pruning criteria at {asked.macs:.0%} of the MACs\n\n"
        f"{name}, mIoU {teacher:.2f} % on val (tiles 2 and 6). {setting}\n\n"
        f"{markdown_table(head, [row for _, row in rows])}\n\n`{command}`\n"
    )
    (asked.out / "criteria.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
