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


def compare_widths(before: dict[str, int], model: nn.Module, exempt: set[str]) -> tuple[LayerWidth, ...]:
    """Widths of all layers before and now.

    Args:
        before: what :func:`output_widths` said of the unpruned network.
        exempt: layers whose width is fixed by the task (the classifier).

    Raises:
        PruningError: a whole part of the network (its top-level module) did not shrink although all of the rest did.
    """
    rows = tuple(LayerWidth(name, before[name], after) for name, after in output_widths(model).items())
    parts: dict[str, list[LayerWidth]] = {}
    for row in rows:
        if row.layer not in exempt:
            parts.setdefault(row.layer.split(".")[0], []).append(row)
    for part, layers in parts.items():
        if all(layer.after >= layer.before for layer in layers):
            raise PruningError(
                f"Pruning left the part '{part}' of the network as wide as it was.",
                "Lower [prune] round_to, or keep fewer MACs.",
            )
    return rows
