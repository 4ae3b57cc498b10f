r"""AKD beside no distillation and beside other losses, on real imagery: one pruned student, one budget of crops.

    python benchmarks/distillation.py --data DIR --teacher T [--macs 0.125] [--steps 400] [--seeds 3] [--table]

The teacher is pruned once; every way trains that student on the same crops (a seed decides them) with cross-entropy,
Dice, and one loss more. Each loss gets the best of three weights, a third, one and three times that of its authors
(AKD: all three modes alike), chosen on seed 0 and on val, for all alike; no distillation gets the best of three
learning rates instead, and the others have that one too. AKD's modes alone, and AKD with KL at its authors' weight, are
shown below the line: they are not searched over. Nor are the pairs of KL with one loss more, each of the two at the
weight that was best alone (AKD: its prototype reading, the best of the three). Goes on where it was stopped, also from
a committed distillation.json, with the same teacher and share of MACs; ``--table`` writes the page from what is there.
Start it twice with ``--threads 1`` on two cores: the runs are shared out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from study import Key, Run, Study, by_seed, made_on, mean_and_spread, take_work, train_once, weights_digest, written

from edpct.bench.report.tables import markdown_table
from edpct.cli.screen import screen
from edpct.data.layouts import open_dataset
from edpct.data.samples import Dataset
from edpct.distillation.learner import DistilLearner
from edpct.errors import EdpctError
from edpct.models.architecture import count_macs, count_parameters
from edpct.models.checkpoint import load_checkpoint, save_checkpoint
from edpct.progress import Silent
from edpct.pruning.prune import Budget, Pruner
from edpct.recipe import DistilSettings, PruneSettings
from edpct.training.validation import validate
from edpct.weights import shipped

NONE, AKD = "no distillation", "AKD"
RATES = (5e-4, 1e-3, 2e-3)
FACTORS = (1 / 3, 1.0, 3.0)
OFF = {"pixel": 0.0, "relation": 0.0, "prototype": 0.0}


def _akd(weight: float, *modes: str) -> dict[str, Any]:
    return {"kl": 0.0, "akd": {**OFF, **dict.fromkeys(modes or OFF, weight)}}


def _other(name: str, weight: float) -> dict[str, Any]:
    return {"kl": 0.0, "akd": OFF, name: weight}


# The weight of its authors, and the settings that a weight makes.
RIVALS = {
    "KL": (1.0, "kl"),
    "CWD": (3.0, "cwd"),
    "DIST": (1.0, "dist"),
    "attention transfer": (1000 / 32**2, "attention_transfer"),  # of maps of 32 x 32: crops of 256 at stride 8
    "RKD distance": (1.0, "rkd_distance"),
    "IFVD": (200.0, "ifvd"),
}
BELOW = {
    "AKD, pixel alone": "pixel",
    "AKD, relation alone": "relation",
    "AKD, prototype alone": "prototype",
}
BOTH = "AKD and KL"
PROTOTYPE = "AKD, prototype"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--macs", type=float, default=0.125)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: as many as there are cores")
    parser.add_argument("--table", action="store_true", help="write the page from the runs that are there")
    parser.add_argument("--work", type=Path, default=Path("runs/distillation"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/distillation"))
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    try:
        dataset = open_dataset(asked.data, "dubai")
        asked.teacher = shipped(asked.teacher)
        made_of = {"teacher": weights_digest(asked.teacher), "macs": asked.macs}
        study = Study(asked.out / "distillation.json", screen(), made_of)
        take_work(asked.work, made_of)
        student = pruned(asked.teacher, asked.macs, asked.work)
        if not asked.table:
            compare(study, student, dataset, asked)
        text = page(study, student, dataset, asked)
    except EdpctError as error:
        print(f"distillation: {error}", file=sys.stderr)
        return 2
    (asked.out / "distillation.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


def pruned(teacher: Path, macs: float, work: Path) -> Path:
    """The student that all ways begin with."""
    path = work / f"pruned-{macs:g}.safetensors"
    if not path.exists():
        checkpoint = load_checkpoint(teacher)
        size = checkpoint.card.task.preprocessing
        pruner = Pruner(checkpoint.model, PruneSettings(macs=macs), (size.height, size.width), Silent())
        save_checkpoint(path, pruner.to(Budget("macs", macs)).model, checkpoint.card)
    return path


def pairs() -> dict[str, str]:
    """What stands beside KL in each pair, by the pair's name."""
    return {f"KL and {PROTOTYPE}": f"{PROTOTYPE} alone", **{f"KL and {way}": way for way in RIVALS if way != "KL"}}


