"""``edpct train``: a teacher from scratch, and the page that shows how it learnt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edpct.bench.report.curves import loss_figure, validation_figure
from edpct.bench.report.document import document, html_table, typeset
from edpct.bench.report.wording import UNKNOWN
from edpct.data.samples import Dataset
from edpct.progress import Progress
from edpct.recipe import TrainRecipe
from edpct.training.log import LOG_FILE, read_losses
from edpct.training.processes import processes
from edpct.training.resume import History
from edpct.training.teach import TaughtTeacher, teach

PAGE_FILE = "training.html"


def train(recipe: TrainRecipe, dataset: Dataset, out: Path, size: tuple[int, int], progress: Progress) -> TaughtTeacher:
    """Train a DP-CTNet, and write ``training.html`` beside it.

    Raises:
        EdpctError: see :func:`edpct.training.teach.teach`.
    """
    taught = teach(recipe, dataset, out, size, progress)
    if processes().is_main_process:
        (out / PAGE_FILE).write_text(training_page(taught, recipe), encoding="utf-8")
    return taught


def training_page(taught: TaughtTeacher, recipe: TrainRecipe) -> str:
    """Validation and loss over the steps, and every validation in figures: one HTML file without scripts."""
    names = taught.card.task.names
    measures = [{"step": m.step, "miou": m.miou, "iou": m.iou} for m in taught.history.measures]
    table = html_table(_table(taught.history, names), "Validations; IoU in percent", {})
    sections = (
        ("validation", "Validation", validation_figure("course", measures, names) + table),
        ("loss", "Loss", loss_figure("loss-course", read_losses(taught.checkpoint.with_name(LOG_FILE)))),
    )
    top = f'<p class="lead">{typeset(headline_of(taught.history))}</p>'
    return document(f"{taught.card.network}, trained", f"edpct train · seed {recipe.seed}", top, sections)


def headline_of(history: History) -> str:
    """The outcome in one or two sentences."""
    found, last = history.result, history.measures[-1]
    chosen = " The weights are those that validated best, so that the figure flatters them." if found != last else ""
    took = f"{last.step:,} steps, {history.seconds / 60:.1f} minutes"
    return f"{100 * found.miou:.2f} % mIoU on the val split at step {found.step:,} ({took} of training).{chosen}"


def _table(history: History, names: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    lines = [
        [f"{m.step:,}", f"{m.loss:.4f}", f"{100 * m.miou:.2f}"]
        + [UNKNOWN if value is None else f"{100 * value:.1f}" for value in m.iou]
        for m in history.measures
    ]
    return ["step", "loss", "mIoU", *names], lines
