"""Videos through engines whose answer is known: every frame, the right one, in order; or the newest, and a count."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from toy_engines import SIDE, expected_classes, write_engine
from videos import Given, Hooked, read_classes, read_video, scenes, write_video

from edpct import Segmenter
from edpct.errors import DataError, EngineError, RecipeError, RunError
from edpct.predict.engine import Engine
from edpct.predict.video import VideoSettings, fly, predict_video
from edpct.progress import Silent, Update
from edpct.runtimes.session import Options

CLASSES = VideoSettings(view="classes")


def rgb(frame: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(frame[..., ::-1])


# ---- files


@pytest.mark.parametrize("size", [(48, 64), (SIDE, SIDE), (90, 110)])
@pytest.mark.parametrize(("source", "target"), [("a.mkv", "b.mkv"), ("a.mp4", "b.avi")])
def test_every_frame_is_predicted_as_the_segmenter_does(
    engine: Engine, toy: Path, out: Path, size: tuple[int, int], source: str, target: str
) -> None:
    codec = "FFV1" if source.endswith("mkv") else "mp4v"
    video = write_video(out / source, scenes(12, *size), codec=codec)
    flown = predict_video(engine, str(video), out / target, CLASSES, Silent())
    with Segmenter(toy, runtime="onnxruntime", order="bgr") as seg:
        wanted = [seg(frame) for frame in read_video(video)]
    np.testing.assert_array_equal(read_classes(out / target), wanted)
    assert len({mask.tobytes() for mask in wanted}) == 12  # or an order could not be told
    assert (flown.frames, flown.dropped, flown.written, flown.ended) == (12, 0, 12, "end")
    assert flown.path == out / target and flown.latency_p95_ms >= flown.latency_ms > 0 and flown.fps > 0
    assert sorted(path.name for path in out.iterdir()) == [source, target]


def test_an_engine_with_its_argmax_inside(tmp_path: Path, out: Path) -> None:
    frames = scenes(3, 40, 70)
    video = write_video(out / "a.mkv", frames)
    with Engine(write_engine(tmp_path, fused=True), runtime="onnxruntime") as engine:
        predict_video(engine, str(video), out / "b.mkv", CLASSES, Silent())
    np.testing.assert_array_equal(read_classes(out / "b.mkv"), [expected_classes(rgb(frame)) for frame in frames])


def test_an_odd_side_gets_one_pixel_more(engine: Engine, out: Path) -> None:
    frames = scenes(2, 45, 63)
    fly(engine, Given(frames), out / "b.mkv", CLASSES, Silent())
    for found, frame in zip(read_classes(out / "b.mkv"), frames, strict=True):
        assert found.shape == (46, 64)
        np.testing.assert_array_equal(found[:45, :63], expected_classes(rgb(frame)))
        np.testing.assert_array_equal(found[45], found[44])
        np.testing.assert_array_equal(found[:, 63], found[:, 62])


def test_frames_in_flight_at_once_stay_in_order(toy: Path, out: Path) -> None:
    """Four at a time, of which the first takes longest."""
    frames = scenes(12, SIDE, SIDE)
    with Hooked(toy, lambda index: time.sleep(0.03 * (3 - index % 4)), options=Options(streams=4)) as engine:
        fly(engine, Given(frames), out / "b.mkv", CLASSES, Silent())
    np.testing.assert_array_equal(read_classes(out / "b.mkv"), [expected_classes(rgb(frame)) for frame in frames])


@pytest.mark.parametrize("size", [(4 * SIDE, 2 * SIDE), (SIDE, 4 * SIDE), (4 * SIDE, 4 * SIDE)])
def test_resized_frames_keep_their_proportions_and_take_one_inference(
    toy: Path, out: Path, size: tuple[int, int]
) -> None:
    """Patches of 8 pixels on frames that are scaled by a quarter: no patch is mixed with another."""
    frames, inferences = scenes(4, *size), list[int]()
    with Hooked(toy, inferences.append) as engine:
        fly(engine, Given(frames), out / "b.mkv", VideoSettings(view="classes", fit="resize"), Silent())
        shown = engine.shown
    np.testing.assert_array_equal(read_classes(out / "b.mkv"), [expected_classes(rgb(frame)) for frame in frames])
    assert len(inferences) == 4
    small = rgb(frames[-1])[::4, ::4]
    rest = [(0, SIDE - side) for side in small.shape[:2]]
    np.testing.assert_array_equal(shown, np.pad(small, [*rest, (0, 0)], mode="symmetric")[None])


@pytest.mark.parametrize(("live", "windows"), [(False, True), (True, False)])
def test_files_go_by_windows_and_live_sources_are_resized(toy: Path, out: Path, live: bool, windows: bool) -> None:
    inferences = list[int]()
    with Hooked(toy, inferences.append) as engine:
        fly(engine, Given(scenes(1, 100, 100), live=live), out / "b.mkv", CLASSES, Silent())
    assert (len(inferences) > 1) is windows


@pytest.mark.parametrize(
    ("settings", "count"), [({"seconds": 0.5}, 5), ({"frames": 3}, 3), ({"frames": 30}, 12), ({"seconds": 9}, 12)]
)
def test_limits(engine: Engine, out: Path, settings: dict[str, float], count: int) -> None:
    video = write_video(out / "a.mkv", scenes(12), rate=10)
    limits = VideoSettings(view="classes", **settings)  # type: ignore[arg-type]
    flown = predict_video(engine, str(video), out / "b.mkv", limits, Silent())
    assert (flown.frames, flown.ended) == (count, "limit" if count < 12 else "end")
    assert len(read_classes(out / "b.mkv")) == count


def test_names_that_are_not_ascii(engine: Engine, out: Path) -> None:
    video = write_video(out / "flüg 飞行 %02d.mp4", scenes(4), codec="mp4v")
    flown = predict_video(engine, str(video), out / "maské 掩码.mp4", VideoSettings(), Silent())
    assert flown.written == len(read_video(out / "maské 掩码.mp4")) == 4


@pytest.mark.parametrize("rate", [23.976, 29.97, 7.5, 119.88])
def test_the_rate_is_the_source_s(engine: Engine, out: Path, rate: float) -> None:
    import cv2

    video = write_video(out / "a.mkv", scenes(3), rate)
    predict_video(engine, str(video), out / "b.mp4", VideoSettings(), Silent())
    assert cv2.VideoCapture(str(out / "b.mp4")).get(cv2.CAP_PROP_FPS) == pytest.approx(rate, abs=0.01)


# ---- live


def test_the_newest_frame_wins(toy: Path, out: Path) -> None:
    """An engine that is busy until the source has given all its frames has missed all but the first and the last."""
    frames, all_given, begun = scenes(20), threading.Event(), threading.Event()

    def give(index: int) -> None:
        if index == 1:
            assert begun.wait(60)
        time.sleep(0.005)  # time enough to take one too early
        if index == len(frames):
            all_given.set()

    def predict(index: int) -> None:
        begun.set()
        assert all_given.wait(60)

    source = Given(frames, live=True, before=give)
    with Hooked(toy, predict) as engine:
        flown = fly(engine, source, out / "b.mkv", VideoSettings(view="classes", fit="windows"), Silent())
    assert (flown.frames, flown.dropped, flown.ended) == (2, 18, "lost")
    assert source.closed
    written = read_classes(out / "b.mkv")
    np.testing.assert_array_equal(written[0], expected_classes(rgb(frames[0])))
    np.testing.assert_array_equal(written[-1], expected_classes(rgb(frames[-1])))


def test_a_file_as_a_camera_drops_what_a_slow_engine_misses(toy: Path, out: Path) -> None:
    video = write_video(out / "a.mkv", scenes(60), rate=100)
    with Hooked(toy, lambda index: time.sleep(0.1)) as engine:
        flown = predict_video(engine, str(video), out / "b.mkv", VideoSettings(realtime=True), Silent())
    assert flown.dropped > 0 and flown.frames > 1
    assert flown.frames + flown.dropped == 60
    assert flown.ended == "end"
    assert flown.latency_ms >= 100  # what it sleeps
    assert flown.written == len(read_video(out / "b.mkv")) > flown.frames  # repeated, to keep the time


def test_a_file_as_a_camera_loses_nothing_with_a_quick_engine_that_is_waited_for(engine: Engine, out: Path) -> None:
    video = write_video(out / "a.mkv", scenes(5), rate=2)
    flown = predict_video(engine, str(video), out / "b.mkv", VideoSettings(realtime=True), Silent())
    assert flown.frames + flown.dropped == 5
    assert flown.seconds >= 4 / 2 * 0.99  # the last frame comes after four periods


# ---- what goes wrong on the way


def test_an_engine_that_fails_leaves_the_frames_before(toy: Path, out: Path) -> None:
    def fail(index: int) -> None:
        if index == 3:
            raise EngineError("The engine has gone.", "Start again.")

    source = Given(scenes(9, SIDE, SIDE))
    with Hooked(toy, fail) as engine, pytest.raises(EngineError) as caught:
        fly(engine, source, out / "b.mkv", CLASSES, Silent())
    assert caught.value.what == f"The engine has gone. {out / 'b.mkv'} holds the 3 before."
    assert caught.value.hint == "Start again." and source.closed
    assert len(read_classes(out / "b.mkv")) == 3


def test_a_source_that_changes_its_size(engine: Engine, out: Path) -> None:
    source = Given([*scenes(4), *scenes(2, 60, 80)])
    with pytest.raises(DataError, match="given changes its size after 4 frames, from 64x48 to 80x60 pixels"):
        fly(engine, source, out / "b.mkv", CLASSES, Silent())
    assert len(read_classes(out / "b.mkv")) == 4


def test_a_source_without_frames(engine: Engine, out: Path) -> None:
    for live in (False, True):
        with pytest.raises(DataError, match="given gives no frames"):
            fly(engine, Given([], live=live), out / "b.mkv", CLASSES, Silent())
    assert list(out.iterdir()) == []


def test_nowhere_to_put_the_pictures(engine: Engine, out: Path) -> None:
    video = write_video(out / "a.mkv", scenes(2))
    with pytest.raises(RecipeError, match="nowhere to put the pictures"):
        predict_video(engine, str(video), None, VideoSettings(), Silent())
    with pytest.raises(RecipeError, match=r"a\.mkv is the video that is read"):
        predict_video(engine, str(video), video, VideoSettings(), Silent())
    assert len(read_video(video)) == 2


def test_a_window_without_a_desktop(engine: Engine, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    source = Given(scenes(2))
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(RunError, match="no desktop"):
        fly(engine, source, None, VideoSettings(show=True), Silent())
    assert source.closed
    if "GUI:                           NONE" not in cv2.getBuildInformation():
        pytest.skip("this OpenCV has windows")
    monkeypatch.setenv("DISPLAY", ":0")
    with pytest.raises(RunError, match="shows no windows") as caught:
        fly(engine, Given(scenes(2)), out / "b.mkv", VideoSettings(show=True), Silent())
    assert "opencv-python in place of opencv-python-headless" in caught.value.hint
    assert list(out.iterdir()) == []


# ---- what a person sees meanwhile


class Recorder:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.titles: list[tuple[str, int]] = []
        self.done: list[int] = []

    @contextmanager
    def task(self, title: str, total: int, start: int = 0) -> Iterator[Update]:
        self.titles.append((title, total))
        yield lambda done, note: self.done.append(done)

    def say(self, text: str) -> None:
        pass


@pytest.mark.parametrize(("settings", "total"), [({}, 12), ({"frames": 3}, 3), ({"seconds": 0.5}, 5)])
def test_progress_goes_to_the_end_once(engine: Engine, out: Path, settings: dict[str, float], total: int) -> None:
    video, seen = write_video(out / "a.mkv", scenes(12), rate=10), Recorder()
    predict_video(engine, str(video), out / "b.mp4", VideoSettings(**settings), seen)  # type: ignore[arg-type]
    assert seen.titles == [("a.mkv", total)]
    assert seen.done == sorted(seen.done) and seen.done.count(total) == 1 and seen.done[-1] == total
