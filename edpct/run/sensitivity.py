"""``edpct sensitivity``: which groups of layers a network can lose channels from, and which it cannot."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch

from edpct.bench.journal import Journal
from edpct.data.sampling import sample_labelled
from edpct.data.tiling import Window
from edpct.errors import DataError, PruningError, RunError
from edpct.models.checkpoint import load_checkpoint
from edpct.progress import Progress
from edpct.pruning.criteria import NEED_GRADIENTS
from edpct.pruning.prune import Pruner
from edpct.pruning.sensitivity import (
    Question,
    Sensitivity,
    SensitivitySample,
    Trial,
    check_ratios,
    load_sensitivity,
    measure_sensitivity,
    scored_on,
)
from edpct.recipe import PruneSettings
from edpct.run.datasets import dataset_of
from edpct.run.pruning import labelled_batches
from edpct.run.sensitivity_page import sensitivity_html, sensitivity_markdown
from edpct.runtimes.artefact import sha256_of

TRIAL = "trial"


def analyse(
    teacher: Path,
    data: Path | None,
    layout: str | None,
    settings: PruneSettings,
    ratios: Sequence[float],
    seed: int,
    out: Path,
    worst: int,
    progress: Progress,
) -> tuple[Sensitivity, list[Path]]:
    """Measure a checkpoint on ``settings.images`` training windows; write JSON, Markdown and a page.

    An analysis that was stopped goes on where it was, and one that is finished with these settings is taken as it is.

    Args:
        data, layout: see :func:`edpct.run.compress.compress`.
        out: the JSON file; the others lie beside it.
        worst: groups named in the plot.

    Returns:
        The analysis and the files written.

    Raises:
        EdpctError: settings, checkpoint or data cannot be used, or a file cannot be written.
    """
    ratios = check_ratios(ratios)
    check_out(out)
    checkpoint = load_checkpoint(teacher)
    task = checkpoint.card.task
    dataset = dataset_of(checkpoint.card, data, layout, teacher)
    size = (task.preprocessing.height, task.preprocessing.width)
    windows = sample_labelled(dataset, "train", settings.images, *size, seed)
    if not any((window.labels != task.ignore_index).any() for window in windows):
        raise DataError(
            f"The {len(windows)} windows drawn from {dataset.root} have no labelled pixel.", "Check --data."
        )
    question = Question(
        teacher=teacher.name, sha256=sha256_of(teacher), network=checkpoint.card.network,
        criterion=settings.criterion, step=settings.width_step, leave_out=settings.leave_out, ratios=ratios,
        sample=SensitivitySample(windows=len(windows), seed=seed, sha256=_digest(windows)),
    )  # fmt: skip
    result = _finished(out, question)
    if result is not None:
        progress.say(f"  {out} is finished with these settings; nothing to measure.")
        return result, _write(result, out, worst)
    grads = labelled_batches(dataset, task, settings.images, seed) if settings.criterion in NEED_GRADIENTS else ()
    pruner = Pruner(checkpoint.model, settings, size, progress, grads, task.ignore_index, seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    journal = Journal(out.with_name(f".{out.name}.journal"), question.model_dump_json())
    known: dict[Trial, float] = {(entry["group"], entry["kept"]): entry["miou"] for entry in journal.found(TRIAL)}

    def keep(trial: Trial, miou: float) -> None:
        journal.add(TRIAL, group=trial[0], kept=trial[1], miou=miou)

    evaluate = scored_on(windows, task, device)
    baseline, groups = measure_sensitivity(pruner, evaluate, ratios, progress, known, keep)
    result = Sensitivity(**dict(question), baseline=baseline, groups=groups)
    files = _write(result, out, worst)
    journal.finish()
    return result, files


def check_out(out: Path) -> None:
    """Refuse a file that could not be written, before anything is measured.

    Raises:
        RunError: not named .json, a folder, or in a folder that is not there.
    """
    if out.suffix.lower() != ".json":
        raise RunError(f"The analysis goes to a .json file, and {out.name} is none.", "The page is put beside it.")
    if not out.resolve().parent.is_dir():
        raise RunError(f"There is no folder {out.parent} for {out.name}.", "Make it first.")
    if out.is_dir():
        raise RunError(f"{out} is a folder.", "Name a file in it.")


def _digest(windows: Sequence[Window]) -> str:
    digest = hashlib.sha256()
    for window in windows:
        digest.update(window.image.tobytes())
        digest.update(window.labels.tobytes())
    return digest.hexdigest()


def _finished(out: Path, question: Question) -> Sensitivity | None:
    """What lies there already, if it answers this question."""
    try:
        found = load_sensitivity(out)
    except PruningError:
        return None
    return found if all(getattr(found, name) == value for name, value in question) else None


def _write(result: Sensitivity, out: Path, worst: int) -> list[Path]:
    written = {
        out: result.to_json(),
        out.with_suffix(".md"): sensitivity_markdown(result),
        out.with_suffix(".html"): sensitivity_html(result, worst),
    }
    for path, text in written.items():
        path.write_text(text, encoding="utf-8")
    return list(written)
