"""Which rows a bench has, and what is refused before anything costly is touched."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import onnx
import pytest
from PIL import Image

from edpct.bench.requests import check_classes, check_sizes, find_dataset, plan_rows
from edpct.data.layouts import open_dataset
from edpct.errors import DataError, EngineError, MissingPackageError
from edpct.progress import Silent
from edpct.recipe import BenchSettings
from edpct.runtimes.artefact import card_of
from edpct.runtimes.gpu import GpuDevice, GpuState
from edpct.runtimes.session import Options

SETTINGS = BenchSettings(threads=1)
THREAD = Options(threads=1)


class Heard(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edpct.runtimes.gpu.probe_gpu", lambda: GpuState(False, "libcuda.so.1 is not there"))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU, and every package that is asked for."""
    state = GpuState(True, "", "12.6", (GpuDevice("A GPU", "8.7", 8 * 2**30),))
    monkeypatch.setattr("edpct.runtimes.gpu.probe_gpu", lambda: state)
    found = importlib.util.find_spec
    here = ("tensorrt", "tensorrt_rtx", "pycuda")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: found("json" if name in here else name, *a))


# ---- rows


def test_every_runtime_that_fits_gives_a_row(compressed_run: Path) -> None:
    path = compressed_run / "student.onnx"
    rows, failures = plan_rows([path], None, "", SETTINGS, Silent())
    assert [(row.name, row.path, row.runtime) for row in rows] == [
        ("student.onnx", path, "openvino"), ("student.onnx", path, "onnxruntime"),
    ]  # fmt: skip
    assert {(row.batch, row.options, row.device) for row in rows} == {(1, THREAD, "")}
    assert failures == []


def test_a_checkpoint_is_measured_eagerly_and_compiled_on_request_only(tiny_teacher: Path) -> None:
    rows, _ = plan_rows([tiny_teacher], None, "", SETTINGS, Silent())
    assert [row.runtime for row in rows] == ["torch"]
    rows, _ = plan_rows([tiny_teacher], "torch-compile", "", SETTINGS, Silent())
    assert [row.runtime for row in rows] == ["torch-compile"]


def test_one_runtime_or_device_alone(compressed_run: Path) -> None:
    path = compressed_run / "student.onnx"
    rows, _ = plan_rows([path], "onnxruntime", "", SETTINGS, Silent())
    assert [row.runtime for row in rows] == ["onnxruntime"]
    rows, _ = plan_rows([path], None, "cuda", SETTINGS, Silent())
    assert [(row.runtime, row.device) for row in rows] == [("onnxruntime", "cuda")]  # OpenVINO has no device cuda


def test_several_batches_are_a_sweep(compressed_run: Path) -> None:
    settings = BenchSettings(batch=(1, 4))
    rows, _ = plan_rows([compressed_run / "student.onnx"], "openvino", "", settings, Silent())
    assert [(row.batch, row.options) for row in rows] == [(1, Options()), (4, Options())]


@pytest.mark.parametrize(("cuda_graph", "expected"), [("on", [True]), ("off", [False]), ("both", [False, True])])
def test_cuda_graphs_are_for_tensorrt(compressed_run: Path, gpu: None, cuda_graph: str, expected: list[bool]) -> None:
    settings = BenchSettings(cuda_graph=cuda_graph, threads=3)  # type: ignore[arg-type]
    rows, _ = plan_rows([compressed_run / "student-int8.plan"], None, "", settings, Silent())
    assert [(row.runtime, row.options) for row in rows] == [
        ("tensorrt-rtx", Options(cuda_graph=on)) for on in expected  # which knows no threads
    ]  # fmt: skip
    rows, _ = plan_rows([compressed_run / "student.onnx"], None, "", settings, Silent())
    assert [row.options for row in rows] == [Options(threads=3)] * 2


def test_an_engine_that_is_named_twice_is_measured_once(compressed_run: Path) -> None:
    path = compressed_run / "student.onnx"
    rows, _ = plan_rows([path, path], "openvino", "", SETTINGS, Silent())
    assert [row.name for row in rows] == ["student.onnx"]


def test_engines_of_one_file_name_keep_rows_of_their_own(compressed_run: Path) -> None:
    """The same student of two runs, say; one whose name is unique keeps it short."""
    twin = next((compressed_run / "stages").glob("export-*")) / "student.onnx"
    paths = [twin, compressed_run / "student.onnx", compressed_run / "teacher.onnx"]
    rows, _ = plan_rows(paths, "onnxruntime", "", SETTINGS, Silent())
    assert [row.name for row in rows] == [str(twin), str(compressed_run / "student.onnx"), "teacher.onnx"]


