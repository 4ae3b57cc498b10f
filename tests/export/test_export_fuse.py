"""Normalisation and argmax inside the graph: against NumPy on the plain graph, and against torch's interpolation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edpct.card import Card
from edpct.data.layouts import open_dataset
from edpct.data.sampling import sample_windows
from edpct.errors import ExportError
from edpct.export.build import build_plan
from edpct.export.fp16 import convert_fp16
from edpct.export.fuse import fuse
from edpct.export.int8 import quantise_int8
from edpct.export.onnx_export import export_onnx
from edpct.models.checkpoint import load_checkpoint
from edpct.progress import Silent
from edpct.recipe import ArgmaxAt, ExportSettings, FuseSettings
from edpct.runtimes.artefact import card_of
from edpct.runtimes.ports import ports_of, predictor
from edpct.runtimes.sidecar import read_sidecar
from edpct.runtimes.table import open_session
from edpct.task import ClassInfo, Preprocessing, Task
from edpct.weights import shipped

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # ImageNet's, as published
GRAPHS = ("student.onnx", "student-fp16.onnx", "student-int8.onnx")


@pytest.fixture(scope="module")
def images(scenes: Path) -> list[np.ndarray]:
    return sample_windows(open_dataset(scenes), "val", 2, 128, 128, seed=0)


@pytest.fixture(scope="module")
def graphs(images: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with :data:`GRAPHS` of a trained student, its classes made even: on made scenes it sees two of five."""
    found, folder = load_checkpoint(shipped(Path("dubai-small-student"))), tmp_path_factory.mktemp("graphs")
    card = found.card.model_copy(update={"task": found.card.task.at_size(128, 128)})
    with torch.no_grad():
        logits = found.model(torch.from_numpy(normalised(np.stack(images))))
        found.model.classifier.bias -= logits.transpose(0, 1).flatten(1).median(1).values
    fp32, fp16, int8 = (folder / name for name in GRAPHS)
    export_onnx(found.model, card, fp32, ExportSettings(), Silent())
    convert_fp16(fp32, fp16, card)
    quantise_int8(fp32, int8, card, images)
    return folder


def run(path: Path, feed: np.ndarray) -> np.ndarray:
    """The graph on ONNX Runtime itself, no code of ours between."""
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"image": feed})[0]


