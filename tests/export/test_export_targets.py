"""What a plan is built for: knobs of each target, and what a real TensorRT for RTX makes of those that it shares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edpct.errors import BuildError
from edpct.export.build import build_plan, flags_of
from edpct.export.targets import TARGETS, check_gpu, options_for
from edpct.export.tensorrt_builder import _configure
from edpct.progress import Silent, Update
from edpct.recipe import BuildOptions, BuildSettings, Target
from edpct.runtimes.gpu import GpuDevice, GpuState
from edpct.runtimes.sidecar import read_sidecar

NO_GPU = GpuState(False, "libcuda.so.1 is not there")


def gpu(capability: str) -> GpuState:
    return GpuState(True, "", "12.6", (GpuDevice("GPU", capability, 8 << 30),))


# ---- which knobs a target has


def test_a_knob_that_the_target_has_not_is_refused(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "level": 5, "timing_cache": tmp_path / "t", "version_compatible": True, "hardware_compatible": "ampere+",
        "dla": 0, "low_memory": True,
    }  # fmt: skip
    for name, value in given.items():
        options = BuildOptions.model_validate({name: value})
        with pytest.raises(BuildError) as caught:
            options_for("rtx", options)
        assert caught.value.what == f"TensorRT for RTX has no --{name.replace('_', '-')}."
        assert caught.value.hint == "It has --workspace-mb and --batch."
        assert getattr(options_for("tensorrt", options), name) == value


def test_what_is_left_at_its_default_is_not_refused() -> None:
    settings = BuildSettings(target="rtx", level=None, low_memory=False, batch=(1, 2, 3), workspace_mb=64)
    assert options_for("rtx", settings).batch == (1, 2, 3)


def test_a_jetson_is_built_with_little_memory_unless_told() -> None:
    assert options_for("jetson-orin", BuildOptions()).low_memory
    assert options_for("jetson-orin", BuildOptions()).workspace == 512
    assert options_for("jetson-orin", BuildOptions(workspace_mb=900)).workspace == 900
    assert not options_for("jetson-orin", BuildOptions(low_memory=False)).low_memory
    assert not options_for("tensorrt", BuildOptions()).low_memory


@pytest.mark.parametrize("target", ["tensorrt", "jetson-orin"])
def test_what_builds_on_the_gpu_needs_one(target: Target) -> None:
    with pytest.raises(BuildError, match=r"this machine has none \(libcuda.so.1 is not there\)"):
        check_gpu(target, NO_GPU)
    check_gpu("rtx", NO_GPU)
    check_gpu(target, gpu("8.7"))


def test_a_jetsons_plan_is_not_built_on_another_gpu() -> None:
    with pytest.raises(BuildError) as caught:
        check_gpu("jetson-orin", gpu("8.9"))
    assert caught.value.what == ("The target jetson-orin is for GPUs of compute capability 8.7, and this one has 8.9.")
    assert caught.value.hint.endswith("--target tensorrt")


def test_every_target_is_known_to_the_recipe() -> None:
    for target in TARGETS:
        assert BuildSettings.model_validate({"target": target}).target == target


# ---- as commands


def test_options_as_flags(tmp_path: Path) -> None:
    options = BuildOptions(batch=(1, 4, 8), level=4, version_compatible=True, timing_cache=tmp_path / "t.cache", dla=1)
    assert flags_of(options) == [
        "--batch", "1,4,8", "--level", "4", "--timing-cache", "t.cache", "--version-compatible", "--dla", "1",
    ]  # fmt: skip
    assert flags_of(BuildOptions()) == []


# ---- on a real TensorRT


def test_knobs_arrive(tmp_path: Path) -> None:
    """Read back from TensorRT's own configuration; TensorRT for RTX shares these with the others."""
    trt = pytest.importorskip("tensorrt_rtx")
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    config = builder.create_builder_config()
    options = BuildOptions(level=5, version_compatible=True, low_memory=True)
    _configure(trt, builder, config, options)
    assert config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) == 512 << 20
    assert (config.max_aux_streams, builder.max_threads) == (0, 1)
    assert config.builder_optimization_level == 5
    assert config.get_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    with pytest.raises(BuildError, match="sees no DLA core 0 here; it sees 0"):
        _configure(trt, builder, config, BuildOptions(dla=0))


class Listening(Silent):
    """Keeps the updates of a bar; may stop the work as Ctrl-C does."""

    def __init__(self, stop: bool = False) -> None:
        self.seen: list[int] = []
        self.stop = stop

    def task(self, title: str, total: int, start: int = 0) -> Any:
        bar = super().task(title, total, start)
        listening = self

        class Bar:
            def __enter__(self) -> Update:
                bar.__enter__()
                return listening.update

            def __exit__(self, *error: object) -> None:
                bar.__exit__(None, None, None)

        return Bar()

    def update(self, done: int, note: str) -> None:
        self.seen.append(done)
        if self.stop:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("kind", "precision"), [("", "float32"), ("-fp16", "float16"), ("-int8", "int8")])
def test_the_sidecar_tells_the_precision_of_every_layer(
    compressed_run: Path, tmp_path: Path, kind: str, precision: str
) -> None:
    pytest.importorskip("tensorrt_rtx")
    name = f"student{kind}.onnx"
    plan, heard = tmp_path / "student.plan", Listening()
    sidecar = build_plan(compressed_run / name, plan, "rtx", heard, BuildOptions(workspace_mb=256))
    kinds = list(sidecar.layers.values())
    assert len(kinds) > 20 and kinds.count(precision) > 0.8 * len(kinds)
    assert read_sidecar(plan) == sidecar
    assert sidecar.command == f"edpct build --onnx {name} --target rtx --workspace-mb 256"
    assert sidecar.trtexec == (
        f"tensorrt_rtx --onnx={name} --saveEngine=student.plan --memPoolSize=workspace:256 --skipInference"
    )
    assert heard.seen == sorted(heard.seen) and heard.seen[-1] == 100


def test_ctrl_c_stops_a_build_and_leaves_nothing(compressed_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(KeyboardInterrupt):
        build_plan(compressed_run / "student.onnx", tmp_path / "student.plan", "rtx", Listening(stop=True))
    assert list(tmp_path.iterdir()) == []
