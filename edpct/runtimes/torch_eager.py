"""Checkpoints on PyTorch in eager mode: the yardstick of the engines. Needs the extra compress."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edpct.errors import EngineError
from edpct.runtimes.session import Arrays, Session, TensorSpec, check_feeds, closed_error

if TYPE_CHECKING:
    from edpct.runtimes.table import Runtime

INPUT, OUTPUT = "image", "logits"


class TorchSession(Session):
    """A network in eval mode: ``image`` (1, 3, H, W) to ``logits`` (1, C, H, W), both float32."""

    def __init__(self, path: Path, runtime: Runtime, device: str, threads: int) -> None:
        import torch

        from edpct.models.checkpoint import load_checkpoint

        if device == "cuda" and not torch.cuda.is_available():
            raise EngineError("PyTorch sees no CUDA device on this machine.", "Use the device cpu.")
        if threads:
            torch.set_num_threads(threads)  # of the whole process: PyTorch has no other
        checkpoint = load_checkpoint(path)
        self._torch: Any = torch
        self._name = path.name
        self._model: Any = checkpoint.model.eval().to(device)
        self.runtime = runtime.name
        self.device = device
        task = checkpoint.card.task
        height, width = task.preprocessing.height, task.preprocessing.width
        self.inputs = (TensorSpec(INPUT, np.dtype(np.float32), (1, 3, height, width)),)
        self.outputs = (TensorSpec(OUTPUT, np.dtype(np.float32), (1, task.num_classes, height, width)),)
        self.details = _details(torch, device)

    def run(self, feeds: Arrays) -> Arrays:
        if self._model is None:
            raise closed_error(self.runtime)
        check_feeds(self.inputs, feeds)
        try:
            with self._torch.inference_mode():
                logits = self._model(self._torch.from_numpy(feeds[INPUT]).to(self.device))
            return {OUTPUT: logits.float().cpu().numpy()}
        except RuntimeError as error:
            reason = str(error).split("\n", 1)[0]
            raise EngineError(
                f"PyTorch failed on {self._name}: {reason}", "Check memory, or use a smaller input."
            ) from error

    def close(self) -> None:
        self._model = None


def open_session(path: Path, *, runtime: Runtime, device: str, threads: int) -> Session:
    """Open a checkpoint.

    Raises:
        EngineError: CUDA was asked for and PyTorch sees none.
        CheckpointError: the file is no checkpoint of ours.
    """
    return TorchSession(path, runtime, device, threads)


def _details(torch: Any, device: str) -> dict[str, str]:
    tf32 = device == "cuda" and (torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32)
    return {
        "version": str(torch.__version__),
        "provider": "CPU" if device == "cpu" else str(torch.cuda.get_device_name()),
        "precision": "float32 (TF32 allowed)" if tf32 else "float32",
        "threads": str(torch.get_num_threads()),
    }