# ---- refusals of engines


def test_a_plan_without_a_gpu_is_refused(compressed_run: Path, no_gpu: None) -> None:
    with pytest.raises(EngineError) as caught:
        plan_rows([compressed_run / "student-int8.plan"], None, "", SETTINGS, Silent())
    assert caught.value.what == (
        "student-int8.plan needs an NVIDIA GPU and this machine has none (libcuda.so.1 is not there)."
    )
    assert caught.value.hint.endswith(f"edpct bench --engine {compressed_run / 'student-int8.onnx'}")


def test_a_plan_without_a_gpu_is_left_out_beside_an_engine_that_can_be_measured(
    compressed_run: Path, no_gpu: None
) -> None:
    heard = Heard()
    engines = [compressed_run / "student-int8.plan", compressed_run / "student-int8.onnx"]
    rows, failures = plan_rows(engines, None, "", SETTINGS, heard)
    assert [row.runtime for row in rows] == ["openvino", "onnxruntime"]
    (failure,) = failures
    assert (failure.name, failure.runtime) == ("student-int8.plan", "tensorrt-rtx")
    assert failure.reason.startswith("student-int8.plan needs an NVIDIA GPU and this machine has none")
    assert heard.lines == [f"Left out: student-int8.plan on tensorrt-rtx. {failure.reason}"]


def test_a_checkpoint_without_torch(tiny_teacher: Path, compressed_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "torch" else found(name, *a))
    with pytest.raises(MissingPackageError) as caught:
        plan_rows([tiny_teacher], None, "", SETTINGS, Silent())
    assert "torch" in caught.value.what and caught.value.hint == "Install it with: pip install 'edpct[compress]'"
    rows, failures = plan_rows([tiny_teacher, compressed_run / "student.onnx"], None, "", SETTINGS, Silent())
    assert [row.name for row in rows] == ["student.onnx"] * 2
    assert [(failure.name, failure.runtime) for failure in failures] == [("teacher.pt", "torch")]


def test_a_runtime_that_does_not_open_such_files(compressed_run: Path) -> None:
    with pytest.raises(EngineError) as caught:
        plan_rows([compressed_run / "student.onnx"], "tensorrt", "", SETTINGS, Silent())
    assert caught.value.what == "TensorRT opens .plan and .engine files, and student.onnx is none."


def test_an_unknown_runtime(compressed_run: Path) -> None:
    with pytest.raises(EngineError) as caught:
        plan_rows([compressed_run / "student.onnx"], "tflite", "", SETTINGS, Silent())
    assert caught.value.what == "There is no runtime 'tflite'."
    assert "openvino" in caught.value.hint and "torch-compile" in caught.value.hint


