r"""DP-CTNet, whole and with parts left out, beside what a user would train instead, on real imagery.

    python benchmarks/ablation.py --data DIR [--steps 400] [--seeds 3] [--rates LR ...] [--only NAME ...]
        [--table]

All train from scratch by edpct's own loop: the same crops (a seed decides them), the same augmentation, loss and
schedule, as many steps. Each network gets the best of the learning rates, chosen on seed 0 and on val, for all alike;
DP-CTNet has the auxiliary heads that belong to it. The weights of the last step count. Goes on where it was stopped,
also from a committed ablation.json; ``--table`` writes the page from what is there. Start it twice with ``--threads 1``
on two cores: the runs are shared out, and that is faster than one after the other with two threads.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import safetensors.torch
import torch
from study import Key, Run, Study, by_seed, made_on, mean_and_spread, train_once, written
from torch import nn

from edpct.bench.report.tables import markdown_table
from edpct.card import Card
from edpct.cli.screen import screen
from edpct.data.layouts import open_dataset
from edpct.data.samples import Dataset
from edpct.errors import EdpctError
from edpct.models.architecture import build_network, count_macs, count_parameters
from edpct.models.checkpoint import save_checkpoint
from edpct.models.dpctnet import PRESETS, DPCTNet, DPCTNetConfig
from edpct.models.foreign import Foreign
from edpct.models.names import parse_model
from edpct.recipe import TeachSettings
from edpct.task import Task
from edpct.training.teach import learner_of

SIZE = 512
RATES = (2.5e-4, 5e-4, 1e-3)
STEPS = 400
WHOLE = "DP-CTNet"
PARTS = {
    "without the transformer path": "transformer",
    "without the CNN path": "cnn",
    "without FRM": "refinement",
    "without FFM": "fusion",
}
RIVALS = {
    "FPN-ResNet18": "FPN-resnet18",
    "Unet-ResNet18": "Unet-resnet18",
    "SegFormer-B0": "Segformer-mit_b0",
    "DeepLabV3Plus-ResNet18": "DeepLabV3Plus-resnet18",
}


@dataclass(frozen=True)
class Budget:
    """What every variant gets: so many steps of so many crops of so many pixels a side; of DP-CTNet, which preset."""

    preset: str
    steps: int
    batch: int
    crop: int

    def file(self, work: Path, variant: str, rate: float, seed: int) -> Path:
        """Where the weights of a variant are kept."""
        name = f"{variant}-{self.preset}-{rate}-{seed}-{self.steps}-{self.batch}-{self.crop}".replace(" ", "-")
        return work / f"{name}.safetensors"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--preset", default="small", choices=PRESETS)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="learning rates to try on seed 0")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: as many as there are cores")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help=f"of: {', '.join(names())}")
    parser.add_argument("--table", action="store_true", help="write the page from the runs that are there")
    parser.add_argument("--work", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ablation"))
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    try:
        dataset = open_dataset(asked.data, "dubai")
        study = Study(asked.out / f"{file_name(asked.preset)}.json", screen())
        if not asked.table:
            compare(study, dataset, asked)
        text = page(study, asked, dataset.task.at_size(SIZE, SIZE))
    except EdpctError as error:
        print(f"ablation: {error}", file=sys.stderr)
        return 2
    (asked.out / f"{page_name(asked.preset, asked.steps)}.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


def file_name(preset: str) -> str:
    """Presets do not share runs: those of DP-CTNet are of one."""
    return "ablation" if preset == "small" else f"ablation-{preset}"


def page_name(preset: str, steps: int) -> str:
    """The page of the whole table has no number; longer runs lie in the same file, and have pages of their own."""
    return file_name(preset) if steps == STEPS else f"{file_name(preset)}-{steps}"


def names() -> list[str]:
    return [WHOLE, *PARTS, *RIVALS]


def compare(study: Study, dataset: Dataset, asked: argparse.Namespace) -> None:
    """Make the runs that are not there yet."""
    budget = Budget(asked.preset, asked.steps, asked.batch, asked.crop)
    wanted = [name for name in names() if not asked.only or name in asked.only]

    def make(key: Key) -> Run:
        variant, rate, seed, *_ = key
        return trained(variant, rate, seed, dataset, budget, asked.work)

    study.tuned(wanted, lambda _: asked.rates, asked.seeds, (asked.steps, asked.batch, asked.crop), make)


def network(variant: str, preset: str, task: Task) -> nn.Module:
    """A variant with random weights from torch's generator."""
    if variant in RIVALS:
        return build_network(parse_model(RIVALS[variant], task.num_classes))
    without = (PARTS[variant],) if variant in PARTS else ()
    return DPCTNet(
        DPCTNetConfig.model_validate({"num_classes": task.num_classes, **PRESETS[preset], "without": without})
    )


