r"""What precision and fusion cost in mIoU and win in speed: one or more networks in FP32, FP16 and INT8, side by side.

    python benchmarks/precision.py --data DIR --onnx teacher.onnx student.onnx [--runtime openvino]
        [--work runs/precision] [--out benchmarks/results/precision]

The FP32 files are those of ``edpct compress`` or ``edpct export``. INT8 is held within half a point as
``edpct quantise`` does it. Of the last network, INT8 is also measured with normalisation and argmax inside the graph,
the argmax at each of the places that edpct knows. All engines take turns in one bench. Engines that are there already
are not made again.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx

from edpct.bench.measure import bench
from edpct.bench.report.claim import machine_line
from edpct.bench.report.make import load_average, make_report
from edpct.bench.report.schema import Report, RowReport
from edpct.bench.report.tables import Table, class_difference_of, markdown_table
from edpct.bench.requests import Request
from edpct.cli.screen import screen
from edpct.data.layouts import open_dataset
from edpct.data.samples import Dataset
from edpct.errors import EdpctError
from edpct.export.fuse import fuse
from edpct.export.layers import int8_share, layers_of
from edpct.progress import Progress
from edpct.recipe import ArgmaxAt, BenchSettings, FuseSettings, QuantiseSettings
from edpct.run.quantise import write_fp16, write_int8
from edpct.runtimes.artefact import card_of

SEED = 0
PLACES: tuple[ArgmaxAt, ...] = ("full", "half", "head")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--layout")
    parser.add_argument("--onnx", type=Path, nargs="+", required=True)
    parser.add_argument("--runtime", default="openvino")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--work", type=Path, default=Path("runs/precision"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/precision"))
    asked = parser.parse_args()
    try:
        dataset = open_dataset(asked.data, asked.layout)
        asked.work.mkdir(parents=True, exist_ok=True)
        settings = BenchSettings(seconds=asked.seconds, rounds=12)
        load = load_average()
        requests = list(engines(asked.onnx, dataset, asked.work, asked.runtime, screen()))
        measured = bench(requests, dataset, settings, screen(), asked.work / "journal.jsonl")
    except EdpctError as error:
        print(f"precision: {error}", file=sys.stderr)
        return 2
    command = f"python benchmarks/precision.py {shlex.join(public(sys.argv[1:]))}"
    report = make_report(measured, dataset, settings, load, seed=SEED, reference=requests[0].name, command=command)
    write(report, requests, asked.work, asked.out)
    (asked.work / "journal.jsonl").unlink()
    return 0


def engines(sources: list[Path], dataset: Dataset, work: Path, runtime: str, progress: Progress) -> Iterator[Request]:
    """Every engine, made where it is missing, in the order of the table."""
    for source in sources:
        name, card = source.stem, card_of(source)
        fp16, int8, said = (work / f"{name}{end}" for end in ("-fp16.onnx", "-int8.onnx", "-int8.json"))
        if not fp16.exists():
            write_fp16(source, fp16, card, dataset, SEED)
        if not said.exists():
            guarded = write_int8(source, int8, card, dataset, QuantiseSettings(), SEED, progress)
            said.write_text(json.dumps(asdict(guarded) if guarded else None), encoding="utf-8")
        for precision, path in (("FP32", source), ("FP16", fp16), ("INT8", int8)):
            yield Request(f"{name} {precision}", path, runtime)
        if source == sources[-1]:
            for at in PLACES:
                fused = work / f"{name}-int8-{at}.onnx"
                fuse(int8, fused, card_of(int8), FuseSettings(argmax=at))
                yield Request(f"{name} INT8, argmax at {at}", fused, runtime)


def public(arguments: list[str]) -> list[str]:
    """The arguments without this machine's folders."""
    folders = ("--data", "--work", "--out")
    plain = ["DIR" if before in folders else text for before, text in zip(["", *arguments], arguments, strict=False)]
    return [Path(text).name if text.endswith(".onnx") else text for text in plain]


