"""Refusing work on the workstation's side before it starts where its packages are not installed."""

from __future__ import annotations

import importlib.util

from edpct.errors import MissingPackageError

COMPRESS_PACKAGES = (
    "torch", "torchvision", "accelerate", "torch_pruning", "onnx", "onnxscript", "onnxsim", "nncf", "safetensors",
    "onnxruntime",
)  # fmt: skip


def require_compress(purpose: str) -> None:
    """Check that everything training and compression import is there, importing none of it.

    Raises:
        MissingPackageError: names the first that is missing.
    """
    for package in COMPRESS_PACKAGES:
        require(package, purpose, "compress")


def require(package: str, purpose: str, extra: str) -> None:
    """Check that a package is there without importing it.

    Raises:
        MissingPackageError: it is not.
    """
    if importlib.util.find_spec(package) is None:
        raise MissingPackageError(package, purpose, extra)
