r"""INT8 by edpct and by what a user would take instead, on networks of segmentation-models-pytorch, side by side.

    python benchmarks/quantisers.py --data DIR [--steps 400] [--work runs/quantisers]
        [--out benchmarks/results/quantisers]

Each network is trained from scratch on train, exported in FP32 and quantised in each way (:mod:`quantiser_ways`). All
engines take turns in one bench on OpenVINO; mIoU is over the whole val split. TensorRT for RTX is asked to build each
graph. What is there already is not made again: a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import safetensors.torch
import torch
from numpy.typing import NDArray
from precision import accuracy, public
from quantiser_ways import LIMIT, WAYS, Material
from study import work_of
from torch import nn

from edpct.bench.measure import bench
from edpct.bench.report.claim import machine_line
from edpct.bench.report.make import load_average, make_report
from edpct.bench.report.schema import Report
from edpct.bench.report.tables import Table, markdown_table
from edpct.bench.requests import Request
from edpct.card import Card
from edpct.cli.screen import screen
from edpct.data.layouts import open_dataset
from edpct.data.samples import Dataset
from edpct.data.sampling import sample_labelled
from edpct.data.tiling import windows
from edpct.errors import EdpctError
from edpct.export.build import build_plan
from edpct.export.layers import int8_share, layers_of
from edpct.export.onnx_export import export_onnx
from edpct.export.parity import check_parity
from edpct.models.adopt import adopt
from edpct.progress import Progress
from edpct.recipe import BenchSettings, ExportSettings, OptimiseSettings, QuantiseSettings
from edpct.runtimes.artefact import card_of
from edpct.runtimes.ports import predictor
from edpct.runtimes.table import open_session
from edpct.training.loop import Training
from edpct.training.objective import SupervisedLearner

SEED = 0
SIZE = 512  # pixels, both ways
NETWORKS = {
    "SegFormer-B0": "Segformer-mit_b0",
    "Unet-ResNet18": "Unet-resnet18",
    "FPN-MobileNetV2": "FPN-mobilenet_v2",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--layout")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--work", type=Path, default=Path("runs/quantisers"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/quantisers"))
    asked = parser.parse_args()
    try:
        dataset = open_dataset(asked.data, asked.layout)
        work = work_of(asked.work, dataset)
        sources = [trained(name, dataset, asked.steps, work, screen()) for name in NETWORKS]
        made = {source.stem: dict(quantised(source, dataset, screen())) for source in sources}
        settings = BenchSettings(seconds=asked.seconds, rounds=12)
        load = load_average()
        requests = [request for source in sources for request in rows(source, made[source.stem])]
        measured = bench(requests, dataset, settings, screen(), work / "journal.jsonl")
    except EdpctError as error:
        print(f"quantisers: {error}", file=sys.stderr)
        return 2
    command = f"python benchmarks/quantisers.py {shlex.join(public(sys.argv[1:]))}"
    report = make_report(measured, dataset, settings, load, seed=SEED, reference=requests[0].name, command=command)
    asked.out.mkdir(parents=True, exist_ok=True)
    facts = {"steps": asked.steps, "made": made, "report": report.model_dump(mode="json")}
    (asked.out / "quantisers.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    text = page(report, requests, made, asked.steps)
    (asked.out / "quantisers.md").write_text(text, encoding="utf-8")
    print(text)
    (work / "journal.jsonl").unlink()
    return 0


def trained(name: str, dataset: Dataset, steps: int, work: Path, progress: Progress) -> Path:
    """The FP32 file of a network, trained from scratch, checked against torch."""
    folder = work / f"{name}-{steps}"
    folder.mkdir(exist_ok=True)
    weights, path = folder / "weights.safetensors", folder / f"{name}.onnx"
    if path.exists():
        return path
    task = dataset.task.at_size(SIZE, SIZE)
    torch.manual_seed(SEED)
    network, card = adopt(NETWORKS[name], weights if weights.exists() else None, task, None)
    if not weights.exists():
        train(network, card, dataset, steps, folder, progress)
        safetensors.torch.save_model(network.network, str(weights))  # type: ignore[arg-type]
    export_onnx(network, card, folder / "unchecked.onnx", ExportSettings(), progress)
    images = [window.image for window in sample_labelled(dataset, "val", 2, SIZE, SIZE, SEED)]
    check_parity(network, folder / "unchecked.onnx", task, images, ExportSettings().tolerance)
    return (folder / "unchecked.onnx").replace(path)


def train(network: nn.Module, card: Card, dataset: Dataset, steps: int, folder: Path, progress: Progress) -> None:
    """In place, on labels alone."""
    settings = OptimiseSettings(steps=steps, validate_every=0)
    learner = SupervisedLearner(network, card.task.ignore_index, card.task.num_classes, settings.dice, 0.0, {})
    Training(
        learner, dataset, card.task, settings, seed=SEED, workspace=folder, fingerprint=card.network,
        progress=progress, title=f"Training {card.network}",
    ).run()  # fmt: skip


def quantised(source: Path, dataset: Dataset, progress: Progress) -> Iterator[tuple[str, dict[str, Any]]]:
    """What came of each way by its name: share of INT8, and what TensorRT says."""
    settings = QuantiseSettings()
    count = settings.calibration_images + settings.guard_images
    shown = sample_labelled(dataset, "train", count, SIZE, SIZE, SEED)
    images = [window.image for window in shown[: settings.calibration_images]]
    held = shown[settings.calibration_images :]
    for number, (way, function) in enumerate(WAYS.items()):
        target = source.with_name(f"{source.stem}-{number}.onnx")
        said = target.with_suffix(".json")
        if not said.exists():
            progress.say(f"{source.stem}: {way}")
            function(Material(source, target, card_of(source), images, held, progress))
            facts = {
                "file": target.name,
                "int8": int8_share(layers_of(onnx.load(target))),
                "agreement": agreement(source, target, dataset),
                "unsigned": unsigned(target),
                "tensorrt": built(target, progress),
            }
            said.write_text(json.dumps(facts), encoding="utf-8")
        yield way, json.loads(said.read_text(encoding="utf-8"))


def built(source: Path, progress: Progress) -> str:
    """``yes`` where TensorRT for RTX builds the graph, else what it says."""
    plan = source.with_suffix(".plan")
    try:
        build_plan(source, plan, "rtx", progress)
    except EdpctError as error:
        return " ".join(str(error).split())
    return "yes"


def agreement(source: Path, target: Path, dataset: Dataset) -> float:
    """Share (0..1) of val's pixels to which both engines give one class on OpenVINO."""
    task = card_of(source).task
    found: list[list[NDArray[np.integer[Any]]]] = []
    for path in (source, target):
        with open_session(path, "openvino") as session:
            predict = predictor(session, task, path.name)
            found.append([predict(window.image) for window in windows(dataset, "val", SIZE, SIZE)])
    return float(np.mean([(one == other).mean() for one, other in zip(*found, strict=True)]))


