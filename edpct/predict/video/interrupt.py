"""Ctrl-C as a wish to end, and not as an exception in the middle of something."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Asked:
    """Whether somebody has asked to end."""

    def __init__(self) -> None:
        self.to_end = False


@contextmanager
def interrupts_ask() -> Iterator[Asked]:
    """Signals that would raise KeyboardInterrupt set :attr:`Asked.to_end`, so that no file is left half finished.

    Only Python's own handler is replaced, and only in the main thread; elsewhere nothing changes.
    """
    asked = Asked()

    def ask(number: int, frame: object) -> None:
        asked.to_end = True

    main = threading.current_thread() is threading.main_thread()
    ours = [one for one in SIGNALS if main and signal.getsignal(one) is signal.default_int_handler]
    for one in ours:
        signal.signal(one, ask)
    try:
        yield asked
    finally:
        for one in ours:
            signal.signal(one, signal.default_int_handler)
