"""``edpct package``: what goes in, what it says of itself, and what keeps it from being written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from odd_archives import read
from PIL import Image
from toy_engines import SIDE, expected_classes
from toy_runs import write_toy
from typer.testing import CliRunner

from edpct import Segmenter
from edpct.bench.report.schema import Report, read_report
from edpct.card import CARD_KEY
from edpct.cli.main import app
from edpct.errors import DataError, EdpctError, EngineError, RunError
from edpct.package.write import MODEL_CARD, package

STUDENTS = {"student.onnx", "student-fp16.onnx", "student-int8.onnx", "student-int8-fused.onnx"}
SHOWN = {"report.json", "report.html", "pictures.png"}
MADE = {MODEL_CARD, "SHA256SUMS", "package.json", "run.py"}


def text_of(archive: Path, name: str) -> str:
    return {info.filename: content for info, content in read(archive)}[name].decode()


# ---- what goes in


def test_what_is_in_it(toy_zip: Path, toy_run: Path) -> None:
    members = {info.filename: content for info, content in read(toy_zip)}
    assert members.keys() == STUDENTS | SHOWN | MADE
    for name in STUDENTS | SHOWN:
        assert members[name] == (toy_run / name).read_bytes()


def test_two_packagings_are_the_same_bytes(toy_run: Path, tmp_path: Path) -> None:
    first = package(toy_run, tmp_path / "first.zip").path.read_bytes()
    for path in toy_run.iterdir():
        os.utime(path, (10**9, 10**9))
        path.chmod(0o700)
    assert package(toy_run, tmp_path / "second.zip").path.read_bytes() == first
    with zipfile.ZipFile(tmp_path / "second.zip") as archive:
        infos = archive.infolist()
    assert [info.filename for info in infos] == sorted(info.filename for info in infos)
    assert {(info.date_time, info.external_attr >> 16) for info in infos} == {((1980, 1, 1, 0, 0, 0), 0o100644)}
    assert {info.compress_type for info in infos if info.filename == "pictures.png"} == {zipfile.ZIP_STORED}


def test_engines_by_name_and_weights(toy_run: Path, tmp_path: Path) -> None:
    packed = package(toy_run, tmp_path / "a.zip", engines=["student.onnx", "teacher.onnx"])
    assert {engine.name for engine in packed.manifest.engines} == {"student.onnx", "teacher.onnx"}
    with pytest.raises(DataError, match=r"There is no student\.safetensors in .*Choose from: student-fp16\.onnx, "):
        package(toy_run, tmp_path / "b.zip", weights=True)
    assert not (tmp_path / "b.zip").exists()


def test_a_folder_without_a_report(tmp_path: Path) -> None:
    run = tmp_path / "engines"
    run.mkdir()
    write_toy(run / "mine.onnx", "int8")
    write_toy(run / "teacher.onnx")
    packed = package(run, tmp_path / "mine.zip")
    assert [engine.name for engine in packed.manifest.engines] == ["mine.onnx"]
    card = text_of(packed.path, MODEL_CARD)
    assert "Unknown: no report was in the folder" in card and "not measured" in card
    assert not re.search(r"\d FPS|mIoU %|FPS \d", card)
    image = np.random.default_rng(0).integers(0, 256, (50, 40, 3), np.uint8)
    with Segmenter(packed.path) as seg:
        np.testing.assert_array_equal(seg(image), expected_classes(image))


def test_what_would_look_like_a_bomb_is_stored(tmp_path: Path) -> None:
    """Two megabytes of zero weights are an engine like any other."""
    run = tmp_path / "zeros"
    run.mkdir()
    model = onnx.load(write_toy(run / "student.onnx"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(500_000, np.float32), "zeros"))
    onnx.save(model, run / "student.onnx")
    packed = package(run, tmp_path / "student.zip")
    with Segmenter(packed.path, runtime="onnxruntime") as seg:
        assert seg(np.zeros((SIDE, SIDE, 3), np.uint8)).shape == (SIDE, SIDE)


# ---- what it says


def test_the_model_card_has_the_reports_numbers(toy_zip: Path, toy_run: Path) -> None:
    card, report = text_of(toy_zip, MODEL_CARD), read_report(toy_run / "report.json")
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in card.splitlines() if line.startswith("| ")}
    for row in report.rows:
        assert row.accuracy is not None
        latency = row.latency["transfer"]
        assert f"| {100 * row.accuracy.miou:.2f} ± " in lines_of(card, row.name)[0]
        assert f"{latency.fps:.1f}" in lines_of(card, row.name)[0]
        for value in row.accuracy.iou.values():
            assert value is not None and f" {100 * value:.1f} |" in lines_of(card, row.name)[1]
    assert lines["0"] == "| 0 | a | #C80000 | 200, 0, 0 |"
    assert "A CPU, 4 cores" in card and "edpct 0.2.0, numpy 2.0" in card  # the report's machine and versions
    assert "32x32 pixels" in card and "0.485, 0.456, 0.406" in card
    assert "Measured on fields, layout folder: the val split, 3 images." in card
    assert "Unknown: what it was trained on" in card and "Unknown: the licence" in card


def lines_of(card: str, name: str) -> list[str]:
    """The lines of a row in the tables of numbers, in order."""
    return [line for line in card.splitlines() if line.startswith(f"| {name} | ")]


def test_what_is_not_in_the_package_is_not_in_its_tables(toy_run: Path, tmp_path: Path) -> None:
    card = text_of(package(toy_run, tmp_path / "a.zip", engines=["student-int8.onnx"]).path, MODEL_CARD)
    assert lines_of(card, "INT8") and lines_of(card, "teacher")  # the reference stays
    assert not lines_of(card, "FP16") and not lines_of(card, "distilled")


def test_sha256sum_finds_all_in_order(toy_zip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(toy_zip) as archive:
        archive.extractall(folder)
    done = subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {line.split(": ")[0] for line in done.stdout.splitlines()} == {p.name for p in folder.iterdir()} - {
        "SHA256SUMS"
    }
    (folder / "student.onnx").write_bytes(b"changed")
    assert subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True).returncode == 1


def unpack(archive: Path, folder: Path) -> Path:
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)
    return folder


def test_the_script_runs(toy_zip: Path, tmp_path: Path, cli_environment: dict[str, str]) -> None:
    script = unpack(toy_zip, tmp_path / "unpacked") / "run.py"
    assert len(script.read_text().splitlines()) < 40
    images = tmp_path / "images"
    images.mkdir()
    frames = {f"{i}.png": np.random.default_rng(i).integers(0, 256, (40, 60, 3), np.uint8) for i in range(2)}
    for name, frame in frames.items():
        Image.fromarray(frame).save(images / name)
    for source, count in ((images, 2), (images / "0.png", 1)):
        out = tmp_path / f"out-{count}"
        command = [sys.executable, str(script), str(source), str(out)]
        done = subprocess.run(command, env=cli_environment, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == count and re.fullmatch(
            r"0\.png a \d+%, b \d+%, c \d+%", done.stdout.splitlines()[0]
        )
        for name in list(frames)[:count]:
            np.testing.assert_array_equal(np.asarray(Image.open(out / name)), expected_classes(frames[name]))
            assert Image.open(out / f"{Path(name).stem}-overlay.png").size == (60, 40)


def test_the_script_says_how_to_install(toy_zip: Path, tmp_path: Path) -> None:
    script = unpack(toy_zip, tmp_path / "unpacked") / "run.py"
    blocked = tmp_path / "site" / "edpct"
    blocked.mkdir(parents=True)
    (blocked / "__init__.py").write_text("raise ImportError('not here')")
    environment = {**os.environ, "PYTHONPATH": str(blocked.parent)}
    done = subprocess.run([sys.executable, str(script), "x"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "edpct is not installed. Install it with: pip install 'edpct[cpu]'\n"


def test_the_command_shows_what_is_in_it(toy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["package", str(toy_run)])
    assert done.exit_code == 0 and Path("student.zip").is_file(), done.output
    for name in STUDENTS | SHOWN | MADE:
        assert f"| {name} | " in done.stdout
    assert "its default engine is student-int8-fused.onnx." in done.stdout
    assert Path("student.zip").stat().st_mode & 0o777 == 0o644
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_packaging_needs_no_torch(toy_run: Path, tmp_path: Path, cli_environment: dict[str, str]) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom edpct.package.write import package\n"
        "package(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'openvino', 'PIL'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(toy_run), str(tmp_path / "a.zip")]
    done = subprocess.run(command, env=cli_environment, capture_output=True, text=True)
    assert done.stdout.strip() in ("[]", "['PIL']"), done.stderr


# ---- what keeps it from being written


def refusal(run: Path, out: Path, kind: type[EdpctError] = RunError, **how: object) -> str:
    """What is said; nothing is left beside ``out``, and what was there stays."""
    before = {path: path.read_bytes() for path in out.parent.glob("*") if path.is_file()} if out.parent.is_dir() else {}
    with pytest.raises(kind) as caught:
        package(run, out, **how)  # type: ignore[arg-type]
    after = {path: path.read_bytes() for path in out.parent.glob("*") if path.is_file()} if out.parent.is_dir() else {}
    assert after == before
    assert caught.value.hint
    return caught.value.what


def test_no_run(tmp_path: Path, toy_run: Path) -> None:
    out = tmp_path / "student.zip"
    assert "is not there." in refusal(tmp_path / "nowhere", out)
    assert "is a file, not a run folder." in refusal(toy_run / "student.onnx", out)
    (tmp_path / "empty").mkdir()
    assert "holds no engine of a student" in refusal(tmp_path / "empty", out, DataError)


def test_a_run_that_is_not_finished(toy_run: Path, tmp_path: Path) -> None:
    (toy_run / "report.json").unlink()
    assert "is not finished: it has no report.json yet." in refusal(toy_run, tmp_path / "student.zip")


def test_a_report_that_is_none(toy_run: Path, tmp_path: Path) -> None:
    (toy_run / "report.json").write_text('{"rows": []')
    assert "is no report of this version" in refusal(toy_run, tmp_path / "student.zip")


def test_an_engine_that_the_report_did_not_measure(toy_run: Path, tmp_path: Path) -> None:
    write_toy(toy_run / "student-int8.onnx", "int8", fused=True)
    assert "student-int8.onnx is not the file that report.json measured" in refusal(toy_run, tmp_path / "student.zip")


@pytest.mark.parametrize("name", ["../run/student.onnx", "nothing.onnx", "stages", "/etc/passwd"])
def test_an_engine_that_is_not_in_the_folder(toy_run: Path, tmp_path: Path, name: str) -> None:
    assert f"There is no {name} in " in refusal(toy_run, tmp_path / "student.zip", DataError, engines=[name])


def test_engines_that_cannot_go_in(toy_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "student.zip"
    model = onnx.load(toy_run / "student.onnx")
    del model.metadata_props[:]
    onnx.save(model, toy_run / "stranger.onnx")
    assert "does not say what it is" in refusal(toy_run, out, EngineError, engines=["stranger.onnx"])
    (toy_run / "student two.onnx").write_bytes((toy_run / "student.onnx").read_bytes())
    assert "cannot go into a package by this name" in refusal(toy_run, out, DataError)
    (toy_run / "student two.onnx").unlink()
    (toy_run / "student.plan").write_bytes(b"a plan without a sidecar")
    assert "student.plan has no sidecar" in refusal(toy_run, out, EngineError)
    assert "is no engine" in refusal(toy_run, out, EngineError, engines=["report.json"])


def test_a_target_that_is_something_else(toy_run: Path, tmp_path: Path, toy_zip: Path) -> None:
    other = tmp_path / "holiday.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("holiday.jpg", b"mine")
    assert "is no package of edpct, so it is left alone" in refusal(toy_run, other)
    assert "does not end in .zip" in refusal(toy_run, toy_run / "student.onnx")
    assert "There is no folder" in refusal(toy_run, tmp_path / "none" / "student.zip")
    folder = tmp_path / "folder.zip"
    folder.mkdir()
    assert "left alone" in refusal(toy_run, folder)
    before = toy_zip.stat().st_ino
    assert package(toy_run, toy_zip).path.stat().st_ino != before  # a package is replaced by a new file


def test_a_full_disk(toy_run: Path, tmp_path: Path, cli_environment: dict[str, str]) -> None:
    """A file system of sixteen kilobytes, made in a namespace of its own."""
    small = tmp_path / "small"
    small.mkdir()
    script = 'mount -t tmpfs -o size=4k none "$1" || exit 77; "$2" -m edpct package "$3" --out "$1/student.zip"; '
    script += 'code=$?; ls -A "$1"; exit $code'
    command = ["unshare", "-m", "sh", "-c", script, "sh", str(small), sys.executable, str(toy_run)]
    done = subprocess.run(command, env=cli_environment, capture_output=True, text=True)
    if done.returncode in (1, 77):
        pytest.skip("this user may not mount a file system")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"edpct: The disk of {small}/student.zip is full.")


def test_a_folder_that_cannot_be_written(toy_run: Path, cli_environment: dict[str, str]) -> None:
    if not Path("/proc/self").is_dir():
        pytest.skip("this system has no /proc")
    command = [sys.executable, "-m", "edpct", "package", str(toy_run), "--out", "/proc/student.zip"]
    done = subprocess.run(command, env=cli_environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("edpct: /proc/student.zip cannot be written: ") and "bug" not in done.stderr


# ---- a real run


def test_a_real_run(compressed_run: Path, scenes: Path, tmp_path: Path, cli_environment: dict[str, str]) -> None:
    """Plans with their sidecars, the weights, a card whose numbers are the report's, and one that runs."""
    packed = package(compressed_run, tmp_path / "student.zip", weights=True)
    again = package(compressed_run, tmp_path / "again.zip", weights=True)
    assert packed.path.read_bytes() == again.path.read_bytes()
    names = {name for name, _, _ in packed.members}
    plans = {path.name for path in compressed_run.glob("student*.plan")}
    assert plans | {f"{plan}.json" for plan in plans} | {"student.safetensors"} <= names
    assert packed.manifest.default == "student-int8-fused.onnx" and "teacher.onnx" not in names
    folder = unpack(packed.path, tmp_path / "unpacked")
    assert subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True).returncode == 0
    check_card((folder / MODEL_CARD).read_text(encoding="utf-8"), read_report(compressed_run / "report.json"), folder)
    image = next((scenes / "val" / "images").iterdir())
    command = [sys.executable, str(folder / "run.py"), str(image), str(tmp_path / "out")]
    done = subprocess.run(command, env=cli_environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    mask = np.asarray(Image.open(tmp_path / "out" / f"{image.stem}.png"))
    with Segmenter(packed.path) as seg, Segmenter(compressed_run / "student-int8-fused.onnx") as ours:
        frame = np.asarray(Image.open(image).convert("RGB"))
        np.testing.assert_array_equal(seg(frame), mask)
        np.testing.assert_array_equal(ours(frame), mask)


def check_card(text: str, report: Report, folder: Path) -> None:
    card = json.loads(
        {entry.key: entry.value for entry in onnx.load(folder / "student-int8.onnx").metadata_props}[CARD_KEY]
    )
    assert text.startswith(f"# {card['network']}\n")
    assert f"{card['parameters'] / 1e6:.2f} M parameters, {card['macs'] / 1e9:.2f} GMACs" in text
    rows = {row.name: row for row in reversed(report.rows)}  # the accuracy is that of an engine's first row
    packed = [row for row in rows.values() if (folder / row.file).is_file()]
    assert {row.name for row in packed} >= {"distilled", "FP16", "INT8", "INT8, fused"}
    for row in packed:
        (line,) = [line for line in lines_of(text, row.name) if "±" in line]
        assert row.accuracy is not None and f"| {100 * row.accuracy.miou:.2f} ± " in line
        rate = row.latency["transfer"].fps
        assert (f" {rate:.2f} |" if rate < 10 else f" {rate:.1f} |" if rate < 1000 else f" {rate:.0f} |") in line
    assert report.machine.cpu in text and f"Seed {(report.recipe or {})['seed']};" in text
    assert card["data"]["directory"] not in text  # no path of the machine that it was made on
