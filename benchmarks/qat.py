r"""Quantisation-aware training against calibration alone, and against as many more steps without rounding.

    python benchmarks/qat.py --data DIR --teacher teacher.pt --student student.safetensors [--steps 300] [--seeds 1]
        [--work runs/qat] [--out benchmarks/results/qat]

The student of ``edpct compress`` is quantised as it is; after ``--steps`` more of distillation (the control: what is
gained by training alone is not gained by rounding); and after as many with INT8 rounding (``edpct compress --qat``).
Both trainings share teacher, losses, learning rate, crops and precision, and hold batch normalisation. INT8 is
calibrated on the same windows each time, with no group left in FP32. mIoU over the whole val split on OpenVINO. Goes on
where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import torch
from study import work_of
from torch import nn

from edpct.bench.report.make import machine, versions
from edpct.bench.report.tables import markdown_table
from edpct.cli.screen import screen
from edpct.data.accuracy import Accuracy, measure_accuracy
from edpct.data.layouts import open_dataset
from edpct.data.samples import Dataset
from edpct.data.sampling import sample_covering
from edpct.data.tiling import windows
from edpct.distillation.learner import DistilLearner
from edpct.errors import EdpctError
from edpct.export.graph import read_graph
from edpct.export.int8 import quantise_int8
from edpct.export.layers import int8_share, layers_of
from edpct.export.onnx_export import export_onnx
from edpct.models.checkpoint import Checkpoint, load_checkpoint
from edpct.progress import Progress
from edpct.recipe import DistilSettings, ExportSettings, QatSettings, QuantiseSettings
from edpct.run.qat import train_quantised
from edpct.runtimes.ports import predictor
from edpct.runtimes.table import open_session
from edpct.training.loop import Training

IMAGES = QuantiseSettings().calibration_images
WAYS = ("as distilled", "more distillation", "QAT")


@dataclass(frozen=True)
class Result:
    """One student; mIoU and IoU in points, training in seconds."""

    way: str
    seed: int
    seconds: float
    fp32: float
    int8: float
    iou: dict[str, float]
    share: float


class HeldStatistics(DistilLearner):
    """Distillation as QAT does it, batch normalisation held, but without rounding."""

    def train(self, mode: bool = True) -> HeldStatistics:
        super().train(mode)
        for module in self.model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--layout")
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--student", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=QatSettings().steps)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("runs/qat"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/qat"))
    asked = parser.parse_args()
    try:
        dataset = open_dataset(asked.data, asked.layout)
        teacher = load_checkpoint(asked.teacher)
        work = work_of(asked.work, dataset, asked.teacher, asked.student)
        results = [
            result(way, seed, teacher, asked.student, dataset, asked.steps, work, screen())
            for way in WAYS
            for seed in (range(asked.seeds) if way != WAYS[0] else (0,))
        ]
    except EdpctError as error:
        print(f"qat: {error}", file=sys.stderr)
        return 2
    asked.out.mkdir(parents=True, exist_ok=True)
    facts = {
        "date": date.today().isoformat(), "machine": machine(), "versions": versions(),
        "steps": asked.steps, "results": [asdict(found) for found in results],
    }  # fmt: skip
    (asked.out / "qat.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    text = page(results, asked.steps)
    (asked.out / "qat.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


def result(
    way: str, seed: int, teacher: Checkpoint, weights: Path, dataset: Dataset, steps: int, work: Path,
    progress: Progress,
) -> Result:  # fmt: skip
    """From an earlier run where it is there; ``weights``: the student's."""
    said = work / f"{way.replace(' ', '-')}-{steps}-{seed}.json"
    if said.exists():
        return Result(**json.loads(said.read_text(encoding="utf-8")))
    student = load_checkpoint(weights)  # anew each time: training changes it
    folder = said.with_suffix("")
    folder.mkdir(exist_ok=True)
    began = time.monotonic()
    model = trained(way, seed, teacher, student, dataset, steps, folder, progress)
    seconds = time.monotonic() - began
    plain, int8 = folder / "fp32.onnx", folder / "int8.onnx"
    export_onnx(model, student.card, plain, ExportSettings(), progress)
    size = student.card.task.preprocessing
    shown = sample_covering(dataset, "train", IMAGES, size.height, size.width, 0)
    quantise_int8(plain, int8, student.card, [window.image for window in shown])
    before, after = (accuracy(path, student, dataset) for path in (plain, int8))
    iou = {
        name: 100 * value
        for name, value in zip(student.card.task.names, after.iou, strict=True)
        if value is not None
    }  # fmt: skip
    share = int8_share(layers_of(read_graph(int8)))
    found = Result(way, seed, seconds, 100 * before.miou, 100 * after.miou, iou, share)
    said.write_text(json.dumps(asdict(found)), encoding="utf-8")
    return found


