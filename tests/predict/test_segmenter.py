"""The API for flight code, on engines whose answer is known in closed form."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_engines import COLOURS, SIDE, TASK, expected_classes, write_engine

from edpct import Segmenter
from edpct.errors import DataError, EngineError

SIZES = [(SIDE, SIDE), (1, 1), (20, 50), (100, 33), (90, 70)]


def frame(height: int = SIDE, width: int = SIDE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def seg(tmp_path: Path) -> Iterator[Segmenter]:
    with Segmenter(write_engine(tmp_path), runtime="onnxruntime", streams=2) as opened:
        yield opened


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("batch", "fused"), [(1, False), (3, False), ("n", False), (1, True)])
def test_frames_of_any_size(tmp_path: Path, size: tuple[int, int], batch: int | str, fused: bool) -> None:
    image = frame(*size)
    with Segmenter(str(write_engine(tmp_path, batch, fused)), runtime="onnxruntime") as seg:
        mask = seg(image)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, expected_classes(image))


def test_openvino_is_taken_where_no_runtime_is_named(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    image = frame(70, 40)
    with Segmenter(write_engine(tmp_path), streams=2) as seg:
        np.testing.assert_array_equal(seg(image), expected_classes(image))


def test_what_an_engine_says_of_itself(seg: Segmenter) -> None:
    assert (seg.classes, seg.size, seg.card.network) == (("a", "b", "c"), (SIDE, SIDE), "Toy")
    np.testing.assert_array_equal(seg.colours, COLOURS)


def test_channels_in_the_order_of_opencv(tmp_path: Path) -> None:
    image = frame()
    with Segmenter(write_engine(tmp_path), runtime="onnxruntime", order="bgr") as seg:
        mask = seg(np.ascontiguousarray(image[..., ::-1]))
        np.testing.assert_array_equal(mask, expected_classes(image))
        np.testing.assert_array_equal(seg.colourise(np.array([[2]], np.uint8)), [[COLOURS[2][::-1]]])


def test_several_frames_and_frames_in_the_background(seg: Segmenter) -> None:
    frames = [frame(40, 60, seed) for seed in range(7)]
    pending = [seg.submit(image) for image in frames]
    for image, mask, later in zip(frames, seg.batch(frames), pending, strict=True):
        np.testing.assert_array_equal(mask, expected_classes(image))
        np.testing.assert_array_equal(later.result(), mask)


def test_many_threads_at_once(seg: Segmenter) -> None:
    frames = [frame(*size, seed) for seed in range(8) for size in ((SIDE, SIDE), (50, 41))]
    with ThreadPoolExecutor(8) as threads:
        for image, mask in zip(frames, threads.map(seg, frames), strict=True):
            np.testing.assert_array_equal(mask, expected_classes(image))


@pytest.mark.parametrize("size", [(SIDE, SIDE), (80, 45)])
def test_probabilities_are_the_softmax(seg: Segmenter, size: tuple[int, int]) -> None:
    image = frame(*size)
    logits = (image / 255.0 - TASK.preprocessing.mean) / TASK.preprocessing.std
    softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    found = seg.probabilities(image)
    assert found.dtype == np.float32 and found.shape == (3, *size)
    np.testing.assert_allclose(found, softmax.transpose(2, 0, 1), atol=0.51 / 255)


def test_an_engine_that_gives_classes_has_no_probabilities(tmp_path: Path) -> None:
    with Segmenter(write_engine(tmp_path, fused=True), runtime="onnxruntime") as seg:
        with pytest.raises(EngineError, match="gives classes and no probabilities"):
            seg.probabilities(frame())
        assert seg(frame()).shape == (SIDE, SIDE)  # it goes on


def test_the_overlay_lies_between_frame_and_colour(seg: Segmenter) -> None:
    image, mask = np.full((1, 1, 3), 100, np.uint8), np.array([[1]], np.uint8)
    np.testing.assert_array_equal(seg.overlay(image, mask, 0.5), [[[50, 125, 50]]])
    np.testing.assert_array_equal(seg.overlay(image, mask, 0.0), image)
    np.testing.assert_array_equal(seg.overlay(image, mask, 1.0), [[COLOURS[1]]])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (np.zeros((4, 4), np.uint8), r"uint8 \(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), r"\(4, 4, 4\)"),
        (np.zeros((4, 4, 3), np.float32), "float32"),
        ([[0, 0, 0]], "list"),
        (np.zeros((0, 4, 3), np.uint8), "4x0 pixels has nothing"),
    ],
)
def test_what_is_no_frame_is_refused(seg: Segmenter, wrong: Any, said: str) -> None:
    for call in (seg, seg.probabilities):
        with pytest.raises(DataError, match=said):
            call(wrong)


def test_a_closed_one_says_so(tmp_path: Path) -> None:
    seg = Segmenter(write_engine(tmp_path), runtime="onnxruntime")
    seg.close()
    seg.close()
    for call in (seg, seg.submit):
        with pytest.raises(EngineError, match="closed"):
            call(frame())


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no file"):
        Segmenter(tmp_path / "none.onnx")
    with pytest.raises(EngineError, match="no order of channels"):
        Segmenter(write_engine(tmp_path), order="gbr")  # type: ignore[arg-type]
    (tmp_path / "a.txt").write_text("no engine")
    with pytest.raises(EngineError, match="no engine"):
        Segmenter(tmp_path / "a.txt")


def test_the_package_has_no_other_names() -> None:
    import edpct

    with pytest.raises(AttributeError, match="no attribute 'Segmentor'"):
        _ = edpct.Segmentor  # type: ignore[attr-defined]
