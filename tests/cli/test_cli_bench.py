"""``edpct bench`` as a person runs it: its tables and files, and what Ctrl-C leaves."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import pytest

from edpct.bench.report import schema
from edpct.bench.report.schema import SCOPES, read_report

QUICK = ("--seconds", 0.05, "--runs", 2, "--rounds", 1, "--threads", 1)
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(cli_environment: dict[str, str], tmp_path: Path) -> Run:
    def start(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "edpct", *map(str, arguments)]
        done = subprocess.run(
            command, env=cli_environment, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
        )
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        return done

    return start


class Page(HTMLParser):
    """The words and pictures of a page, and what it would fetch or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.pictures: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        if tag == "img":
            self.pictures.append(values["src"])
        if tag in ("script", "link", "iframe"):
            self.fetched.append(tag)
        self.fetched += [v for n, v in values.items() if n in ("src", "href") and not v.startswith(("data:", "#"))]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_two_engines_a_page_and_the_data(run: Run, compressed_run: Path, scenes: Path, tmp_path: Path) -> None:
    teacher, student = compressed_run.parent / "teacher.pt", compressed_run / "student-int8.onnx"
    page, results = tmp_path / "page.html", tmp_path / "r.json"
    done = run(
        "bench", "--engine", teacher, "--engine", student, "--data", scenes, "--report", page, "--json", results, *QUICK
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "r.json"]  # and no journal

    report = read_report(results)
    jsonschema.validate(
        json.loads(results.read_text()), json.loads(Path(schema.__file__).with_name("report.schema.json").read_text())
    )
    assert [(row.name, row.runtime) for row in report.rows] == [
        ("teacher.pt", "torch"), ("student-int8.onnx", "openvino"), ("student-int8.onnx", "onnxruntime"),
    ]  # fmt: skip
    assert report.reference == "teacher.pt" and report.sittings == 1 and report.failures == ()
    assert report.command.startswith("edpct bench --engine ")
    for row in report.rows:
        assert set(row.latency) == set(SCOPES) and row.accuracy is not None
        assert (row.accuracy.difference is None) == (row.name == "teacher.pt")
    # The INT8 engine on the same data gave this in the run that made it.
    there = next(row for row in read_report(compressed_run / "report.json").rows if row.name == "INT8")
    assert there.accuracy is not None and report.rows[1].accuracy is not None
    assert report.rows[1].accuracy.miou == pytest.approx(there.accuracy.miou, abs=1e-6)

    shown = Page(page.read_text(encoding="utf-8"))
    words = " ".join(shown.words)
    for row in report.rows:
        assert row.name in words
        assert row.accuracy is not None and f"{100 * row.accuracy.miou:.2f}" in words
    assert [source.split(",")[0] for source in shown.pictures] == ["data:image/png;base64"]
    assert shown.fetched == []

    assert re.search(r"^\| teacher\.pt \| fp32 \|", done.stdout, re.MULTILINE)
    assert re.search(r"^\| student-int8\.onnx \| int8 \|", done.stdout, re.MULTILINE)
    assert f"Wrote {page}." in done.stdout and f"Wrote {results}." in done.stdout


def test_a_markdown_page_from_data_that_the_engine_knows(run: Run, compressed_run: Path, tmp_path: Path) -> None:
    page = tmp_path / "PAGE.MD"
    engine = compressed_run / "student.onnx"
    done = run("bench", "--engine", engine, "--runtime", "onnxruntime", "--report", page, *QUICK)
    assert done.returncode == 0, done.stderr
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# EDP-CTNet tiny, measured\n")
    assert "| student.onnx | fp32 |" in text and "mIoU %" in text and "<html" not in text
    assert [path.name for path in tmp_path.iterdir()] == ["PAGE.MD"]


def test_without_accuracy_and_without_files(run: Run, compressed_run: Path, tmp_path: Path) -> None:
    engine = compressed_run / "student.onnx"
    done = run("bench", "--engine", engine, "--no-accuracy", *QUICK)
    assert done.returncode == 0, done.stderr
    assert "| student.onnx | fp32 |" in done.stdout and "mIoU" not in done.stdout.split("\n\n")[1]
    assert list(tmp_path.iterdir()) == []


def test_the_engine_to_compare_with(run: Run, compressed_run: Path, tmp_path: Path) -> None:
    engines = ("--engine", compressed_run / "teacher.onnx", "--engine", compressed_run / "student.onnx")
    command = ("bench", *engines, "--runtime", "openvino", "--json", tmp_path / "r.json", *QUICK)
    done = run(*command, "--reference", "student.onnx")
    assert done.returncode == 0, done.stderr
    report = read_report(tmp_path / "r.json")
    assert report.reference == "student.onnx"
    assert [row.name for row in report.rows if row.accuracy and row.accuracy.difference] == ["teacher.onnx"]
    done = run(*command, "--reference", "teacher")
    assert done.returncode == 2
    assert done.stderr == (
        "edpct: There is no engine 'teacher' to compare with.\n       Choose from: teacher.onnx, student.onnx.\n"
    )


