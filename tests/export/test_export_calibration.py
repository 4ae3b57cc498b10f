"""Ranges of activations: against NumPy's quantiles, an exhaustive search, ONNX Runtime's entropy, and by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edpct.errors import QuantisationError
from edpct.export.calibration import (
    BINS,
    CLIPPING,
    STEPS,
    Histogram,
    least_divergence,
    least_error,
    percentile,
    recalibrate,
)
from edpct.export.int8 import quantise_int8
from edpct.runtimes.artefact import card_of
from edpct.runtimes.table import open_session


def histogram_of(*parts: np.ndarray) -> Histogram:
    found = Histogram()
    for part in parts:
        found.add(part.astype(np.float32))
    return found


def with_outliers(count: int = 200_000) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate([rng.standard_normal(count), [40.0, -60.0]]).astype(np.float32)


def test_a_histogram_that_grew_is_that_of_all_values() -> None:
    rng = np.random.default_rng(1)
    parts = [rng.standard_normal((3, 50)) * scale for scale in (0.1, 5.0, 1.0, 300.0)]
    found = histogram_of(*parts)
    values = np.abs(np.concatenate([part.ravel() for part in parts]).astype(np.float32))
    assert values.max() <= found.top < 2.0001 * values.max()
    assert found.counts.sum() == values.size and len(found.counts) == BINS
    expected, _ = np.histogram(values, BINS, (0, found.top))
    assert np.abs(found.counts - expected).sum() <= 4  # a value on the border of two bins may go either way


def test_nothing_but_zeros() -> None:
    assert histogram_of(np.zeros(5)).top == 0


def test_the_percentile_is_that_of_numpy() -> None:
    values = np.abs(np.random.default_rng(2).standard_normal(1_000_000))
    assert percentile(histogram_of(values)) == pytest.approx(np.quantile(values, 0.9999), rel=0.01)


def test_the_least_error_is_found_by_trying_all() -> None:
    values = with_outliers()

    def error(top: float) -> float:
        step = top / STEPS
        return float(((values - np.clip(np.round(values / step), -STEPS, STEPS) * step) ** 2).sum())

    tops = np.linspace(0.2, 60, 600)
    best = float(tops[np.argmin([error(top) for top in tops])])
    found = least_error(histogram_of(values))
    assert error(found) < 1.05 * error(best)
    assert error(found) < 0.6 * error(60.0)  # what min/max costs


@pytest.mark.parametrize("shape", ["normal", "exponential", "uniform"])
def test_the_divergence_is_as_onnx_runtime_finds_it(shape: str) -> None:
    calibrate = pytest.importorskip("onnxruntime.quantization.calibrate")
    rng = np.random.default_rng(3)
    draw = {"normal": rng.standard_normal, "exponential": rng.standard_exponential, "uniform": rng.random}[shape]
    values = draw(300_000).astype(np.float32)
    collector = calibrate.HistogramCollector("entropy", True, 2048, 128, 99.99, [0])
    collector.collect({"x": [values * np.where(rng.random(values.shape) < 0.5, 1, -1).astype(np.float32)]})
    (found,) = collector.compute_collection_result().values()
    low, high = (float(np.asarray(value).max()) for value in found[:2])
    assert low == pytest.approx(-high, rel=0.05)
    assert least_divergence(histogram_of(values)) == pytest.approx(high, rel=0.25)


def test_outliers_are_clipped_and_an_even_spread_is_not() -> None:
    for name, way in CLIPPING.items():
        assert way(histogram_of(with_outliers())) < (40 if name == "mse" else 12)  # two large ones cost MSE more
        assert way(histogram_of(np.linspace(0, 7, 100_000))) == pytest.approx(7, rel=0.1)


# ---- in a graph


def steps_of(model: onnx.ModelProto) -> dict[str, float]:
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return {
        node.input[0]: float(tensors[node.input[1]])
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] not in tensors and tensors[node.input[1]].ndim == 0
    }


def test_the_input_s_step_is_the_images_own(compressed_run: Path) -> None:
    """The input is quantised too, and what it holds is known."""
    model = onnx.load(compressed_run / "student-int8.onnx")
    rng = np.random.default_rng(4)
    images = [np.clip(rng.standard_normal((1, 3, 128, 128)), -3, 3).astype(np.float32) for _ in range(3)]
    images[1][0, 0, 0, :2] = 50.0  # 2 of 147,456 values: beyond the quantile
    recalibrate(model, ({"image": image} for image in images), "percentile")
    expected = np.quantile(np.abs(np.concatenate(images)), 0.9999) / STEPS
    assert steps_of(model)["image"] == pytest.approx(expected, rel=0.02)


def test_quantisers_of_one_step_keep_one(compressed_run: Path) -> None:
    model = onnx.load(compressed_run / "student-int8.onnx")
    before = steps_of(model)
    shared = [{name for name, step in before.items() if step == value} for value in set(before.values())]
    images = np.random.default_rng(5).standard_normal((2, 1, 3, 128, 128)).astype(np.float32)
    recalibrate(model, ({"image": image} for image in images), "mse")
    after = steps_of(model)
    assert after.keys() == before.keys()
    assert all(len({after[name] for name in names}) == 1 for names in shared)
    assert sum(after[name] != before[name] for name in before) > 0.9 * len(before)


@pytest.mark.parametrize("way", ["percentile", "mse", "entropy"])
def test_the_graph_still_computes_the_network(compressed_run: Path, tmp_path: Path, way: str) -> None:
    source, target = compressed_run / "student.onnx", tmp_path / "int8.onnx"
    card = card_of(source)
    pixels = np.random.default_rng(6).integers(0, 256, (3, 128, 128, 3), dtype=np.uint8)
    quantise_int8(source, target, card, list(pixels), calibration=way)  # type: ignore[arg-type]
    feed, answers = {"image": card.task.preprocessing.apply(pixels[0])}, []
    for path in (source, target):
        with open_session(path, "openvino") as session:
            answers.append(session.run(feed)["logits"])
    assert 0 < np.abs(answers[1] - answers[0]).mean() < 0.05 * np.ptp(answers[0])


def test_no_images(compressed_run: Path, tmp_path: Path) -> None:
    source = compressed_run / "student.onnx"
    with pytest.raises(QuantisationError, match="at least one image"):
        quantise_int8(source, tmp_path / "a.onnx", card_of(source), [], calibration="mse")
