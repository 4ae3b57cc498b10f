"""What this machine has, for ``edpct doctor``: packages (not imported), the GPU, which runtimes answer."""

from __future__ import annotations

import os
import platform
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from edpct import __version__
from edpct.errors import EdpctError
from edpct.runtimes.gpu import GpuState, probe_gpu
from edpct.runtimes.session import Options
from edpct.runtimes.table import RUNTIMES, Runtime, open_session

# Distribution names by the extra of pyproject.toml that brings them; "" is what edpct itself depends on.
PACKAGES: dict[str, tuple[str, ...]] = {
    "": ("numpy", "typer", "rich", "pillow", "pydantic"),
    "cpu": ("onnxruntime", "openvino"),
    "tensorrt": ("tensorrt", "pycuda"),
    "rtx": ("tensorrt-rtx",),
    "geo": ("rasterio", "shapely"),
    "gpkg": ("pyogrio",),
    "video": ("opencv-python-headless",),
    "nvml": ("nvidia-ml-py",),
    "compress": (
        "torch",
        "torchvision",
        "timm",
        "torch-pruning",
        "accelerate",
        "onnx",
        "onnxsim",
        "onnxscript",
        "nncf",
        "safetensors",
    ),
}

# logits = Relu(image), both float32 (1, 3, 32, 32), opset 13: enough to see a runtime compute.
RELU_ONNX = (
    b'\x08\x08:]\n\x15\n\x05image\x12\x06logits"\x04Relu\x12\x01g'
    b"Z\x1f\n\x05image\x12\x16\n\x14\x08\x01\x12\x10\n\x02\x08\x01\n\x02\x08\x03\n\x02\x08 \n\x02\x08 "
    b"b \n\x06logits\x12\x16\n\x14\x08\x01\x12\x10\n\x02\x08\x01\n\x02\x08\x03\n\x02\x08 \n\x02\x08 "
    b"B\x04\n\x00\x10\r"
)


@dataclass(frozen=True)
class PackageState:
    """One package: distribution name, installed version or None, extra that brings it ("": edpct itself)."""

    name: str
    version: str | None
    extra: str


@dataclass(frozen=True)
class RuntimeState:
    """Whether a runtime works here.

    Attributes:
        ok: a CPU runtime of ONNX computed a small graph right; others: what they need is there.
        reason: what was seen, or what is wrong, as a sentence.
        next_step: what to do; empty where ok.
    """

    runtime: Runtime
    ok: bool
    reason: str
    next_step: str = ""


@dataclass(frozen=True)
class Inventory:
    """What this machine has.

    Attributes:
        python, platform, cpu, edpct: versions and names as text.
        cores: logical CPUs that this process may use.
        memory_bytes: of the machine; 0 where it cannot be told.
    """

    python: str
    platform: str
    cpu: str
    cores: int
    memory_bytes: int
    edpct: str
    packages: tuple[PackageState, ...]
    gpu: GpuState
    runtimes: tuple[RuntimeState, ...]


def take_inventory() -> Inventory:
    """Look at everything once; ONNX Runtime and OpenVINO are run, a second or two. Raises nothing."""
    gpu = probe_gpu()
    return Inventory(
        python=platform.python_version(),
        platform=platform.platform(),
        cpu=cpu_name(),
        cores=cpu_cores(),
        memory_bytes=memory_bytes(),
        edpct=__version__,
        packages=tuple(
            PackageState(name, _version(name), extra) for extra, names in PACKAGES.items() for name in names
        ),
        gpu=gpu,
        runtimes=tuple(_check(row, gpu) for row in RUNTIMES.values()),
    )


def _check(row: Runtime, gpu: GpuState) -> RuntimeState:
    if row.needs_gpu and not gpu.available:
        return RuntimeState(
            row,
            False,
            f"No NVIDIA GPU: {gpu.reason}.",
            f"Open {' and '.join(row.suffixes)} files on a machine with one.",
        )
    if (missing := row.missing_package()) is not None:
        return RuntimeState(row, False, missing.what, missing.hint)
    if ".onnx" in row.suffixes:
        return _compute(row)
    version = _version(row.packages[0].replace("_", "-")) or "of unknown version"
    return RuntimeState(row, True, f"{row.title} {version} is installed; not tried until an engine is opened.")


def _compute(row: Runtime) -> RuntimeState:
    """Open the small graph and compare its answer with NumPy's."""
    image = np.linspace(-1, 1, 3 * 32 * 32, dtype=np.float32).reshape(1, 3, 32, 32)
    reinstall = f"Install it again with: pip install --force-reinstall 'edpct[{row.extra}]'"
    try:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "relu.onnx"
            path.write_bytes(RELU_ONNX)
            with open_session(path, row.name, options=Options(threads=1 if "threads" in row.options else 0)) as session:
                answer = session.run({"image": image})["logits"]
                seen = f"{row.title} {session.details['version']} answers on {session.details['provider']}."
    except EdpctError as error:
        return RuntimeState(row, False, error.what, error.hint)
    except Exception as error:  # a broken installation may raise anything, and doctor is there to say so
        return RuntimeState(row, False, f"{row.title} fails: {error!r}.", reinstall)
    if not np.array_equal(answer, np.maximum(image, 0)):
        return RuntimeState(row, False, f"{row.title} computes a small graph wrong.", reinstall)
    return RuntimeState(row, True, seen)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def cpu_name() -> str:
    """The processor's model name; a board's name, or the architecture, where the system does not tell."""
    for source, key in (("/proc/cpuinfo", "model name"), ("/proc/device-tree/model", "")):  # x86; ARM
        for line in _lines(Path(source)):
            if not key:
                return line.rstrip("\0")
            if line.startswith(key):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cpu_cores() -> int:
    """Logical CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes() -> int:
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
