"""The width of every layer before and after pruning: the proof that it pruned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import nn

from edpct.errors import PruningError


@dataclass(frozen=True)
class LayerWidth:
    """Output channels of one layer before and after.

    Attributes:
        path: the part of the network that it is in ("CNN", "transformer", "encoder", …).
    """

    layer: str
    path: str
    before: int
    after: int


def output_widths(model: nn.Module) -> dict[str, int]:
    """Output channels of every convolution and Linear, by module name."""
    found: dict[str, int] = {}
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)):
            found[name] = module.out_channels
        elif isinstance(module, nn.Linear):
            found[name] = module.out_features
    return found


def path_of(model: nn.Module, layer: str) -> str:
    """The part of a network that a layer is in: what the network itself says, else its outermost named module."""
    parts = layer.split(".")
    named: Mapping[str, str] = getattr(model, "PATHS", {})
    if parts[0] in named:
        return named[parts[0]]
    return parts[1] if parts[0] == "network" and len(parts) > 1 else parts[0]


def compare_widths(before: Mapping[str, int], model: nn.Module, asked: set[str]) -> tuple[LayerWidth, ...]:
    """Widths of all layers before and now.

    Args:
        before: what :func:`output_widths` said of the unpruned network.
        asked: layers that were to become narrower.

    Raises:
        PruningError: one of those did not.
    """
    rows = tuple(
        LayerWidth(name, path_of(model, name), before[name], after) for name, after in output_widths(model).items()
    )
    for row in rows:
        if row.layer in asked and row.after >= row.before:
            raise PruningError(
                f"Pruning left the layer '{row.layer}' as wide as it was ({row.before} channels).",
                f"Leave it out with --leave-out {row.layer}, and please report the network.",
            )
    return rows


def widths_of_paths(rows: Iterable[LayerWidth]) -> dict[str, tuple[int, int]]:
    """Channels before and after, all layers of a path together."""
    found: dict[str, tuple[int, int]] = {}
    for row in rows:
        before, after = found.get(row.path, (0, 0))
        found[row.path] = (before + row.before, after + row.after)
    return found
