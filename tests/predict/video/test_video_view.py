"""The pictures: colours where they belong, the frame below, and the writing on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_engines import COLOURS, TASK, expected_classes
from videos import Given, read_video, scenes

from edpct.errors import RecipeError
from edpct.predict.engine import Engine
from edpct.predict.video import VideoSettings, fly
from edpct.predict.video.meter import Meter
from edpct.predict.video.view import View
from edpct.progress import Silent
from edpct.task import ClassInfo, Task

PALETTE = np.array(COLOURS, np.uint8)[:, ::-1]


@pytest.mark.parametrize("view", ["overlay", "side-by-side", "mask"])
def test_pictures_in_a_file(engine: Engine, out: Path, view: Any) -> None:
    frames = scenes(3)
    settings = VideoSettings(view=view, hud=False, opacity=0.25, codec="FFV1")
    fly(engine, Given(frames), out / "a.mkv", settings, Silent())
    for found, frame in zip(read_video(out / "a.mkv"), frames, strict=True):
        colours = PALETTE[expected_classes(frame[..., ::-1])]
        wanted = {
            "overlay": 0.75 * frame + 0.25 * colours,
            "side-by-side": np.concatenate((frame, colours), axis=1),
            "mask": colours,
        }[view]
        assert found.shape == wanted.shape
        assert np.abs(found - wanted.astype(float)).max() <= 0.5


@pytest.mark.parametrize("opacity", [0, 1])
def test_the_ends_of_opacity(opacity: float) -> None:
    (frame,) = scenes(1)
    classes = np.ones(frame.shape[:2], np.uint8)
    found = View(TASK, VideoSettings(hud=False, opacity=opacity)).draw(frame, classes, "")
    np.testing.assert_array_equal(found, np.broadcast_to(PALETTE[1], frame.shape) if opacity else frame)


@pytest.mark.parametrize("view", ["overlay", "side-by-side"])
def test_the_writing_lies_at_the_top_left_and_shows_the_classes(view: Any) -> None:
    frame, classes = np.full((360, 480, 3), 90, np.uint8), np.zeros((360, 480), np.uint8)
    plain = View(TASK, VideoSettings(view=view, hud=False)).draw(frame, classes, "")
    first = View(TASK, VideoSettings(view=view)).draw(frame, classes, "30.0 FPS, 12 ms, 0 dropped")
    other = View(TASK, VideoSettings(view=view)).draw(frame, classes, "30.0 FPS, 12 ms, 9 dropped")
    rows, columns = np.nonzero((first != plain).any(-1))
    assert rows.min() == columns.min() == 0 and 40 < rows.max() < 180 and 80 < columns.max() < 240
    assert (first != other).any()  # the numbers can be told apart
    corner = first[: rows.max() + 1, : columns.max() + 1].astype(int)
    shade = np.rint(0.4 * plain[0, 0])
    for colour in PALETTE:
        near = np.abs(corner - np.minimum(255, colour + shade)).max(-1) <= 1
        assert near.sum() >= 40, colour
    assert (frame == 90).all()  # what came in is left alone


def test_masks_and_classes_are_never_written_on() -> None:
    (frame,) = scenes(1)
    classes = expected_classes(frame[..., ::-1]).astype(np.uint8)
    for view, wanted in (("mask", PALETTE[classes]), ("classes", classes)):
        drawn = View(TASK, VideoSettings(view=view)).draw(frame, classes, "30 FPS")  # type: ignore[arg-type]
        np.testing.assert_array_equal(drawn, wanted)


@pytest.mark.parametrize("size", [(1, 1), (9, 200), (300, 5), (40, 60)])
def test_the_writing_is_cut_where_a_picture_is_small(size: tuple[int, int]) -> None:
    frame = np.zeros((*size, 3), np.uint8)
    assert View(TASK, VideoSettings()).draw(frame, frame[..., 0], "30 FPS").shape == (*size, 3)


def test_a_legend_of_too_many_classes_says_so_and_stays_inside() -> None:
    many = Task(classes=tuple(ClassInfo(name=f"Straße {i}", colour=(i, 255 - i, 9)) for i in range(200)))
    frame = np.full((240, 320, 3), 90, np.uint8)
    plain = View(many, VideoSettings(hud=False)).draw(frame, frame[..., 0], "")
    drawn = View(many, VideoSettings()).draw(frame, frame[..., 0], "30 FPS")
    rows = np.nonzero((drawn != plain).any(-1))[0]
    assert 200 < rows.max() < 240


def test_the_numbers() -> None:
    meter = Meter()
    assert (meter.numbers(0), meter.seconds, meter.percentile(50)) == ("0 dropped", 0.0, 0.0)
    for index in range(21):
        meter.add(stamp=index * 0.1, now=index * 0.1 + (0.05 if index < 20 else 0.5))
    assert meter.numbers(3) == f"{20 / 2.45:.1f} FPS, 50 ms, 3 dropped"
    assert meter.seconds == pytest.approx(2.5)
    assert meter.percentile(50) == pytest.approx(50) and meter.percentile(100) == pytest.approx(500)
    assert meter.line(3, now=1.0) == meter.line(4, now=1.4) != meter.line(4, now=1.5)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"view": "heat"}, "There is no view 'heat'. Choose from: classes, mask, overlay, side-by-side."),
        ({"fit": "crop"}, "There is no fit 'crop'. Choose from: auto, windows, resize."),
        ({"opacity": 1.5}, "opacity is 1.5. Give a share from 0 to 1."),
        ({"opacity": float("nan")}, "opacity is nan. Give a share from 0 to 1."),
        ({"seconds": -1}, "seconds is -1. Give a number of seconds, or 0 for no limit."),
        ({"seconds": float("inf")}, "seconds is inf. Give a number of seconds, or 0 for no limit."),
        ({"frames": -1}, "frames is -1. Give a number of frames, or 0 for no limit."),
        ({"overlap": -2}, "overlap is -2. Give a number of pixels."),
        ({"rate": 1000}, "rate is 1000. Give frames a second from 0.1 to 240, or 0 for the source's own."),
        ({"codec": "h264x"}, "A codec has four characters, and 'h264x' is none. Give mp4v, avc1 or MJPG."),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        VideoSettings(**settings)
    assert str(caught.value) == said
