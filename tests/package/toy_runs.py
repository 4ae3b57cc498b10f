"""Run folders of toy engines, with a report that measured these very files."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import onnx
from report_factory import make_accuracy, make_data, make_report, make_row
from toy_engines import write_engine

from edpct.card import CARD_KEY, Card, Precision
from edpct.runtimes.artefact import read_card, sha256_of

# File, name of its row, precision on its card, fused, FPS * 10 and IoU of the classes.
ENGINES: tuple[tuple[str, str, Precision, bool, float, tuple[float, float, float]], ...] = (
    ("teacher.onnx", "teacher", "fp32", False, 40.0, (0.61, 0.72, 0.53)),
    ("student.onnx", "distilled", "fp32", False, 10.0, (0.57, 0.71, 0.52)),
    ("student-fp16.onnx", "FP16", "fp16", False, 8.0, (0.56, 0.71, 0.52)),
    ("student-int8.onnx", "INT8", "int8", False, 4.0, (0.55, 0.70, 0.51)),
    ("student-int8-fused.onnx", "INT8, fused", "int8", True, 5.0, (0.55, 0.70, 0.51)),
)


def write_toy(path: Path, precision: Precision = "fp32", fused: bool = False) -> Path:
    """A toy engine of this name whose card says this precision."""
    with tempfile.TemporaryDirectory() as folder:
        made = write_engine(Path(folder), fused=fused)
        card = read_card(made)
        assert isinstance(card, Card)
        model = onnx.load(made)
        changed = card.model_copy(update={"precision": precision, "network": "ENet toy", "parameters": 1234})
        (entry,) = [entry for entry in model.metadata_props if entry.key == CARD_KEY]
        entry.value = changed.model_dump_json()
        onnx.save(model, made)
        shutil.copyfile(made, path)
    return path


def write_run(folder: Path) -> Path:
    """A finished run folder: engines, report.json, report.html, pictures.png and stages."""
    (folder / "stages").mkdir(parents=True)
    rows = []
    for file, name, precision, fused, p50, iou in ENGINES:
        path = write_toy(folder / file, precision, fused)
        accuracy = make_accuracy(dict(zip("abc", iou, strict=True)))
        details = {"version": "1", "threads": "2", **({"takes": "uint8 images", "gives": "classes"} if fused else {})}
        rows.append(
            make_row(
                name, p50=p50, precision=precision, accuracy=accuracy, details=details, file=file,
                sha256=sha256_of(path), file_bytes=path.stat().st_size, input=(32, 32),
                network="Net toy" if name == "teacher" else "ENet toy",
            )
        )  # fmt: skip
    report = make_report(*rows, data=make_data("a", "b", "c"), reference="teacher", pictures="pictures.png")
    (folder / "report.json").write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")
    (folder / "report.html").write_text("<!doctype html><title>report</title>", encoding="utf-8")
    (folder / "pictures.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4)
    return folder