def normalised(images: np.ndarray) -> np.ndarray:
    return ((images / 255.0 - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32)


@pytest.mark.parametrize("name", GRAPHS)
def test_images_in_and_classes_out(graphs: Path, images: list[np.ndarray], tmp_path: Path, name: str) -> None:
    plain, fused = graphs / name, tmp_path / name
    fuse(plain, fused, card_of(plain), FuseSettings())
    onnx.checker.check_model(str(fused), full_check=True)
    for image in images:
        expected = run(plain, normalised(image[None])).argmax(1)
        found = run(fused, image[None])
        assert found.dtype == np.uint8 and found.shape == (1, 128, 128)
        assert (found == expected).mean() > 0.999
        assert len(np.unique(expected)) > 1  # or the comparison would show nothing


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(("preprocess", "argmax"), [(True, "off"), (False, "full"), (True, "full")])
def test_each_part_by_itself_and_what_the_engine_says_of_it(
    graphs: Path, images: list[np.ndarray], tmp_path: Path, runtime: str, preprocess: bool, argmax: ArgmaxAt
) -> None:
    plain, fused = graphs / "student-int8.onnx", tmp_path / "fused.onnx"
    card = card_of(plain)
    fuse(plain, fused, card, FuseSettings(preprocess=preprocess, argmax=argmax))
    assert card_of(fused) == card
    with open_session(fused, runtime) as session, open_session(plain, runtime) as before:
        ports = ports_of(session, card.task, fused.name)
        assert (ports.takes_pixels, ports.gives_classes) == (preprocess, argmax == "full")
        assert ports.describe() == {
            **({"takes": "uint8 images"} if preprocess else {}), **({"gives": "classes"} if argmax == "full" else {})
        }  # fmt: skip
        ours, theirs = predictor(session, card.task, "fused"), predictor(before, card.task, "plain")
        assert np.mean([(ours(image) == theirs(image)).mean() for image in images]) > 0.999


def test_an_open_batch_stays_open(tiny_teacher: Path, images: list[np.ndarray], tmp_path: Path) -> None:
    found = load_checkpoint(tiny_teacher)
    plain, fused = tmp_path / "plain.onnx", tmp_path / "fused.onnx"
    export_onnx(found.model, found.card, plain, ExportSettings(open_batch=True, simplify=False), Silent())
    for at in ("full", "half", "head"):
        fuse(plain, fused, found.card, FuseSettings(argmax=at))
        both = run(fused, np.stack(images))
        assert both.shape == (2, 128, 128)
        np.testing.assert_array_equal(both[1:], run(fused, images[1][None]))


# ---- where the argmax is taken


def toy(path: Path, factor: int, after: list[onnx.NodeProto] | None = None) -> tuple[Path, Card]:
    """A graph whose logits are its three channels, averaged over squares and upsampled again, bilinear."""
    side = 32
    pool = helper.make_node("AveragePool", ["image"], ["small"], kernel_shape=[factor] * 2, strides=[factor] * 2)
    last = "logits" if after is None else "large"
    resize = helper.make_node("Resize", ["small", "", "scales"], [last], mode="linear")
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [pool, resize, *(after or [])], "toy", [value("image", TensorProto.FLOAT, [1, 3, side, side])],
        [value("logits", TensorProto.FLOAT, [1, 3, side, side])],
        [numpy_helper.from_array(np.array([1, 1, factor, factor], np.float32), "scales")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    classes = tuple(ClassInfo(name=name, colour=(i, i, i)) for i, name in enumerate("abc"))
    task = Task(classes=classes, preprocessing=Preprocessing(height=side, width=side))
    return path, Card(network="Toy", task=task, parameters=0, macs=0)


def by_torch(image: np.ndarray, factor: int, stride: int) -> np.ndarray:
    """Classes (32, 32): averaged, upsampled bilinearly until classes of ``stride`` pixels are left, those repeated."""
    small = torch.nn.functional.avg_pool2d(torch.from_numpy(image), factor)
    up = (
        torch.nn.functional.interpolate(small, scale_factor=factor // stride, mode="bilinear")
        if factor > stride
        else small
    )
    return np.kron(up.argmax(1)[0].numpy(), np.ones((stride, stride), np.int64))


@pytest.mark.parametrize(("at", "stride"), [("full", 1), ("half", 2), ("head", 4)])
@pytest.mark.parametrize("cast", [False, True])
def test_the_argmax_is_taken_where_it_was_asked_for(tmp_path: Path, at: ArgmaxAt, stride: int, cast: bool) -> None:
    after = [
        helper.make_node("Cast", ["large"], ["wide"], to=TensorProto.DOUBLE),
        helper.make_node("Cast", ["wide"], ["logits"], to=TensorProto.FLOAT),
    ]
    plain, card = toy(tmp_path / "toy.onnx", 4, after if cast else None)
    fused = tmp_path / "fused.onnx"
    fuse(plain, fused, card, FuseSettings(preprocess=False, argmax=at))
    onnx.checker.check_model(str(fused), full_check=True)
    image = np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)
    np.testing.assert_array_equal(run(fused, image)[0], by_torch(image, 4, stride))


@pytest.mark.parametrize("number", [2, 32, 33])
def test_of_equal_logits_the_lower_class_wins_however_many_there_are(tmp_path: Path, number: int) -> None:
    value = helper.make_tensor_value_info
    weight = np.random.default_rng(number).integers(-2, 3, (number, 3, 1, 1)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "w"], ["logits"])], "ties",
        [value("image", TensorProto.FLOAT, [1, 3, 32, 32])], [value("logits", TensorProto.FLOAT, [1, number, 32, 32])],
        [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    plain, fused = tmp_path / "plain.onnx", tmp_path / "fused.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), plain)
    fuse(plain, fused, toy(tmp_path / "toy.onnx", 2)[1], FuseSettings(preprocess=False))
    image = np.random.default_rng(0).integers(-1, 2, (1, 3, 32, 32)).astype(np.float32)
    logits = run(plain, image)
    assert ((logits == logits.max(1, keepdims=True)).sum(1) > 1).mean() > 0.02
    np.testing.assert_array_equal(run(fused, image), logits.argmax(1))


def test_half_of_an_upsampling_by_two_is_the_head(tmp_path: Path) -> None:
    plain, card = toy(tmp_path / "toy.onnx", 2)
    image = np.random.default_rng(1).normal(size=(1, 3, 32, 32)).astype(np.float32)
    for at in ("half", "head"):
        fuse(plain, tmp_path / f"{at}.onnx", card, FuseSettings(preprocess=False, argmax=at))
        np.testing.assert_array_equal(run(tmp_path / f"{at}.onnx", image)[0], by_torch(image, 2, 2))


@pytest.mark.parametrize("name", GRAPHS)
def test_a_students_argmax_at_the_head_is_coarser_and_mostly_the_same(
    graphs: Path, images: list[np.ndarray], tmp_path: Path, name: str
) -> None:
    plain, fused = graphs / name, tmp_path / "fused.onnx"
    expected = run(plain, normalised(images[0][None])).argmax(1)
    assert len(np.unique(expected)) > 3
    for at, least in (("half", 0.9), ("head", 0.75)):
        fuse(plain, fused, card_of(plain), FuseSettings(argmax=at))
        assert least < (run(fused, images[0][None]) == expected).mean() < 1


# ---- engines


@pytest.mark.parametrize("at", ["full", "half", "head"])
@pytest.mark.parametrize("name", GRAPHS)
def test_tensorrt_builds_fused_graphs(graphs: Path, tmp_path: Path, name: str, at: ArgmaxAt) -> None:
    pytest.importorskip("tensorrt_rtx")
    plain, fused, plan = graphs / name, tmp_path / "fused.onnx", tmp_path / "fused.plan"
    fuse(plain, fused, card_of(plain), FuseSettings(argmax=at))
    build_plan(fused, plan, "rtx", Silent())
    sidecar = read_sidecar(plan)
    assert [(i.dtype, i.shape) for i in sidecar.inputs] == [("uint8", (1, 128, 128, 3))]
    assert [(o.name, o.dtype, o.shape) for o in sidecar.outputs] == [("classes", "uint8", (1, 128, 128))]


# ---- refused


def test_nothing_is_fused_twice(graphs: Path, tmp_path: Path) -> None:
    plain, once, twice = graphs / "student.onnx", tmp_path / "once.onnx", tmp_path / "twice.onnx"
    fuse(plain, once, card_of(plain), FuseSettings())
    for settings, said in (
        (FuseSettings(argmax="off"), "normalises its image already"),
        (FuseSettings(preprocess=False), "gives classes already"),
    ):
        with pytest.raises(ExportError, match=said):
            fuse(once, twice, card_of(plain), settings)
        assert not twice.exists()


def test_a_graph_that_does_not_end_in_an_upsampling(tmp_path: Path) -> None:
    plain, card = toy(tmp_path / "toy.onnx", 4, [helper.make_node("Relu", ["large"], ["logits"])])
    for at in ("half", "head"):
        with pytest.raises(ExportError, match="does not end in an upsampling") as caught:
            fuse(plain, tmp_path / "fused.onnx", card, FuseSettings(argmax=at))
        assert "--fuse-argmax full" in caught.value.hint
    fuse(plain, tmp_path / "fused.onnx", card, FuseSettings(argmax="full"))
