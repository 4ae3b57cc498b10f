r"""Does pruning toward frames per second reach them? Searches, then the networks built anew and timed again.

    python benchmarks/target_fps.py [--data DIR] [--networks small Unet-resnet18] [--runtimes openvino onnxruntime]
        [--factors 1.5 2 3] [--work runs/target_fps] [--out benchmarks/results/target_fps]

A network is a preset of DP-CTNet (tiny, small, base) or what ``--model`` takes. Targets are multiples of what the
unpruned network runs at, measured first. After all searches of a network on a runtime, each network that was found is
exported and quantised into a new folder and timed again, longer, by ``edpct bench``'s own means, in turns with the
unpruned one; that rate is compared with the target. Weights are random (speed does not depend on them), batch-norm
statistics those of the images. OpenVINO runs INT8; ONNX Runtime runs FP32, since its INT8 is slower on processors
without VNNI.

One thread: with more, the rate of a virtual machine may have two heaps a quarter apart, since its processors wake each
other now sooner, now later (small layers suffer most); what a minute measures is then no promise for the next.

Without --data, images are made scenes. Goes on where it was stopped: every result is a file in the work folder.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peer_networks import SEED, SETTLING, Images, settle_statistics
from study import public
from torch import nn

from edpct.bench.measure import bench
from edpct.bench.pace import mean_ratio
from edpct.bench.report.make import machine
from edpct.bench.report.tables import markdown_table
from edpct.bench.requests import Request
from edpct.card import Card
from edpct.cli.screen import screen
from edpct.data.layouts import open_dataset
from edpct.data.samples import Dataset
from edpct.data.sampling import sample_windows
from edpct.data.scenes import write_scenes
from edpct.errors import EdpctError
from edpct.export.int8 import quantise_int8
from edpct.export.onnx_export import export_onnx
from edpct.models.adopt import adopt
from edpct.models.architecture import count_macs, count_parameters
from edpct.models.dpctnet import dpctnet
from edpct.progress import Progress, Silent
from edpct.pruning.prune import Pruner
from edpct.recipe import BenchSettings, ExportSettings, PruneSettings
from edpct.run.fps import prune_to_fps
from edpct.run.speed import CALIBRATION_IMAGES, EngineSpeed
from edpct.runtimes.session import Options
from edpct.task import Task

PRESETS = ("tiny", "small", "base")
PRECISIONS: dict[str, Literal["int8", "fp32"]] = {"openvino": "int8", "onnxruntime": "fp32"}
VAL_SCENES = 8
ALLOWED = 5.0  # percent
ROUNDS = 40  # of benching again; many, since the machine's pace may change within seconds


@dataclass(frozen=True)
class Found:
    """One search. Speeds in images a second, batch 1, scope ``transfer``; shares 0..1.

    Attributes:
        unpruned: what the target is a multiple of.
        found, found_interval: as the search saw it.
        pace: of the unpruned network, timed in turns with the others during the search.
        macs: share that is left.
        widths: channels that each part of each group keeps.
    """

    network: str
    runtime: str
    precision: str
    factor: float
    target: float
    unpruned: float
    found: float
    found_interval: tuple[float, float]
    pace: float
    macs: float
    parameters: int
    probes: int
    timings: int
    seconds: float
    note: str
    widths: dict[str, int]


@dataclass(frozen=True)
class Bench:
    """What all of it shares."""

    dataset: Dataset
    task: Task
    images: Images
    timing: BenchSettings
    work: Path
    progress: Progress


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--layout")
    parser.add_argument("--networks", nargs="+", default=["small", "Unet-resnet18"])
    parser.add_argument("--runtimes", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--factors", nargs="+", type=float, default=[1.5, 2.0, 3.0])
    parser.add_argument("--size", type=int, default=512, help="side of the input in pixels")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=6.0, help="of timing the engines that are built anew")
    parser.add_argument("--work", type=Path, default=Path("runs/target_fps"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/target_fps"))
    asked = parser.parse_args()
    try:
        shared = prepare(asked)
        rows = [row for name in asked.networks for row in of_network(name, shared, asked)]
    except EdpctError as error:
        print(f"target_fps: {error}", file=sys.stderr)
        return 2
    write(rows, asked)
    return 0


def prepare(asked: argparse.Namespace) -> Bench:
    """Data, images and settings."""
    asked.work.mkdir(parents=True, exist_ok=True)
    if asked.data is None:
        scenes = asked.work / f"scenes-{asked.size}"
        write_scenes(scenes, CALIBRATION_IMAGES, VAL_SCENES, size=asked.size)
    dataset = open_dataset(asked.data, asked.layout) if asked.data is not None else open_dataset(scenes, "folder")
    task = dataset.task.at_size(asked.size, asked.size)
    images = sample_windows(dataset, "train", CALIBRATION_IMAGES, asked.size, asked.size, SEED)
    return Bench(dataset, task, images, BenchSettings(threads=asked.threads), asked.work, screen())


def of_network(name: str, shared: Bench, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The rows of one network: on each runtime, all searches, then all engines built anew."""
    model, card = network(name, shared.task, shared.images)
    size = (card.task.preprocessing.height, card.task.preprocessing.width)
    for runtime in asked.runtimes:
        settings = PruneSettings(on=runtime, precision=PRECISIONS[runtime], target_fps=1.0)
        pruner = Pruner(model, settings, size, shared.progress)
        home = shared.work / f"{name}-{asked.size}-{runtime}"
        home.mkdir(exist_ok=True)
        unpruned = unpruned_fps(pruner, card, settings, shared, home)
        searches = [search(pruner, card, factor, unpruned, shared, home) for factor in asked.factors]
        for result in searches:
            yield asdict(result) | benched_again(pruner, card, result, shared, home, asked.seconds)


