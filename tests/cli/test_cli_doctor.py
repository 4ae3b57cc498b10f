"""``edpct doctor --require`` as a health check of a container calls it."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from edpct.cli.main import app


def test_without_it_doctor_only_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edpct.runtimes.gpu.LIBRARY", "libcuda-not-there.so.1")
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 0


def test_a_runtime_that_opens() -> None:
    pytest.importorskip("onnxruntime")
    result = CliRunner().invoke(app, ["doctor", "--require", "onnxruntime"])
    assert result.exit_code == 0, result.output


def test_a_runtime_that_does_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edpct.runtimes.gpu.LIBRARY", "libcuda-not-there.so.1")
    result = CliRunner().invoke(app, ["doctor", "--require", "onnxruntime", "--require", "tensorrt"])
    assert result.exit_code == 2
    assert "edpct: TensorRT is required and does not open. No NVIDIA GPU: libcuda-not-there.so.1 is" in result.output
    assert "Open .plan and .engine files on a machine with one." in result.output
    assert "Sensors:" in result.output  # the tables come all the same: they say why


def test_a_runtime_that_does_not_exist() -> None:
    result = CliRunner().invoke(app, ["doctor", "--require", "tensort"])
    assert result.exit_code == 2
    assert "There is no runtime 'tensort'." in result.output
    assert "Sensors:" not in result.output
