r"""Put the teacher and the student of a run into the package, as weights that are taken by name, with a model card.

    python benchmarks/ship.py --run runs/dubai [--name dubai-small]

The folder is one that benchmarks/dubai.py worked in: ``teacher/`` of edpct train and ``run/`` of edpct compress.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import onnx

from edpct.bench.report.claim import machine_line
from edpct.bench.report.schema import Report, RowReport, read_report
from edpct.bench.report.tables import markdown_table
from edpct.errors import CheckpointError, EdpctError
from edpct.export.onnx_export import write_onnx
from edpct.models.checkpoint import load_checkpoint, save_checkpoint
from edpct.runtimes.artefact import read_card
from edpct.weights import FOLDER, SHIPPED

LIMIT = 20_000_000  # bytes a file
CARD = """# {name}: DP-CTNet small and an EDP-CTNet made of it

`--teacher {name}` (FP32, {teacher_mb:.1f} MB) and `{name}-student` ({student_mb:.1f} MB): plain safetensors, no
pickled code. `--engine {name}-int8` ({int8_mb:.1f} MB): the student as ONNX, INT8, frames in and classes out, for
machines without torch.

    edpct predict --engine {name}-int8 --input ortho.tif --out map.tif
    edpct bench --engine {name} --engine {name}-student --data DIR
    edpct compress --teacher {name} --data DIR

## What they are

DP-CTNet is our reconstruction of K. Zheng et al., IEEE JSTARS 2025, after its abstract: a CNN path and a transformer
path, refined and fused. The student is the teacher pruned to {share:.1%} of its multiply-accumulates and distilled.

{sizes}

Input: RGB, {width}x{height} pixels (any multiple of 32 works), normalised as the card inside the file says. Output:
logits of {classes}.

## Data and training

"Semantic segmentation of aerial imagery" (MBRSC and Humans in the Loop, CC0): satellite images of Dubai, trained on
tiles 4, 5, 7 and 8, measured on tiles 2 and 6. Tiles 4, 7 and 8 show the same ground in part and are all in train;
none of them shows ground of tiles 2 and 6. From scratch, no other data and no pretrained weights.

- Teacher: {taught}.
- Student: {distilled}.

The weights of the last step were taken; seed {seed}. edpct's design and settings were chosen with val in sight, so
these figures are on the kind side for unseen ground.

## IoU on val, %, each labelled pixel counted once

{ious}

± is half of the 95 % interval, images drawn with replacement. It does not hold the spread over seeds, which is
several points on this set.

## Limits

- Labels are noisy: where the same ground was labelled twice, the labellings agree at 0.627 mIoU (building .63,
  land .76, road .65, vegetation .19, water .92).
- One city, one sensor, a desert climate, few acquisitions. Elsewhere, or from a drone's height, expect much less;
  train on with images of your own.
- Mudflats, mangroves and shallow green water are confused with each other (land, vegetation, water); flat roofs with
  bare land.
- To see the tool work, not to decide anything about people or property.

## Licence

The data is CC0; the weights are under edpct's own licence, Apache-2.0.

{machine}

Made with `python benchmarks/dubai.py` and `python benchmarks/ship.py`.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/dubai"))
    parser.add_argument("--name", default="dubai-small")
    asked = parser.parse_args()
    try:
        ship(asked.run, asked.name)
    except EdpctError as error:
        print(f"ship: {error}", file=sys.stderr)
        return 2
    return 0


def ship(run: Path, name: str) -> None:
    """Write both files and their model card.

    Raises:
        CheckpointError: a file is missing, damaged, or too large to ship.
    """
    sources = {name: run / "teacher" / "teacher.pt", f"{name}-student": run / "run" / "student.safetensors"}
    sizes = {}
    for shipped, source in sources.items():
        target = FOLDER / SHIPPED[shipped]
        target.parent.mkdir(exist_ok=True)
        found = load_checkpoint(source)
        save_checkpoint(target, found.model, found.card.model_copy(update={"data": None}))  # no folder of this machine
        sizes[shipped] = target.stat().st_size
        if sizes[shipped] > LIMIT:
            target.unlink()
            raise CheckpointError(f"{source} has {sizes[shipped]} bytes.", f"At most {LIMIT} are shipped.")
    sizes[f"{name}-int8"] = ship_engine(run / "run" / "student-int8-fused.onnx", FOLDER / SHIPPED[f"{name}-int8"])
    report = read_report(run / "run" / "report.json")
    taught = json.loads((run / "teacher" / "training.json").read_text(encoding="utf-8"))["recipe"]["train"]
    text = card(name, report, taught, sizes)
    (FOLDER / SHIPPED[name]).with_name("README.md").write_text(text, encoding="utf-8")
    print(text)


def ship_engine(source: Path, target: Path) -> int:
    """Copy an ONNX file, its card without the folder of its data; bytes of the copy."""
    found = read_card(source)
    assert found is not None
    write_onnx(onnx.load(source), found.model_copy(update={"data": None}), target)
    return target.stat().st_size


def card(name: str, report: Report, taught: dict[str, Any], sizes: dict[str, int]) -> str:
    """The model card, its figures from the run's report."""
    rows = {row.name: row for row in report.rows if row.runtime == report.rows[0].runtime}
    teacher, student = rows["teacher"], rows["student" if "student" in rows else "distilled"]
    int8 = [row for row in rows.values() if row.precision == "int8" and row.accuracy is not None]
    shown = [("teacher, FP32", teacher), ("student, FP32", student), *((f"student, {row.name}", row) for row in int8)]
    recipe = report.recipe or {}
    assert report.data is not None
    return CARD.format(
        name=name,
        teacher_mb=sizes[name] / 1e6,
        student_mb=sizes[f"{name}-student"] / 1e6,
        int8_mb=sizes[f"{name}-int8"] / 1e6,
        share=student.macs / teacher.macs,
        sizes=markdown_table(
            ["", "M params", "GMACs at 512x512"],
            [[label, f"{row.parameters / 1e6:.2f}", f"{row.macs / 1e9:.2f}"] for label, row in shown[:2]],
        ),
        height=teacher.input[0],
        width=teacher.input[1],
        classes=", ".join(report.data.classes),
        taught=budget(taught),
        distilled=budget(recipe["distil"]),
        seed=report.seed,
        ious=markdown_table(["", *report.data.classes, "mIoU"], [[label, *ious(row)] for label, row in shown]),
        machine=machine_line(report),
    )  # fmt: skip


def budget(settings: dict[str, Any]) -> str:
    """Steps, crops and learning rate in words."""
    side = settings["crop"]
    return f"{settings['steps']} steps of {settings['batch']} crops of {side}x{side}, AdamW at {settings['lr']:g}"


def ious(row: RowReport) -> list[str]:
    """IoU of each class, then the mean with its interval, in points."""
    assert row.accuracy is not None
    low, high = row.accuracy.interval
    each = ["–" if share is None else f"{100 * share:.1f}" for share in row.accuracy.iou.values()]
    return [*each, f"{100 * row.accuracy.miou:.1f} ± {50 * (high - low):.1f}"]


if __name__ == "__main__":
    sys.exit(main())
