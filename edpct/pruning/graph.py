"""What may become narrower together: torch-pruning's dependency graph of one network, seen as named groups."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from edpct.errors import PruningError
from edpct.models.blocks import HeadedAttention
from edpct.pruning.criteria import Scorer
from edpct.pruning.guard import Opaques, left_out, time_limit

TRACE_SIZE = 64  # widths do not depend on the image's size, and a small one is traced faster
ROOTS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear)


@dataclass(frozen=True)
class Group:
    """Channels that can only go together, in all the layers that share them.

    Attributes:
        name: the layer that torch-pruning reaches the group by.
        layers: layers whose outputs become narrower with it.
        parts: heads of an attention, groups of a grouped convolution, else 1; all parts keep the same channels.
        scores: importance of the channels of one part, shape (width,).
        kind: equal for groups of the same shape of dependencies.
        headed: whether the parts are attention heads, each of which is a matrix product by itself.
    """

    name: str
    layers: tuple[str, ...]
    parts: int
    scores: Tensor
    kind: str
    headed: bool = False

    @property
    def width(self) -> int:
        """Channels of one part."""
        return len(self.scores)


class PruningGraph:
    """The groups of a network and narrower copies of it.

    Args:
        model: any network whose Linears of an attention are told by :class:`HeadedAttention`; it is not changed.
        score: the importance of a group's channels; called once for each.
        leave_out: modules that stay as they are.
        seconds: time limit on following the widths.

    Attributes:
        groups: all that may become narrower.
        outputs: layers that give the logits; they keep their width.

    Raises:
        PruningError: the network cannot be followed, in time or at all.
    """

    def __init__(self, model: nn.Module, score: Scorer, leave_out: Sequence[str] = (), seconds: float = 60.0) -> None:
        self._model = model
        self._leave_out = tuple(leave_out)
        self._seconds = seconds
        self.outputs: tuple[str, ...] = ()
        if next(model.parameters(), None) is None:
            raise PruningError("The network has no weights, so nothing of it can be pruned.", "Check --model.")
        with self._traced(model, score) as traced:
            self.outputs = traced.output_layers()
        with self._traced(model, score) as traced:
            self.groups = tuple(traced.groups())
            self._names = tuple(traced.name_of(raw) for raw in traced.raw)
        if not self.groups:
            hint = "Leave out fewer modules." if self._leave_out else "It has too few layers to prune."
            raise PruningError("The network has no layer that can become narrower.", hint)
        self._shapes: nn.Module | None = copy.deepcopy(model).to("meta")

    def prune(self, kept: Mapping[str, int], *, weights: bool = True) -> nn.Module:
        """A copy of the network in which every named group keeps so many channels of each part, the important ones.

        Args:
            kept: channels by the group's name; groups that are not named stay.
            weights: False: a copy on the ``meta`` device, which has shapes only and is made ten times as fast, where
                the network can be followed there.
        """
        if not weights and self._shapes is not None:
            try:
                return self._narrower(self._shapes, kept)
            except PruningError:  # some networks make tensors on the CPU while they run
                self._shapes = None
        return self._narrower(self._model, kept)

    def _narrower(self, source: nn.Module, kept: Mapping[str, int]) -> nn.Module:
        with self._traced(source, torch.ones) as traced:
            raw = dict(zip(self._names, traced.raw, strict=True))
            for group in self.groups:
                if kept.get(group.name, group.width) < group.width:
                    traced.narrow(group, raw[group.name], kept[group.name])
        return traced.model

    @contextmanager
    def _traced(self, model: nn.Module, score: Scorer) -> Iterator[_Traced]:
        network = _copy(model)
        with left_out(network, self._leave_out) as opaques:
            with time_limit(self._seconds, network):
                traced = _Traced(network, score, self.outputs, opaques)
            yield traced


class _Traced:
    """One copy of the network with torch-pruning's graph over it."""

    def __init__(self, model: nn.Module, score: Scorer, outputs: tuple[str, ...], opaques: Opaques) -> None:
        self.model, self.score, self.opaques = model, score, opaques
        self.names = {module: name for name, module in model.named_modules()}
        self.order = {name: position for position, name in enumerate(self.names.values())}
        self.outputs = [model.get_submodule(name) for name in outputs]
        self.heads, self.parts = heads_of(model), _parts(model)
        image = torch.zeros(1, 3, TRACE_SIZE, TRACE_SIZE, device=next(model.parameters()).device)
        try:
            self.graph = tp.DependencyGraph().build_dependency(
                model, image, customized_pruners=opaques.customized_pruners
            )
            groups = list(self.graph.get_all_groups(self.outputs, ROOTS))
            self.raw = [part for group in groups for part in self._split(self._rooted(group))]
        except (RuntimeError, ValueError, KeyError, AttributeError, IndexError, TypeError, AssertionError) as error:
            raise PruningError(
                f"The widths of the network cannot be followed: {type(error).__name__}: {error}.",
                "Name the module that does it with --leave-out.",
            ) from error

    def groups(self) -> Iterator[Group]:
        """All groups in the order of the network, but those that touch what is left out or cannot be narrowed."""
        for raw in self.raw:
            parts = self._parts_of(raw)
            if not self.opaques.touched(raw) and not self._fixed(raw) and len(raw[0].idxs) % parts == 0:
                scores = self.score(raw)
                layers = tuple(dict.fromkeys(self.names[module] for module in self._narrowed(raw)))
                yield Group(
                    self.name_of(raw), layers, parts, scores.view(parts, -1).mean(0), self._kind(raw), self._headed(raw)
                )

    def output_layers(self) -> tuple[str, ...]:
        """Layers with widths that nothing but operations without widths separates from the network's output."""
        nodes = [node for node in self.graph.module2node.values() if not node.outputs]
        seen, found = set(nodes), []
        while nodes:
            node = nodes.pop()
            if isinstance(node.module, ROOTS):
                found.append(self.names[node.module])
                continue
            fresh = set(node.inputs) - seen
            seen |= fresh
            nodes.extend(fresh)
        return tuple(sorted(found))

    def narrow(self, group: Group, raw: Any, kept: int) -> None:
        """Remove the least important channels of a group from every layer that has them."""
        weakest = group.scores.argsort(stable=True)[: group.width - kept]
        indices = torch.cat([weakest + part * group.width for part in range(group.parts)]).sort().values.tolist()
        dependency = raw[0].dep
        self.graph.get_pruning_group(dependency.target.module, dependency.handler, indices).prune()

    def _rooted(self, raw: Any) -> Any:
        """An attention's group is reached from the layer behind it: from there alone torch-pruning maps indices."""
        if not self._headed(raw):
            return raw
        behind = [
            (dependency, indices)
            for dependency, indices in raw
            if isinstance(dependency.target.module, ROOTS) and self.graph.is_in_channel_pruning_fn(dependency.handler)
        ]
        if not behind:
            return raw
        dependency, indices = behind[-1]
        return self.graph.get_pruning_group(dependency.target.module, dependency.handler, indices)

    def _split(self, raw: Any) -> list[Any]:
        """A group over a concatenation, taken apart into the layers that are concatenated.

        A depthwise convolution behind it ties them together; ranked together, one of them could lose all its channels.
        """
        if self._parts_of(raw) > 1:
            return [raw]
        smaller = [module for module in self._narrowed(raw) if self._outputs_of(module) < len(raw[0].idxs)]
        found: list[Any] = []
        covered: set[nn.Module] = set()
        for module in smaller:
            if module not in covered:
                prune = self.graph.get_pruner_of_module(module).prune_out_channels
                part = self.graph.get_pruning_group(module, prune, list(range(self._outputs_of(module))))
                covered |= set(self._narrowed(part))
                found += self._split(part)
        return found or [raw]

    def _outputs_of(self, module: nn.Module) -> int:
        return int(self.graph.get_out_channels(module))

    def _narrowed(self, raw: Any) -> Iterator[nn.Module]:
        """Layers of :data:`ROOTS` whose outputs a group is of."""
        for dependency, _ in raw:
            if isinstance(dependency.target.module, ROOTS) and self.graph.is_out_channel_pruning_fn(dependency.handler):
                yield dependency.target.module

    def _parts_of(self, raw: Any) -> int:
        """Equal parts that a group's channels come in; what flows into the Linears of an attention is not in heads."""
        return math.lcm(
            *(
                self.parts.get(dependency.target.module, 1)
                for dependency, _ in raw
                if not isinstance(dependency.target.module, nn.Linear)
                or self.graph.is_out_channel_pruning_fn(dependency.handler)
            )
        )

    def _headed(self, raw: Any) -> bool:
        return any(module in self.heads for module in self._narrowed(raw))

    def _fixed(self, raw: Any) -> bool:
        """Whether a grouped convolution of a kind that torch-pruning narrows wrongly is among a group's layers."""
        return any(_wrongly_narrowed(dependency.target.module) for dependency, _ in raw)

    def name_of(self, raw: Any) -> str:
        """The first of the group's narrowest layers: of a concatenation's parts, each has another."""
        narrowed = [(self._outputs_of(module), self.order[self.names[module]]) for module in self._narrowed(raw)]
        return list(self.order)[min(narrowed)[1]]

    def _kind(self, raw: Any) -> str:
        """As torch-pruning tells isomorphic groups apart: by the types of layers and the sides they are cut at."""
        return " ".join(
            f"{type(dependency.source.module).__name__}-{type(dependency.target.module).__name__}-"
            f"{'out' if self.graph.is_out_channel_pruning_fn(dependency.handler) else 'in'}"
            for dependency, _ in raw
        )