def network(name: str, task: Task, images: Images) -> tuple[nn.Module, Card]:
    """A network with random weights that are the same ones each time, and its card."""
    torch.manual_seed(SEED)
    if name in PRESETS:
        model: nn.Module = dpctnet(name, task.num_classes).eval()
        macs = count_macs(model, task.preprocessing.height, task.preprocessing.width)
        card = Card(network=f"DP-CTNet {name}", task=task, parameters=count_parameters(model), macs=macs)
    else:
        model, card = adopt(name, None, task, None)
    settle_statistics(model, task, images[:SETTLING])
    return model, card


def unpruned_fps(pruner: Pruner, card: Card, settings: PruneSettings, shared: Bench, home: Path) -> float:
    """Of the unpruned network, timed twice."""
    file = home / "unpruned.json"
    if not file.exists():
        speed = speed_of(card, settings, shared, home / "unpruned")
        whole = pruner.by({group.name: group.width for group in pruner.planner.groups})
        speed.measure(whole)
        (probe,) = speed.again([whole])
        speed.keep(())
        keep(file, asdict(probe))
    fps = float(json.loads(file.read_text(encoding="utf-8"))["fps"])
    shared.progress.say(f"{card.network} unpruned on {settings.on} {settings.precision}: {fps:.1f} FPS")
    return fps


def search(pruner: Pruner, card: Card, factor: float, unpruned: float, shared: Bench, home: Path) -> Found:
    """One search, in a folder of its own, so that it takes nothing from the others."""
    file, target, settings = home / f"{factor:g}.json", round(factor * unpruned, 1), pruner.settings
    if not file.exists():
        speed = speed_of(card, settings, shared, home / f"{factor:g}")
        found = prune_to_fps(pruner, speed, target, shared.progress)
        keep(file, asdict(Found(
            card.network, settings.on, settings.precision, factor, target, unpruned, found.fps, found.interval,
            speed.pace,
            found.pruned.macs / found.pruned.teacher_macs, found.pruned.parameters, len(found.probes),
            sum(probe.timings for probe in found.probes), found.seconds, found.note, found.pruned.kept,
        )))  # fmt: skip
    return Found(**json.loads(file.read_text(encoding="utf-8")))


def speed_of(card: Card, settings: PruneSettings, shared: Bench, workspace: Path) -> EngineSpeed:
    workspace.mkdir(parents=True, exist_ok=True)
    return EngineSpeed(
        card, shared.images, shared.dataset, settings, ExportSettings(), shared.timing, workspace, shared.progress
    )


