"""Worker processes: a real one on the tiny engine, one that dies, one that refuses, one that fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image
from worker_processes import all_gone, children, is_alive

from edpct.bench.crew import Member
from edpct.bench.report.schema import SCOPES
from edpct.bench.scoring import score_windows
from edpct.bench.worker import Job, Opened
from edpct.data.layouts import open_dataset
from edpct.data.tiling import windows
from edpct.errors import EngineError
from edpct.runtimes.artefact import card_of
from edpct.runtimes.ports import predictor
from edpct.runtimes.session import Options
from edpct.runtimes.table import open_session

MEGABYTE = 1_000_000


def job_of(path: Path, runtime: str = "onnxruntime", **changes: object) -> Job:
    rng = np.random.default_rng(0)
    images = []
    for _ in range(2):
        file = BytesIO()
        Image.fromarray(rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)).save(file, "PNG")
        images.append(file.getvalue())
    task = card_of(path).task
    return replace(Job(path, runtime, "", Options(threads=1), 1, task, tuple(images)), **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def engine(compressed_run: Path) -> Path:
    return compressed_run / "student.onnx"


@pytest.fixture
def before() -> set[int]:
    return children()


@pytest.fixture(scope="module")
def crew(engine: Path) -> Iterator[tuple[Member, Opened]]:
    """One worker for the tests that do not end it, and what it said when it opened the engine."""
    with Member(job_of(engine)) as found:
        yield found, found.open()


@pytest.fixture
def member(crew: tuple[Member, Opened]) -> Member:
    return crew[0]


# ---- what a worker does


def test_opening_tells_what_was_opened(crew: tuple[Member, Opened]) -> None:
    import onnxruntime

    member, opened = crew
    assert opened.device == "cpu"
    assert opened.details["version"] == onnxruntime.__version__ and opened.details["threads"] == "1"
    assert 0 < opened.seconds < 60
    assert 10 * MEGABYTE < opened.memory_before < 2000 * MEGABYTE
    assert member.peak() > opened.memory_before


def test_a_turn_in_every_scope(member: Member) -> None:
    for scope in SCOPES:
        turn = member.turn(scope, 0.02, 4, settle=False)
        assert len(turn.times) >= 4 and min(turn.times) > 0
        assert set(turn.phases) == ({"decode", "preprocess", "infer", "argmax"} if scope == "end_to_end" else set())


def test_warming_up_and_several_in_flight(member: Member) -> None:
    found = member.warm_up(5.0)
    assert found.runs >= 5 and found.seconds > 0
    flow = member.flow(0.05)
    assert flow.runs == len(flow.times) >= 1 and flow.seconds >= 0.05


def test_scores_are_those_of_this_process(member: Member, engine: Path, scenes: Path) -> None:
    dataset, task = open_dataset(scenes), card_of(engine).task
    done: list[int] = []
    scores = member.score(dataset, done.append)
    with open_session(engine, "onnxruntime", options=Options(threads=1)) as session:
        cut = list(windows(dataset, "val", 128, 128))
        ours = score_windows(predictor(session, task, engine.name), cut, task.num_classes, task.ignore_index)
    assert scores.to_dict() == ours.to_dict()
    assert scores.confusions.sum() > 0
    assert done == list(range(1, len(cut) + 1))


def test_a_failure_of_ours_surfaces_as_one_and_the_worker_goes_on(member: Member) -> None:
    with pytest.raises(RuntimeError) as caught:
        member.turn("backwards", 0.01, 1, settle=False)  # type: ignore[arg-type]
    assert "The worker of student.onnx on onnxruntime failed:\n" in str(caught.value)
    assert "Traceback (most recent call last)" in str(caught.value) and "KeyError: 'backwards'" in str(caught.value)
    assert len(member.turn("compute", 0.01, 1, settle=False).times) >= 1


def test_starting_a_worker_does_not_wait_for_it(engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All workers of a bench import at the same time, however large the images are that they are given."""
    sleeper = tmp_path / "python"
    sleeper.write_text("#!/bin/sh\nexec sleep 6\n")
    sleeper.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(sleeper))
    began = time.monotonic()
    member = Member(job_of(engine, images=(os.urandom(2 * MEGABYTE),) * 2))
    took = time.monotonic() - began
    member.kill()
    assert took < 4.0


# ---- what a worker refuses