def weights_of(way: str) -> Sequence[float]:
    """The weights that a loss is tried at."""
    usual = RIVALS[way][0] if way in RIVALS else 1.0
    return [factor * usual for factor in FACTORS]


def settings_of(way: str, weight: float) -> dict[str, Any]:
    """The part of the recipe's section that makes a way."""
    if way == NONE:
        return {"kl": 0.0, "akd": OFF}
    if way == AKD:
        return _akd(weight)
    if way == BOTH:
        return {**_akd(weight), "kl": 1.0}
    if way in BELOW:
        return _akd(weight, BELOW[way])
    return _other(RIVALS[way][1], weight)


def compare(study: Study, student: Path, dataset: Dataset, asked: argparse.Namespace) -> None:
    """Make the runs that are not there yet."""
    budget = asked.steps, asked.batch, asked.crop

    def make(rate: float | None, kl: float = 0.0) -> Callable[[Key], Run]:
        def one(key: Key) -> Run:
            way, value, seed, *_ = key
            beside = pairs().get(way)
            chosen = settings_of(beside, value) | {"kl": kl} if beside else settings_of(way, value)
            return trained(way, value, chosen, value if rate is None else rate, seed, student, dataset, asked)

        return one

    rate = study.tuned([NONE], lambda _: RATES, asked.seeds, budget, make(None))[NONE][0].value
    alone = study.tuned([AKD, *RIVALS], weights_of, asked.seeds, budget, make(rate))
    weight = alone[AKD][0].value
    alone |= study.tuned([*BELOW, BOTH], lambda _: [weight], asked.seeds, budget, make(rate))
    kl = alone["KL"][0].value
    study.tuned([*pairs()], lambda pair: [alone[pairs()[pair]][0].value], asked.seeds, budget, make(rate, kl))


def trained(
    way: str,
    value: float,
    chosen: dict[str, Any],
    rate: float,
    seed: int,
    student: Path,
    dataset: Dataset,
    asked: argparse.Namespace,
) -> Run:
    """Distil one student, and measure it on val."""
    teacher, pupil = load_checkpoint(asked.teacher), load_checkpoint(student)
    task = teacher.card.task
    settings = DistilSettings.model_validate(
        {
            "steps": asked.steps, "batch": asked.batch, "crop": asked.crop, "lr": rate, "validate_every": 0,
            "save_every": 100, **chosen,
        }
    )  # fmt: skip
    torch.manual_seed(seed)
    learner = DistilLearner(pupil.model, teacher.model, settings, task.ignore_index, task.num_classes)
    name = f"{way}-{value:g}-{rate}-{seed}-{asked.steps}-{asked.batch}-{asked.crop}".replace(" ", "-")
    return train_once(way, value, seed, learner, dataset, task, settings, asked.work / name)


