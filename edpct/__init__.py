"""edpct: a segmentation teacher in, a small and measured engine out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edpct.predict.segmenter import Segmenter

__version__ = "0.1.0"
__all__ = ["Segmenter", "__version__"]


def __getattr__(name: str) -> Any:
    """``from edpct import Segmenter``: imported when it is asked for, so that ``import edpct`` stays quick."""
    if name != "Segmenter":
        raise AttributeError(f"module 'edpct' has no attribute '{name}'")
    import importlib

    return importlib.import_module("edpct.predict.segmenter").Segmenter
