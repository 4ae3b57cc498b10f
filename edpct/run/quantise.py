"""``edpct quantise``: an FP32 ONNX file in FP16 or in INT8, and what that costs on val."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from edpct.bench.pace import compare_pace
from edpct.bench.report.tables import Table
from edpct.bench.requests import Request, check_sizes
from edpct.card import Card
from edpct.data.accuracy import Accuracy, measure_accuracy
from edpct.data.samples import Dataset
from edpct.data.sampling import sample_covering, sample_windows
from edpct.data.tiling import count_windows, windows
from edpct.errors import QuantisationError
from edpct.export.accuracy_aware import Guarded, fastest_runtime, quantise_within
from edpct.export.fp16 import convert_fp16
from edpct.export.graph import read_graph
from edpct.export.int8 import quantise_int8
from edpct.export.layers import int8_share, layers_of
from edpct.progress import Progress
from edpct.recipe import QuantiseSettings
from edpct.run.datasets import dataset_of
from edpct.run.folder import full_disk_explained
from edpct.runtimes.artefact import card_of
from edpct.runtimes.ports import predictor
from edpct.runtimes.table import open_session

PACE_SECONDS = 2.0  # to tell what is lost in speed
WATCHED = 4  # windows on which activations are looked at before FP16


@dataclass(frozen=True)
class Quantised:
    """What ``edpct quantise`` wrote.

    Attributes:
        before, after: on the whole val split.
        guarded: how INT8 was held within its limit; None for FP16, or where that was not asked for.
        share: of the multiply-accumulates (0..1) that are INT8.
    """

    path: Path
    card: Card
    before: Accuracy
    after: Accuracy
    guarded: Guarded | None
    share: float


def quantise(
    source: Path,
    target: Path,
    precision: str,
    data: Path | None,
    layout: str | None,
    settings: QuantiseSettings,
    seed: int,
    progress: Progress,
) -> Quantised:
    """Write an FP32 ONNX file in ``precision``, "fp16" or "int8".

    Args:
        data: dataset folder; None: where the file says that its data lay.

    Raises:
        QuantisationError: the file is not FP32, or cannot be quantised.
        DataError: no data, of other classes, or with images smaller than the input.
    """
    card = card_of(source)
    if card.precision != "fp32":
        raise QuantisationError(f"{source.name} is {card.precision.upper()} already.", "Give the FP32 file.")
    if read_graph(source).graph.input[0].type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        raise QuantisationError(
            f"{source.name} takes images as they are (normalisation is fused).",
            "Give the plain file, and fuse afterwards: [fuse] in a recipe, or edpct compress.",
        )
    dataset = dataset_of(card, data, layout, source)
    check_sizes(card.task, dataset, source, "train")  # calibrates
    check_sizes(card.task, dataset, source)
    with full_disk_explained(target.parent):
        guarded = None
        if precision == "fp16":
            write_fp16(source, target, card, dataset, seed)
        else:
            guarded = write_int8(source, target, card, dataset, settings, seed, progress)
        before, after = (_accuracy(path, card, dataset, progress) for path in (source, target))
    return Quantised(target, card, before, after, guarded, int8_share(layers_of(onnx.load(target))))


def write_fp16(source: Path, target: Path, card: Card, dataset: Dataset, seed: int) -> None:
    """FP16, with what comes near its range on a few windows of the train split left in FP32."""
    size = card.task.preprocessing
    convert_fp16(source, target, card, sample_windows(dataset, "train", WATCHED, size.height, size.width, seed))


def write_int8(
    source: Path, target: Path, card: Card, dataset: Dataset, settings: QuantiseSettings, seed: int, progress: Progress
) -> Guarded | None:
    """INT8 within the limit of the settings, from windows of the train split; None where it is not measured."""
    size = card.task.preprocessing
    count = settings.calibration_images + settings.guard_images
    shown = sample_covering(dataset, "train", count, size.height, size.width, seed)
    # Of a small set there are not as many: each gets its part, and calibration at least one.
    held = len(shown) * settings.guard_images // count
    images = [window.image for window in shown[: len(shown) - held]]
    if not held:
        quantise_int8(source, target, card, images, calibration=settings.calibration)
        return None
    everything = target.with_name(f".{target.stem}-all.onnx")
    everything.unlink(missing_ok=True)  # of an attempt that was killed
    try:
        guarded = quantise_within(
            source, target, card, images, shown[-held:], settings.max_miou_drop, progress, settings.calibration,
            everything,
        )  # fmt: skip
        if not everything.exists():
            return guarded
        runtime = fastest_runtime()
        requests = [Request(path.name, path, runtime) for path in (target, everything)]
        paces = compare_pace(requests, dataset, PACE_SECONDS, PACE_SECONDS)
        return replace(guarded, faster=paces[1].ratio)
    finally:
        everything.unlink(missing_ok=True)


def _accuracy(path: Path, card: Card, dataset: Dataset, progress: Progress) -> Accuracy:
    size, task = card.task.preprocessing, card.task
    total = count_windows(dataset, "val", size.height, size.width)
    with open_session(path, fastest_runtime()) as session, progress.task(f"mIoU of {path.name}", total) as update:
        shown = windows(dataset, "val", size.height, size.width)
        return measure_accuracy(
            predictor(session, task, path.name), shown, task.num_classes, task.ignore_index,
            lambda done: update(done, ""),
        )  # fmt: skip


def tables_of(found: Quantised) -> list[Table]:
    """mIoU and IoU before and after; where groups were weighed, what each costs."""
    before, after = found.before, found.after
    pairs = [("mIoU", before.miou, after.miou)]
    pairs += [
        (f"IoU {name}", old, new)
        for name, old, new in zip(found.card.task.names, before.iou, after.iou, strict=True)
        if old is not None and new is not None
    ]
    lines = [[name, f"{100 * old:.2f}", f"{100 * new:.2f}", f"{100 * (new - old):+.2f}"] for name, old, new in pairs]
    tables: list[Table] = [(["% on val", "before", "after", "points"], lines)]
    if found.guarded is not None and found.guarded.groups:
        tables.append(groups_table(found.guarded))
    return tables


def groups_table(guarded: Guarded) -> Table:
    """What each group of layers costs in INT8, and where it stayed."""
    lines = [
        [g.name, str(g.layers), f"{100 * g.macs:.1f}", f"{g.loss:.2f}", "INT8" if g.int8 else "FP32"]
        for g in guarded.groups
    ]
    return ["group", "layers", "% of MACs", "points lost alone", "stays"], lines
