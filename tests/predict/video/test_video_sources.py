"""Sources as they come: damaged files, streams over a network, and what is not there."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from toy_engines import expected_classes
from videos import Given, camera_server, read_classes, read_video, scenes, write_video

from edpct.errors import DataError, MissingPackageError, RunError
from edpct.predict.engine import Engine
from edpct.predict.video import VideoSettings, is_live, is_video, predict_video
from edpct.predict.video.sources import Capture, Paced, open_source
from edpct.progress import Silent

CLASSES = VideoSettings(view="classes")


@pytest.mark.parametrize(
    ("source", "video", "live"),
    [
        ("flight.mp4", True, False),
        ("/data/Flight 1.MKV", True, False),
        ("camera:0", True, True),
        ("/dev/video2", True, True),
        ("rtsp://10.0.0.2:8554/main", True, True),
        ("http://drone.local/stream.mjpg?quality=high", True, True),
        ("http://drone.local:8080/stream", True, True),
        ("https://host/flight.mp4?token=a.b", True, False),
        ("udp://0.0.0.0:5600", True, True),
        ("nvarguscamerasrc ! nvvidconv ! appsink", True, True),
        ("photo.jpg", False, False),
        ("map.tif", False, False),
        ("folder", False, False),
        ("rtsp://", False, False),
    ],
)
def test_what_is_a_video_and_what_is_live(source: str, video: bool, live: bool) -> None:
    assert (is_video(source), is_live(source)) == (video, live)


# ---- damaged files


def cut(path: Path, share: float) -> Path:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    return path


@pytest.mark.parametrize("suffix", [".mkv", ".avi"])
def test_a_file_that_was_cut_off_gives_the_frames_before(engine: Engine, out: Path, suffix: str) -> None:
    video = cut(write_video(out / f"a{suffix}", scenes(60)), 0.5)
    readable = read_video(video)
    assert 10 < len(readable) < 50
    said = rf"^a\{suffix} is damaged or cut off: it says that it has 60 frames, and gave {len(readable)}\. "
    with pytest.raises(DataError, match=said) as caught:
        predict_video(engine, str(video), out / "b.mkv", CLASSES, Silent())
    assert caught.value.what.endswith(f" {out / 'b.mkv'} holds the {len(readable)} before.")
    wanted = [expected_classes(frame[..., ::-1]) for frame in readable]
    np.testing.assert_array_equal(read_classes(out / "b.mkv"), wanted)


def test_noise_in_the_middle_of_a_file(engine: Engine, out: Path) -> None:
    """Whatever the decoder makes of it: frames or an error, and a file of all frames that came before."""
    video = write_video(out / "a.avi", scenes(60), codec="MJPG")
    whole = bytearray(video.read_bytes())
    third = len(whole) // 3
    whole[third : 2 * third] = np.random.default_rng(0).bytes(third)
    video.write_bytes(whole)
    readable = len(read_video(video))
    assert 0 < readable < 58
    with pytest.raises(DataError, match=f"gave {readable}"):
        predict_video(engine, str(video), out / "b.mkv", CLASSES, Silent())
    assert len(read_classes(out / "b.mkv")) == readable


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", r"a\.mp4 is empty"),
        (b"no video at all " * 500, r"a\.mp4 is damaged, or no video"),
        (None, "There is no file "),
    ],
)
def test_what_is_no_video(engine: Engine, out: Path, content: bytes | None, said: str) -> None:
    video = out / "a.mp4"
    if content is not None:
        video.write_bytes(content)
    with pytest.raises(DataError, match=said):
        predict_video(engine, str(video), out / "b.mp4", VideoSettings(), Silent())
    assert not (out / "b.mp4").exists() and not list(out.glob(".*"))


def test_an_mp4_without_its_index(engine: Engine, out: Path) -> None:
    video = cut(write_video(out / "a.mp4", scenes(20), codec="mp4v"), 0.5)
    with pytest.raises(DataError, match=r"a\.mp4 is damaged") as caught:
        predict_video(engine, str(video), out / "b.mp4", VideoSettings(), Silent())
    assert "lacks its index" in caught.value.hint


def test_a_folder_and_a_picture_under_a_video_s_name(engine: Engine, out: Path) -> None:
    (out / "a.mp4").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        predict_video(engine, str(out / "a.mp4"), out / "b.mp4", VideoSettings(), Silent())


def test_a_whole_file_has_no_complaint(out: Path) -> None:
    capture = open_source(str(write_video(out / "a.mkv", scenes(60))))
    taken = 0
    while capture.read() is not None:
        taken += 1
    assert capture.complaint(taken) == "" and capture.count == taken == 60
    capture.close()


def test_grey_and_transparent_frames_become_bgr(out: Path) -> None:
    capture = Capture(str(write_video(out / "a.mkv", scenes(1))))
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    np.testing.assert_array_equal(capture._bgr(grey), np.stack([grey] * 3, axis=-1))
    colour = np.dstack([grey, grey + 1, grey + 2, grey])
    np.testing.assert_array_equal(capture._bgr(colour), colour[..., :3])
    with pytest.raises(DataError, match=r"gives frames of uint16 \(2, 3\)"):
        capture._bgr(grey.astype(np.uint16))
    capture.close()


def test_a_name_with_a_colon_in_the_current_folder(engine: Engine, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = scenes(5)
    write_video(out / "12-30.mkv", frames).rename(out / "12:30.mkv")
    monkeypatch.chdir(out)
    flown = predict_video(engine, "12:30.mkv", Path("12:31.mkv"), CLASSES, Silent())
    assert (flown.frames, flown.written, flown.path) == (5, 5, Path("12:31.mkv"))
    Path("12:31.mkv").rename("found.mkv")
    np.testing.assert_array_equal(
        read_classes(out / "found.mkv"), [expected_classes(frame[..., ::-1]) for frame in frames]
    )


def test_a_paced_file_is_live_and_has_an_end() -> None:
    paced, before = Paced(Given(scenes(3), rate=1000)), time.perf_counter()
    assert paced.live and paced.finite and paced.count == 3
    stamps = [frame.stamp for frame in iter(paced.read, None)]
    assert len(stamps) == 3 and stamps[2] - before >= 0.002 * 0.99


# ---- streams


def test_a_stream_that_ends_leaves_a_file(engine: Engine, out: Path) -> None:
    """What is in the file are frames of the stream, in their order; JPEG changes pixels, and so some classes."""
    frames = scenes(30)
    with camera_server(frames) as address:
        settings = VideoSettings(view="classes", fit="windows")
        flown = predict_video(engine, address, out / "b.mkv", settings, Silent())
    assert flown.ended == "lost"
    assert flown.frames + flown.dropped == 30 and flown.frames > 0
    found = read_classes(out / "b.mkv")
    assert len(found) == flown.written > 0
    sent = [cv2.imdecode(cv2.imencode(".jpg", frame)[1], cv2.IMREAD_COLOR) for frame in frames]
    wanted = np.stack([expected_classes(frame[..., ::-1]) for frame in sent])
    alike = [(wanted == mask).mean(axis=(1, 2)) for mask in found]
    assert min(shares.max() for shares in alike) > 0.85
    order = [int(shares.argmax()) for shares in alike]
    assert order == sorted(order)


def test_a_stream_up_to_a_number_of_frames(engine: Engine, out: Path) -> None:
    with camera_server(scenes(20), endless=True) as address:
        flown = predict_video(engine, address, out / "b.mp4", VideoSettings(frames=5), Silent())
    assert (flown.frames, flown.ended) == (5, "limit")
    assert len(read_video(out / "b.mp4")) == flown.written > 0


def test_nobody_answers(engine: Engine, out: Path) -> None:
    with camera_server([]) as address:
        pass  # the port is free again
    with pytest.raises(DataError, match="nobody answers"):
        predict_video(engine, address, out / "b.mp4", VideoSettings(), Silent())
    assert list(out.iterdir()) == []


# ---- what this machine lacks


@pytest.mark.parametrize(
    ("source", "said"), [("camera:97", "no such camera"), ("camera:front", "names no camera"), ("/dev/video97", "97")]
)
def test_a_camera_that_is_not_there(engine: Engine, out: Path, source: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        predict_video(engine, source, out / "b.mp4", VideoSettings(), Silent())


def test_a_pipeline_without_gstreamer(engine: Engine, out: Path) -> None:
    source = "videotestsrc num-buffers=5 ! nothing-of-that-name ! appsink"
    with_it = "GStreamer:                   YES" in cv2.getBuildInformation()
    with pytest.raises(DataError, match="cannot start" if with_it else "built without GStreamer") as caught:
        predict_video(engine, source, out / "b.mp4", VideoSettings(), Silent())
    assert ("gst-launch-1.0" if with_it else "apt install python3-opencv") in caught.value.hint


def test_without_opencv(engine: Engine, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingPackageError) as caught:
        predict_video(engine, "a.mp4", out / "b.mp4", VideoSettings(), Silent())
    assert caught.value.hint == "Install it with: pip install 'edpct[video]'"


def test_an_opencv_that_cannot_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cv2")
    with pytest.raises(RunError, match=r"OpenCV cannot be loaded: libGL\.so\.1"):
        Capture("a.mp4")


def test_importing_the_package_loads_no_opencv() -> None:
    code = (
        "import sys, edpct.predict.video, edpct.cli.predict_video; print({'cv2', 'torch', 'onnx'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
