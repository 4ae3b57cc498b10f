"""The width of every layer before and after pruning: the proof that it pruned."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from edpct.errors import PruningError


@dataclass(frozen=True)
class LayerWidth:
    """Output channels of one layer before and after."""

    layer: str
    before: int
    after: int


def output_widths(model: nn.Module) -> dict[str, int]:
    """Output channels of every convolution and Linear, by module name."""
    found: dict[str, int] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            found[name] = module.out_channels
        elif isinstance(module, nn.Linear):
            found[name] = module.out_features
    return found


def compare_widths(before: dict[str, int], model: nn.Module, asked: set[str]) -> tuple[LayerWidth, ...]:
    """Widths of all layers before and now.

    Args:
        before: what :func:`output_widths` said of the unpruned network.
        asked: layers that were to become narrower.

    Raises:
        PruningError: one of those did not.
    """
    rows = tuple(LayerWidth(name, before[name], after) for name, after in output_widths(model).items())
    for row in rows:
        if row.layer in asked and row.after >= row.before:
            raise PruningError(
                f"Pruning left the layer '{row.layer}' as wide as it was ({row.before} channels).",
                "Please report the network; torch-pruning does not follow it.",
            )
    return rows
