"""What the processes of one training agree on, where there are several (``accelerate launch``, ``torchrun``).

With one process, every function here does its work and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from torch import distributed, nn

from edpct.errors import EdpctError, TrainingError

T = TypeVar("T")


def on_cpu() -> bool:
    """Whether several processes were started on a machine without CUDA: Accelerate must be told to use gloo."""
    wanted = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and (wanted or not torch.cuda.is_available())


def processes() -> PartialState:
    """What Accelerate knows of the processes; the first call joins them."""
    return PartialState(cpu=on_cpu())


def summed(values: Sequence[float], device: torch.device | str = "cpu") -> list[float]:
    """Each value, float64, summed over the processes; the same length everywhere."""
    if processes().num_processes == 1:
        return list(values)
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    distributed.all_reduce(tensor)
    return [float(value) for value in tensor.cpu()]


def together(work: Callable[[], T]) -> T:
    """Do the same work in every process.

    Raises:
        EdpctError: in every process, where it failed in one; with the message of the first that it failed in.
    """
    if processes().num_processes == 1:
        return work()
    failed: EdpctError | None = None
    try:
        result = work()
    except EdpctError as error:
        failed = error
    raise_together(failed)
    return result


def raise_together(failed: EdpctError | None) -> None:
    """Raise in every process what failed in one; to be called by all.

    Raises:
        EdpctError: the process's own error, or a TrainingError with the words of the first that has one.
    """
    told = [words for words in gather_object([None if failed is None else (failed.what, failed.hint)]) if words]
    if failed is not None:
        raise failed
    if told:
        raise TrainingError(*told[0])


def from_main(work: Callable[[], T]) -> T:
    """What the main process's ``work`` returns, in every process; it must be picklable.

    Raises:
        EdpctError: the work failed.
    """
    state = processes()
    result = together(lambda: work() if state.is_main_process else None)
    if state.num_processes > 1:
        (result,) = broadcast_object_list([result])
    return result  # type: ignore[return-value]  # None only where the main process's takes its place


def share_out(count: int) -> range:
    """Which of ``count`` things of a batch are this process's: neighbours, as many as any other's or one more."""
    state = processes()
    first, last = ((index * count) // state.num_processes for index in (state.process_index, state.process_index + 1))
    return range(first, last)


def copy_from_main(model: nn.Module) -> None:
    """Give every process the main one's statistics; those of batch normalisation differ between CPU processes."""
    if processes().num_processes > 1:
        for buffer in model.buffers():
            distributed.broadcast(buffer, 0)


@contextmanager
def lost_processes_explained() -> Iterator[None]:
    """Turn what a collective says when another process is gone into one sentence.

    Raises:
        TrainingError: another process of the training ended.
    """
    try:
        yield
    except RuntimeError as error:
        gone = isinstance(error, distributed.DistError) or "gloo" in str(error) or "closed by peer" in str(error)
        if processes().num_processes == 1 or not gone:
            raise
        raise TrainingError("Another process of this training has ended.", "Its own message says why.") from error
