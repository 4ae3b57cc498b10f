"""What a plan's sidecar vouches for, and the sentence for each thing it does not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edpct.errors import EngineError
from edpct.runtimes.sidecar import (
    TRUST_VARIABLE,
    is_trusted,
    load_plan,
    read_sidecar,
    sidecar_path,
    trust,
    write_sidecar,
)

PlanWriter = Callable[..., Path]
REBUILD = "Build it again on this machine with: edpct build student.onnx"


@pytest.fixture(autouse=True)
def on_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")


def refusal(plan: Path, *, builder: str = "tensorrt", version: str = "10.3.0", capability: str = "8.7") -> EngineError:
    with pytest.raises(EngineError) as caught:
        load_plan(plan, builder=builder, version=version, compute_capability=capability)
    return caught.value


def test_a_plan_that_fits_is_handed_over(write_plan: PlanWriter) -> None:
    plan = write_plan(b"the bytes")
    sidecar, content = load_plan(plan, builder="tensorrt", version="10.3.0", compute_capability="8.7")
    assert content == b"the bytes"
    assert sidecar == read_sidecar(plan)


def test_no_capabilities_means_any(write_plan: PlanWriter) -> None:
    plan = write_plan(compute_capabilities=())
    assert load_plan(plan, builder="tensorrt", version="10.3.0", compute_capability="12.0")[1] == b"a plan"


def test_another_builder(write_plan: PlanWriter) -> None:
    error = refusal(write_plan(), builder="tensorrt-rtx")
    assert error.what == "student.plan was built by tensorrt and cannot be opened with tensorrt-rtx."
    assert error.hint == "Open it with the runtime tensorrt."


def test_another_version(write_plan: PlanWriter) -> None:
    error = refusal(write_plan(), version="11.4.0")
    assert error.what == "student.plan was built by tensorrt 10.3.0 and this machine has 11.4.0."
    assert error.hint == REBUILD


@pytest.mark.parametrize("version", ["10.3.0", "10.3.1", "10.13.2", "11.4.0"])
def test_a_version_compatible_plan_loads_on_later_versions(write_plan: PlanWriter, version: str) -> None:
    plan = write_plan(b"the bytes", version_compatible=True)
    assert load_plan(plan, builder="tensorrt", version=version, compute_capability="8.7")[1] == b"the bytes"


@pytest.mark.parametrize("version", ["10.2.9", "8.6.1", "12.0.0"])
def test_and_not_on_earlier_ones_or_two_majors_on(write_plan: PlanWriter, version: str) -> None:
    error = refusal(write_plan(version_compatible=True), version=version)
    assert error.what == f"student.plan was built by tensorrt 10.3.0 and this machine has {version}."


@pytest.mark.parametrize(("capability", "loads"), [("8.0", True), ("8.9", True), ("12.0", True), ("7.5", False)])
def test_a_plan_for_ampere_and_later(write_plan: PlanWriter, capability: str, loads: bool) -> None:
    plan = write_plan(hardware_compatible="ampere+")
    if loads:
        load_plan(plan, builder="tensorrt", version="10.3.0", compute_capability=capability)
    else:
        assert refusal(plan, capability=capability).what.endswith(f"and this GPU has {capability}.")


def test_another_operating_system(write_plan: PlanWriter) -> None:
    error = refusal(write_plan(os="windows"))
    assert error.what == "student.plan was built for windows and this machine runs linux."
    assert error.hint == REBUILD


def test_another_gpu(write_plan: PlanWriter) -> None:
    error = refusal(write_plan(compute_capabilities=("8.0", "8.6")))
    assert error.what == "student.plan was built for compute capability 8.0, 8.6 and this GPU has 8.7."
    assert error.hint == REBUILD


def test_other_bytes(write_plan: PlanWriter) -> None:
    plan = write_plan()
    plan.write_bytes(b"a plan of someone else's")
    error = refusal(plan)
    assert error.what == "student.plan is not the file that its sidecar describes (its SHA-256 differs)."
    assert error.hint == f"{REBUILD}. A plan is code; if you trust this one: --trust."


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRUST_VARIABLE, "")  # so that it is put back


def test_other_bytes_load_where_the_plan_is_trusted(write_plan: PlanWriter, trusting: None) -> None:
    plan = write_plan()
    plan.write_bytes(b"a plan of someone else's")
    trust(plan)
    sidecar, content = load_plan(plan, builder="tensorrt", version="10.3.0", compute_capability="8.7")
    assert (sidecar, content) == (read_sidecar(plan), b"a plan of someone else's")
    assert refusal(plan, version="10.4.0").hint == REBUILD, "trust is about code, not about what can work"


def test_a_trusted_plan_needs_no_sidecar(write_plan: PlanWriter, trusting: None) -> None:
    plan = write_plan(b"the bytes")
    sidecar_path(plan).unlink()
    trust(plan)
    assert load_plan(plan, builder="tensorrt", version="11.4.0", compute_capability="7.5") == (None, b"the bytes")


def test_trust_is_for_one_plan_and_for_processes_started_from_here(
    write_plan: PlanWriter, trusting: None, tmp_path: Path
) -> None:
    plan, other = write_plan(), tmp_path / "other.plan"
    trust(other)
    assert is_trusted(other) and not is_trusted(plan)
    trust(plan)
    asked = (
        "import sys; from pathlib import Path; from edpct.runtimes.sidecar import is_trusted; "
        "print([is_trusted(Path(path)) for path in sys.argv[1:]])"
    )
    command = [sys.executable, "-c", asked, str(plan), str(other), "stranger.plan"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[True, True, False]"


def test_no_sidecar(write_plan: PlanWriter) -> None:
    plan = write_plan()
    sidecar_path(plan).unlink()
    error = refusal(plan)
    assert error.what == (
        "student.plan has no sidecar student.plan.json beside it, so that nothing says what built it."
    )
    assert "edpct build" in error.hint


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "\x00\xff"])
def test_an_unreadable_sidecar(write_plan: PlanWriter, text: str) -> None:
    plan = write_plan()
    sidecar_path(plan).write_bytes(text.encode("latin-1"))
    assert refusal(plan).what == "student.plan.json, the sidecar of student.plan, cannot be read."


def test_a_sidecar_of_another_format(write_plan: PlanWriter) -> None:
    plan = write_plan()
    path = sidecar_path(plan)
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    assert "cannot be read" in refusal(plan).what


def test_writing_leaves_nothing_else_behind(write_plan: PlanWriter) -> None:
    plan = write_plan()
    write_sidecar(plan, read_sidecar(plan))
    assert sorted(path.name for path in plan.parent.iterdir()) == ["student.plan", "student.plan.json"]


def test_writing_where_nothing_can_be_written(write_plan: PlanWriter, tmp_path: Path) -> None:
    sidecar = read_sidecar(write_plan())
    with pytest.raises(EngineError, match="cannot be written: No such file or directory"):
        write_sidecar(tmp_path / "nowhere" / "student.plan", sidecar)
