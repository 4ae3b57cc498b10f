"""ONNX to a TensorRT plan. One builder for TensorRT 10, 11 and TensorRT for RTX, which share their Python API.

Networks are strongly typed: precision is what the graph says (TensorRT 11 knows nothing else, TensorRT 10 is asked for
it). TensorRT for RTX builds without a GPU; it must not be given a timing cache, which would make it ask for one.
"""

from __future__ import annotations

import importlib
import importlib.util
import shlex
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from edpct.card import Card
from edpct.errors import BuildError, MissingPackageError
from edpct.progress import Progress
from edpct.runtimes.artefact import read_card, sha256_of
from edpct.runtimes.gpu import probe_gpu
from edpct.runtimes.sidecar import Builder, Sidecar, TensorInfo, write_sidecar

Target = Literal["tensorrt", "rtx"]
LARGEST_BATCH = 16


@dataclass(frozen=True)
class BuilderRow:
    """One TensorRT: its Python module, the extra that brings it, whether building needs a GPU."""

    name: Builder
    module: str
    extra: str
    needs_gpu: bool


BUILDERS: dict[Target, BuilderRow] = {
    "tensorrt": BuilderRow("tensorrt", "tensorrt", "tensorrt", needs_gpu=True),
    "rtx": BuilderRow("tensorrt-rtx", "tensorrt_rtx", "rtx", needs_gpu=False),
}


def choose_target(progress: Progress) -> Target | None:
    """TensorRT where it is installed and a GPU is there, else TensorRT for RTX, else None (and the reason is said)."""
    if _installed("tensorrt") and probe_gpu().available:
        return "tensorrt"
    if _installed("rtx"):
        return "rtx"
    progress.say("No TensorRT is installed, so no plan is built. For plans: pip install 'edpct[rtx]'")
    return None


def build_plan(source: Path, plan: Path, target: Target, progress: Progress) -> Sidecar:
    """Build a plan of an ONNX file and write its sidecar beside it.

    Raises:
        MissingPackageError: that TensorRT is not installed.
        BuildError: a GPU is needed and there is none, the file carries no card, or TensorRT refuses the graph; the
            message names the node.
        EngineError: the ONNX file is damaged.
    """
    row = BUILDERS[target]
    card = read_card(source)
    if card is None:
        raise BuildError(f"{source.name} does not say what it is (no edpct metadata).", "Export it with edpct.")
    if not _installed(target):
        raise MissingPackageError(row.module, f"building a plan for {row.name}", row.extra)
    if row.needs_gpu and not probe_gpu().available:
        raise BuildError(
            f"TensorRT builds on the GPU it builds for, and this machine has none ({probe_gpu().reason}).",
            "Build there, or build for RTX GPUs here with: --target rtx",
        )
    trt = importlib.import_module(row.module)
    with progress.task(f"Building {plan.name}", 1) as update:
        content, inputs, outputs = _serialize(trt, source)
        _write(plan, content)
        update(1, f"{len(content) / 1e6:.1f} MB")
    sidecar = _describe(card, row, str(trt.__version__), source, plan, inputs, outputs, target)
    write_sidecar(plan, sidecar)
    return sidecar


def _serialize(trt: Any, source: Path) -> tuple[bytes, tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    """Parse and build; the plan's bytes and what goes in and out."""
    log = _collecting_logger(trt)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(source.read_bytes()):
        error = parser.get_error(0)
        node = f" at the node '{error.node_name()}'" if error.node_name() else ""
        raise BuildError(f"TensorRT cannot read {source.name}{node}: {error.desc().strip()}")
    config = builder.create_builder_config()
    _open_batches(builder, network, config)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        reason = log.messages[-1] if log.messages else "no reason given"
        raise BuildError(f"TensorRT cannot build {source.name}: {reason}")
    inputs = tuple(_info(trt, network.get_input(i)) for i in range(network.num_inputs))
    outputs = tuple(_info(trt, network.get_output(i)) for i in range(network.num_outputs))
    return bytes(plan), inputs, outputs


def _open_batches(builder: Any, network: Any, config: Any) -> None:
    """Where the batch axis is open, let the plan take 1 to :data:`LARGEST_BATCH` images, at its best with one."""
    shape = tuple(network.get_input(0).shape)
    if shape[0] >= 0:
        return
    profile = builder.create_optimization_profile()
    one, most = (1, *shape[1:]), (LARGEST_BATCH, *shape[1:])
    profile.set_shape(network.get_input(0).name, one, one, most)
    config.add_optimization_profile(profile)


def _collecting_logger(trt: Any) -> Any:
    """A logger that keeps errors for our message instead of printing them."""

    class Collector(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.messages.append(message.strip())

    return Collector()


def _info(trt: Any, tensor: Any) -> TensorInfo:
    shape = tuple(None if size < 0 else int(size) for size in tensor.shape)
    return TensorInfo(name=tensor.name, dtype=str(trt.nptype(tensor.dtype).__name__), shape=shape)


def _write(plan: Path, content: bytes) -> None:
    partial = plan.with_name(f".{plan.name}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(plan)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise BuildError(
            f"{plan} cannot be written: {error.strerror}.", "Free some space or choose another folder."
        ) from error


def _describe(
    card: Card,
    row: BuilderRow,
    version: str,
    source: Path,
    plan: Path,
    inputs: tuple[TensorInfo, ...],
    outputs: tuple[TensorInfo, ...],
    target: Target,
) -> Sidecar:
    gpu = probe_gpu()
    capabilities = tuple(sorted({d.compute_capability for d in gpu.devices})) if row.needs_gpu else ()
    return Sidecar(
        card=card,
        builder=row.name,
        builder_version=version,
        precision=card.precision,
        inputs=inputs,
        outputs=outputs,
        onnx_sha256=sha256_of(source),
        plan_sha256=sha256_of(plan),
        compute_capabilities=capabilities,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=shlex.join(["edpct", "build", "--onnx", source.name, "--target", target]),
    )


def _installed(target: Target) -> bool:
    return importlib.util.find_spec(BUILDERS[target].module) is not None
