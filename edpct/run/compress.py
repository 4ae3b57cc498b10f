"""``edpct compress``: a teacher in, a measured student out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edpct.bench.engines import check_classes
from edpct.bench.report import class_table_of, machine_line, markdown_table, method_of, table_of
from edpct.card import Card
from edpct.data.layouts import open_dataset, open_source
from edpct.data.samples import Dataset
from edpct.errors import DataError
from edpct.models.checkpoint import load_checkpoint
from edpct.progress import Progress
from edpct.recipe import CompressRecipe
from edpct.run.folder import Committed, RunFolder, full_disk_explained
from edpct.run.plan import run_stages
from edpct.run.stages import PLANS, WEIGHTS, compression_stages


@dataclass(frozen=True)
class Compressed:
    """The outcome of a compression.

    Attributes:
        report: everything measured; see :func:`edpct.bench.report.report_data`.
        page: the Markdown page.
        files: what was put into the run folder for the user, by name.
    """

    report: dict[str, Any]
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
    card = load_checkpoint(teacher).card
    if recipe.export.size is not None:
        card = card.model_copy(update={"task": card.task.at_size(*recipe.export.size)})
    dataset = _dataset(card, data, layout, teacher)
    folder = RunFolder(out)
    with folder.locked(), full_disk_explained(out):
        done = run_stages(compression_stages(teacher, card, dataset, recipe), folder, progress)
        return _publish(folder, done, recipe)


def _dataset(card: Card, data: Path | None, layout: str | None, teacher: Path) -> Dataset:
    if data is not None:
        dataset = open_dataset(data, layout)
    elif card.data is None:
        raise DataError(f"{teacher} does not say where its training data lay.", "Give it with --data DIR.")
    elif not Path(card.data.directory).is_dir():
        raise DataError(f"The data of {teacher} no longer lies in {card.data.directory}.", "Give it with --data DIR.")
    else:
        dataset = open_source(card.data)
    check_classes(card.task, dataset, teacher)
    dataset.split("train")
    dataset.split("val")
    return dataset


def _publish(folder: RunFolder, done: dict[str, Committed], recipe: CompressRecipe) -> Compressed:
    """Copy what a user wants to the top of the run folder, and write the page over it."""
    wanted = {
        "student.safetensors": ("distil", WEIGHTS),
        **{name: ("export", name) for name in ("teacher.onnx", "student.onnx")},
        **{name: ("quantise", name) for name in ("student-fp16.onnx", "student-int8.onnx")},
        "pictures.png": ("pictures", "pictures.png"),
    }
    for name in [f"{stem}{suffix}" for stem in PLANS for suffix in (".plan", ".plan.json")]:
        if name.removesuffix(".json") in done["build"].facts["plans"]:
            wanted[name] = ("build", name)
        else:  # a plan of an earlier run would not belong to the files beside it
            (folder.root / name).unlink(missing_ok=True)
    files = {name: folder.publish(done[stage].directory / source, name) for name, (stage, source) in wanted.items()}
    report = dict(done["bench"].facts["report"])
    report |= {
        "stages": [{"name": name, "seconds": stage.seconds, **_summary(name, stage)} for name, stage in done.items()],
        "recipe": recipe.model_dump(mode="json"),
    }
    json_path, page = folder.root / "report.json", folder.root / "report.md"
    json_path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    page.write_text(_page(report), encoding="utf-8")
    return Compressed(report, page, {**files, "report.json": json_path, "report.md": page})


def _summary(name: str, stage: Committed) -> dict[str, Any]:
    """The facts of a stage that belong on the page."""
    keep = {
        "prune": ("ratio", "widths"),
        "distil": ("measures",),
        "export": ("parity",),
        "quantise": ("calibration_images", "int8_weights"),
        "build": ("plans", "target"),
    }
    return {key: stage.facts[key] for key in keep.get(name, ()) if key in stage.facts}


def _page(report: dict[str, Any]) -> str:
    rows = {row["name"]: row for row in reversed(report["rows"])}
    teacher, student = rows["teacher"], rows["INT8"]
    runtime = student["runtime"]
    claim = (
        f"The INT8 student has {student['macs'] / teacher['macs']:.1%} of the teacher's MACs, "
        f"{student['fps'] / teacher['fps']:.1f} times its FPS on {runtime} (teacher FP32, student INT8) and "
        f"{100 * (student['miou'] - teacher['miou']):+.2f} points of mIoU"
        f"{_largest_loss(teacher['iou'], student['iou'])}."
    )
    parts = [
        f"# {teacher['network']}, compressed",
        claim,
        markdown_table(*table_of(report)),
        method_of(report),
        markdown_table(*class_table_of(report)),
        "![image, truth, teacher, student, disagreement](pictures.png)",
        markdown_table(
            ["stage", "seconds"], [[stage["name"], f"{stage['seconds']:.1f}"] for stage in report["stages"]]
        ),
        machine_line(report),
    ]
    return "\n\n".join(parts) + "\n"


def _largest_loss(teacher: dict[str, float | None], student: dict[str, float | None]) -> str:
    """The class that lost most, as a half sentence: a mean can hide a class that is gone."""
    lost = {name: was - (student[name] or 0.0) for name, was in teacher.items() if was is not None}
    worst = max(lost, key=lambda name: lost[name])
    return f"; most is lost on {worst}, {-100 * lost[worst]:+.1f} points of IoU" if lost[worst] > 0 else ""
