"""The weights that come with the package: small enough, free of this or any machine's paths, and taken by name."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from edpct.cli.main import app
from edpct.models.checkpoint import load_checkpoint
from edpct.weights import FOLDER, SHIPPED, beside, shipped

TEACHER, STUDENT, ENGINE = "dubai-small", "dubai-small-student", "dubai-small-int8"
ROOT = Path(__file__).resolve().parent.parent


def test_the_engine_is_small_and_opens_without_torch() -> None:
    """As flight code would: its name alone; what it says is a class at every pixel of a frame of any size."""
    file = shipped(Path(ENGINE))
    assert file.stat().st_size <= 2_000_000
    assert not re.search(rb"[\"' ]/\w+/\w+/", file.read_bytes()), "a path of the machine it was made on"
    code = (
        "import sys\nimport numpy as np\nfrom edpct import Segmenter\n"
        f"with Segmenter({ENGINE!r}) as seg:\n"
        "    mask = seg(np.full((300, 700, 3), 128, np.uint8))\n"
        "    print(mask.shape, mask.max() < len(seg.classes) == 5, 'torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "(300, 700) True False"


@pytest.mark.parametrize("name", [TEACHER, STUDENT])
def test_a_file_is_plain_tensors_of_at_most_20_mb(name: str) -> None:
    file = shipped(Path(name))
    assert file.stat().st_size <= 20_000_000
    with safe_open(file, framework="numpy") as tensors:
        assert len(list(tensors.keys())) > 20
        assert not re.search(r"[\"' ]/\w+/", " ".join(tensors.metadata().values())), (
            "a path of the machine it was made on"
        )


def test_the_student_has_at_most_an_eighth_of_the_teachers_macs() -> None:
    macs = {}
    for name in (TEACHER, STUDENT):
        found = load_checkpoint(shipped(Path(name)))
        assert found.card.task.names == ("building", "land", "road", "vegetation", "water")
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            found.model(torch.zeros(1, 3, 512, 512))
        macs[name] = counter.get_total_flops() / 2
    assert macs[STUDENT] <= macs[TEACHER] / 8


def test_the_model_card_says_what_a_user_must_know() -> None:
    text = (FOLDER / SHIPPED[TEACHER]).with_name("README.md").read_text(encoding="utf-8")
    for word in ("CC0", "tiles 4, 5, 7 and 8", "tiles 2 and 6", "0.627", "vegetation", "Limits", "Made with"):
        assert word in text.replace("\n", " ")
    assert re.search(r"\| teacher, FP32 \|( \d+\.\d \|){5} \d+\.\d ± \d+\.\d \|", text)


def test_a_file_of_that_name_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shipped(Path(TEACHER)) == FOLDER / SHIPPED[TEACHER]
    Path(TEACHER).touch()
    assert shipped(Path(TEACHER)) == Path(TEACHER)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("bench", "--engine", "dubai-smal-int8"), "no file dubai-smal-int8. Did you mean dubai-small-int8?"),
        (("compress", "--teacher", "dubai-smal"), "no checkpoint dubai-smal. Did you mean dubai-small?"),
        (("bench", "--engine", "x"), "no file x. With edpct come dubai-small, dubai-small-student, dubai-small-int8."),
        (("bench", "--engine", "x.onnx"), "no file x.onnx. Check the path."),
    ],
)
def test_a_misspelt_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], said: str) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.split()), done.stderr


def test_what_is_made_of_it_does_not_go_into_the_package() -> None:
    assert beside(shipped(Path(STUDENT)), ".onnx") == Path("dubai-small-student.onnx")
    assert beside(Path("runs/teacher.pt"), ".onnx") == Path("runs/teacher.onnx")


def test_export_and_bench_take_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = CliRunner().invoke(app, ["export", "--checkpoint", STUDENT, "--size", "64"])
    assert made.exit_code == 0 and [path.name for path in tmp_path.iterdir()] == ["dubai-small-student.onnx"], (
        made.output
    )
    flags = ("--runtime", "torch", "--no-accuracy", "--seconds", "0.05", "--rounds", "2", "--runs", "4")
    timed = CliRunner().invoke(app, ["bench", "--engine", STUDENT, *flags])
    assert timed.exit_code == 0 and "| student.safetensors | fp32 | 0.19 |" in timed.output, timed.output


def test_compress_asks_for_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "edpct", "compress", "--teacher", TEACHER], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 2
    assert "Give it with --data DIR." in run.stderr and "Traceback" not in run.stderr


def test_the_wheel_has_them(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        assert {f"edpct/weights/{file}" for file in SHIPPED.values()} <= set(wheel.namelist())
