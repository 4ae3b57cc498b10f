"""The order and the words in which an engine is refused."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conv_relu_network import ConvRelu

from edpct.errors import EngineError, MissingPackageError
from edpct.runtimes import onnx_runtime
from edpct.runtimes.gpu import GpuDevice, GpuState
from edpct.runtimes.session import Options
from edpct.runtimes.table import RUNTIMES, open_session, runtimes_for

GPU = GpuState(True, "", "12.6", (GpuDevice("Orin", "8.7", 8 << 30),))


def refusal(path: Path, runtime: str, **options: Any) -> EngineError:
    with pytest.raises(EngineError) as caught:
        open_session(path, runtime, **options)
    return caught.value


def pretend_missing(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Make packages look as if they were not installed."""
    real = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> Any:
        return None if name in names else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


def test_every_row_has_a_file_and_a_name_of_its_own() -> None:
    for name, row in RUNTIMES.items():
        assert row.name == name
        assert callable(importlib.import_module(f"edpct.runtimes.{row.module}").open_session)
        assert set(row.source_built) <= set(row.packages)


def test_an_unknown_runtime_comes_first(tmp_path: Path) -> None:
    error = refusal(tmp_path / "nowhere.onnx", "tflite", device="npu")
    assert error.what == "There is no runtime 'tflite'."
    assert error.hint == "Choose from: openvino, onnxruntime, tensorrt, tensorrt-rtx, torch, torch-compile."


def test_then_an_unknown_device(tmp_path: Path) -> None:
    error = refusal(tmp_path / "nowhere.onnx", "onnxruntime", device="npu")
    assert error.what == "ONNX Runtime has no device 'npu'."
    assert error.hint == "Choose from: cpu, cuda, tensorrt."


def test_then_an_option_that_the_row_does_not_know(tmp_path: Path) -> None:
    error = refusal(tmp_path / "nowhere.onnx", "openvino", options=Options(cuda_graph=True))
    assert error.what == "OpenVINO has no option cuda_graph."
    assert error.hint == "It is for: tensorrt, tensorrt-rtx."
    error = refusal(tmp_path / "nowhere.plan", "tensorrt", options=Options(threads=2, cuda_graph=True))
    assert error.what == "TensorRT has no option threads."
    assert error.hint == "It is for: openvino, onnxruntime, torch, torch-compile."


def test_then_the_file(tmp_path: Path) -> None:
    # Of the wrong suffix for the runtime, all three: the file is looked at first.
    missing, empty = tmp_path / "nowhere.plan", tmp_path / "empty.plan"
    empty.touch()
    assert refusal(missing, "onnxruntime").what == f"There is no file {missing}."
    assert refusal(tmp_path, "onnxruntime").what == f"{tmp_path} is a directory, not an engine."
    assert refusal(empty, "onnxruntime").what == "empty.plan is empty."


def test_then_the_suffix(tmp_path: Path, no_gpu: None) -> None:
    onnx, text = tmp_path / "student.onnx", tmp_path / "notes.txt"
    onnx.write_bytes(b"x")
    text.write_bytes(b"x")
    error = refusal(onnx, "tensorrt")
    assert error.what == "TensorRT opens .plan and .engine files, and student.onnx is none."
    assert error.hint == "Open it with: openvino, onnxruntime."
    assert refusal(text, "openvino").hint == "No runtime opens .txt."


def test_then_the_gpu(tmp_path: Path, no_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_missing(monkeypatch, "tensorrt", "tensorrt_rtx", "pycuda")
    plan = tmp_path / "student-int8.plan"
    plan.write_bytes(b"x")
    for runtime in ("tensorrt", "tensorrt-rtx"):
        error = refusal(plan, runtime)
        assert error.what == (
            "student-int8.plan needs an NVIDIA GPU and this machine has none (libcuda.so.1 is not there)."
        )
        assert error.hint == (
            "Run it on a machine with a GPU, or bench the ONNX it was built from on the CPU: "
            "edpct bench --engine <that>.onnx"
        )


def test_the_gpu_hint_names_the_onnx_that_lies_beside(tmp_path: Path, no_gpu: None) -> None:
    plan, onnx = tmp_path / "student.plan", tmp_path / "student.onnx"
    plan.write_bytes(b"x")
    onnx.write_bytes(b"x")
    assert refusal(plan, "tensorrt").hint.endswith(f"edpct bench --engine {onnx}")


@pytest.mark.parametrize(
    ("runtime", "package", "command"),
    [
        ("onnxruntime", "onnxruntime", "pip install 'edpct[cpu]'"),
        ("openvino", "openvino", "pip install 'edpct[cpu]'"),
        ("tensorrt", "tensorrt", "pip install 'edpct[tensorrt]'"),
        ("tensorrt", "pycuda", "pip install 'edpct[tensorrt]'"),
        ("tensorrt-rtx", "tensorrt_rtx", "pip install 'edpct[rtx]'"),
        ("tensorrt-rtx", "pycuda", "pip install pycuda (it compiles against the CUDA toolkit)"),
        ("torch", "torch", "pip install 'edpct[compress]'"),
        ("torch-compile", "torch", "pip install 'edpct[compress]'"),
    ],
)
def test_then_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str, package: str, command: str
) -> None:
    row = RUNTIMES[runtime]
    monkeypatch.setattr("edpct.runtimes.gpu.probe_gpu", lambda: GPU)
    others = {name: object() for name in row.packages if name != package}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: others.get(name))
    path = tmp_path / f"student{row.suffixes[0]}"
    path.write_bytes(b"x")
    with pytest.raises(MissingPackageError) as caught:
        open_session(path, runtime)
    assert caught.value.what == (
        f"Opening {' or '.join(row.suffixes)} files needs the package {package}, which is not installed."
    )
    assert caught.value.hint == f"Install it with: {command}"


