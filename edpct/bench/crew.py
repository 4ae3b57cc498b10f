"""The worker processes of a bench, seen from the process that leads it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing import Pipe
from typing import Any

from typing_extensions import Self

from edpct.bench.latency import Flow, Turn, WarmUp
from edpct.bench.report.schema import Scope
from edpct.bench.scoring import Scores
from edpct.bench.worker import Job, Opened
from edpct.data.samples import Dataset
from edpct.errors import EngineError

# Python 3.10 knows no PYTHONSAFEPATH: the first entry, the current folder, has to go by hand.
_START = "import sys; sys.path = [*filter(None, sys.path)]; from edpct.bench.worker import serve"
_LAST_WORDS = 5.0  # seconds that a worker has to free what it holds


class Member:
    """One worker process. Leaving its ``with`` block ends it.

    Every order raises EngineError where the worker refuses it, or has died.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._connection, theirs = Pipe()
        # Its standard output is ours for errors: what libraries print there must not mix with the table.
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"{_START}; serve({theirs.fileno()})"],
            pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=2,
            start_new_session=True,  # Ctrl-C is for this process, which then ends the worker
            env=_environment(),
        )  # fmt: skip
        theirs.close()

    def open(self) -> Opened:
        self._tell(self._job)  # now that it reads: the images are more than a pipe holds
        opened: Opened = self._ask("open")
        return opened

    def warm_up(self, limit: float) -> WarmUp:
        """Infer until the rate is steady, for ``limit`` seconds at most."""
        found: WarmUp = self._ask("warm_up", limit=limit)
        return found

    def turn(self, scope: Scope, seconds: float, least: int, settle: bool) -> Turn:
        """Time one scope; with ``settle``, after a short warm-up that is not counted."""
        found: Turn = self._ask("turn", scope=scope, seconds=seconds, least=least, settle=settle)
        return found

    def flow(self, seconds: float) -> Flow:
        """Time all streams at once."""
        found: Flow = self._ask("flow", seconds=seconds)
        return found

    def peak(self) -> int:
        """The worker's peak memory since it began to open the engine, bytes."""
        return int(self._ask("peak"))

    def score(self, dataset: Dataset, progress: Callable[[int], None]) -> Scores:
        """Accuracy over the val split; ``progress`` is called with the number of windows done."""
        found: Scores = self._ask("score", progress, dataset=dataset)
        return found

    def _tell(self, message: Any) -> None:
        try:
            self._connection.send(message)
        except OSError:
            raise self._died() from None

    def _ask(self, order: str, progress: Callable[[int], None] | None = None, **settings: Any) -> Any:
        self._tell((order, settings))
        while True:
            try:
                kind, value = self._connection.recv()
            except (EOFError, OSError):
                raise self._died() from None
            if kind == "progress" and progress is not None:
                progress(value)
            elif kind == "refused":
                raise EngineError(*value)
            elif kind == "bug":
                raise RuntimeError(f"The worker of {self._job.path.name} on {self._job.runtime} failed:\n{value}")
            elif kind == "done":
                return value

    def _died(self) -> EngineError:
        try:
            code = self._process.wait(_LAST_WORDS)
        except subprocess.TimeoutExpired:  # it closed the pipe and lives on
            self.kill()
            code = -signal.SIGKILL
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return EngineError(
            f"{self._job.path.name} on {self._job.runtime}: its process ended {how}.",
            "Memory may have run out, or the runtime failed on this engine; try another with --runtime.",
        )

    def close(self) -> None:
        """End the process, gently first."""
        try:
            self._connection.send(None)
            self._process.wait(_LAST_WORDS)
        except (OSError, subprocess.TimeoutExpired):
            pass
        finally:
            self.kill()

    def kill(self) -> None:
        """End the process at once."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.kill()


def _environment() -> dict[str, str]:
    """The modules that this process sees, and not those that lie by chance in the current folder."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONSAFEPATH": "1"}