def benched_again(
    pruner: Pruner, card: Card, result: Found, shared: Bench, home: Path, seconds: float
) -> dict[str, Any]:
    """The rate of the network's engine, built anew in another folder and timed in turns with the unpruned one.

    ``deviation`` is from the target, as it is; ``level`` is what it would be, had the unpruned network run as it did
    during the search: how many times the unpruned network's rate it has (the mean over the rounds of the bench, in
    which the two take turns), times the rate that this had in the search.
    """
    file = home / f"{result.factor:g}-again.json"
    if not file.exists():
        whole = {group.name: group.width for group in pruner.planner.groups}
        engines = {
            "unpruned": built(pruner, card, whole, result.precision, shared, home / "unpruned-again"),
            "pruned": built(pruner, card, result.widths, result.precision, shared, home / f"{result.factor:g}-again"),
        }
        options = Options(threads=shared.timing.threads)
        requests = [Request(name, path, result.runtime, options=options) for name, path in engines.items()]
        timing = shared.timing.model_copy(update={"seconds": seconds, "rounds": ROUNDS})
        rows = bench(requests, shared.dataset, timing, Silent(), accuracy=False).rows
        unpruned, latency = rows[0].latency["transfer"], rows[1].latency["transfer"]
        ratio, _ = mean_ratio(unpruned.rounds, latency.rounds)
        keep(file, {
            "again": latency.fps, "again_interval": (1000 / latency.interval[1], 1000 / latency.interval[0]),
            "again_unpruned": unpruned.fps, "deviation": 100 * (latency.fps / result.target - 1),
            "level": 100 * (ratio * result.pace / result.target - 1), "runs": latency.runs,
        })  # fmt: skip
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    shared.progress.say(
        f"  target {result.target:g}, again {found['again']:.1f} FPS: {found['deviation']:+.1f} %, "
        f"at an equal pace {found['level']:+.1f} %"
    )
    return found


def built(pruner: Pruner, card: Card, widths: dict[str, int], precision: str, shared: Bench, folder: Path) -> Path:
    """The engine of a network with these widths, built in this folder, or found there."""
    folder.mkdir(exist_ok=True)
    engine = folder / f"{precision}.onnx"
    if not engine.exists():
        graph = folder / "graph.onnx"
        export_onnx(pruner.by(widths).model, card, graph, ExportSettings(), shared.progress)
        if precision == "int8":
            quantise_int8(graph, engine, card, shared.images)
        else:
            graph.replace(engine)
    return engine


def keep(file: Path, facts: dict[str, Any]) -> None:
    """Write a result whole or not at all."""
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    partial.replace(file)


def write(rows: list[dict[str, Any]], asked: argparse.Namespace) -> None:
    """The table and the data behind it."""
    asked.out.mkdir(parents=True, exist_ok=True)
    command = f"python benchmarks/target_fps.py {shlex.join(public(sys.argv[1:]))}".strip()
    settings = {"size": asked.size, "threads": asked.threads, "seconds": asked.seconds, "seed": SEED}
    facts = {**machine(), "command": command, "settings": settings, "results": rows}
    (asked.out / "target_fps.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    text = page(rows, facts, asked.size)
    (asked.out / "target_fps.md").write_text(text, encoding="utf-8")
    print(text)


def page(rows: list[dict[str, Any]], facts: dict[str, Any], size: int) -> str:
    head = [
        "network", "engine", "unpruned FPS", "target", "found", "again", "95 %", "off %",
        "off % at equal pace", "MACs %", "networks built", "seconds",
    ]  # fmt: skip
    lines = [
        [
            row["network"], f"{row['runtime']} {row['precision']}", f"{row['unpruned']:.1f}", f"{row['target']:.1f}",
            f"{row['found']:.1f}", f"{row['again']:.1f}", "{:.1f}-{:.1f}".format(*row["again_interval"]),
            f"{row['deviation']:+.1f}", f"{row['level']:+.1f}", f"{100 * row['macs']:.1f}",
            str(row["probes"]), f"{row['seconds']:.0f}",
        ]
        for row in rows
    ]  # fmt: skip
    within = sum(abs(row["deviation"]) <= ALLOWED for row in rows)
    level = sum(abs(row["level"]) <= ALLOWED for row in rows)
    notes = [f"- {row['network']}, target {row['target']:.1f}: {row['note']}" for row in rows if row["note"]]
    found = facts["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    parts = [
        f"# Pruning toward frames per second, {size}x{size}",
        (
            f"{within} of {len(rows)} engines, built anew after all searches, run within {ALLOWED:g} % of the target; "
            f"{level} where the machine's change of pace since the search is taken out, by means of the unpruned "
            "network, which was timed in turns both times. "
            "Images a second at batch 1, from normalised arrays in host memory to logits; random weights. 'found': by "
            "the search; 'again': of the engine built anew; 'seconds': of the search, building included."
        ),
        markdown_table(head, lines),
        "\n".join(notes),
        f"{found['cpu']}, {found['cores']} cores, {found['system']}; {versions}; {facts['date']}.",
        f"Made with:\n\n    {facts['command']}",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


if __name__ == "__main__":
    sys.exit(main())