def test_then_a_package_that_cannot_be_imported(conv_relu: ConvRelu, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ImportError("libstdc++.so.6: version `GLIBCXX_3.4.32' not found\nmore")

    monkeypatch.setattr(onnx_runtime, "open_session", broken)
    error = refusal(conv_relu.path, "onnxruntime")
    assert error.what.startswith("ONNX Runtime is installed and cannot be imported: libstdc++.so.6")
    assert error.hint == "Install it again with: pip install --force-reinstall 'edpct[cpu]'"


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"not a protobuf at all"])
def test_then_a_damaged_model(
    tmp_path: Path, conv_relu: ConvRelu, runtime: str, damage: Callable[[bytes], bytes]
) -> None:
    pytest.importorskip(runtime)
    path = tmp_path / "half.onnx"
    path.write_bytes(damage(conv_relu.path.read_bytes()))
    error = refusal(path, runtime)
    assert error.what.startswith(f"{RUNTIMES[runtime].title} cannot open half.onnx: ")
    assert error.what.count("\n") == 0
    assert error.hint == "If it was copied, copy it again; otherwise export it again."


def test_a_provider_that_is_not_there_is_refused(conv_relu: ConvRelu) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    error = refusal(conv_relu.path, "onnxruntime", device="cuda")
    assert error.what.startswith("ONNX Runtime was asked for CUDAExecutionProvider (device 'cuda') ")
    assert error.what.endswith(" and would run on CPUExecutionProvider.")
    assert "onnxruntime-gpu" in error.hint


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_falls_back_while_opening_is_refused(
    conv_relu: ConvRelu, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    claimed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: claimed)
    error = refusal(conv_relu.path, "onnxruntime", device="cuda")
    assert error.what.endswith("(device 'cuda') and would run on CPUExecutionProvider.")


def test_openvino_computes_in_float32(conv_relu: ConvRelu) -> None:
    pytest.importorskip("openvino")
    with open_session(conv_relu.path, "openvino") as session:
        assert session.details["precision"] == "f32"
        image = conv_relu.image()
        difference = np.abs(session.run({"image": image})["logits"] - conv_relu.answer(image)).max()
    assert difference < 1e-4  # bfloat16 is off by more than 1e-2 here


def test_openvino_names_an_output_as_the_onnx_does(tmp_path: Path) -> None:
    """A port of OpenVINO has two names where the graph's output is an Identity of an inner tensor."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("openvino")
    value = onnx.helper.make_tensor_value_info
    shape = [1, 3, 32, 32]
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Relu", ["image"], ["a"]),
            onnx.helper.make_node("Identity", ["a"], ["logits"]),
        ],
        "g",
        [value("image", onnx.TensorProto.FLOAT, shape)],
        [value("logits", onnx.TensorProto.FLOAT, shape)],
    )
    path = tmp_path / "identity.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10), path)
    with open_session(path, "openvino") as session:
        assert [spec.name for spec in session.outputs] == ["logits"]


def test_rows_that_fit_a_file(tmp_path: Path, write_plan: Callable[..., Path]) -> None:
    def names(path: Path) -> list[str]:
        return [row.name for row in runtimes_for(path)]

    assert names(tmp_path / "a.onnx") == ["openvino", "onnxruntime"]
    assert names(tmp_path / "a.ONNX") == ["openvino", "onnxruntime"]
    assert names(tmp_path / "a.pt") == names(tmp_path / "a.safetensors") == ["torch", "torch-compile"]
    assert names(tmp_path / "a.txt") == []
    assert names(tmp_path / "a.plan") == ["tensorrt", "tensorrt-rtx"]  # no sidecar to ask
    assert names(write_plan(builder="tensorrt")) == ["tensorrt"]
    assert names(write_plan(builder="tensorrt-rtx")) == ["tensorrt-rtx"]