def page(study: Study, student: Path, dataset: Dataset, asked: argparse.Namespace) -> str:
    """The table, and which claims it bears out."""
    teacher, pupil = load_checkpoint(asked.teacher), load_checkpoint(student)
    size = teacher.card.task.preprocessing
    before, after = (count_macs(each.model, size.height, size.width) for each in (teacher, pupil))
    top = 100 * validate(teacher.model, dataset, teacher.card.task).miou
    runs = [run for run in study.runs if (run.steps, run.batch, run.crop) == (asked.steps, asked.batch, asked.crop)]
    ways = [NONE, AKD, *RIVALS, *BELOW, BOTH, *pairs()]
    found = {way: by_seed(way, runs) for way in ways}
    found = {way: chosen for way, chosen in found.items() if chosen}
    none = {run.seed: run.miou for run in found.get(NONE, [])}
    lines = []
    for way, chosen in found.items():
        gains = [run.miou - none[run.seed] for run in chosen if run.seed in none]
        gain = f"{sum(gains) / len(gains):+.2f}" if gains and way != NONE else "–"
        mean = mean_and_spread(chosen)[0]
        tuned = f"lr {chosen[0].value:g}" if way == NONE else f"{chosen[0].value:.3g}"
        each = " ".join(f"{run.miou:.2f}" for run in chosen)
        lines.append([way, tuned, written(chosen), each, gain, f"{mean - top:+.2f}"])
    tried = []
    for way in found:
        if way in (*BELOW, BOTH, *pairs()):
            continue
        first = sorted((run for run in runs if run.variant == way and run.seed == 0), key=lambda run: run.value)
        tried.append([way, *(f"{run.value:.3g}: {run.miou:.2f}" for run in first)])
    tried = [row + ["–"] * (4 - len(row)) for row in tried]
    parts = [
        "# Distillation",
        (
            f"Teacher: {teacher.card.network}, {before / 1e9:.2f} GMACs, {count_parameters(teacher.model) / 1e6:.2f} M "
            f"parameters, mIoU {top:.2f} % on val. Student: the same pruned to {after / 1e9:.2f} GMACs "
            f"({after / before:.1%}) and {count_parameters(pupil.model) / 1e6:.2f} M parameters, trained on "
            f"{asked.steps * asked.batch} crops of {asked.crop}x{asked.crop} pixels, the same for all. mIoU on val, "
            "mean ± standard deviation over the seeds; "
            "gains are taken seed by seed."
        ),
        markdown_table(
            ["way", "tuned to", "mIoU %", "each seed", "over no distillation", "against the teacher"], lines
        ),
        *claims(found, top),
        "Tried on seed 0 (learning rates without distillation, else weights), mIoU %:",
        markdown_table(["way", "a third", "its authors'", "three times"], tried),
        made_on(runs),
        (
            f"Made with:\n\n    python benchmarks/distillation.py --data DIR --teacher T --macs {asked.macs:g} "
            f"--steps {asked.steps} --batch {asked.batch} --crop {asked.crop} --seeds {asked.seeds}"
        ),
    ]
    return "\n\n".join(parts) + "\n"


def claims(found: dict[str, list[Run]], top: float) -> list[str]:
    """AKD against no distillation, against the best rival, and against the teacher; then the same of both with KL."""
    said = []
    together = f"KL and {PROTOTYPE}"
    for ours, rivals in ((AKD, [*RIVALS]), (together, ["KL", *(pair for pair in pairs() if pair != together)])):
        if ours in found and NONE in found:
            said += _verdicts(ours, [way for way in rivals if len(found.get(way, [])) == len(found[ours])], found)
            said.append(
                f"- {ours}, the student against its teacher: {mean_and_spread(found[ours])[0] - top:+.2f} points."
            )
    return ["\n".join(said)] if said else []


def _verdicts(ours: str, rivals: Sequence[str], found: dict[str, list[Run]]) -> list[str]:
    mean, spread = mean_and_spread(found[ours])
    against = {NONE: NONE}
    if rivals:
        best = max(rivals, key=lambda way: mean_and_spread(found[way])[0])
        against[f"the best rival, {best}"] = best
    said = []
    for name, way in against.items():
        other, theirs = mean_and_spread(found[way])
        larger = max(spread, theirs)
        verdict = "more than" if abs(mean - other) > larger else "within"
        said.append(f"- {ours} against {name}: {mean - other:+.2f} points, {verdict} the larger spread ({larger:.2f}).")
    return said


if __name__ == "__main__":
    sys.exit(main())
