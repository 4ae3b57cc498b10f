"""Checkpoints on PyTorch, eager or compiled: the yardsticks of the engines. Needs the extra compress."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edpct.errors import EngineError
from edpct.runtimes.session import (
    Arrays,
    Options,
    Session,
    TensorSpec,
    check_feeds,
    closed_error,
    not_run_error,
    readable,
)

if TYPE_CHECKING:
    from edpct.runtimes.table import Runtime

INPUT, OUTPUT = "image", "logits"
COMPILED = "torch-compile"


@dataclass(frozen=True)
class _Specs:
    """What a checkpoint's card says of inputs and outputs (the batch is open), and what PyTorch is set to."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    details: dict[str, str]


class TorchSession(Session):
    """A network in eval mode: ``image`` (B, 3, H, W) to ``logits`` (B, C, H, W), both float32.

    Args:
        model: on ``device``, callable with one tensor; compiled or not.
    """

    def __init__(self, name: str, model: Any, runtime: str, device: str, specs: _Specs) -> None:
        import torch

        self._torch: Any = torch
        self._name = name
        self._model: Any = model
        self._image: Any = None
        self._logits: Any = None
        self.runtime, self.device = runtime, device
        self._specs = specs
        self.inputs, self.outputs, self.details = specs.inputs, specs.outputs, specs.details
        self._events: Any = None
        self._stream: Any = None
        if device == "cuda":
            self._stream = torch.cuda.Stream()
            self._events = tuple(torch.cuda.Event(enable_timing=True) for _ in range(2))

    def bind(self, feeds: Arrays) -> None:
        if self._model is None:
            raise closed_error(self.runtime)
        check_feeds(self.inputs, feeds)
        self._image = self._torch.from_numpy(readable(feeds[INPUT])).to(self.device)

    def execute(self) -> None:
        if self._model is None:
            raise closed_error(self.runtime)
        if self._image is None:
            raise not_run_error(self.runtime)
        try:
            with self._torch.inference_mode():
                self._logits = self._model(self._image) if self._events is None else self._timed()
        except RuntimeError as error:
            raise _failed(self._name, error) from error

    def _timed(self) -> Any:
        start, stop = self._events
        with self._torch.cuda.stream(self._stream):
            start.record()
            logits = self._model(self._image)
            stop.record()
        stop.synchronize()
        self.device_ms = float(start.elapsed_time(stop))
        return logits

    def fetch(self) -> Arrays:
        if self._logits is None:
            raise not_run_error(self.runtime)
        return {OUTPUT: np.array(self._logits.float().cpu().numpy())}  # a copy: on a CPU it is torch's own memory

    def fork(self) -> Session:
        if self._model is None:
            raise closed_error(self.runtime)
        return TorchSession(self._name, self._model, self.runtime, self.device, self._specs)

    def close(self) -> None:
        self._model = self._image = self._logits = None


def open_session(path: Path, *, runtime: Runtime, device: str, options: Options) -> Session:
    """Open a checkpoint; the compiling row compiles for a batch of one here, and again for another batch.

    Raises:
        EngineError: CUDA was asked for and PyTorch sees none, or torch.compile failed.
        CheckpointError: the file is no checkpoint of ours.
    """
    import torch

    from edpct.models.checkpoint import load_checkpoint

    if device == "cuda" and not torch.cuda.is_available():
        raise EngineError("PyTorch sees no CUDA device on this machine.", "Use the device cpu.")
    if options.threads:
        torch.set_num_threads(options.threads)  # of the whole process: PyTorch has no other
    checkpoint = load_checkpoint(path)
    model: Any = checkpoint.model.eval().to(device)
    if runtime.name == COMPILED:
        try:
            model = torch.compile(model)
        except RuntimeError as error:
            reason = str(error).strip().split("\n", 1)[0].rstrip(".")
            raise EngineError(f"torch.compile refused {path.name}: {reason}.", "Use the runtime torch.") from error
    task = checkpoint.card.task
    size = (task.preprocessing.height, task.preprocessing.width)
    image = TensorSpec(INPUT, np.dtype(np.float32), (None, 3, *size))
    logits = TensorSpec(OUTPUT, np.dtype(np.float32), (None, task.num_classes, *size))
    specs = _Specs((image,), (logits,), _details(torch, device))
    session = TorchSession(path.name, model, runtime.name, device, specs)
    if runtime.name == COMPILED:
        session.run({INPUT: np.zeros((1, 3, *size), np.float32)})
    return session


def _failed(name: str, error: RuntimeError) -> EngineError:
    reason = str(error).strip().split("\n", 1)[0].rstrip(".")
    return EngineError(f"PyTorch failed on {name}: {reason}.", "Check memory, or use a smaller input.")


def _details(torch: Any, device: str) -> dict[str, str]:
    tf32 = device == "cuda" and (torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32)
    return {
        "version": str(torch.__version__),
        "provider": "CPU" if device == "cpu" else str(torch.cuda.get_device_name()),
        "precision": "float32 (TF32 allowed)" if tf32 else "float32",
        "threads": str(torch.get_num_threads()),
    }
