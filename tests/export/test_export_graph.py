"""ONNX files that cannot be worked on: one sentence for each, and nothing is written."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest

from edpct.errors import ExportError
from edpct.export.build import build_plan
from edpct.export.fp16 import convert_fp16
from edpct.export.fuse import fuse
from edpct.export.graph import read_graph
from edpct.export.int8 import quantise_int8
from edpct.progress import Silent
from edpct.recipe import FuseSettings
from edpct.runtimes.artefact import card_of


def without_weights(model: onnx.ModelProto, path: Path) -> None:
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (path.parent / "weights.bin").unlink()


def with_nan(model: onnx.ModelProto, path: Path) -> None:
    (bias,) = [tensor for tensor in model.graph.initializer if tensor.name == "classifier.bias"]
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(7, np.nan, np.float32), bias.name))
    onnx.save(model, path)


def with_infinity(model: onnx.ModelProto, path: Path) -> None:
    (bias,) = [tensor for tensor in model.graph.initializer if tensor.name == "classifier.bias"]
    bias.CopyFrom(onnx.numpy_helper.from_array(np.array([0, 0, 0, np.inf, 0, 0, 0], np.float32), bias.name))
    onnx.save(model, path)


def of_old_opset(model: onnx.ModelProto, path: Path) -> None:
    model.opset_import[0].version = 11
    onnx.save(model, path)


def truncated(model: onnx.ModelProto, path: Path) -> None:
    path.write_bytes(model.SerializeToString()[:-3000])


SAID = {
    without_weights: "bad.onnx keeps its weights in another file, which is not there.",
    with_nan: "bad.onnx: the weights 'classifier.bias' hold NaN or infinity.",
    with_infinity: "bad.onnx: the weights 'classifier.bias' hold NaN or infinity.",
    of_old_opset: "bad.onnx is of opset 11, and edpct needs 13 or later.",
    truncated: "bad.onnx is not an ONNX model, or only part of one.",
}


@pytest.mark.parametrize("damage", SAID, ids=lambda damage: damage.__name__)
def test_refused_by_everything_that_reads_a_graph(compressed_run: Path, tmp_path: Path, damage: object) -> None:
    source, target = tmp_path / "bad.onnx", tmp_path / "target.onnx"
    card = card_of(compressed_run / "student.onnx")
    damage(onnx.load(compressed_run / "student.onnx"), source)  # type: ignore[operator]
    image = np.zeros((128, 128, 3), np.uint8)
    # What is only part of a file is refused by its metadata before, in the same words.
    with_builder = importlib.util.find_spec("tensorrt_rtx") is not None and damage is not truncated
    for work in (
        lambda: fuse(source, target, card, FuseSettings()),
        lambda: convert_fp16(source, target, card),
        lambda: quantise_int8(source, target, card, [image]),
        *([lambda: build_plan(source, target, "rtx", Silent())] if with_builder else []),
    ):
        with pytest.raises(ExportError) as caught:
            work()
        assert caught.value.what == SAID[damage] and caught.value.hint  # type: ignore[index]
    assert [path.name for path in tmp_path.iterdir()] == ["bad.onnx"]


def test_weights_beside_the_graph_are_read_where_they_are(compressed_run: Path, tmp_path: Path) -> None:
    model = onnx.load(compressed_run / "student.onnx")
    expected = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    onnx.save(model, tmp_path / "apart.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    found = {t.name: onnx.numpy_helper.to_array(t) for t in read_graph(tmp_path / "apart.onnx").graph.initializer}
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"There is no file .*none\.onnx"):
        read_graph(tmp_path / "none.onnx")
