"""Ctrl-C, the power switch, and a second process: what was finished stays, and the same command goes on."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from edpct.training.log import read_log

STEPS = 60
RECIPE = """
{section}
batch = 1
crop = 64
save_every = 1
validate_every = 0
"""


def start(environment: dict[str, str], log: Path, *arguments: object) -> subprocess.Popen[bytes]:
    """edpct in a process of its own, its stderr in a file that can be watched."""

    def listen() -> None:  # where the tests run in the background, Ctrl-C is ignored and that is inherited
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "edpct", *map(str, arguments)],
            env=environment, stdout=subprocess.DEVNULL, stderr=file, preexec_fn=listen,
        )  # fmt: skip


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, f"ended too early:\n{log.read_text()}"
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.1)  # reading a resume point over and over takes the processor from what is waited for


def step_of(point: Path) -> int:
    import torch

    return int(torch.load(point, weights_only=True)["step"])


def reached(point: Path, step: int) -> bool:
    return point.exists() and step_of(point) >= step


@pytest.fixture
def kill_at_end() -> object:
    started: list[subprocess.Popen[bytes]] = []
    yield started.append
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_ctrl_c_in_a_training(
    scenes: Path, tmp_path: Path, cli_environment: dict[str, str], kill_at_end: Callable[[object], None]
) -> None:
    recipe, out, log = tmp_path / "recipe.toml", tmp_path / "out", tmp_path / "log"
    recipe.write_text(RECIPE.format(section="[train]"))
    command = (
        "train", "--data", scenes, "--out", out, "--recipe", recipe, "--preset", "tiny", "--steps", 60, "--size", 128,
    )  # fmt: skip
    process = start(cli_environment, log, *command)
    kill_at_end(process)
    wait_for((out / "resume.pt").exists, process, log)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 2
    text = log.read_text()
    assert text.endswith(
        "edpct: Interrupted; what was finished is kept.\n       Run the same command again to go on.\n"
    )
    assert "Traceback" not in text
    step = step_of(out / "resume.pt")
    assert 1 <= step < 60
    assert not (out / "teacher.pt").exists()

    again = start(cli_environment, log, *command)
    kill_at_end(again)
    assert again.wait(240) == 0, log.read_text()
    assert f"going on after step {step} of 60." in log.read_text()
    assert (out / "teacher.pt").exists() and not (out / "resume.pt").exists()


def test_kill_9_at_random_moments_of_a_training(
    scenes: Path, tmp_path: Path, cli_environment: dict[str, str], kill_at_end: Callable[[object], None]
) -> None:
    """Killed twice, it ends with the tensors of a training that nobody disturbed, bit for bit, and with its log."""
    import torch

    recipe, log = tmp_path / "recipe.toml", tmp_path / "log"
    text = RECIPE.format(section="[train]").replace("save_every = 1", "save_every = 2")
    recipe.write_text(text.replace("validate_every = 0", "validate_every = 5") + "ema = 0.9\nlog_every = 3\n")

    def command(out: Path) -> tuple[object, ...]:
        return (
            "train", "--data", scenes, "--out", out, "--recipe", recipe, "--preset", "tiny", "--steps", STEPS,
            "--size", 128,
        )  # fmt: skip

    undisturbed = start(cli_environment, tmp_path / "calm", *command(tmp_path / "straight"))
    kill_at_end(undisturbed)
    rng, out, least = random.Random(0), tmp_path / "out", 0
    for _ in range(2):
        least = rng.randrange(least + 1, least + STEPS // 3)
        process = start(cli_environment, log, *command(out))
        kill_at_end(process)
        wait_for(partial(reached, out / "resume.pt", least), process, log)
        time.sleep(0.1 * rng.random())  # anywhere in a step, a validation, or the writing of a file
        process.kill()
        assert process.wait(60) == -signal.SIGKILL
        least = step_of(out / "resume.pt")
    last = start(cli_environment, log, *command(out))
    kill_at_end(last)
    assert last.wait(240) == 0, log.read_text()
    assert f"going on after step {least} of {STEPS}." in log.read_text()
    assert undisturbed.wait(240) == 0, (tmp_path / "calm").read_text()

    ours, theirs = (torch.load(f / "teacher.pt", weights_only=True)["state_dict"] for f in (out, tmp_path / "straight"))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    timed = ("seconds", "images/s")
    rows = [
        [{k: v for k, v in row.items() if k not in timed} for row in read_log(f / "log.csv")]
        for f in (out, tmp_path / "straight")
    ]
    assert rows[0] == rows[1] and len(rows[0]) > STEPS // 3
    names = ["log.csv", "teacher.pt", "training.html", "training.json"]
    assert sorted(path.name for path in out.iterdir() if not path.name.startswith(".")) == names


def test_kill_9_in_a_compression(
    compressed_run: Path, tmp_path: Path, cli_environment: dict[str, str], kill_at_end: Callable[[object], None]
) -> None:
    """Killed in the middle of the distillation, and meanwhile no other process may work in the folder."""
    teacher, out, log = compressed_run.parent / "teacher.pt", tmp_path / "run", tmp_path / "log"
    small = (compressed_run.parent / "recipe.toml").read_text()
    recipe = tmp_path / "recipe.toml"
    small = re.sub(r"\[distil\][^\[]*", RECIPE.format(section="[distil]"), small)
    recipe.write_text(small)
    command = ("compress", "--teacher", teacher, "--recipe", recipe, "--steps", 60, "--out", out)
    process = start(cli_environment, log, *command)
    kill_at_end(process)
    wait_for(lambda: "] distil: not done yet." in log.read_text(), process, log)
    wait_for(lambda: any(out.glob("work/distil-*/resume.pt")), process, log)
    process.kill()
    assert process.wait(60) == -signal.SIGKILL
    assert sorted(path.name.split("-")[0] for path in (out / "stages").iterdir()) == ["prune", "teacher"]
    (point,) = out.glob("work/distil-*/resume.pt")
    step = step_of(point)

    again = start(cli_environment, log, *command)
    kill_at_end(again)
    assert again.wait(500) == 0, log.read_text()
    text = log.read_text()
    assert "Traceback" not in text
    assert re.findall(r"^\[\d/9\] (\w+): skipped, done ", text, re.MULTILINE) == ["teacher", "prune"]
    assert f"going on after step {step} of 60." in text

    def table(run: Path) -> list[tuple[object, ...]]:
        rows = json.loads((run / "report.json").read_text())["rows"]
        return [(row["name"], row["runtime"], row["precision"], row["parameters"], row["macs"]) for row in rows]

    assert table(out) == table(compressed_run)


def test_a_second_process_is_refused(
    compressed_run: Path, tmp_path: Path, cli_environment: dict[str, str], kill_at_end: Callable[[object], None]
) -> None:
    from edpct.run.folder import RunFolder

    out, log = tmp_path / "run", tmp_path / "log"
    with RunFolder(out).locked():
        process = start(
            cli_environment, log, "compress", "--teacher", compressed_run.parent / "teacher.pt", "--out", out
        )
        kill_at_end(process)
        assert process.wait(120) == 2
    assert log.read_text() == (
        f"edpct: Another edpct is working in {out}.\n       Wait for it, or choose another --out.\n"
    )
