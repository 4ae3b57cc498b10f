"""Crops made by other processes, as on a GPU: Ctrl-C in a terminal reaches them too, and so may a damaged file."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from worker_cases import ERRORS, fails_with

from edpct.data.layouts import open_dataset
from edpct.errors import EdpctError
from edpct.training.resume import load_point


def test_ctrl_c_in_a_terminal_leaves_a_resume_point(
    scenes: Path, tmp_path: Path, cli_environment: dict[str, str]
) -> None:
    def listen() -> None:  # where the tests run in the background, Ctrl-C is ignored and that is inherited
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("interrupted_workers.py"), scenes, tmp_path / "out"],
        env=cli_environment, capture_output=True, text=True, timeout=240, check=False,
        start_new_session=True, preexec_fn=listen,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    point = load_point(tmp_path / "out", "a")
    assert point is not None and 1 <= point["step"] < 2000


def _run(case: str, scenes: Path, out: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("worker_cases.py"), case, scenes, out],
        env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_workers_make_the_same_batches(scenes: Path, tmp_path: Path, cli_environment: dict[str, str]) -> None:
    _run("same", scenes, tmp_path, cli_environment)


def test_what_fails_in_a_worker_is_raised_as_it_is_and_no_worker_is_left(
    scenes: Path, tmp_path: Path, cli_environment: dict[str, str]
) -> None:
    _run("failing", scenes, tmp_path, cli_environment)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_what_fails_in_this_process_is_raised_as_it_is(scenes: Path, tmp_path: Path, error: EdpctError) -> None:
    fails_with(error, open_dataset(scenes), tmp_path, workers=0)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_crosses_to_another_process_whole(error: EdpctError) -> None:
    found = pickle.loads(pickle.dumps(error))
    assert type(found) is type(error) and found.args == error.args and vars(found) == vars(error)
