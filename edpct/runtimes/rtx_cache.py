"""The kernels that TensorRT for RTX compiles when an engine is opened, kept so that the next opening is quicker.

Compiled kernels are code, so they never lie beside a plan and do not travel with it: they are kept in the user's own
cache folder, under the plan's hash. TensorRT checks them against GPU, driver and version, and refuses others.

Source: NVIDIA TensorRT for RTX, Inference Library, "Working with Runtime Cache".
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import Any


def cache_path(plan: bytes) -> Path:
    """Where the kernels of a plan are kept: ``$XDG_CACHE_HOME/edpct/rtx/<sha256>.cache``."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "edpct" / "rtx" / f"{hashlib.sha256(plan).hexdigest()}.cache"


class RuntimeCache:
    """The compiled kernels of one engine; call everything with the GPU's context current.

    Args:
        engine: a deserialised engine of TensorRT for RTX.
        path: file to take the kernels from, if it is there, and to keep them in.

    Attributes:
        warm: whether TensorRT took what the file held.
    """

    def __init__(self, engine: Any, path: Path) -> None:
        self._path = path
        self._config = engine.create_runtime_config()
        self._cache = self._config.create_runtime_cache()
        try:
            self.warm = bool(self._cache.deserialize(path.read_bytes()))
        except OSError:
            self.warm = False  # the first time
        self._config.set_runtime_cache(self._cache)

    def create_execution_context(self, engine: Any) -> Any:
        """A context whose kernels come from this cache, and go into it."""
        return engine.create_execution_context(self._config)

    def save(self) -> None:
        """Keep the kernels for the next opening; where that cannot be done, it compiles them again, and no more."""
        if self.warm:
            return
        partial = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(bytes(self._cache.serialize()))
            partial.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink()

    def close(self) -> None:
        """Let go of TensorRT's objects, before the engine goes."""
        self._cache = self._config = None
