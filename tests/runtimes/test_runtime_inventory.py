"""What doctor sees, with and without packages."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from edpct import __version__
from edpct.runtimes import inventory
from edpct.runtimes.inventory import PACKAGES, RELU_ONNX, Inventory, RuntimeState, take_inventory
from edpct.runtimes.table import RUNTIMES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def row(taken: Inventory, name: str) -> RuntimeState:
    return next(state for state in taken.runtimes if state.runtime.name == name)


def test_the_small_graph_is_a_sound_onnx() -> None:
    onnx = pytest.importorskip("onnx")
    onnx.checker.check_model(onnx.load_model_from_string(RELU_ONNX), full_check=True)


def test_the_machine(no_gpu: None) -> None:
    taken = take_inventory()
    assert taken.edpct == __version__
    assert taken.cores >= 1
    assert taken.memory_bytes > 1 << 28
    assert taken.cpu
    assert [state.runtime.name for state in taken.runtimes] == list(RUNTIMES)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_cpu_runtime_is_really_opened(name: str) -> None:
    pytest.importorskip(name)
    state = row(take_inventory(), name)
    assert state.ok, state.reason
    assert re.fullmatch(rf"{state.runtime.title} [\d.]+ answers on CPU\w*\.", state.reason)
    assert state.next_step == ""


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edpct.runtimes.gpu.LIBRARY", "libcuda-not-there.so.1")
    state = row(take_inventory(), "tensorrt")
    assert not state.ok
    assert state.reason == "No NVIDIA GPU: libcuda-not-there.so.1 is not there."
    assert state.next_step == "Open .plan and .engine files on a machine with one."


def test_without_any_optional_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None)
    taken = take_inventory()
    assert not any(state.ok for state in taken.runtimes)
    assert row(taken, "torch").next_step == "Install it with: pip install 'edpct[compress]'"
    assert row(taken, "openvino").next_step == "Install it with: pip install 'edpct[cpu]'"


def test_a_runtime_that_raises_anything_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise OSError("bad ELF")

    monkeypatch.setattr(inventory, "open_session", broken)
    state = row(take_inventory(), "onnxruntime")
    assert not state.ok
    assert state.reason == "ONNX Runtime fails: OSError('bad ELF')."
    assert state.next_step == "Install it again with: pip install --force-reinstall 'edpct[cpu]'"


def test_packages_and_extras_are_those_of_pyproject() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {"": project["dependencies"], **project["optional-dependencies"]}
    for extra, names in PACKAGES.items():
        declared = {re.split(r"[<>=!~;\[ ]", line, maxsplit=1)[0] for line in wanted[extra]}
        assert set(names) == declared - {"edpct", "tomli"}


def test_every_runtimes_extra_brings_its_packages() -> None:
    for runtime in RUNTIMES.values():
        names = {name.replace("-", "_") for name in PACKAGES[runtime.extra]}
        assert set(runtime.packages) - set(runtime.source_built) <= names
