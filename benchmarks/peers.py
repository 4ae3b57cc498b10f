r"""The student beside what a user would pick instead, in one run: FP32 and INT8, OpenVINO and ONNX Runtime, in turns.

    python benchmarks/peers.py [--student student.onnx] [--student-int8 student-int8.onnx] [--engine FILE] ...
        [--data DIR [--layout NAME]] [--weights NAME=FILE] [--only NAME] [--fuse-argmax half] [--work runs/peers]
        [--out benchmarks/results/peers]

The peers come from segmentation-models-pytorch (``pip install 'edpct[peers]'``), untouched, for the student's classes.
They get the student's treatment, not one tuned for each of them: the same export, the same INT8 settings, as many
calibration images from the train split, and with ``--fuse-argmax`` a fused engine too (of one that does not end in an
upsampling, such as Unet, with the argmax at full size). What a hand-made recipe would win for one of them is not shown.

A peer has its initial weights unless trained ones are given with ``--weights NAME=FILE`` (a state_dict, as safetensors
or .pt, for the classes of --data). Speed does not depend on that; accuracy does, so mIoU is measured of engines with
trained weights alone, and only with --data. Without --data, images are made scenes. Goes on where it was stopped:
exports are kept in the work folder, and so are finished rounds of timing. A peer that cannot be exported or quantised
is listed with the reason.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
from peer_networks import PEERS, SEED, Engine, chosen, prepare
from PIL import Image

from edpct.bench.crew import Member
from edpct.bench.journal import Journal
from edpct.bench.measure import Measured, bench
from edpct.bench.report.cautions import cautions_of
from edpct.bench.report.claim import explanation_of, machine_line, speed_ratio, spread
from edpct.bench.report.make import load_average, make_report
from edpct.bench.report.schema import FailureReport, Report, RowReport
from edpct.bench.report.tables import class_table_of, failure_table_of, markdown_table, scopes_table_of, table_of
from edpct.bench.report.wording import fps, join, times
from edpct.bench.requests import Request, check_classes
from edpct.bench.scoring import Scores, accuracy_report
from edpct.bench.worker import Job
from edpct.cli.screen import screen
from edpct.data.layouts import open_dataset
from edpct.data.samples import Dataset, Labels
from edpct.data.sampling import sample_windows
from edpct.data.scenes import SCENE_TASK, write_scenes
from edpct.errors import CheckpointError, DataError, EdpctError, EngineError
from edpct.progress import Progress
from edpct.recipe import ArgmaxAt, BenchSettings, QuantiseSettings
from edpct.runtimes.artefact import card_of, sha256_of
from edpct.runtimes.session import Options
from edpct.task import Task

VAL_SCENES = 8  # for timing, where no data is given
SCORED_ON = "openvino"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", type=Path)
    parser.add_argument("--student-int8", type=Path)
    parser.add_argument("--engine", type=Path, action="append", default=[], help="another trained engine; repeat")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--layout")
    parser.add_argument("--weights", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help=f"of: {', '.join(PEERS)}")
    parser.add_argument("--fuse-argmax", choices=get_args(ArgmaxAt), default="off", help="a fused INT8 engine as well")
    parser.add_argument("--size", type=int, default=512, help="side of the input in pixels")
    parser.add_argument("--calibration", type=int, default=QuantiseSettings().calibration_images)
    parser.add_argument("--seconds", type=float, default=6.0, help="of timing each row in each scope")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("runs/peers"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/peers"))
    try:
        compare(parser.parse_args(), screen())
    except EdpctError as error:
        print(f"peers: {error}", file=sys.stderr)
        return 2
    return 0


def compare(asked: argparse.Namespace, progress: Progress) -> None:
    """Export, quantise, measure, write."""
    peers, weights = chosen(asked.only), parse_weights(asked.weights)
    if weights and asked.data is None:
        raise DataError("Trained weights were given and no data to measure mIoU on.", "Give it with --data.")
    asked.work.mkdir(parents=True, exist_ok=True)
    asked.out.mkdir(parents=True, exist_ok=True)
    students = [("student", asked.student), ("student INT8", asked.student_int8)]
    own = [Engine(name, path, True) for name, path in students if path is not None]
    own += [Engine(path.stem, path, True) for path in asked.engine]
    given = open_dataset(asked.data, asked.layout) if asked.data is not None else None
    task = _common_task(own, given, asked.size)
    dataset = given or _scenes(asked.work / f"scenes-{asked.size}", task, asked.calibration)
    images = sample_windows(dataset, "train", asked.calibration, asked.size, asked.size, SEED)
    engines, failures = list(own), list[FailureReport]()
    for number, peer in enumerate(peers, 1):
        progress.say(f"{number} of {len(peers)}: {peer.name}")
        made, failed = prepare(peer, task, weights.get(peer.name), images, asked.work, progress, asked.fuse_argmax)
        engines, failures = engines + made, failures + failed
    if not engines:
        raise EngineError("There is no engine to measure.", " ".join(failure.reason for failure in failures))
    settings = BenchSettings(seconds=asked.seconds, rounds=asked.rounds, threads=asked.threads)
    report = measure(engines, failures, dataset, given, settings, asked.work, progress)
    (asked.out / "report.json").write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")
    text = page(report, [peer.name for peer in peers if peer.name not in weights])
    (asked.out / "report.md").write_text(text, encoding="utf-8")
    (asked.work / "journal.jsonl").unlink(missing_ok=True)
    print(text)


def parse_weights(given: Sequence[str]) -> dict[str, Path]:
    """``NAME=FILE`` to name and file."""
    found = {}
    for text in given:
        name, _, file = text.partition("=")
        chosen([name])
        if not Path(file).is_file():
            raise CheckpointError(f"--weights {text}: there is no file '{file}'.", "Write it as NAME=FILE.")
        found[name] = Path(file)
    return found


def _common_task(own: Sequence[Engine], given: Dataset | None, size: int) -> Task:
    """Classes and input size that all engines share; a table across several sizes would compare nothing."""
    cards = [card_of(engine.path) for engine in own]
    task = (given.task if given is not None else cards[0].task if cards else SCENE_TASK).at_size(size, size)
    for engine, card in zip(own, cards, strict=True):
        if given is not None:
            check_classes(card.task, given, engine.path)
        pre = card.task.preprocessing
        if (pre.height, pre.width) != (size, size) or card.task.num_classes != task.num_classes:
            raise EngineError(
                f"{engine.path} takes {pre.height}x{pre.width} pixels and knows {card.task.num_classes} classes; "
                f"the others take {size}x{size} and know {task.num_classes}.",
                "Give another --size, or engines of one size and one set of classes.",
            )
    return task


def _scenes(root: Path, task: Task, train: int) -> Dataset:
    """Made scenes, for their images alone: labelled with any class that the task has."""
    write_scenes(root, train, VAL_SCENES, size=task.preprocessing.height)
    return replace(open_dataset(root, "folder"), task=task, decode_mask=_unlabelled)


def _unlabelled(path: Path) -> Labels:
    with Image.open(path) as mask:
        return np.zeros((mask.height, mask.width), np.uint8)


def measure(
    engines: Sequence[Engine], failures: Sequence[FailureReport], dataset: Dataset, given: Dataset | None,
    settings: BenchSettings, work: Path, progress: Progress,
) -> Report:  # fmt: skip
    """One interleaved bench of all engines; mIoU of those with trained weights where there is real data."""
    load = load_average()
    options = Options(threads=settings.threads)
    requests = [Request(e.name, e.path, runtime, options=options) for e in engines for runtime in settings.runtimes]
    measured = bench(requests, dataset, settings, progress, work / "journal.jsonl", accuracy=False)
    if given is not None:
        scores = scored([engine for engine in engines if engine.trained], given, work, options, progress)
        measured = with_scores(measured, scores, given.task)
    command = f"python benchmarks/peers.py {shlex.join(sys.argv[1:])}".strip()
    return make_report(
        measured, given, settings, load, command=command, reference=engines[0].name, failures=failures, seed=SEED
    )


def scored(
    engines: Sequence[Engine], dataset: Dataset, work: Path, options: Options, progress: Progress
) -> dict[str, Scores]:
    """Counts over the val split by engine, kept in the work folder."""
    files = [[str(sample.image), sample.image.stat().st_size] for sample in dataset.split("val")]
    kept = Journal(work / "scores.jsonl", hashlib.sha256(json.dumps(files).encode()).hexdigest())
    known = {entry["engine"]: entry["scores"] for entry in kept.found("scores")}
    found = {}
    for engine in engines:
        digest = sha256_of(engine.path)
        if digest not in known:
            progress.say(f"mIoU of {engine.name}")
            job = Job(engine.path, SCORED_ON, "", options, 1, card_of(engine.path).task, ())
            with Member(job) as member:
                member.open()
                known[digest] = member.score(dataset, lambda done: None).to_dict()
            kept.add("scores", engine=digest, scores=known[digest])
        found[engine.name] = Scores.from_dict(known[digest])
    return found


def with_scores(measured: Measured, scores: Mapping[str, Scores], task: Task) -> Measured:
    """The rows with their accuracy; those of engines that were not scored stay without."""
    rows, found = list[RowReport](), list[Scores | None]()
    for row in measured.rows:
        score = scores.get(row.name) if row.runtime == SCORED_ON else None
        accuracy = accuracy_report(score, task.names) if score is not None else None
        rows.append(row.model_copy(update={"accuracy": accuracy}))
        found.append(score)
    return replace(measured, rows=tuple(rows), scores=tuple(found))


def page(report: Report, untrained: Sequence[str]) -> str:
    """The report in Markdown."""
    tables = [class_table_of(report)] if any(row.accuracy for row in report.rows) else []
    parts = ["# The student and its peers", *rivalry(report), markdown_table(*table_of(report))]
    if untrained:
        parts.append(
            f"Initial weights, hence no mIoU: {join(untrained)}. The peers are those of segmentation-models-pytorch, "
            "untouched; they got the student's export and the student's INT8 settings, nothing tuned for them. "
            "So this page is about speed; which of them would be more accurate, it does not say."
        )
    parts += [explanation_of(report), "\n".join(f"- {text}" for text in cautions_of(report))]
    parts += [markdown_table(*table) for table in (*tables, scopes_table_of(report))]
    if report.failures:
        parts.append(markdown_table(*failure_table_of(report), numbers=False))
    return "\n\n".join([*filter(None, parts), machine_line(report), f"Made with:\n\n    {report.command}"]) + "\n"


def rivalry(report: Report) -> list[str]:
    """A sentence per runtime: the fastest of our engines against the fastest peer, whatever its precision."""
    found = []
    for runtime in dict.fromkeys(row.runtime for row in report.rows):
        rows = [row for row in report.rows if row.runtime == runtime and "transfer" in row.latency]
        ours = [row for row in rows if not _is_peer(row)]
        theirs = [row for row in rows if _is_peer(row)]
        if not ours or not theirs:
            continue
        our, their = (max(group, key=lambda row: row.latency["transfer"].fps) for group in (ours, theirs))
        ratio = speed_ratio(their.latency["transfer"], our.latency["transfer"])
        found.append(
            f"On {runtime}, {our.name} runs at {fps(our.latency['transfer'].fps)} FPS and the fastest peer, "
            f"{their.name}, at {fps(their.latency['transfer'].fps)}: {times(ratio.value)} times ({spread(ratio)})."
        )
    return found


def _is_peer(row: RowReport) -> bool:
    return row.network in PEERS


if __name__ == "__main__":
    sys.exit(main())
