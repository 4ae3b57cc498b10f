"""What lies beside a plan as ``<plan>.json``: what it is, what made it, and what it may be loaded by.

A plan is tied to the builder's version, the GPU's compute capability and the operating system, and says none
of this in a way that can be read without loading it. A serialized engine is code: the bytes are compared with
the sidecar's hash before TensorRT sees them. A plan that nothing vouches for, or whose hash differs, is refused unless
the user says that they trust it (:func:`trust`).
"""

from __future__ import annotations

import hashlib
import os
import platform
import tempfile
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from edpct.card import Card, Precision
from edpct.errors import EngineError

Builder = Literal["tensorrt", "tensorrt-rtx"]
AMPERE = (8, 0)  # compute capability
# An environment variable, so that the processes that this one starts trust what it trusts.
TRUST_VARIABLE = "EDPCT_TRUST_PLANS"


TRUSTING = "A plan is code; if you trust this one: --trust."


class TensorInfo(BaseModel):
    """One input or output: name, NumPy dtype ("float32"), shape with None where it is open."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    dtype: str
    shape: tuple[int | None, ...]


class Sidecar(BaseModel):
    """The sidecar of one plan.

    Attributes:
        format: version of this format.
        card: the network's card.
        builder, builder_version: which TensorRT, and its exact ``__version__``.
        precision: of the graph that it was built from.
        inputs, outputs: the plan's tensors, in order.
        onnx_sha256, plan_sha256: of the ONNX it was built from and of the plan itself, hexadecimal.
        compute_capabilities: GPUs it was built for ("8.7"); empty: any that the builder supports.
        os: operating system as :func:`platform.system` names it, in lower case.
        created: ISO 8601.
        command: the command that builds it again.
        trtexec: TensorRT's own command that builds the same.
        layers: precision of each convolution and matrix product, by its name in the graph.
        version_compatible: it loads on later versions of its TensorRT too.
        hardware_compatible: on which other GPUs it loads; see :class:`edpct.recipe.BuildOptions`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    card: Card
    builder: Builder
    builder_version: str
    precision: Precision
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    onnx_sha256: str
    plan_sha256: str
    compute_capabilities: tuple[str, ...] = ()
    os: str = "linux"
    created: str
    command: str
    trtexec: str = ""
    layers: dict[str, str] = {}
    version_compatible: bool = False
    hardware_compatible: Literal["off", "ampere+", "same-capability"] = "off"


def trust(plan: Path) -> None:
    """Allow this process, and those that it starts, to load this plan although nothing vouches for its bytes."""
    if not is_trusted(plan):
        known = os.environ.get(TRUST_VARIABLE)
        os.environ[TRUST_VARIABLE] = os.pathsep.join(filter(None, [known, str(plan.resolve())]))


def is_trusted(plan: Path) -> bool:
    """Whether :func:`trust` was called for it here or in a parent process, or the user's environment names it."""
    return str(plan.resolve()) in os.environ.get(TRUST_VARIABLE, "").split(os.pathsep)


def sidecar_path(plan: Path) -> Path:
    """Where a plan's sidecar lies: ``student.plan`` has ``student.plan.json``."""
    return plan.with_name(plan.name + ".json")


def write_sidecar(plan: Path, sidecar: Sidecar) -> None:
    """Put a sidecar beside its plan, whole or not at all.

    Raises:
        EngineError: the directory cannot be written.
    """
    target = sidecar_path(plan)
    temporary: str | None = None
    try:
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(sidecar.model_dump_json(indent=2) + "\n")
        Path(temporary).chmod(0o644)  # mkstemp makes it the owner's alone
        Path(temporary).replace(target)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise EngineError(f"{target} cannot be written: {error.strerror}.", "Check space and permissions.") from error


def read_sidecar(plan: Path) -> Sidecar:
    """The sidecar of a plan.

    Raises:
        EngineError: there is none, or it cannot be read.
    """
    path = sidecar_path(plan)
    try:
        return Sidecar.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise EngineError(
            f"{plan.name} has no sidecar {path.name} beside it, so that nothing says what built it.",
            f"Copy both files together, or build it here from its ONNX with: edpct build. {TRUSTING}",
        ) from error
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise EngineError(
            f"{path.name}, the sidecar of {plan.name}, cannot be read.",
            "Copy it again, or build the plan again with: edpct build",
        ) from error


