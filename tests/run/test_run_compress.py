"""A whole run with the real stages: what it leaves, and what a second run of the same folder does again."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from edpct.bench.report.schema import read_report

STAGES = ["teacher", "prune", "distil", "export", "quantise", "fuse", "build", "bench", "pictures"]


@dataclass(frozen=True)
class Again:
    """A second run in a copy of the folder, in which the INT8 graph was altered, with ``--target none``."""

    folder: Path
    log: str
    said: dict[str, str]


@pytest.fixture(scope="module")
def again(compressed_run: Path, cli_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Again:
    folder = Path(shutil.copytree(compressed_run, tmp_path_factory.mktemp("again") / "run"))
    (graph,) = folder.glob("stages/quantise-*/student-int8.onnx")
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    home = compressed_run.parent
    done = subprocess.run(
        [
            sys.executable, "-m", "edpct", "compress", "--teacher", str(home / "teacher.pt"),
            "--recipe", str(home / "recipe.toml"), "--out", str(folder), "--target", "none",
        ],
        env=cli_environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = dict(re.findall(r"^\[\d/9\] (\w+): (.+)$", done.stderr, re.MULTILINE))
    return Again(folder, done.stderr, said)


def manifests(folder: Path) -> dict[str, dict[str, object]]:
    found = [json.loads(path.read_text()) for path in folder.glob("stages/*/manifest.json")]
    return {str(values["stage"]): values for values in found}


def test_every_stage_is_committed_with_true_hashes(compressed_run: Path) -> None:
    found = manifests(compressed_run)
    assert sorted(found) == sorted(STAGES)
    for directory in (compressed_run / "stages").iterdir():
        files = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in directory.iterdir()}
        del files["manifest.json"]
        assert found[directory.name.split("-")[0]]["files"] == files


def test_a_manifest_names_its_parents_by_their_hashes(compressed_run: Path) -> None:
    found = manifests(compressed_run)
    lineage = {name: sorted(values["parents"]) for name, values in found.items()}  # type: ignore[call-overload]
    assert lineage == {
        "teacher": [], "prune": ["teacher"], "distil": ["prune", "teacher"],
        "export": ["distil", "prune", "teacher"], "quantise": ["export"], "fuse": ["quantise"],
        "build": ["fuse", "quantise"], "bench": ["export", "fuse", "quantise"], "pictures": ["export", "quantise"],
    }  # fmt: skip
    for values in found.values():
        for parent, files in values["parents"].items():  # type: ignore[attr-defined]
            assert files == found[parent]["files"]


def test_what_a_user_wants_lies_on_top_and_is_what_the_stages_made(compressed_run: Path) -> None:
    made = {
        "student.safetensors": "distil-*/weights.safetensors", "teacher.onnx": "export-*/teacher.onnx",
        "student.onnx": "export-*/student.onnx", "student-fp16.onnx": "quantise-*/student-fp16.onnx",
        "student-int8.onnx": "quantise-*/student-int8.onnx", "student-fp16.plan": "build-*/student-fp16.plan",
        "student-int8.plan": "build-*/student-int8.plan", "student-int8.plan.json": "build-*/student-int8.plan.json",
        "student-fp16.plan.json": "build-*/student-fp16.plan.json", "pictures.png": "pictures-*/pictures.png",
    }  # fmt: skip
    for precision in ("fp16", "int8"):
        name = f"student-{precision}-fused"
        made[f"{name}.onnx"] = f"fuse-*/{name}.onnx"
        made |= {f"{name}{end}": f"build-*/{name}{end}" for end in (".plan", ".plan.json")}
    on_top = {path.name for path in compressed_run.iterdir() if path.is_file()}
    assert on_top == {*made, "report.md", "report.html", "report.json"}
    for name, pattern in made.items():
        (source,) = compressed_run.glob(f"stages/{pattern}")
        assert source.read_bytes() == (compressed_run / name).read_bytes()


def test_the_report_is_one_and_its_pages_show_it(compressed_run: Path) -> None:
    report = read_report(compressed_run / "report.json")
    assert [stage.name for stage in report.stages] == STAGES
    names = dict.fromkeys(row.name for row in report.rows)
    assert list(names) == ["teacher", "pruned", "distilled", "FP16", "INT8", "INT8, fused"]
    page = (compressed_run / "report.html").read_text(encoding="utf-8")
    text = (compressed_run / "report.md").read_text(encoding="utf-8")
    for row in report.rows:
        assert row.accuracy is not None
        assert f"{100 * row.accuracy.miou:.2f}" in text and f"{100 * row.accuracy.miou:.2f}" in page
        assert f"| {row.name} |" in text and f">{row.name}<" in page
    picture = base64.b64encode((compressed_run / "pictures.png").read_bytes()).decode()
    assert picture in page, "the page holds its pictures, so that it can be sent alone"


def test_nothing_unfinished_is_left(compressed_run: Path) -> None:
    assert [path.name for path in (compressed_run / "work").iterdir()] == [".lock"]
    assert not list(compressed_run.rglob("*.partial"))


def test_nothing_pickled_crosses_from_stage_to_stage(compressed_run: Path) -> None:
    suffixes = {path.suffix for path in (compressed_run / "stages").rglob("*") if path.is_file()}
    assert suffixes == {".safetensors", ".onnx", ".plan", ".json", ".png", ".csv"}


def test_the_student_is_weights_that_rebuild_the_student(compressed_run: Path) -> None:
    """Read by the library of safetensors itself: the teacher's layers by name, and narrower."""
    import safetensors
    import torch

    with safetensors.safe_open(compressed_run / "student.safetensors", framework="pt") as file:
        student = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    teacher = torch.load(compressed_run.parent / "teacher.pt", weights_only=True)["state_dict"]
    assert student.keys() == teacher.keys()
    assert student["classifier.weight"][0] == teacher["classifier.weight"].shape[0] == 7
    convolutions = [n for n, t in teacher.items() if t.dim() == 4 and not n.startswith("classifier")]
    narrower = [name for name in convolutions if student[name][0] < teacher[name].shape[0]]
    assert len(narrower) > 0.8 * len(convolutions)
    assert all(student[name][0] % 8 == 0 for name in convolutions)