@pytest.mark.parametrize("name", ["notes.txt", "engine", "model.tflite"])
def test_a_file_that_is_no_engine(compressed_run: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("notes")
    for engines in ([path], [compressed_run / "student.onnx", path]):
        with pytest.raises(EngineError) as caught:
            plan_rows(engines, None, "", SETTINGS, Silent())
        assert caught.value.what == f"{path} is no engine that edpct knows."


def test_an_engine_without_a_card(compressed_run: Path, tmp_path: Path) -> None:
    model = onnx.load(compressed_run / "student.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "stranger.onnx")
    with pytest.raises(EngineError) as caught:
        card_of(tmp_path / "stranger.onnx")
    assert caught.value.what.startswith("stranger.onnx does not say what it is (no edpct metadata)")
    assert card_of(compressed_run / "student.onnx").network == "EDP-CTNet tiny"


# ---- refusals of data


@pytest.fixture
def data(scenes: Path, tmp_path: Path) -> Path:
    """A copy of the scenes to be spoiled."""
    return Path(shutil.copytree(scenes, tmp_path / "data"))


def change_classes(data: Path, **renamed: str | None) -> None:
    """Rename classes of a dataset; None takes one away."""
    table = json.loads((data / "classes.json").read_text())
    for entry in list(table["classes"]):
        name = renamed.get(entry["name"], entry["name"])
        if name is None:
            table["classes"].remove(entry)
        entry["name"] = name
    (data / "classes.json").write_text(json.dumps(table))


def test_data_of_its_own_classes_and_size_passes(compressed_run: Path, scenes: Path) -> None:
    path, dataset = compressed_run / "student.onnx", open_dataset(scenes)
    check_classes(card_of(path).task, dataset, path)
    check_sizes(card_of(path).task, dataset, path)


def test_data_whose_classes_have_other_names(compressed_run: Path, data: Path) -> None:
    change_classes(data, land="ground")
    path = compressed_run / "student.onnx"
    with pytest.raises(DataError) as caught:
        check_classes(card_of(path).task, open_dataset(data), path)
    assert caught.value.what == (
        f"{data} has the 7 classes ground, field, road, building, vegetation, water, vehicle, but student.onnx was "
        "made for the 7 classes land, field, road, building, vegetation, water, vehicle."
    )


def test_data_with_another_number_of_classes(compressed_run: Path, data: Path) -> None:
    change_classes(data, vehicle=None)
    path = compressed_run / "student.onnx"
    with pytest.raises(DataError) as caught:
        check_classes(card_of(path).task, open_dataset(data), path)
    assert "has the 6 classes land, " in caught.value.what and "made for the 7 classes land, " in caught.value.what


def first_image(data: Path) -> Path:
    return min((data / "val" / "images").iterdir())


def resize(data: Path, width: int, height: int) -> None:
    """Give the first val image and its mask another size."""
    image = first_image(data)
    (mask,) = (data / "val" / "masks").glob(f"{image.stem}.*")
    for path in (image, mask):
        with Image.open(path) as picture:
            resized = picture.resize((width, height), Image.Resampling.NEAREST)
        resized.save(path)


@pytest.mark.parametrize(("width", "height"), [(64, 128), (128, 64), (100, 300), (114, 128)])
def test_an_image_smaller_than_the_input(compressed_run: Path, data: Path, width: int, height: int) -> None:
    resize(data, width, height)
    path = compressed_run / "student.onnx"
    with pytest.raises(DataError) as caught:
        check_sizes(card_of(path).task, open_dataset(data), path)
    assert caught.value.what == (
        f"{first_image(data)} has {width}x{height} pixels, fewer than the 128x128 that student.onnx takes."
    )
    assert "edpct compress --size" in caught.value.hint


@pytest.mark.parametrize(("width", "height"), [(120, 128), (128, 117), (500, 128)])
def test_an_image_a_few_pixels_smaller_or_larger_is_fine(
    compressed_run: Path, data: Path, width: int, height: int
) -> None:
    resize(data, width, height)
    path = compressed_run / "student.onnx"
    check_sizes(card_of(path).task, open_dataset(data), path)


def test_no_images_to_measure_on(compressed_run: Path, data: Path) -> None:
    for path in (data / "val" / "images").iterdir():
        path.unlink()
    path = compressed_run / "student.onnx"
    with pytest.raises(DataError) as caught:
        check_sizes(card_of(path).task, open_dataset(data), path)
    assert caught.value.what == f"{data} has no val images in the layout 'folder'."


@pytest.mark.parametrize("kept", [0, 20])
def test_an_image_that_is_none(compressed_run: Path, data: Path, kept: int) -> None:
    image = first_image(data)
    image.write_bytes(image.read_bytes()[:kept])
    path = compressed_run / "student.onnx"
    with pytest.raises(DataError) as caught:
        check_sizes(card_of(path).task, open_dataset(data), path)
    assert str(image) in caught.value.what and caught.value.hint


def test_an_image_too_large_to_be_read_whole(
    compressed_run: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow refuses images of more than twice this many pixels; here the limit is lowered instead."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    path = compressed_run / "student.onnx"
    with pytest.raises(DataError) as caught:
        check_sizes(card_of(path).task, open_dataset(scenes), path)
    assert str(scenes) in caught.value.what


# ---- finding the data


def test_data_is_found_where_the_card_says(compressed_run: Path, scenes: Path) -> None:
    card = card_of(compressed_run / "student.onnx")
    assert card.data is not None
    found = find_dataset([card], None, Silent())
    assert found is not None and found.root.samefile(card.data.directory)
    given = open_dataset(scenes)
    assert find_dataset([card], given, Silent()) is given


def test_the_next_engine_may_know_where_its_data_lies(compressed_run: Path) -> None:
    card = card_of(compressed_run / "student.onnx")
    assert card.data is not None
    gone = card.model_copy(update={"data": card.data.model_copy(update={"directory": "/nowhere"})})
    unknown = card.model_copy(update={"data": None})
    heard = Heard()
    found = find_dataset([unknown, gone, card], None, heard)
    assert found is not None and str(found.root) == card.data.directory
    assert heard.lines == ["The data of EDP-CTNet tiny no longer lies in /nowhere."]
    heard = Heard()
    assert find_dataset([gone, unknown], None, heard) is None
    assert len(heard.lines) == 2 and "mIoU is not measured" in heard.lines[1] and "--data DIR" in heard.lines[1]
