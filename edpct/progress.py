"""How long work tells the person who waits how far it is: a protocol, and an implementation that says nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Update = Callable[[int, str], None]
"""Called with the number of units done and a short note (loss, mIoU); the note may be empty."""


class Progress(Protocol):
    """Where a stage reports to."""

    def task(self, title: str, total: int, start: int = 0) -> AbstractContextManager[Update]:
        """A bar of ``total`` units that begins at ``start``."""
        ...

    def say(self, text: str) -> None:
        """One line that stays on the screen."""
        ...


class Silent:
    """Reports to nobody."""

    @contextmanager
    def task(self, title: str, total: int, start: int = 0) -> Iterator[Update]:
        yield lambda done, note: None

    def say(self, text: str) -> None:
        pass
