"""``edpct compress``: a teacher in, a measured student out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edpct.bench.report.page import html_page
from edpct.bench.report.schema import Report, StageReport
from edpct.bench.report.tables import markdown
from edpct.bench.requests import check_sizes
from edpct.card import Card
from edpct.distillation.terms import chosen_taps
from edpct.models.checkpoint import load_checkpoint
from edpct.progress import Progress
from edpct.recipe import CompressRecipe
from edpct.run.datasets import dataset_of
from edpct.run.folder import Committed, RunFolder, full_disk_explained
from edpct.run.plan import run_stages
from edpct.run.stages import AFTER_TRAINING, QUANTISED, WEIGHTS, compression_stages


@dataclass(frozen=True)
class Compressed:
    """The outcome of a compression.

    Attributes:
        report: everything measured.
        page: the HTML page.
        files: what was put into the run folder for the user, by name.
    """

    report: Report
    page: Path
    files: dict[str, Path]


def compress(
    teacher: Path,
    data: Path | None,
    layout: str | None,
    recipe: CompressRecipe,
    out: Path,
    progress: Progress,
) -> Compressed:
    """Prune, distil, export, quantise, build and measure; what an earlier call finished is verified and skipped.

    Args:
        data: dataset folder; None: where the checkpoint says that its data lay.
        layout: of that folder; None: recognised.

    Raises:
        EdpctError: see the stages; everything that was finished stays.
    """
    card = _card_of(teacher, recipe)
    if recipe.export.size is not None:
        card = card.model_copy(update={"task": card.task.at_size(*recipe.export.size)})
    dataset = dataset_of(card, data, layout, teacher)
    check_sizes(card.task, dataset, teacher)  # the bench would refuse them, after all the training
    folder = RunFolder(out)
    with folder.locked(), full_disk_explained(out):
        done = run_stages(compression_stages(teacher, card, dataset, recipe), folder, progress)
        return _publish(folder, done, recipe)


def _card_of(teacher: Path, recipe: CompressRecipe) -> Card:
    """The teacher's card; what distillation cannot compare is refused here, before the work."""
    checkpoint = load_checkpoint(teacher)
    taps: tuple[str, ...] = tuple(checkpoint.model.TAPS)  # type: ignore[arg-type]  # nn.Module types all as Tensor
    chosen_taps(taps, taps, recipe.distil)  # a pruned network has its teacher's
    return checkpoint.card


def _publish(folder: RunFolder, done: dict[str, Committed], recipe: CompressRecipe) -> Compressed:
    """Copy what a user wants to the top of the run folder, and write the page over it."""
    wanted = {
        "student.safetensors": ("distil", WEIGHTS),
        **{name: ("export", name) for name in ("teacher.onnx", "student.onnx")},
        **{name: ("quantise", name) for name in ("student-fp16.onnx", "student-int8.onnx")},
        "pictures.png": ("pictures", "pictures.png"),
    }
    if "qat" in done:
        wanted |= {"student-qat.safetensors": ("qat", WEIGHTS), AFTER_TRAINING[1]: ("quantise", AFTER_TRAINING[1])}
    made = {"fuse": done["fuse"].facts["fused"], "build": done["build"].facts["plans"]}
    optional = {"student-qat.safetensors", AFTER_TRAINING[1]}
    for stem in (*QUANTISED, *(f"{stem}-fused" for stem in QUANTISED)):
        for stage, suffix in (("fuse", ".onnx"), ("build", ".plan"), ("build", ".plan.json")):
            name = f"{stem}{suffix}"
            optional.add(name)
            if name.removesuffix(".json") in made[stage]:
                wanted[name] = (stage, name)
    for name in optional - wanted.keys():  # that of an earlier run would not belong to the files beside it
        (folder.root / name).unlink(missing_ok=True)
    files = {name: folder.publish(done[stage].directory / source, name) for name, (stage, source) in wanted.items()}
    stages = tuple(
        StageReport(name=name, seconds=stage.seconds, facts=_summary(name, stage)) for name, stage in done.items()
    )
    report = Report.model_validate(done["bench"].facts["report"]).model_copy(
        update={"stages": stages, "recipe": recipe.model_dump(mode="json"), "pictures": "pictures.png"}
    )
    written = {
        "report.json": report.model_dump_json(indent=1) + "\n",
        "report.md": markdown(report),
        "report.html": html_page(report, files["pictures.png"].read_bytes()),
    }
    for name, text in written.items():
        files[name] = folder.root / name
        files[name].write_text(text, encoding="utf-8")
    return Compressed(report, files["report.html"], files)


def _summary(name: str, stage: Committed) -> dict[str, Any]:
    """The facts of a stage that belong on the page."""
    keep = {
        "prune": (
            "asked",
            "macs_share",
            "parameters_share",
            "criterion",
            "scope",
            "steps",
            "stopped",
            "speed",
            "widths",
        ),
        "distil": ("measures",),
        "qat": ("measures",),
        "export": ("parity",),
        "quantise": ("calibration_images", "int8_macs", "guarded"),
        "fuse": ("fused",),
        "build": ("plans", "target"),
    }
    return {key: stage.facts[key] for key in keep.get(name, ()) if key in stage.facts}