def write(report: Report, requests: list[Request], work: Path, out: Path) -> None:
    """The tables and the data behind them."""
    out.mkdir(parents=True, exist_ok=True)
    guards = {path.name.removesuffix("-int8.json"): json.loads(path.read_text()) for path in work.glob("*-int8.json")}
    facts = {"report": report.model_dump(mode="json"), "guards": guards}
    (out / "precision.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    text = page(report, requests, guards)
    (out / "precision.md").write_text(text, encoding="utf-8")
    print(text)


def page(report: Report, requests: list[Request], guards: dict[str, Any]) -> str:
    parts = [
        f"# Precision and fusion, {report.rows[0].runtime}",
        (
            "mIoU over the whole val split; points against the FP32 engine of the same network; FPS at batch 1, all "
            "engines in turns. 'with copies': from what the engine takes to what it gives; 'end to end': from a JPEG "
            "in memory to a map of classes. Factors are against FP32 of the same network; of fused engines, also "
            "against plain INT8."
        ),
        markdown_table(*speed_table(report, requests)),
        "IoU of each class, points against FP32 of the first network:",
        markdown_table(*class_difference_of(report)),
        "\n".join(guard_lines(guards)),
        machine_line(report),
        f"Made with:\n\n    {report.command}",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def speed_table(report: Report, requests: list[Request]) -> Table:
    paths = {request.name: request.path for request in requests}
    header = [
        "engine", "% of MACs in INT8", "mIoU %", "points", "worst class, points", "FPS with copies", "factor",
        "FPS end to end", "factor", "against plain INT8", "ms: decode", "preprocess", "infer", "argmax",
    ]  # fmt: skip
    lines = []
    for row in report.rows:
        base = named(report, f"{row.name.split()[0]} FP32")
        plain = named(report, f"{row.name.split()[0]} INT8")
        ends = row.latency["end_to_end"]
        copies, share = row.latency["transfer"], int8_share(layers_of(onnx.load(paths[row.name])))
        lines.append(
            [row.name, f"{100 * share:.1f}", *accuracy(row, base)]
            + [f"{copies.fps:.1f}", f"{copies.fps / base.latency['transfer'].fps:.2f}"]
            + [f"{ends.fps:.1f}", f"{ends.fps / base.latency['end_to_end'].fps:.2f}"]
            + [f"{ends.fps / plain.latency['end_to_end'].fps:.2f}" if "argmax" in row.name else ""]
            + [f"{ends.phases[phase]:.2f}" for phase in ("decode", "preprocess", "infer", "argmax")]
        )
    return header, lines


def named(report: Report, name: str) -> RowReport:
    return next(row for row in report.rows if row.name == name)


def accuracy(row: RowReport, base: RowReport) -> list[str]:
    """mIoU, its difference in points, and the class that lost most."""
    assert row.accuracy is not None and base.accuracy is not None
    old = base.accuracy.iou
    change = {n: 100 * (v - (old[n] or 0)) for n, v in row.accuracy.iou.items() if v is not None}
    worst = min(change, key=lambda name: change[name])
    points = 100 * (row.accuracy.miou - base.accuracy.miou)
    return [f"{100 * row.accuracy.miou:.2f}", f"{points:+.2f}", f"{worst} {change[worst]:+.2f}"]


def guard_lines(guards: dict[str, Any]) -> Iterator[str]:
    """What the guard saw on training windows."""
    for name, found in sorted(guards.items()):
        if found is not None:
            left = ", ".join(group["name"] for group in found["groups"] if not group["int8"]) or "nothing"
            yield (
                f"- {name}: all in INT8 loses {found['loss_of_all']:.2f} points on {found['windows']} training windows "
                f"(allowed: {found['limit']:g}); left in FP32: {left}; then {found['loss']:.2f} points."
            )


if __name__ == "__main__":
    sys.exit(main())