def trained(
    way: str, seed: int, teacher: Checkpoint, student: Checkpoint, dataset: Dataset, steps: int, folder: Path,
    progress: Progress,
) -> nn.Module:  # fmt: skip
    losses, settings, task = DistilSettings(), QatSettings(enabled=True, steps=steps), student.card.task
    if way == "as distilled":
        return student.model
    if way == "QAT":
        model, _ = train_quantised(
            student, teacher.model, dataset, losses, settings, IMAGES, seed, folder, progress
        )  # fmt: skip
        return model
    torch.manual_seed(seed)
    learner = HeldStatistics(student.model, teacher.model, losses, task.ignore_index, task.num_classes)
    Training(
        learner, dataset, task, settings,
        seed=seed, workspace=folder, fingerprint=folder.name, progress=progress, title="Distilling on",
    ).run()  # fmt: skip
    return student.model


def accuracy(path: Path, student: Checkpoint, dataset: Dataset) -> Accuracy:
    task = student.card.task
    shown = windows(dataset, "val", task.preprocessing.height, task.preprocessing.width)
    with open_session(path, "openvino") as session:
        return measure_accuracy(predictor(session, task, path.name), shown, task.num_classes, task.ignore_index)


def page(results: list[Result], steps: int) -> str:
    base = results[0]
    header = ["student", "seed", "minutes", "FP32 mIoU %", "INT8 mIoU %", "INT8 lost, points", "against PTQ, points"]
    header += [f"IoU {name}" for name in base.iou]
    lines = []
    for found in results:
        line = [found.way, str(found.seed) if found.seconds > 1 else "", f"{found.seconds / 60:.1f}"]
        line += [f"{found.fp32:.2f}", f"{found.int8:.2f}", f"{found.int8 - found.fp32:+.2f}"]
        line += [f"{found.int8 - base.int8:+.2f}", *(f"{value:.2f}" for value in found.iou.values())]
        lines.append(line)
    gains = [
        f"{way} {statistics.mean(found.int8 for found in results if found.way == way) - base.int8:+.2f}"
        for way in WAYS[1:]
    ]
    here, used = machine()["machine"], versions()
    tools = ", ".join(f"{name} {used[name]}" for name in ("torch", "nncf", "openvino") if name in used)
    seeds = max(found.seed for found in results) + 1
    parts = [
        "# Quantisation-aware training",
        (
            f"{steps} more steps, with and without INT8 rounding, by the same losses on the same crops; then "
            f"calibrated alike, all in INT8 ({100 * base.share:.1f} % of the MACs). IoU of the INT8 engines, % on val."
        ),
        markdown_table(header, lines),
        f"INT8 against calibration alone, mean, points: {'; '.join(gains)}.",
        f"{here['cpu']}, {date.today().isoformat()}; {tools}.",
        (
            "Made with:\n\n    python benchmarks/qat.py --data DIR --teacher teacher.pt --student student.safetensors "
            f"--steps {steps} --seeds {seeds}"
        ),
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(main())
