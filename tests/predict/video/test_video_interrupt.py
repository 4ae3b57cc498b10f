"""Ctrl-C and SIGTERM in a process of its own: what was written can be played, and is counted."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner
from videos import camera_server, read_video, scenes, write_video

from edpct.cli.main import app
from edpct.cli.predict_video import closing_line
from edpct.predict.video import Flown

# The source is predicted slowly, with a note after each inference.
CODE = """
import sys, time
from pathlib import Path
from edpct.cli.main import app
from edpct.cli.predict_video import run_video
from edpct.predict.engine import Engine
from edpct.predict.video import VideoSettings

class Slow(Engine):
    def infer(self, images):
        time.sleep(0.05)
        print("inference", file=sys.stderr, flush=True)
        return super().infer(images)

@app.command("slow")
def slow(engine: Path, source: str, out: Path) -> None:
    with Slow(engine, runtime="onnxruntime") as opened:
        run_video(opened, source, out, VideoSettings(fit="resize"))

app()
"""
Stop = Callable[..., "tuple[int, str, str]"]


@pytest.fixture
def stopped(tmp_path: Path, cli_environment: dict[str, str]) -> Stop:
    """Start, send signals after eight inferences, and say the exit code, and what was on stdout and stderr."""

    def run(arguments: list[str], *sent: signal.Signals) -> tuple[int, str, str]:
        log = tmp_path / "log"

        def listen() -> None:  # where the tests run in the background, Ctrl-C is ignored and that is inherited
            signal.signal(signal.SIGINT, signal.SIG_DFL)

        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-c", CODE, "slow", *arguments],
                env=cli_environment, stdout=subprocess.PIPE, stderr=file, text=True, preexec_fn=listen,
            )  # fmt: skip
        try:
            end = time.monotonic() + 120
            while log.read_text().count("inference") < 8:
                assert process.poll() is None and time.monotonic() < end, log.read_text()
                time.sleep(0.01)
            for one in sent:
                process.send_signal(one)
            said, _ = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
        return process.returncode, said, log.read_text().replace("inference\n", "")

    return run


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_stopped_prediction_leaves_a_file_that_plays(
    stopped: Stop, toy: Path, out: Path, tmp_path: Path, sent: signal.Signals, suffix: str
) -> None:
    video, target = write_video(tmp_path / "a.mkv", scenes(400)), out / f"b{suffix}"
    code, said, errors = stopped([str(toy), str(video), str(target)], sent, sent)  # an impatient hand
    pattern = r"Stopped: (\d+) frames in [\d.]+ s \([\d.]+ FPS\), 0 dropped; glass to glass .* ms; wrote (.*)\.\n"
    found = re.fullmatch(pattern, said)
    assert found, said + errors
    assert code == 2  # a file was to be predicted to its end
    assert found[2] == str(target)
    assert 5 <= int(found[1]) < 400
    assert len(read_video(target)) == int(found[1])
    assert [path.name for path in out.iterdir()] == [target.name]


def test_stopping_a_camera_is_its_usual_end(stopped: Stop, toy: Path, out: Path) -> None:
    with camera_server(scenes(20), endless=True) as address:
        code, said, errors = stopped([str(toy), address, str(out / "b.mkv")], signal.SIGTERM)
    assert code == 0 and said.startswith("Stopped: "), said + errors
    assert errors == ""
    assert len(read_video(out / "b.mkv")) > 0
    assert [path.name for path in out.iterdir()] == ["b.mkv"]


def test_a_camera_that_is_lost_is_a_failure_whose_file_is_whole(toy: Path, out: Path) -> None:
    """So that systemd, told to restart on failure, starts it again."""
    with camera_server(scenes(20)) as address:
        arguments = ["--engine", str(toy), "--input", address, "--out", str(out / "b.mkv"), "--runtime", "onnxruntime"]
        done = CliRunner().invoke(app, ["predict", *arguments])
    assert done.exit_code == 2 and done.stdout.startswith(f"{address} gave no more frames: "), done.stderr
    assert "Traceback" not in done.stderr
    assert f"wrote {out / 'b.mkv'}" in done.stdout and len(read_video(out / "b.mkv")) > 0
    assert [path.name for path in out.iterdir()] == ["b.mkv"]


def test_the_closing_line() -> None:
    flown = Flown(312, 14, 312, 10.4, 41.2, 57.9, Path("mask.mp4"), "end")
    assert closing_line(flown, "camera:0") == (
        "312 frames in 10.4 s (30.0 FPS), 14 dropped; glass to glass 41 ms, 95 % under 58 ms; wrote mask.mp4."
    )
    flown = Flown(6, 24, 30, 1.0, 16, 18, Path("a.mkv"), "lost")
    assert closing_line(flown, "camera:0") == (
        "camera:0 gave no more frames: 6 frames in 1.0 s (6.0 FPS), 24 dropped; glass to glass 16 ms, "
        "95 % under 18 ms; wrote a.mkv with 30 frames."
    )
    flown = Flown(1, 0, 0, 0.0, 5, 5, None, "stopped")
    assert closing_line(flown, "camera:0") == (
        "Stopped: 1 frame in 0.0 s (0.0 FPS), 0 dropped; glass to glass 5 ms, 95 % under 5 ms."
    )