def heads_of(model: nn.Module) -> dict[nn.Module, int]:
    """Linears whose outputs are split into heads, with the number of heads."""
    found: dict[nn.Module, int] = {}
    for module in model.modules():
        if isinstance(module, HeadedAttention):
            found |= module.headed()
    return found


def _parts(model: nn.Module) -> dict[nn.Module, int]:
    """Layers whose channels come in equal parts: heads, and groups of convolutions that are not depthwise."""
    found = heads_of(model)
    for module in model.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) and 1 < module.groups < module.out_channels:
            found[module] = module.groups
        elif isinstance(module, nn.GroupNorm) and module.num_groups < module.num_channels:
            found[module] = module.num_groups
    return found


def _wrongly_narrowed(module: nn.Module) -> bool:
    """Grouped: transposed, or with one input or one output a group and several of the other. Not: depthwise."""
    if not isinstance(module, torch.nn.modules.conv._ConvNd) or module.groups == 1:
        return False
    if module.in_channels == module.out_channels == module.groups:  # depthwise
        return False
    return module.transposed or module.groups in (module.in_channels, module.out_channels)


def _copy(model: nn.Module) -> nn.Module:
    """A copy in eval mode whose every parameter asks for a gradient: torch-pruning follows the gradient's graph."""
    copied = copy.deepcopy(model).eval()
    for (_, parameter), (_, original) in zip(copied.named_parameters(), model.named_parameters(), strict=True):
        parameter.requires_grad_(True)
        parameter.grad = None if original.grad is None else original.grad.clone()
    return copied