def load_plan(plan: Path, *, builder: str, version: str, compute_capability: str) -> tuple[Sidecar | None, bytes]:
    """A plan's bytes, once its sidecar has vouched for them on this machine.

    Args:
        plan: the file.
        builder: name of the runtime that is to load it.
        version: that runtime's ``__version__``.
        compute_capability: of the GPU ("8.7").

    Returns:
        The sidecar, None for a trusted plan that has none, and the bytes.

    Raises:
        EngineError: another builder, version, operating system or GPU; no sidecar, or bytes that are not the sidecar's,
            and the plan is not trusted.
    """
    if is_trusted(plan) and not sidecar_path(plan).exists():
        return None, _read(plan)
    sidecar = read_sidecar(plan)
    check_fit(plan, sidecar, builder=builder, version=version, compute_capability=compute_capability)
    return sidecar, _vouched(plan, sidecar)


def check_fit(plan: Path, sidecar: Sidecar, *, builder: str, version: str, compute_capability: str) -> None:
    """Refuse a plan that was built for something else than this machine; needs the sidecar only. See :func:`load_plan`.

    Raises:
        EngineError: another builder, version, operating system or GPU.
    """
    _check_origin(plan, sidecar, builder, version)
    _check_machine(plan, sidecar, compute_capability)


def check_plan(plan: Path) -> None:
    """Refuse a plan without sidecar, or with another plan's, unless it is trusted; needs no GPU.

    Raises:
        EngineError: no sidecar, or bytes that are not the sidecar's.
    """
    if not is_trusted(plan):
        _vouched(plan, read_sidecar(plan))


def _vouched(plan: Path, sidecar: Sidecar) -> bytes:
    content = _read(plan)
    if hashlib.sha256(content).hexdigest() != sidecar.plan_sha256 and not is_trusted(plan):
        raise EngineError(
            f"{plan.name} is not the file that its sidecar describes (its SHA-256 differs).",
            f"{_again(sidecar)}. {TRUSTING}",
        )
    return content


def _read(plan: Path) -> bytes:
    try:
        return plan.read_bytes()
    except OSError as error:
        raise EngineError(f"{plan} cannot be read: {error.strerror}.", "Check its permissions.") from error


def _check_origin(plan: Path, sidecar: Sidecar, builder: str, version: str) -> None:
    if sidecar.builder != builder:
        raise EngineError(
            f"{plan.name} was built by {sidecar.builder} and cannot be opened with {builder}.",
            f"Open it with the runtime {sidecar.builder}.",
        )
    if sidecar.builder_version != version and not (sidecar.version_compatible and _later(version, sidecar)):
        raise EngineError(
            f"{plan.name} was built by {builder} {sidecar.builder_version} and this machine has {version}.",
            _again(sidecar),
        )


def _later(version: str, sidecar: Sidecar) -> bool:
    """Whether a version is of the builder's major version or the next, and not older than the builder."""
    here, built = (
        tuple(int(part) for part in text.split(".") if part.isdigit()) for text in (version, sidecar.builder_version)
    )
    return built <= here and here[0] - built[0] <= 1


def _check_machine(plan: Path, sidecar: Sidecar, compute_capability: str) -> None:
    here = platform.system().lower()
    if sidecar.os != here:
        raise EngineError(f"{plan.name} was built for {sidecar.os} and this machine runs {here}.", _again(sidecar))
    built_for = sidecar.compute_capabilities
    ampere = sidecar.hardware_compatible == "ampere+" and _capability(compute_capability) >= AMPERE
    if built_for and compute_capability not in built_for and not ampere:
        raise EngineError(
            f"{plan.name} was built for compute capability {', '.join(built_for)} and this GPU has "
            f"{compute_capability}.",
            _again(sidecar),
        )


def _capability(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _again(sidecar: Sidecar) -> str:
    return f"Build it again on this machine with: {sidecar.command}"