def trained(variant: str, rate: float, seed: int, dataset: Dataset, budget: Budget, work: Path) -> Run:
    """Train one, from scratch, measure it on val, and keep its weights."""
    task = dataset.task.at_size(SIZE, SIZE)
    torch.manual_seed(seed)
    model = network(variant, budget.preset, task)
    settings = TeachSettings(
        steps=budget.steps, batch=budget.batch, crop=budget.crop, lr=rate, validate_every=0, save_every=100
    )
    file = budget.file(work, variant, rate, seed)
    run = train_once(
        variant, rate, seed, learner_of(model, task, settings), dataset, task, settings, file.with_suffix("")
    )
    keep(model, task, file)
    return run


def keep(model: nn.Module, task: Task, path: Path) -> None:
    """Write the weights: those of rivals as peers.py takes them."""
    if isinstance(model, Foreign):
        safetensors.torch.save_model(model.network, str(path))
        return
    macs = count_macs(model, SIZE, SIZE)
    save_checkpoint(path, model, Card(network=WHOLE, task=task, parameters=count_parameters(model), macs=macs))


def page(study: Study, asked: argparse.Namespace, task: Task) -> str:
    """The table, and which claims it bears out."""
    runs = [run for run in study.runs if (run.steps, run.batch, run.crop) == (asked.steps, asked.batch, asked.crop)]
    found = {name: by_seed(name, runs) for name in names()}
    found = {name: chosen for name, chosen in found.items() if chosen}
    header = ["network", "M params", "GMACs", "best lr", "mIoU %", "each seed", *(f"IoU {name}" for name in task.names)]
    lines = []
    for name, chosen in found.items():
        parameters, macs = size_of(name, asked.preset, task)
        line = [name, f"{parameters / 1e6:.2f}", f"{macs / 1e9:.2f}", f"{chosen[0].value:g}", written(chosen)]
        line.append(" ".join(f"{run.miou:.2f}" for run in chosen))
        line += [f"{sum(run.iou.get(each, 0.0) for run in chosen) / len(chosen):.1f}" for each in task.names]
        lines.append(line)
    heads = f"DP-CTNet {asked.preset} with its auxiliary heads. " if WHOLE in found else ""
    tried = [[name, *(_at(name, rate, runs) for rate in asked.rates)] for name in found]
    crops = asked.steps * asked.batch
    parts = [
        "# DP-CTNet, its parts and its rivals",
        (
            f"From scratch on Dubai (train tiles 4, 5, 7, 8; val 2, 6), {crops} crops of "
            f"{asked.crop}x{asked.crop} pixels for each ({asked.steps} steps of {asked.batch}), the same crops, "
            f"augmentation, loss and schedule for all. {heads}Learning rate: the best of those tried on seed 0. "
            f"mIoU on val at {SIZE}x{SIZE}, mean ± standard deviation over the seeds."
        ),
        markdown_table(header, lines),
        *claims(found),
        "Learning rates tried, mIoU % on seed 0:",
        markdown_table(["network", *(f"{rate:g}" for rate in asked.rates)], tried),
        made_on(runs),
        (
            f"Made with:\n\n    python benchmarks/ablation.py --data DIR --preset {asked.preset} --steps {asked.steps} "
            f"--batch {asked.batch} --crop {asked.crop} --seeds {asked.seeds} "
            f"--rates {' '.join(f'{rate:g}' for rate in asked.rates)}"
            + (f" --only {shlex.join(found)}" if len(found) < len(names()) else "")
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _at(name: str, rate: float, runs: Sequence[Run]) -> str:
    hits = [run.miou for run in runs if (run.variant, run.value, run.seed) == (name, rate, 0)]
    return f"{hits[0]:.2f}" if hits else "–"


@lru_cache
def size_of(name: str, preset: str, task: Task) -> tuple[int, int]:
    """Parameters and MACs at the size of validation."""
    model = network(name, preset, task)
    return count_parameters(model), count_macs(model, SIZE, SIZE)


def claims(found: dict[str, list[Run]]) -> list[str]:
    """What the table says of the whole against each other row."""
    if WHOLE not in found:
        return []
    mean, spread = mean_and_spread(found[WHOLE])
    said = []
    for name, runs in found.items():
        if name == WHOLE:
            continue
        other, theirs = mean_and_spread(runs)
        more = mean - other
        verdict = "more than" if abs(more) > max(spread, theirs) else "within"
        said.append(
            f"- {name}: {more:+.2f} points for the whole, {verdict} the larger spread ({max(spread, theirs):.2f})."
        )
    return ["\n".join(said)]


if __name__ == "__main__":
    sys.exit(main())
