"""The file that is written: what playing it shows, when, and what happens where it cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from videos import Given, read_classes, read_video, scenes

from edpct.errors import RecipeError, RunError
from edpct.predict.engine import Engine
from edpct.predict.video import VideoSettings, fly
from edpct.predict.video.writer import RESERVE, VideoFile
from edpct.progress import Silent

CLASSES = VideoSettings(view="classes")


def flat(value: int) -> np.ndarray:
    return np.full((32, 32), value, np.uint8)


def test_playing_a_live_file_takes_as_long_as_the_flight(out: Path) -> None:
    """Ten frames a second: one comes in time, one late, four in a burst, one after a stall of a second."""
    times = [0.0, 0.1, 0.5, 0.52, 0.54, 0.56, 1.6]
    file = VideoFile(out / "a.mkv", CLASSES, rate=10, clocked=True)
    for value, at in enumerate(times):
        file.write(flat(value), at)
    file.finish()
    shown = [int(frame[0, 0]) for frame in read_classes(out / "a.mkv")]
    assert len(shown) == file.written
    assert abs(len(shown) / 10 - (times[-1] + 0.1)) <= 0.1 + 1e-9
    assert shown == sorted(shown) and {0, 1, 2, 6} <= set(shown) and shown[-1] == 6
    for place, value in enumerate(shown):  # within a frame of when it was taken, and no newer one was there by then
        later = times[value + 1] if value + 1 < len(times) else place / 10
        assert times[value] - 0.1 - 1e-9 <= place / 10 <= later + 0.1 + 1e-9, (place, value)


def test_a_camera_that_jitters_has_every_frame_in_the_file(out: Path) -> None:
    rng = np.random.default_rng(0)
    file = VideoFile(out / "a.mkv", CLASSES, rate=30, clocked=True)
    for value in range(90):
        file.write(flat(value), value / 30 + (rng.uniform(-0.016, 0.016) if value else 0))
    file.finish()
    shown = [int(frame[0, 0]) for frame in read_classes(out / "a.mkv")]
    assert shown == list(range(90))


def test_a_file_is_not_clocked(out: Path) -> None:
    file = VideoFile(out / "a.mkv", CLASSES, rate=10, clocked=False)
    for value in range(5):
        file.write(flat(value), 0.0)
    file.finish()
    assert [int(frame[0, 0]) for frame in read_classes(out / "a.mkv")] == list(range(5))


def test_the_final_name_is_that_of_a_finished_file(out: Path) -> None:
    (out / "a.mkv").write_text("an older one")
    file = VideoFile(out / "a.mkv", CLASSES, rate=10, clocked=False)
    file.write(flat(1), 0.0)
    assert (out / "a.mkv").read_text() == "an older one"
    assert [path.name for path in out.glob(".*")] == [".a.partial.mkv"]
    file.finish()
    assert len(read_video(out / "a.mkv")) == 1 and not list(out.glob(".*"))


@pytest.mark.parametrize("suffix", [".mp4", ".m4v", ".mov", ".mkv", ".avi"])
def test_every_container(engine: Engine, out: Path, suffix: str) -> None:
    flown = fly(engine, Given(scenes(4)), out / f"a{suffix}", VideoSettings(view="mask"), Silent())
    assert flown.written == len(read_video(out / f"a{suffix}")) == 4


@pytest.mark.parametrize(
    ("name", "settings", "error", "said"),
    [
        ("a.gif", VideoSettings(), RecipeError, r"a\.gif is no video that edpct writes"),
        ("a.mp4", CLASSES, RecipeError, r"a\.mp4 would change the classes"),
        ("a.avi", VideoSettings(view="classes", codec="MJPG"), RecipeError, "MJPG would change the classes"),
        ("none/a.mp4", VideoSettings(), RunError, "There is no folder "),
        ("folder.mp4", VideoSettings(), RunError, "is a folder"),
        ("file/a.mp4", VideoSettings(), RunError, "There is no folder "),
        (f"{'n' * 250}.mp4", VideoSettings(), RunError, "cannot be written: File name too long"),
        ("a.mp4", VideoSettings(codec="ZZZZ"), RunError, r"cannot write ZZZZ of 64x48 pixels into \.mp4"),
    ],
)
def test_what_cannot_be_written(
    engine: Engine, out: Path, name: str, settings: VideoSettings, error: type[Exception], said: str
) -> None:
    (out / "folder.mp4").mkdir()
    (out / "file").touch()
    with pytest.raises(error, match=said):
        fly(engine, Given(scenes(2)), out / name, settings, Silent())
    assert sorted(path.name for path in out.iterdir()) == ["file", "folder.mp4"]


def test_a_folder_that_may_not_be_written(engine: Engine, out: Path) -> None:
    place = Path("/sys") if os.geteuid() == 0 else out
    out.chmod(0o555)
    try:
        with pytest.raises(RunError, match=r"a\.mp4 cannot be written: "):
            fly(engine, Given(scenes(2)), place / "a.mp4", VideoSettings(), Silent())
    finally:
        out.chmod(0o755)


# ---- full disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for a megabyte more than what is kept free."""
    folder = tmp_path / "disk"
    folder.mkdir()
    size = f"size={RESERVE + 2**20}"
    mount = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk is for root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up_keeps_what_fits(engine: Engine, small_disk: Path) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (256, 256, 3), np.uint8) for _ in range(40)]
    settings = VideoSettings(view="overlay", opacity=0, hud=False, codec="FFV1", fit="resize")
    with pytest.raises(RunError, match="is full") as caught:
        fly(engine, Given(noise), small_disk / "a.mkv", settings, Silent())
    kept = read_video(small_disk / "a.mkv")
    assert 0 < len(kept) < 40
    assert caught.value.what.endswith(f"holds the {len(kept)} before.")
    np.testing.assert_array_equal(kept, noise[: len(kept)])


LIMITED = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from edpct.errors import RunError
from edpct.predict.video.settings import VideoSettings
from edpct.predict.video.writer import VideoFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
file = VideoFile(Path(sys.argv[1]), VideoSettings(codec="FFV1"), 10, False)
for seed in range(40):
    file.write(np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8), 0.0)
try:
    file.finish()
except RunError as error:
    print(error.what)
"""


@pytest.mark.parametrize("suffix", [".mkv", ".avi"])
def test_a_file_that_stopped_growing_is_found_out(out: Path, suffix: str) -> None:
    """OpenCV writes on without a word; a limit on the size of files stands for a quota here."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(out / f"a{suffix}")], capture_output=True, text=True, check=True
    )
    assert "could not be finished: 40 frames were written, and " in done.stdout
    assert f".a.partial{suffix}" in done.stdout
    assert not (out / f"a{suffix}").exists()
