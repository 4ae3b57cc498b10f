"""What a plan can be built for, and how: one row for each TensorRT, one settings class for all their knobs.

What differs between TensorRT 10, TensorRT 11 and TensorRT for RTX is here and in :mod:`edpct.export.tensorrt_builder`:
a knob that a target does not have is refused before anything is parsed, not ignored.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field

from edpct.errors import BuildError
from edpct.recipe import BuildOptions, Target
from edpct.runtimes.gpu import GpuState
from edpct.runtimes.sidecar import Builder

_OF_TENSORRT = (
    "workspace_mb", "level", "timing_cache", "version_compatible", "hardware_compatible", "dla", "low_memory",
)  # fmt: skip


@dataclass(frozen=True)
class TargetRow:
    """One target.

    Attributes:
        builder: which TensorRT, as the sidecar names it.
        title: as messages name it.
        module: its Python module.
        extra: what brings it with pip.
        needs_gpu: whether it builds on the GPU it builds for only.
        knobs: fields of :class:`edpct.recipe.BuildOptions` that it has; the batch is everybody's.
        compute_capability: of the only GPU that it is for; empty: any.
        preset: values of knobs that were not given.
    """

    builder: Builder
    title: str
    module: str
    extra: str
    needs_gpu: bool
    knobs: tuple[str, ...]
    compute_capability: str = ""
    preset: dict[str, object] = field(default_factory=dict)

    @property
    def installed(self) -> bool:
        """Whether its Python module is there."""
        return importlib.util.find_spec(self.module) is not None


TARGETS: dict[Target, TargetRow] = {
    "tensorrt": TargetRow("tensorrt", "TensorRT", "tensorrt", "tensorrt", True, _OF_TENSORRT),
    "jetson-orin": TargetRow(
        "tensorrt", "TensorRT on a Jetson Orin", "tensorrt", "tensorrt", True, _OF_TENSORRT, "8.7", {"low_memory": True}
    ),
    # Not a timing cache: it would make it ask for a GPU.
    "rtx": TargetRow("tensorrt-rtx", "TensorRT for RTX", "tensorrt_rtx", "rtx", False, ("workspace_mb",)),
}


def options_for(target: Target, options: BuildOptions) -> BuildOptions:
    """The options with the target's preset under them.

    Raises:
        BuildError: a knob was given that the target does not have.
    """
    row = TARGETS[target]
    given = options.model_fields_set.intersection(BuildOptions.model_fields) - {"batch"}
    for name in sorted(given):
        if name not in row.knobs and getattr(options, name) != BuildOptions.model_fields[name].default:
            knobs = ", ".join(_flag(knob) for knob in row.knobs)
            raise BuildError(f"{row.title} has no {_flag(name)}.", f"It has {knobs} and --batch.")
    return options.model_copy(update={name: value for name, value in row.preset.items() if name not in given})


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def check_gpu(target: Target, gpu: GpuState) -> None:
    """Refuse a target whose GPU is not in this machine.

    Raises:
        BuildError: no GPU where one is needed, or another one than the target's.
    """
    row = TARGETS[target]
    if not row.needs_gpu:
        return
    if not gpu.available:
        raise BuildError(
            f"TensorRT builds on the GPU it builds for, and this machine has none ({gpu.reason}).",
            "Build there, or build for RTX GPUs here with: --target rtx",
        )
    here = gpu.devices[0].compute_capability
    if row.compute_capability not in ("", here):
        raise BuildError(
            f"The target {target} is for GPUs of compute capability {row.compute_capability}, and this one has {here}.",
            "Build on that machine, or for this one with: --target tensorrt",
        )
