"""Which runtimes there are, and opening an engine on one of them.

To add a runtime:

1. write one file here with ``open_session(path, *, runtime, device, options) -> Session``;
2. import the third-party package inside that function, never at the top of the file;
3. read back what it really does (provider, precision, threads) into ``details``; refuse a silent fall-back;
4. call ``check_feeds`` first in ``bind``, wait in ``execute`` until the answer is there, hand back arrays that the
   caller may keep from ``fetch``, free everything in ``close``;
5. turn the package's exceptions into ``EngineError``: one sentence, one hint;
6. add one row to :data:`RUNTIMES` with the options that it knows, and its package to an extra in pyproject.toml;
7. run ``pytest tests/runtimes``: the contract test reads the rows of the table.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from edpct.errors import EngineError, MissingPackageError
from edpct.runtimes.content import require_file
from edpct.runtimes.gpu import require_gpu
from edpct.runtimes.session import DEFAULT, Options, Session
from edpct.runtimes.sidecar import read_sidecar


@dataclass(frozen=True)
class Runtime:
    """One row: what opens which files where.

    Attributes:
        name: as the user types it.
        title: as a table shows it.
        module: file within :mod:`edpct.runtimes`.
        packages: what it imports; the first is the runtime itself.
        extra: the extra of edpct that brings them.
        suffixes: of the files it opens.
        devices: the first is the default.
        options: those of :class:`edpct.runtimes.session.Options` that it knows.
        needs_gpu: nothing of it works without an NVIDIA GPU.
        on_request: left out where a file is opened on every runtime that fits, since opening takes minutes.
        source_built: those packages that the extra leaves out, since they compile against a CUDA toolkit.
    """

    name: str
    title: str
    module: str
    packages: tuple[str, ...]
    extra: str
    suffixes: tuple[str, ...]
    devices: tuple[str, ...]
    options: tuple[str, ...]
    needs_gpu: bool = False
    on_request: bool = False
    source_built: tuple[str, ...] = ()

    def missing_package(self) -> MissingPackageError | None:
        """The error for the first package that is not installed; None where all are. Imports none of them."""
        for package in self.packages:
            if importlib.util.find_spec(package) is None:
                error = MissingPackageError(package, f"opening {' or '.join(self.suffixes)} files", self.extra)
                if package in self.source_built:
                    error.hint = f"Install it with: pip install {package} (it compiles against the CUDA toolkit)"
                return error
        return None


_ROWS = (
    Runtime(
        name="openvino",
        title="OpenVINO",
        module="open_vino",
        packages=("openvino",),
        extra="cpu",
        suffixes=(".onnx",),
        devices=("cpu",),
        options=("threads", "streams"),
    ),
    Runtime(
        name="onnxruntime",
        title="ONNX Runtime",
        module="onnx_runtime",
        packages=("onnxruntime",),
        extra="cpu",
        suffixes=(".onnx",),
        devices=("cpu", "cuda", "tensorrt"),
        options=("threads", "streams"),
    ),
    Runtime(
        name="tensorrt",
        title="TensorRT",
        module="tensor_rt",
        packages=("tensorrt", "pycuda"),
        extra="tensorrt",
        suffixes=(".plan", ".engine"),
        devices=("cuda",),
        options=("streams", "cuda_graph"),
        needs_gpu=True,
    ),
    Runtime(
        name="tensorrt-rtx",
        title="TensorRT for RTX",
        module="tensor_rt",
        packages=("tensorrt_rtx", "pycuda"),
        extra="rtx",
        suffixes=(".plan", ".engine"),
        devices=("cuda",),
        options=("streams", "cuda_graph"),
        needs_gpu=True,
        source_built=("pycuda",),
    ),
    Runtime(
        name="torch",
        title="PyTorch eager",
        module="torch_network",
        packages=("torch",),
        extra="compress",
        suffixes=(".pt", ".safetensors"),
        devices=("cpu", "cuda"),
        options=("threads", "streams"),
    ),
    Runtime(
        name="torch-compile",
        title="torch.compile",
        module="torch_network",
        packages=("torch",),
        extra="compress",
        suffixes=(".pt", ".safetensors"),
        devices=("cpu", "cuda"),
        options=("threads", "streams"),
        on_request=True,
    ),
)
RUNTIMES: dict[str, Runtime] = {row.name: row for row in _ROWS}


def open_session(path: Path, runtime: str, *, device: str = "", options: Options = DEFAULT) -> Session:
    """Open an engine, refusing what cannot work before anything costly is touched.

    Args:
        path: the engine.
        runtime: name of a row of :data:`RUNTIMES`.
        device: one of the row's devices; empty: its first.
        options: those that the row does not know must be at their default.

    Returns:
        The session, ready to run; close it, or use it as a context manager.

    Raises:
        EngineError: in this order: the runtime, device or option is unknown; the file is missing, a directory or
            empty; its suffix does not fit the runtime; a GPU is needed and there is none; it cannot be
            opened.
        MissingPackageError: after the GPU check: a package is not installed.
        CheckpointError: the torch row, on a file that is no checkpoint.
    """
    row = _row(runtime)
    device = device or row.devices[0]
    if device not in row.devices:
        raise EngineError(f"{row.title} has no device '{device}'.", f"Choose from: {', '.join(row.devices)}.")
    _require_options(row, options)
    require_file(path)
    require_suffix(path, row)
    if row.needs_gpu:
        require_gpu(path)
    if (missing := row.missing_package()) is not None:
        raise missing
    return _open(path, row, device, options)


def runtimes_for(path: Path) -> tuple[Runtime, ...]:
    """The rows that open a file, judged by its suffix and, for a plan, by the builder that its sidecar names.

    A plan without a readable sidecar fits all rows of its suffix; opening it says what is wrong.
    """
    fitting = tuple(row for row in _ROWS if path.suffix.lower() in row.suffixes)
    if not any(row.needs_gpu for row in fitting):
        return fitting
    try:
        builder = read_sidecar(path).builder
    except EngineError:
        return fitting
    return tuple(row for row in fitting if row.name == builder)


def _row(name: str) -> Runtime:
    if name not in RUNTIMES:
        raise EngineError(f"There is no runtime '{name}'.", f"Choose from: {', '.join(RUNTIMES)}.")
    return RUNTIMES[name]


def _require_options(row: Runtime, options: Options) -> None:
    for name in options.changed():
        if name not in row.options:
            takers = ", ".join(other.name for other in _ROWS if name in other.options)
            raise EngineError(f"{row.title} has no option {name}.", f"It is for: {takers}.")


def require_suffix(path: Path, row: Runtime) -> None:
    """Refuse a file that a runtime does not open.

    Raises:
        EngineError: its suffix is not one of the row's.
    """
    if path.suffix.lower() in row.suffixes:
        return
    fitting = ", ".join(other.name for other in runtimes_for(path))
    hint = f"Open it with: {fitting}." if fitting else f"No runtime opens {path.suffix or 'a file without suffix'}."
    raise EngineError(f"{row.title} opens {' and '.join(row.suffixes)} files, and {path.name} is none.", hint)


def _open(path: Path, row: Runtime, device: str, options: Options) -> Session:
    module = importlib.import_module(f"edpct.runtimes.{row.module}")
    try:
        session: Session = module.open_session(path, runtime=row, device=device, options=options)
    except ImportError as error:
        reason = str(error).split("\n", 1)[0]
        raise EngineError(
            f"{row.title} is installed and cannot be imported: {reason}.",
            f"Install it again with: pip install --force-reinstall 'edpct[{row.extra}]'",
        ) from error
    return session
