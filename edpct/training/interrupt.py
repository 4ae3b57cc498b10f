"""Ctrl-C between two steps, never inside one: a half-done step must not end up in a resume point."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupts_held() -> Iterator[Callable[[], bool]]:
    """Hold the first SIGINT and yield a function that says whether there was one; a second one is not held.

    Outside the main thread, where Python delivers no signals, nothing is held.
    """
    held = False

    def hold(number: int, frame: FrameType | None) -> None:
        nonlocal held
        if held:
            raise KeyboardInterrupt
        held = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: held
        return
    before = signal.signal(signal.SIGINT, hold)
    try:
        yield lambda: held
    finally:
        signal.signal(signal.SIGINT, before)
