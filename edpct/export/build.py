"""ONNX to a TensorRT plan with a sidecar that says what it is."""

from __future__ import annotations

import importlib
import importlib.util
import shlex
from datetime import datetime, timezone
from pathlib import Path

from edpct.card import Card
from edpct.errors import BuildError, MissingPackageError
from edpct.export.targets import TARGETS, TargetRow, check_gpu, options_for
from edpct.export.tensorrt_builder import Built, build
from edpct.progress import Progress
from edpct.recipe import BuildOptions, Target
from edpct.runtimes.artefact import read_card, sha256_of
from edpct.runtimes.gpu import probe_gpu
from edpct.runtimes.sidecar import Sidecar, write_sidecar

DEFAULT = BuildOptions()


def choose_target(progress: Progress) -> Target | None:
    """TensorRT where it is installed and a GPU is there, else TensorRT for RTX, else None (and the reason is said)."""
    if _installed("tensorrt") and probe_gpu().available:
        return "tensorrt"
    if _installed("rtx"):
        return "rtx"
    progress.say("No TensorRT is installed, so no plan is built. For plans: pip install 'edpct[rtx]'")
    return None


def build_plan(
    source: Path, plan: Path, target: Target, progress: Progress, options: BuildOptions = DEFAULT
) -> Sidecar:
    """Build a plan of an ONNX file and write its sidecar beside it.

    Raises:
        MissingPackageError: that TensorRT is not installed.
        BuildError: the target has not an option that was given, its GPU is not here, the file carries no card, or
            TensorRT refuses the graph; the message names the node.
        EngineError: the ONNX file is damaged.
        ExportError: its weights are not there or not finite, or its opset is too old.
    """
    row, options = TARGETS[target], options_for(target, options)
    card = read_card(source)
    if card is None:
        raise BuildError(f"{source.name} does not say what it is (no edpct metadata).", "Export it with edpct.")
    if not _installed(target):
        raise MissingPackageError(row.module, f"building a plan for {row.title}", row.extra)
    check_gpu(target, probe_gpu())
    if importlib.util.find_spec("onnx") is not None:  # a board that only builds need not have it
        from edpct.export.graph import read_graph

        read_graph(source)
    trt, size = importlib.import_module(row.module), card.task.preprocessing
    with progress.task(f"Building {plan.name}", 100) as update:
        built = build(
            trt,
            source,
            (size.height, size.width),
            options,
            lambda phase, done, steps: update(min(100 * done // steps, 99), phase),
        )
        _write(plan, built.content)
        update(100, f"{len(built.content) / 1e6:.1f} MB")
    sidecar = _describe(card, row, str(trt.__version__), source, plan, built, target, options)
    write_sidecar(plan, sidecar)
    return sidecar


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
    row: TargetRow,
    version: str,
    source: Path,
    plan: Path,
    built: Built,
    target: Target,
    options: BuildOptions,
) -> Sidecar:
    capabilities = tuple(sorted({d.compute_capability for d in probe_gpu().devices})) if row.needs_gpu else ()
    return Sidecar(
        card=card,
        builder=row.builder,
        builder_version=version,
        precision=card.precision,
        inputs=built.inputs,
        outputs=built.outputs,
        onnx_sha256=sha256_of(source),
        plan_sha256=sha256_of(plan),
        compute_capabilities=capabilities,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=shlex.join(["edpct", "build", "--onnx", source.name, "--target", target, *flags_of(options)]),
        trtexec=shlex.join([*_TRTEXEC[row.builder], *trtexec_flags(source, plan, built, options)]),
        layers=built.layers,
        version_compatible=options.version_compatible,
        hardware_compatible=options.hardware_compatible,
    )


def flags_of(options: BuildOptions) -> list[str]:
    """The flags of ``edpct build`` that give these options."""
    flags: list[str] = []
    for name, info in BuildOptions.model_fields.items():
        value = getattr(options, name)
        if value == info.default:
            continue
        flags.append("--" + name.replace("_", "-"))
        if name == "batch":
            flags.append(",".join(map(str, value)))
        elif value is not True:
            flags.append(value.name if isinstance(value, Path) else str(value))
    return flags


_TRTEXEC = {"tensorrt": ["trtexec", "--stronglyTyped"], "tensorrt-rtx": ["tensorrt_rtx"]}
_HARDWARE = {"ampere+": "ampere+", "same-capability": "sameComputeCapability"}


def trtexec_flags(source: Path, plan: Path, built: Built, options: BuildOptions) -> list[str]:
    """What TensorRT's own command is told to build the same (developer guide, "trtexec")."""
    flags = [f"--onnx={source.name}", f"--saveEngine={plan.name}"]
    image = built.inputs[0]
    if image.shape[0] is None:
        for kind, batch in zip(("min", "opt", "max"), options.batch, strict=True):
            flags.append(f"--{kind}Shapes={image.name}:{'x'.join(map(str, (batch, *image.shape[1:])))}")
    workspace = options.workspace
    flags += [f"--memPoolSize=workspace:{workspace}"] if workspace else []
    flags += ["--maxAuxStreams=0"] if options.low_memory else []
    flags += [f"--builderOptimizationLevel={options.level}"] if options.level is not None else []
    flags += [f"--timingCacheFile={options.timing_cache.name}"] if options.timing_cache else []
    flags += ["--versionCompatible"] if options.version_compatible else []
    if options.hardware_compatible != "off":
        flags.append(f"--hardwareCompatibilityLevel={_HARDWARE[options.hardware_compatible]}")
    flags += [f"--useDLACore={options.dla}", "--allowGPUFallback"] if options.dla is not None else []
    return [*flags, "--skipInference"]


def _installed(target: Target) -> bool:
    return TARGETS[target].installed