def unsigned(path: Path) -> int:
    """Quantisers to uint8, which TensorRT reads as int8 at the same scale: half the range is clipped."""
    graph = onnx.load(path).graph
    zeros = {tensor.name: tensor for tensor in graph.initializer}
    return sum(
        zeros[node.input[2]].data_type == onnx.TensorProto.UINT8
        for node in graph.node
        if node.op_type == "QuantizeLinear" and len(node.input) > 2
    )


def rows(source: Path, made: dict[str, dict[str, Any]]) -> list[Request]:
    """FP32, and each way."""
    files = {"FP32": source, **{way: source.with_name(facts["file"]) for way, facts in made.items()}}
    return [Request(f"{source.stem} {way}", path, "openvino") for way, path in files.items()]


def page(report: Report, requests: list[Request], made: dict[str, dict[str, dict[str, Any]]], steps: int) -> str:
    refused = [
        f"- {name}, {way}: {facts['tensorrt']}"
        for name, ways in made.items()
        for way, facts in ways.items()
        if facts["tensorrt"] != "yes"
    ]
    parts = [
        "# INT8 by edpct and by others, OpenVINO",
        (
            f"Networks of segmentation-models-pytorch, from scratch, {steps} steps of 8 crops of 256x256: briefly "
            "trained, to have something to lose. All ways get the same 64 calibration windows; the two that hold a "
            f"limit ({LIMIT:g} points) measure on the same 32 others, all of train. mIoU over the whole val split, "
            "points against FP32 of the same network, and the share of val's pixels that get the class that FP32 gives "
            "them: briefly trained networks gain and lose points by chance, pixels are only lost. FPS "
            "at batch 1 with copies, all engines in turns."
        ),
        markdown_table(*table(report, requests, made)),
        "\n".join(["What TensorRT for RTX does not build:", "", *refused]) if refused else "",
        machine_line(report),
        f"Made with:\n\n    {report.command}",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def table(report: Report, requests: list[Request], made: dict[str, dict[str, dict[str, Any]]]) -> Table:
    header = [
        "network", "INT8 by", "% of pixels as FP32", "mIoU %", "points", "worst class, points", "% of MACs in INT8",
        "FPS", "factor", "TensorRT takes it",
    ]  # fmt: skip
    found = {row.name: row for row in report.rows}
    lines = []
    for network, ways in made.items():
        base = found[f"{network} FP32"]
        assert base.accuracy is not None
        fps = base.latency["transfer"].fps
        lines.append([network, "(FP32)", "", f"{100 * base.accuracy.miou:.2f}", "", "", "0", f"{fps:.1f}", "1", ""])
        for way, facts in ways.items():
            row = found[f"{network} {way}"]
            speed = row.latency["transfer"].fps
            line = [network, way, f"{100 * facts['agreement']:.2f}", *accuracy(row, base)]
            line += [f"{100 * facts['int8']:.1f}", f"{speed:.1f}", f"{speed / fps:.2f}", verdict(facts)]
            lines.append(line)
    return header, lines


def verdict(facts: dict[str, Any]) -> str:
    """Whether TensorRT builds a graph, and as what was meant."""
    if facts["tensorrt"] != "yes":
        return "no"
    return f"builds, clips {facts['unsigned']} uint8 tensors" if facts["unsigned"] else "yes"


if __name__ == "__main__":
    sys.exit(main())