# ---- a second run


def test_the_same_command_skips_what_is_finished_and_says_why(again: Again) -> None:
    assert list(again.said) == STAGES
    for name in ("teacher", "prune", "distil", "export"):
        assert re.fullmatch(r"skipped, done 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d, \d files verified\.", again.said[name])


def test_an_altered_artefact_is_noticed_set_aside_and_made_again(again: Again, compressed_run: Path) -> None:
    assert again.said["quantise"] == "student-int8.onnx was changed since."
    (aside,) = (again.folder / "work").glob("damaged-1-quantise-*")
    (anew,) = again.folder.glob("stages/quantise-*")
    assert (aside / "student-int8.onnx").read_bytes() != (anew / "student-int8.onnx").read_bytes()
    assert (again.folder / "student-int8.onnx").read_bytes() == (anew / "student-int8.onnx").read_bytes()


def test_a_changed_flag_runs_its_stage_again(again: Again) -> None:
    assert again.said["build"] == "settings or inputs changed."
    assert json.loads((again.folder / "report.json").read_text())["recipe"]["build"]["target"] == "none"


def test_plans_of_former_settings_do_not_stay_on_top(again: Again) -> None:
    """The run says that it has no plans; one that lies there is of another run."""
    assert [path.name for path in again.folder.glob("*.plan*")] == []


# ---- killed while measuring


def test_a_run_that_is_killed_while_timing_goes_on_with_the_rounds_that_are_missing(
    compressed_run: Path, cli_environment: dict[str, str], tmp_path: Path
) -> None:
    """Only the settings of the bench are others than those of the finished run, so all else is skipped."""
    folder = Path(shutil.copytree(compressed_run, tmp_path / "run"))
    recipe, log = tmp_path / "recipe.toml", tmp_path / "log"
    small = (compressed_run.parent / "recipe.toml").read_text()
    bench = '[bench]\nruntimes = ["onnxruntime"]\nseconds = 0.4\nruns = 8\nrounds = 8\nwarm_up = 0.2\nthreads = 1\n'
    recipe.write_text(re.sub(r"\[bench\][^\[]*", bench, small))
    command = [
        sys.executable, "-m", "edpct", "compress", "--teacher", str(compressed_run.parent / "teacher.pt"),
        "--recipe", str(recipe), "--out", str(folder),
    ]  # fmt: skip

    def kept() -> int:
        journals = list(folder.glob("work/bench-*/journal.jsonl"))
        return journals[0].read_text().count('"kind": "round"') if journals else 0

    with log.open("wb") as file, subprocess.Popen(command, env=cli_environment, stdout=file, stderr=file) as process:
        end = time.monotonic() + 240
        while not kept():
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert json.loads((folder / "report.json").read_text())["settings"]["rounds"] == 1  # still the former report
    done = kept()
    assert 1 <= done < 8

    again = subprocess.run(command, env=cli_environment, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0, again.stderr
    skipped = re.findall(r"^\[\d/9\] (\w+): skipped, done ", again.stderr, re.MULTILINE)
    assert skipped == [name for name in STAGES if name != "bench"]
    assert f" and {done} of 8 rounds are done." in again.stderr
    assert "mIoU of" not in again.stderr
    report = read_report(folder / "report.json")
    assert report.sittings == 2
    assert [row.name for row in report.rows] == ["teacher", "pruned", "distilled", "FP16", "INT8", "INT8, fused"]
    assert {len(times.rounds) for row in report.rows for times in row.latency.values()} == {8}
    assert not list(folder.glob("work/bench-*"))
    assert not list(folder.rglob("journal.jsonl"))
