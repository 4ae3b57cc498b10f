"""How fast it goes: frames a second, and how old a picture is when it is done."""

from __future__ import annotations

from array import array

import numpy as np

RECENT = 30  # pictures that the numbers on the screen are of
SECONDS_BETWEEN_NUMBERS = 0.5  # on the screen; faster, nobody can read them


class Meter:
    """Filled by one thread; others may read.

    Attributes:
        latencies: seconds from a frame's stamp to its finished picture.
    """

    def __init__(self) -> None:
        self.latencies = array("d")
        self._done = array("d")
        self._first = 0.0
        self._line, self._written = "", 0.0

    def add(self, stamp: float, now: float) -> None:
        """A picture of a frame taken at ``stamp`` is done; times of ``time.perf_counter``."""
        if not self._done:
            self._first = stamp
        self._done.append(now)
        self.latencies.append(now - stamp)

    @property
    def frames(self) -> int:
        return len(self.latencies)

    @property
    def seconds(self) -> float:
        """From the first frame taken to the last picture done."""
        return self._done[-1] - self._first if self._done else 0.0

    def percentile(self, share: float) -> float:
        """Of all latencies, in milliseconds; ``share`` 0..100."""
        return float(np.percentile(self.latencies, share)) * 1000 if self.latencies else 0.0

    def numbers(self, dropped: int) -> str:
        """FPS and latency of the last pictures, and the frames dropped so far, as one line."""
        done, latencies = self._done[-RECENT:], self.latencies[-RECENT:]
        parts = [f"{dropped} dropped"]
        if latencies:
            parts.insert(0, f"{float(np.median(latencies)) * 1000:.0f} ms")
        if len(done) > 1 and done[-1] > done[0]:
            parts.insert(0, f"{(len(done) - 1) / (done[-1] - done[0]):.1f} FPS")
        return ", ".join(parts)

    def line(self, dropped: int, now: float) -> str:
        """The same, renewed at a pace that can be read."""
        if not self._line or now - self._written >= SECONDS_BETWEEN_NUMBERS:
            self._line, self._written = self.numbers(dropped), now
        return self._line
