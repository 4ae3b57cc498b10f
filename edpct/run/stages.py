"""The stages of a compression, each as a function from a desk to artefacts; only this package knows their order."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import torch

from edpct.bench.measure import bench
from edpct.bench.report.make import load_average, make_report
from edpct.bench.report.pictures import Shown, picture_sheet
from edpct.bench.requests import Request
from edpct.card import Card
from edpct.data.fingerprint import data_fingerprint
from edpct.data.samples import Dataset
from edpct.data.sampling import sample_labelled
from edpct.distillation.learner import DistilLearner
from edpct.export.build import build_plan, choose_target
from edpct.export.fuse import fuse
from edpct.export.layers import int8_share, layers_of
from edpct.export.onnx_export import export_onnx
from edpct.export.parity import check_parity
from edpct.models.architecture import counted
from edpct.models.checkpoint import load_checkpoint, save_checkpoint
from edpct.pruning.sensitivity import load_sensitivity
from edpct.recipe import CompressRecipe
from edpct.run.plan import Desk, Stage
from edpct.run.pruning import Pruning
from edpct.run.qat import train_quantised
from edpct.run.quantise import write_fp16, write_int8
from edpct.run.speed import parse_target
from edpct.runtimes.artefact import card_of, sha256_of
from edpct.runtimes.session import Options
from edpct.training.loop import Training

WEIGHTS = "weights.safetensors"
PARITY_IMAGES = 8
# Rows of the final table: title, ONNX file, and the stage it comes from.
ENGINES = (
    ("teacher", "teacher.onnx", "export"),
    ("pruned", "pruned.onnx", "export"),
    ("distilled", "student.onnx", "export"),
    ("FP16", "student-fp16.onnx", "quantise"),
    ("INT8", "student-int8.onnx", "quantise"),
)
FUSED = ("INT8, fused", "student-int8-fused.onnx", "fuse")  # one more, where something is fused
# With QAT, "INT8" is the student that was trained for it, and this row what calibration alone makes of the distilled.
AFTER_TRAINING = ("INT8, no QAT", "student-int8-ptq.onnx", "quantise")
QUANTISED = ("student-fp16", "student-int8")


def compression_stages(teacher: Path, card: Card, dataset: Dataset, recipe: CompressRecipe) -> list[Stage]:
    """The stage table of ``edpct compress``.

    Args:
        teacher: the user's checkpoint, already seen to load.
        card: its card, at the size to export.
    """
    data = data_fingerprint(dataset)
    common = {"seed": recipe.seed, "data": data}
    size = [card.task.preprocessing.height, card.task.preprocessing.width]
    settings = {
        name: getattr(recipe, name).model_dump(mode="json") for name in type(recipe).model_fields if name != "seed"
    }
    torch_version, onnx_versions = ("torch",), ("torch", "onnx", "onnxsim", "onnxscript")
    calibration = {"calibration_images": recipe.quantise.calibration_images}
    qat = [
        Stage(
            "qat", ("teacher", "distil"), {**settings["qat"], "losses": settings["distil"], **calibration, **common},
            ("torch", "nncf"), partial(_qat, recipe, dataset),
        )
    ] if recipe.qat.enabled else []  # fmt: skip
    return [
        Stage(
            "teacher", (), {"sha256": sha256_of(teacher), "size": size}, torch_version, partial(_teacher, teacher, card)
        ),
        Stage(
            "prune", ("teacher",), pruning_settings(recipe, data), pruning_packages(recipe),
            partial(_prune, recipe, dataset), format=2,
        ),
        Stage(
            "distil", ("teacher", "prune"), {**settings["distil"], **common}, torch_version,
            partial(_distil, recipe, dataset),
        ),
        *qat,
        Stage(
            "export", ("teacher", "prune", "distil", *(stage.name for stage in qat)),
            {**settings["export"], **common}, onnx_versions, partial(_export, recipe, dataset), format=2,
        ),
        Stage(
            "quantise", ("export",), {**settings["quantise"], **common}, ("onnx", "onnxruntime", "nncf"),
            partial(_quantise, recipe, dataset), format=5,
        ),
        Stage(
            "fuse", ("quantise",), settings["fuse"], ("onnx",), partial(_fuse, recipe)
        ),
        Stage(
            "build", ("quantise", "fuse"), settings["build"], ("tensorrt", "tensorrt-rtx"), partial(_build, recipe),
            format=2,
        ),
        Stage(
            "bench", ("export", "quantise", "fuse"), {**settings["bench"], **common}, ("onnxruntime", "openvino"),
            partial(_bench, recipe, dataset), format=5,
        ),
        Stage(
            "pictures", ("export", "quantise"), common, ("onnxruntime", "pillow"), partial(_pictures, dataset),
            format=3,
        ),
    ]  # fmt: skip


def pruning_settings(recipe: CompressRecipe, data: dict[str, Any] | None) -> dict[str, Any]:
    """What decides a pruning: its settings, the data, the sensitivity's content, and how a timed engine is made.

    Args:
        data: fingerprint of the dataset, where there is one.
    """
    needs: dict[str, Any] = {**recipe.prune.model_dump(mode="json"), "seed": recipe.seed, "data": data}
    if recipe.prune.spare is not None:
        load_sensitivity(recipe.prune.spare)  # says what is wrong with it before anything is done
        needs["spared"] = sha256_of(recipe.prune.spare)
    if recipe.prune.target_fps is not None:
        parse_target(recipe.prune.on)
        needs["engine"] = [recipe.export.model_dump(mode="json"), recipe.bench.model_dump(mode="json")]
    return needs


def pruning_packages(recipe: CompressRecipe) -> tuple[str, ...]:
    """Distributions whose version matters to a pruning."""
    timed = ("onnx", "nncf", "onnxruntime", "openvino", "tensorrt", "tensorrt-rtx")
    return ("torch", "torch-pruning", *(timed if recipe.prune.target_fps is not None else ()))


def _teacher(source: Path, card: Card, desk: Desk) -> dict[str, Any]:
    model = load_checkpoint(source).model
    save_checkpoint(desk.workspace / WEIGHTS, model, counted(card, model))
    return {}


def _prune(recipe: CompressRecipe, dataset: Dataset, desk: Desk) -> dict[str, Any]:
    teacher = load_checkpoint(desk.file("teacher", WEIGHTS))
    pruning = Pruning(
        teacher, recipe.prune, dataset, recipe.seed, desk.workspace, desk.progress, recipe.export, recipe.bench
    )
    model = pruning.run()
    card = counted(teacher.card.model_copy(update={"network": f"{teacher.card.network}, pruned"}), model)
    save_checkpoint(desk.workspace / WEIGHTS, model, card)
    desk.progress.say(
        f"  {card.macs / 1e9:.2f} of {teacher.card.macs / 1e9:.2f} GMACs ({card.macs / teacher.card.macs:.1%}) and "
        f"{card.parameters / 1e6:.2f} of {teacher.card.parameters / 1e6:.2f} M parameters are left."
    )
    return pruning.facts


def _distil(recipe: CompressRecipe, dataset: Dataset, desk: Desk) -> dict[str, Any]:
    teacher = load_checkpoint(desk.file("teacher", WEIGHTS))
    student = load_checkpoint(desk.file("prune", WEIGHTS))
    task = teacher.card.task
    torch.manual_seed(recipe.seed)
    learner = DistilLearner(student.model, teacher.model, recipe.distil, task.ignore_index, task.num_classes)
    history = Training(
        learner, dataset, task, recipe.distil,
        seed=recipe.seed, workspace=desk.workspace, fingerprint=desk.workspace.name, progress=desk.progress,
        title="Distilling",
    ).run()  # fmt: skip
    name = _student_name(teacher.card.network)
    card = counted(student.card.model_copy(update={"network": name}), student.model)
    save_checkpoint(desk.workspace / WEIGHTS, student.model, card)
    return history.as_dict()


def _qat(recipe: CompressRecipe, dataset: Dataset, desk: Desk) -> dict[str, Any]:
    teacher = load_checkpoint(desk.file("teacher", WEIGHTS))
    student = load_checkpoint(desk.file("distil", WEIGHTS))
    model, history = train_quantised(
        student, teacher.model, dataset, recipe.distil, recipe.qat, recipe.quantise.calibration_images, recipe.seed,
        desk.workspace, desk.progress,
    )  # fmt: skip
    save_checkpoint(desk.workspace / WEIGHTS, model, student.card)
    return history.as_dict()


def _student_name(teacher: str) -> str:
    return f"E{teacher}" if teacher.startswith("DP-CTNet") else f"{teacher}, distilled"


def _export(recipe: CompressRecipe, dataset: Dataset, desk: Desk) -> dict[str, Any]:
    facts = {}
    size = load_checkpoint(desk.file("teacher", WEIGHTS)).card.task.preprocessing
    shown = sample_labelled(dataset, "val", PARITY_IMAGES, size.height, size.width, recipe.seed)
    images, truth = [window.image for window in shown], [window.labels for window in shown]
    names = {"teacher": "teacher.onnx", "prune": "pruned.onnx", "distil": "student.onnx", "qat": "student-qat.onnx"}
    names = {stage: name for stage, name in names.items() if stage in desk.parents}
    with desk.progress.task("Exporting", len(names)) as update:
        for done, (stage, name) in enumerate(names.items(), 1):
            checkpoint = load_checkpoint(desk.file(stage, WEIGHTS))
            path = desk.workspace / name
            if not path.exists():  # an interrupted attempt left it; files get their names when they are whole
                export_onnx(checkpoint.model, checkpoint.card, path, recipe.export, desk.progress)
            task = checkpoint.card.task
            parity = check_parity(checkpoint.model, path, task, images, recipe.export.tolerance, truth)
            facts[name] = asdict(parity)
            update(done, f"{name}: largest difference {parity.largest:.0e} of the logits' range")
    return {"parity": facts}


def _quantise(recipe: CompressRecipe, dataset: Dataset, desk: Desk) -> dict[str, Any]:
    source = desk.file("export", "student.onnx")
    write_fp16(source, desk.workspace / "student-fp16.onnx", card_of(source), dataset, recipe.seed)
    sources = {"student-int8.onnx": source}
    if recipe.qat.enabled:
        sources = {"student-int8.onnx": desk.file("export", "student-qat.onnx"), AFTER_TRAINING[1]: source}
    found = {}
    for name, fp32 in sources.items():
        target, said = desk.workspace / name, desk.workspace / f"{Path(name).stem}.json"
        if not said.exists():  # an interrupted attempt left it, written after the graph
            guarded = write_int8(fp32, target, card_of(fp32), dataset, recipe.quantise, recipe.seed, desk.progress)
            said.write_text(json.dumps(asdict(guarded) if guarded is not None else None), encoding="utf-8")
        found[name] = json.loads(said.read_text(encoding="utf-8"))
    return {
        "calibration_images": recipe.quantise.calibration_images,
        "int8_macs": int8_share(layers_of(onnx.load(desk.workspace / "student-int8.onnx"))),
        "guarded": found["student-int8.onnx"],
    }


def _fuse(recipe: CompressRecipe, desk: Desk) -> dict[str, Any]:
    if not recipe.fuse.anything:
        return {"fused": []}
    for name in QUANTISED:
        source = desk.file("quantise", f"{name}.onnx")
        fuse(source, desk.workspace / f"{name}-fused.onnx", card_of(source), recipe.fuse)
    return {"fused": [f"{name}-fused.onnx" for name in QUANTISED]}


def _build(recipe: CompressRecipe, desk: Desk) -> dict[str, Any]:
    target = recipe.build.target
    chosen = choose_target(desk.progress) if target == "auto" else target
    if chosen is None or chosen == "none":
        return {"plans": []}
    sources = [desk.file("quantise", f"{name}.onnx") for name in QUANTISED]
    if recipe.fuse.anything:
        sources += [desk.file("fuse", f"{name}-fused.onnx") for name in QUANTISED]
    plans = [f"{source.stem}.plan" for source in sources]
    for source, plan in zip(sources, plans, strict=True):
        build_plan(source, desk.workspace / plan, chosen, desk.progress, recipe.build)
    return {"plans": plans, "target": chosen}


def _bench(recipe: CompressRecipe, dataset: Dataset, desk: Desk) -> dict[str, Any]:
    load = load_average()
    rows = [*ENGINES, *([AFTER_TRAINING] if recipe.qat.enabled else []), *([FUSED] if recipe.fuse.anything else [])]
    requests = [
        Request(title, desk.file(stage, name), runtime, batch=batch, options=Options(threads=recipe.bench.threads))
        for title, name, stage in rows
        for runtime in recipe.bench.runtimes
        for batch in recipe.bench.batch
    ]
    journal = desk.workspace / "journal.jsonl"
    measured = bench(requests, dataset, recipe.bench, desk.progress, journal)
    report = make_report(measured, dataset, recipe.bench, load, seed=recipe.seed, reference=ENGINES[0][0])
    journal.unlink()
    return {"report": report.model_dump(mode="json")}


def _pictures(dataset: Dataset, desk: Desk) -> dict[str, Any]:
    sheet = picture_sheet(
        Shown("teacher", desk.file("export", "teacher.onnx"), "onnxruntime"),
        Shown("student INT8", desk.file("quantise", "student-int8.onnx"), "onnxruntime"),
        dataset,
        desk.progress,
    )
    (desk.workspace / "pictures.png").write_bytes(sheet)
    return {}
