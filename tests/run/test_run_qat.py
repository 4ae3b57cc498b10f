"""Quantisation-aware training in a whole run: what it leaves, what it goes on from, and what goes without it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.numpy

from edpct.bench.report.schema import read_report
from edpct.data.layouts import open_dataset
from edpct.models.checkpoint import load_checkpoint
from edpct.recipe import CompressRecipe
from edpct.run.stages import compression_stages
from edpct.runtimes.artefact import read_card


@pytest.fixture(scope="module")
def run(
    compressed_run: Path, cli_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """The run folder of a compression that is asked for QAT afterwards, and what it said."""
    folder = Path(shutil.copytree(compressed_run, tmp_path_factory.mktemp("qat") / "run"))
    home, recipe = compressed_run.parent, folder.with_name("recipe.toml")
    recipe.write_text(
        (home / "recipe.toml").read_text() + 'runtimes = ["onnxruntime"]\n'
    )  # [bench] is its last section
    done = subprocess.run(
        [
            sys.executable, "-m", "edpct", "compress", "--teacher", str(home / "teacher.pt"), "--out", str(folder),
            "--recipe", str(recipe), "--target", "none", "--qat", "--qat-steps", "2",
        ],
        env=cli_environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, done.stderr


def test_it_goes_on_from_the_distilled_student(run: tuple[Path, str]) -> None:
    folder, log = run
    said = dict(re.findall(r"^\[\d+/10\] (\w+): (.+)$", log, re.MULTILINE))
    assert all("skipped" in said[stage] for stage in ("teacher", "prune", "distil")), said
    assert not any("skipped" in said.get(stage, "") for stage in ("qat", "export", "quantise"))
    (manifest,) = folder.glob("stages/qat-*/manifest.json")
    facts = json.loads(manifest.read_text())
    assert sorted(facts["parents"]) == ["distil", "teacher"]
    assert [measure["step"] for measure in facts["facts"]["measures"]] == [2]


def test_its_weights_are_those_of_the_student_trained_on(run: tuple[Path, str]) -> None:
    folder, _ = run
    before = safetensors.numpy.load_file(folder / "student.safetensors")
    after = safetensors.numpy.load_file(folder / "student-qat.safetensors")
    assert before.keys() == after.keys()
    assert {name: tensor.shape for name, tensor in before.items()} == {n: t.shape for n, t in after.items()}
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert any(name.endswith(".weight") for name in moved)
    assert not any("running" in name for name in moved), "statistics of batch normalisation are held"


def test_int8_is_made_of_them_and_its_like_without_them_is_beside_it(
    run: tuple[Path, str], compressed_run: Path
) -> None:
    folder, _ = run
    trained, plain = (onnx.load(folder / name) for name in ("student-int8.onnx", "student-int8-ptq.onnx"))
    former = onnx.load(compressed_run / "student-int8.onnx")
    assert plain.graph == former.graph, "calibration alone makes what it made before"
    assert [node.op_type for node in trained.graph.node] == [node.op_type for node in plain.graph.node]
    assert trained.graph != plain.graph
    card = read_card(folder / "student-int8.onnx")
    assert card is not None and card.precision == "int8"


def test_the_report_shows_both(run: tuple[Path, str]) -> None:
    report = read_report(run[0] / "report.json")
    names = list(dict.fromkeys(row.name for row in report.rows))
    assert names == ["teacher", "pruned", "distilled", "FP16", "INT8", "INT8, no QAT", "INT8, fused"]
    assert "qat" in [stage.name for stage in report.stages]
    assert all(row.accuracy is not None for row in report.rows)


def test_another_calibration_is_another_training(tiny_teacher: Path, scenes: Path) -> None:
    """The windows that place its quantisers are a setting of [quantise]; the distillation before does not see them."""

    def settings(images: int) -> dict[str, dict[str, object]]:
        recipe = CompressRecipe.model_validate({"qat": {"enabled": True}, "quantise": {"calibration_images": images}})
        card = load_checkpoint(tiny_teacher).card
        stages = compression_stages(tiny_teacher, card, open_dataset(scenes), recipe)
        return {stage.name: dict(stage.settings) for stage in stages}

    few, many = settings(4), settings(64)
    assert {name for name in few if few[name] != many[name]} == {"qat", "quantise"}