def test_an_engine_that_contradicts_its_card(engine: Path) -> None:
    task = card_of(engine).task.at_size(64, 64)
    with Member(job_of(engine, task=task)) as member, pytest.raises(EngineError) as caught:
        member.open()
    assert caught.value.what.startswith("student.onnx contradicts itself: its card says that the input is (B, 3, 64, ")
    assert caught.value.hint


def test_a_batch_that_the_engine_does_not_take(engine: Path) -> None:
    with Member(job_of(engine, batch=2)) as member, pytest.raises(EngineError) as caught:
        member.open()
    assert caught.value.what == "student.onnx takes batches of 1, and 2 was asked for."


def test_an_engine_that_cannot_be_opened(engine: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes(engine.read_bytes()[:-3000])
    with Member(replace(job_of(engine), path=path)) as member, pytest.raises(EngineError) as caught:
        member.open()
    assert "cut.onnx" in caught.value.what and caught.value.hint


# ---- how a worker ends


def test_a_worker_that_is_killed_is_named_with_its_signal(engine: Path, before: set[int]) -> None:
    """As the kernel does it where memory runs out: in the middle of an order."""
    with Member(job_of(engine)) as member:
        member.open()
        (worker,) = children() - before
        killer = Thread(target=lambda: (time.sleep(0.3), os.kill(worker, signal.SIGKILL)))
        killer.start()
        with pytest.raises(EngineError) as caught:
            member.turn("transfer", 60.0, 1, settle=False)
        killer.join()
        assert caught.value.what == "student.onnx on onnxruntime: its process ended by SIGKILL."
        assert "Memory may have run out" in caught.value.hint
        with pytest.raises(EngineError):  # and so is everything that is asked of it later
            member.peak()
    assert children() == before


def test_a_worker_that_exits_is_named_with_its_code(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runtime may end the whole process, as TensorRT does without a driver."""
    (tmp_path / "onnxruntime.py").write_text("import os\nos._exit(7)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with Member(job_of(engine)) as member, pytest.raises(EngineError) as caught:
        member.open()
    assert caught.value.what == "student.onnx on onnxruntime: its process ended with exit code 7."


@pytest.mark.parametrize("how", ["close", "kill", "leaving", "leaving with an error"])
def test_no_process_is_left(engine: Path, before: set[int], how: str) -> None:
    member = Member(job_of(engine))
    (worker,) = children() - before
    assert is_alive(worker)
    if how == "leaving":
        with member:
            pass
    elif how == "leaving with an error":
        with pytest.raises(KeyboardInterrupt), member:
            raise KeyboardInterrupt
    else:
        getattr(member, how)()
    assert children() == before  # neither running nor a zombie
    if how in ("close", "kill"):
        member.kill()  # a second time is fine


def test_a_worker_ends_when_its_parent_is_killed(engine: Path, cli_environment: dict[str, str], tmp_path: Path) -> None:
    """SIGKILL leaves the parent no time to end anybody."""
    import pickle

    (tmp_path / "job").write_bytes(pickle.dumps(job_of(engine)))
    code = (
        "import pickle, sys, time\nfrom edpct.bench.crew import Member\n"
        f"member = Member(pickle.load(open({str(tmp_path / 'job')!r}, 'rb')))\nmember.open()\n"
        "print(member._process.pid, flush=True)\ntime.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], env=cli_environment, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert is_alive(worker)
        parent.kill()
    assert all_gone({worker})


# ---- what a worker imports and prints


def test_modules_that_lie_in_the_current_folder_are_not_imported(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("numpy", "onnxruntime", "pydantic", "random"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'a')\nraise SystemExit(9)\n")
    monkeypatch.chdir(tmp_path)
    with Member(job_of(engine)) as member:
        assert member.open().device == "cpu"
    assert not (tmp_path / "imported").exists()


def test_what_a_library_prints_goes_to_the_errors(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A table on standard output is for the next program in a pipe."""
    import onnxruntime

    (tmp_path / "onnxruntime.py").write_text(
        f"print('Welcome to ONNX Runtime')\nimport sys\nsys.path.remove({str(tmp_path)!r})\n"
        "del sys.modules['onnxruntime']\nimport onnxruntime\n"
    )
    assert onnxruntime.__file__
    monkeypatch.syspath_prepend(str(tmp_path))
    with Member(job_of(engine)) as member:
        member.open()
    out, err = capfd.readouterr()
    assert "Welcome" in err and "Welcome" not in out
