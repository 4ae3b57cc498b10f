"""Adding a runtime is one file and one row: a made-up one is added from outside, and the contract test runs over it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conv_relu_network import ConvRelu

import edpct.runtimes
from edpct.errors import EngineError
from edpct.runtimes import table
from edpct.runtimes.inventory import take_inventory
from edpct.runtimes.session import Options
from edpct.runtimes.table import RUNTIMES, Runtime, open_session, runtimes_for

# Written after the recipe in edpct/runtimes/table.py: onnx computes its own models in Python, for reference.
FILE = """
import numpy as np

from edpct.errors import EngineError
from edpct.runtimes.session import Session, TensorSpec, check_feeds, closed_error


class ReferenceSession(Session):
    def __init__(self, name, model, runtime):
        import onnx
        from onnx.reference import ReferenceEvaluator

        self._name, self._model = name, model
        self._evaluator, self._feeds, self._answers = ReferenceEvaluator(model), None, None
        self.runtime, self.device = runtime, "cpu"
        self.inputs, self.outputs = map(_specs, (model.graph.input, model.graph.output))
        self.details = {"version": onnx.__version__, "provider": "Python", "precision": "float32", "threads": "1"}

    def bind(self, feeds):
        if self._evaluator is None:
            raise closed_error(self.runtime)
        check_feeds(self.inputs, feeds)
        self._feeds = dict(feeds)

    def execute(self):
        if self._evaluator is None:
            raise closed_error(self.runtime)
        self._answers = self._evaluator.run(None, self._feeds)

    def fetch(self):
        return {spec.name: answer.copy() for spec, answer in zip(self.outputs, self._answers)}

    def fork(self):
        if self._evaluator is None:
            raise closed_error(self.runtime)
        return ReferenceSession(self._name, self._model, self.runtime)

    def close(self):
        self._evaluator = self._feeds = self._answers = None


def open_session(path, *, runtime, device, options):
    import onnx

    try:
        model = onnx.load(path)
    except Exception as error:
        raise EngineError(f"onnx cannot open {path.name}.", "Copy or export it again.") from error
    return ReferenceSession(path.name, model, runtime.name)


def _specs(values):
    return tuple(
        TensorSpec(
            value.name,
            np.dtype(np.float32),
            tuple(axis.dim_value if axis.HasField("dim_value") else None for axis in value.type.tensor_type.shape.dim),
        )
        for value in values
    )
"""
ROW = Runtime(
    name="onnx-reference",
    title="onnx's own",
    module="made_up_reference",
    packages=("onnx",),
    extra="compress",
    suffixes=(".onnx",),
    devices=("cpu",),
    options=("streams",),
)
# The same file and row, added in another process before its tests are collected.
PLUGIN = f"""
from pathlib import Path

import edpct.runtimes
from edpct.runtimes import table

row = table.{ROW!r}
edpct.runtimes.__path__.append(str(Path(__file__).parent))
table._ROWS += (row,)
table.RUNTIMES[row.name] = row
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pytest.importorskip("onnx")
    (tmp_path / f"{ROW.module}.py").write_text(FILE, encoding="utf-8")
    return tmp_path


@pytest.fixture
def added(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    monkeypatch.setattr(edpct.runtimes, "__path__", [*edpct.runtimes.__path__, str(folder)])
    monkeypatch.setattr(table, "_ROWS", (*table._ROWS, ROW))
    monkeypatch.setitem(RUNTIMES, ROW.name, ROW)
    monkeypatch.delitem(sys.modules, f"edpct.runtimes.{ROW.module}", raising=False)
    return ROW


def test_one_file_and_one_row_open_an_engine(added: Runtime, conv_relu: ConvRelu) -> None:
    assert runtimes_for(conv_relu.path)[-1] == added
    with open_session(conv_relu.path, added.name, options=Options(streams=2)) as session:
        image = conv_relu.image()
        answer = session.run({"image": image})["logits"]
    np.testing.assert_allclose(answer, conv_relu.answer(image), rtol=0, atol=1e-4)
    with pytest.raises(EngineError) as caught:
        open_session(conv_relu.path, added.name, options=Options(threads=2))
    assert caught.value.what == "onnx's own has no option threads."


def test_doctor_computes_with_it(added: Runtime, no_gpu: None) -> None:
    assert "threads" not in added.options  # doctor asks for one thread, where there is something to ask
    state = take_inventory().runtimes[-1]
    assert (state.runtime.name, state.ok) == (added.name, True), state.reason


def test_the_contract_runs_over_it(folder: Path) -> None:
    root = Path(__file__).parents[2]
    (folder / "made_up_row.py").write_text(PLUGIN, encoding="utf-8")
    settings = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    paths = [str(folder), str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "made_up_row", "-k", ROW.name, "--basetemp", str(folder / "tests"),
         str(root / "tests" / "runtimes" / "test_runtime_contract.py")],
        cwd=root, env={**settings, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    passed = next(int(word) for line in done.stdout.splitlines() if " passed" in line for word in line.split()[:1])
    assert passed > 20