def test_an_engine_that_cannot_be_opened_is_named_on_the_page(run: Run, compressed_run: Path, tmp_path: Path) -> None:
    """A stranger's graph under a sound card."""
    import onnx

    model = onnx.load(compressed_run / "student.onnx")
    model.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(model, tmp_path / "broken.onnx")
    page = tmp_path / "page.html"
    done = run(
        "bench", "--engine", tmp_path / "broken.onnx", "--engine", compressed_run / "student.onnx", "--no-accuracy",
        "--runtime", "onnxruntime", "--report", page, *QUICK,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Left out: broken.onnx on onnxruntime. ONNX Runtime cannot open broken.onnx: " in done.stderr
    words = " ".join(Page(page.read_text(encoding="utf-8")).words)
    assert "ONNX Runtime cannot open broken.onnx: " in words


# ---- Ctrl-C


class Running:
    """A bench in a process group of its own, as a shell makes one, so that Ctrl-C can be sent to all of it."""

    def __init__(self, environment: dict[str, str], log: Path, *arguments: object) -> None:
        def listen() -> None:  # where the tests run in the background, Ctrl-C is ignored and that is inherited
            signal.signal(signal.SIGINT, signal.SIG_DFL)

        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edpct", *map(str, arguments)],
                env=environment, stdout=subprocess.DEVNULL, stderr=file, preexec_fn=listen, start_new_session=True,
            )  # fmt: skip

    def wait_for(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 240
        while not condition():
            assert self.process.poll() is None, f"ended too early:\n{self.log.read_text()}"
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.01)

    def workers(self) -> set[int]:
        return {number for number in running() if status(number)[1] == self.process.pid}


def running() -> set[int]:
    """The worker processes of all benches on this machine."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"edpct.bench.worker" in command and status(int(entry.name))[0] not in ("Z", ""):
                found.add(int(entry.name))
    return found


def status(process: int) -> tuple[str, int]:
    """State and parent of a process; an empty state where it has gone."""
    try:
        state, parent = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[:2]
    except OSError:
        return "", 0
    return state, int(parent)


def rounds_kept(journal: Path) -> int:
    return journal.read_text().count('"kind": "round"') if journal.exists() else 0


@pytest.fixture
def start(cli_environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def begin(*arguments: object) -> Running:
        started.append(Running(cli_environment, tmp_path / f"log{len(started)}", *arguments))
        return started[-1]

    yield begin
    for found in started:
        if found.process.poll() is None:
            found.process.kill()
            found.process.wait()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_a_bench_that_is_stopped_while_timing(
    start: Callable[..., Running], compressed_run: Path, scenes: Path, tmp_path: Path, sent: signal.Signals
) -> None:
    results, journal = tmp_path / "r.json", tmp_path / ".r.json.journal"
    command = (
        "bench", "--engine", compressed_run / "student.onnx", "--data", scenes, "--runtime", "onnxruntime",
        "--threads", 1, "--seconds", 2, "--rounds", 8, "--runs", 8, "--json", results,
    )  # fmt: skip
    bench = start(*command)
    bench.wait_for(lambda: rounds_kept(journal) >= 1)
    workers = bench.workers()
    assert len(workers) == 1
    os.killpg(bench.process.pid, sent)
    assert bench.process.wait(60) == (2 if sent == signal.SIGINT else -sent)
    end = time.monotonic() + 10
    while workers & running() and time.monotonic() < end:
        time.sleep(0.02)
    assert not workers & running()
    said = bench.log.read_text()
    assert "Traceback" not in said
    if sent == signal.SIGINT:
        assert said.endswith(
            "edpct: Interrupted; what was finished is kept.\n       Run the same command again to go on.\n"
        )
    assert not results.exists()
    kept = rounds_kept(journal)
    assert 1 <= kept < 8

    again = start(*command)
    assert again.process.wait(240) == 0, again.log.read_text()
    assert f" and {kept} of 8 rounds are done." in again.log.read_text()
    assert "mIoU of " not in again.log.read_text()
    report = read_report(results)
    (row,) = report.rows
    assert report.sittings == 2 and row.accuracy is not None
    assert {len(times.rounds) for times in row.latency.values()} == {8}
    assert not journal.exists()
