"""A network of another package inside one wrapper, so that everything after it sees logits at the image's size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from edpct.errors import CheckpointError

if TYPE_CHECKING:
    from edpct.models.architecture import Architecture

LOGITS = "logits"
TRIAL_SIZES = (64, 256)  # pixels; the smaller is faster, and some networks need the larger


class Tap(NamedTuple):
    """Where an inner map is read: the path of a module, and whether its input or its output is meant."""

    path: str
    reads_input: bool = False


class Foreign(nn.Module):
    """A segmentation network of any package.

    Input (B, 3, H, W), float; output logits (B, num_classes, H, W).

    Attributes:
        network: the network itself.
        architecture: what it is built from.
        TAPS: names of the maps that distillation may tap; empty where none are known.
    """

    def __init__(self, network: nn.Module, architecture: Architecture, taps: Mapping[str, Tap]) -> None:
        super().__init__()
        self.network = network
        self.architecture = architecture
        self.taps = dict(taps)  # paths, not modules: a deep copy must listen to its own
        self.TAPS = tuple(taps)

    def forward(self, image: Tensor) -> Tensor:
        logits = logits_of(self.network(image))
        if logits.shape[-2:] != image.shape[-2:]:
            logits = F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False)
        return logits

    def features(self, image: Tensor) -> dict[str, Tensor]:
        """The maps of :attr:`TAPS`, each (B, C, H / s, W / s), and the logits (B, num_classes, H, W) as "logits"."""
        with self._listening() as found:
            logits = self(image)
        return {**{name: found[name] for name in self.TAPS}, LOGITS: logits}

    def classify(self, features: dict[str, Tensor]) -> Tensor:
        """Logits (B, num_classes, H, W) of what :meth:`features` returned."""
        return features[LOGITS]

    @contextmanager
    def _listening(self) -> Iterator[dict[str, Tensor]]:
        found: dict[str, Tensor] = {}

        def reader(name: str, reads_input: bool) -> Any:
            # Read at once: smp's UPerNet overwrites its encoder's list of maps later.
            def read(module: nn.Module, args: Any, output: Any) -> None:
                found[name] = _deepest(args if reads_input else output)

            return read

        handles = [
            self.network.get_submodule(tap.path).register_forward_hook(reader(name, tap.reads_input))
            for name, tap in self.taps.items()
        ]
        try:
            yield found
        finally:
            for handle in handles:
                handle.remove()


def _deepest(maps: Any) -> Tensor:
    """The last map of what an encoder gives: a tensor, maps by name ("out", if there is one), or maps in a row."""
    if isinstance(maps, Mapping):
        maps = maps["out"] if "out" in maps else list(maps.values())
    if isinstance(maps, (list, tuple)):
        if isinstance(maps[0], (list, tuple)):  # smp's vision transformers give maps and class tokens
            maps = maps[0]
        return _deepest(maps[-1])
    return maps


def logits_of(output: Any) -> Tensor:
    """The logits (B, C, h, w) in what a segmentation network returns.

    Taken is a tensor, "out" or "logits" of a mapping, the attribute ``logits``, or the first of a tuple or list.

    Raises:
        CheckpointError: there is no such thing in it.
    """
    found = output
    if isinstance(output, Mapping):
        found = output.get("out", output.get(LOGITS))
    elif isinstance(output, (list, tuple)) and not hasattr(output, LOGITS):
        found = output[0] if output else None
    elif not isinstance(output, Tensor):
        found = getattr(output, LOGITS, None)
    if isinstance(found, Tensor):
        return found
    raise CheckpointError(
        f"The network returns {describe(output)}, in which edpct finds no logits.",
        'Let it return logits (B, classes, h, w), or a dict that has them under "out".',
    )


def describe(output: Any) -> str:
    """What a network returned, in words for a message."""
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)} and type {str(output.dtype).removeprefix('torch.')}"
    if isinstance(output, Mapping):
        return f"a {type(output).__name__} with the keys {', '.join(map(str, output)) or 'none'}"
    if isinstance(output, (list, tuple)):
        first = f" that begins with {describe(output[0])}" if output else ""
        return f"a {type(output).__name__} of {len(output)}{first}"
    return f"an object of type {type(output).__name__}"
