"""A user's own function that builds a network. It is code, so it runs only where somebody said that it may.

A checkpoint names the factory that made its network; a checkpoint of a stranger must not choose what is imported here.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from edpct.errors import CheckpointError
from edpct.models.foreign import TRIAL_SIZES, describe, logits_of
from edpct.models.zoo import first_line

# An environment variable, so that the processes that this one starts trust what it trusts.
TRUST_VARIABLE = "EDPCT_TRUST_FACTORIES"
WRITING_ONE = "The factory is to take num_classes and to return a torch.nn.Module."


class FactoryConfig(BaseModel):
    """A function that builds a network, as ``package.module:function``, and the logits' channels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    factory: str = Field(pattern=r"^[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*$")
    num_classes: int = Field(ge=2, le=255)


def trust(factory: str) -> None:
    """Allow this process, and those that it starts, to import and call ``package.module:function``."""
    if not is_trusted(factory):
        os.environ[TRUST_VARIABLE] = ",".join(filter(None, [os.environ.get(TRUST_VARIABLE), factory]))


def is_trusted(factory: str) -> bool:
    """Whether :func:`trust` was called for it here or in a parent process, or the user's environment names it."""
    return factory in [name.strip() for name in os.environ.get(TRUST_VARIABLE, "").split(",")]


def build_from_factory(config: FactoryConfig) -> nn.Module:
    """The network that the factory returns, in float32 on the CPU, tried on one black image.

    Raises:
        CheckpointError: not trusted, cannot be imported or called, or what it returns is no segmentation network.
    """
    name = config.factory
    if not is_trusted(name):
        raise CheckpointError(
            f"The network was made by the factory {name}, which would run code.",
            f"If you trust it: --model {name}, or set {TRUST_VARIABLE}={name}.",
        )
    network = _call(_find(name), name, config.num_classes)
    if not isinstance(network, nn.Module):
        raise CheckpointError(f"The factory {name} returns {describe(network)}, no torch.nn.Module.", WRITING_ONE)
    network = network.to("cpu", torch.float32)
    _try_out(network, name, config.num_classes)
    if odd := [key for key, value in network.state_dict().items() if not isinstance(value, Tensor)]:
        raise CheckpointError(
            f"The network of {name} keeps '{odd[0]}' in its state_dict, which is no tensor.",
            "Keep there only parameters and buffers.",
        )
    return network


def _find(name: str) -> Callable[..., Any]:
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # at the end: a file of the user's must not stand in for an installed package
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever the user's module raises, a script's exit included
        raise CheckpointError(
            f"The module {module_name} of the factory {name} cannot be imported ({first_line(error)}).",
            f"It is looked for among the installed packages and in {here}.",
        ) from error
    where = getattr(module, "__file__", None) or "a module without a file"
    if not hasattr(module, attribute):
        raise CheckpointError(
            f"The module {module_name} ({where}) has no '{attribute}'.", "Name it as package.module:function."
        )
    found = getattr(module, attribute)
    if not callable(found):
        raise CheckpointError(f"{name} ({where}) is no function but {describe(found)}.", WRITING_ONE)
    return found  # type: ignore[no-any-return]


def _call(factory: Callable[..., Any], name: str, num_classes: int) -> Any:
    args, keywords = _arguments(factory, num_classes)
    try:
        return factory(*args, **keywords)
    except (Exception, SystemExit) as error:
        raise CheckpointError(f"The factory {name} failed ({first_line(error)}).", WRITING_ONE) from error


def _arguments(factory: Callable[..., Any], num_classes: int) -> tuple[tuple[int, ...], dict[str, int]]:
    """How a factory is told the classes: by name, else as its one required parameter, else not at all."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # written in C
        return (num_classes,), {}
    by_name = [p for p in ("num_classes", "classes") if p in parameters]
    if by_name and parameters[by_name[0]].kind is not inspect.Parameter.POSITIONAL_ONLY:
        return (), {by_name[0]: num_classes}
    kinds = {p.kind for p in parameters.values()}
    # A first parameter with a default is a setting, such as a width, that must not be given the classes.
    if any(p.default is p.empty and p.kind <= p.VAR_POSITIONAL for p in parameters.values()):
        return (num_classes,), {}
    return (), {"num_classes": num_classes} if inspect.Parameter.VAR_KEYWORD in kinds else {}


def _try_out(network: nn.Module, name: str, num_classes: int) -> None:
    """Check that the network gives logits."""
    training = network.training
    output, size = _run(network.eval(), name)
    network.train(training)
    try:
        logits = logits_of(output)
    except CheckpointError as error:
        raise CheckpointError(f"The network of {name} returns {describe(output)}, no logits.", error.hint) from error
    if logits.dim() != 4 or logits.shape[:2] != (1, num_classes) or not logits.is_floating_point():
        raise CheckpointError(
            f"The network of {name} returns {describe(logits)} for one image of {size}x{size} pixels, "
            f"not logits (1, {num_classes}, h, w).",
            f"It is to have one channel for each of the {num_classes} classes, and no softmax or argmax at its end.",
        )


def _run(network: nn.Module, name: str) -> tuple[Any, int]:
    for size in TRIAL_SIZES:
        try:
            with torch.no_grad():
                return network(torch.zeros(1, 3, size, size)), size
        except Exception as error:  # whatever a network raises at a size that it does not take
            if size == TRIAL_SIZES[-1]:
                raise CheckpointError(
                    f"The network of {name} cannot run on an image of {size}x{size} pixels ({first_line(error)}).",
                    "It is to take images (B, 3, H, W), float32, normalised.",
                ) from error
    raise AssertionError("unreachable")
