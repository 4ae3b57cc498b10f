"""What one thread hands to the next: in order and waiting for room, or the newest only."""

from __future__ import annotations

from collections import deque
from threading import Condition
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Inbox(Generic[Item]):
    """A bounded queue between two threads that either may end.

    Args:
        room: items it holds.
        newest: a full one drops its oldest item for a new one and counts it, where else the giver waits.

    Attributes:
        dropped: items that were overwritten before they were taken.
    """

    def __init__(self, room: int = 1, newest: bool = False) -> None:
        self._items: deque[Item] = deque()
        self._room, self._newest = room, newest
        self._changed = Condition()
        self._closed = False
        self.dropped = 0

    def put(self, item: Item) -> bool:
        """Add an item; False where nobody takes any more."""
        with self._changed:
            if self._newest:
                while len(self._items) >= self._room:
                    self._items.popleft()
                    self.dropped += 1
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._room)
            if self._closed:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def take(self, timeout: float | None = None) -> Item | None:
        """The oldest item; None once it is closed and empty, or after ``timeout`` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or bool(self._items), timeout)
            if not self._items:
                return None
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """No more will come; what is in it can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """Close it and throw away what is in it."""
        with self._changed:
            self._items.clear()
            self.close()
