"""Structured pruning toward a budget of MACs, parameters or channels. torch-pruning does the dependency graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import nn

from edpct.errors import PruningError
from edpct.models.architecture import count_macs, count_parameters
from edpct.progress import Progress
from edpct.pruning.criteria import NEED_GRADIENTS, Batch, accumulate_gradients, scorer
from edpct.pruning.graph import PruningGraph
from edpct.pruning.plan import Plan, Planner, meet
from edpct.pruning.widths import LayerWidth, compare_widths, output_widths
from edpct.recipe import PruneSettings

TITLES = {"macs": "MACs", "params": "parameters", "ratio": "channels"}


@dataclass(frozen=True)
class Budget:
    """How much of a network is left.

    Attributes:
        kind: ``macs`` or ``params`` to keep at most (a share up to 1, or a count), or ``ratio``: share of every
            layer's channels that goes.
    """

    kind: str
    amount: float

    def of(self, whole: float) -> float:
        """The count that is meant, for a network that has ``whole``."""
        return self.amount * whole if self.amount <= 1 else self.amount

    def text(self) -> str:
        if self.amount <= 1:
            return f"{self.amount:.1%} of the {TITLES[self.kind]}"
        return f"{self.amount / 1e9:.3g} GMACs" if self.kind == "macs" else f"{self.amount / 1e6:.3g} M parameters"


@dataclass(frozen=True)
class Pruned:
    """A pruned network.

    Attributes:
        macs, teacher_macs: multiply-accumulates at the task's size.
        kept: channels that each part of each group kept, by the group's name.
        widths: every layer before and after.
    """

    model: nn.Module
    macs: int
    teacher_macs: int
    parameters: int
    teacher_parameters: int
    kept: Plan
    widths: tuple[LayerWidth, ...]


@dataclass
class Pruner:
    """Narrower copies of one network; its graph is followed and its channels are scored once.

    Args:
        model: DP-CTNet or any other network; it is not changed.
        size: height and width that MACs are counted at.
        batches: single images and their labels, for criteria that need gradients.
        ignore_index: label of those that is not counted.
        floors: least share of channels to keep, by the group's name.

    Raises:
        PruningError: the network cannot be followed.
    """

    model: nn.Module
    settings: PruneSettings
    size: tuple[int, int]
    progress: Progress
    batches: Iterable[Batch] = ()
    ignore_index: int = 255
    seed: int = 0
    floors: Mapping[str, float] = field(default_factory=dict)
    graph: PruningGraph = field(init=False)
    planner: Planner = field(init=False)
    _costs: dict[frozenset[tuple[str, int]], dict[str, int]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        asked = self.settings
        if asked.criterion in NEED_GRADIENTS:
            accumulate_gradients(self.model, asked.criterion, self.batches, self.ignore_index)
        try:
            score = scorer(asked.criterion, self.seed)
            self.graph = PruningGraph(self.model, score, asked.leave_out, asked.graph_seconds)
        finally:
            self.model.zero_grad(set_to_none=True)
        self.planner = Planner(self.graph.groups, asked.scope, asked.width_step, self.floors)

    def to(self, budget: Budget) -> Pruned:
        """The widest network within a budget.

        Raises:
            PruningError: the narrowest network is over it, or a layer did not become as narrow as it was to.
        """
        if budget.kind == "ratio":
            return self.by(self.planner.at(1 - budget.amount))
        whole = self.cost(budget.kind, {})
        limit = budget.of(whole)
        with self.progress.task("Pruning", 1) as update:

            def cost(plan: Plan) -> float:
                found = self.cost(budget.kind, plan)
                update(0, f"{found / whole:.1%} of the {TITLES[budget.kind]}")
                return found

            plan = meet(self.planner, cost, limit)
            update(1, "")
        if plan is None:
            least = self.cost(budget.kind, self.planner.narrowest()) / whole
            raise PruningError(
                f"No pruning reaches {budget.text()}: the narrowest network, with widths in steps of "
                f"{self.settings.width_step}, keeps {least:.1%}.",
                "Let more of it stay, "
                + ("leave out fewer modules, " if self.settings.leave_out else "")
                + "or lower [prune] round_to.",
            )
        return self.by(plan)

    def by(self, plan: Plan) -> Pruned:
        """The network with these widths.

        Raises:
            PruningError: a layer did not become as narrow as it was to.
        """
        pruned = self.graph.prune(plan)
        narrower = {
            layer
            for group in self.graph.groups
            if plan.get(group.name, group.width) < group.width
            for layer in group.layers
        }
        widths = compare_widths(output_widths(self.model), pruned, narrower)
        with _run():
            macs = count_macs(pruned, *self.size)
        return Pruned(
            pruned, macs, self.cost("macs", {}),
            count_parameters(pruned), self.cost("params", {}), plan, widths,
        )  # fmt: skip

    def cost(self, kind: str, plan: Plan) -> int:
        """MACs or parameters of the network with these widths (groups that are not named keep theirs)."""
        key = frozenset(plan.items())
        if key not in self._costs:
            shapes = self.graph.prune(plan, weights=False)
            with _run():
                self._costs[key] = {"macs": count_macs(shapes, *self.size), "params": count_parameters(shapes)}
        return self._costs[key][kind]


@contextmanager
def _run() -> Iterator[None]:
    """Around a run of a narrower network: a width that is a constant of its code shows there."""
    try:
        yield
    except Exception as error:  # each network fails in its own way
        raise PruningError(
            f"The pruned network does not run: {' '.join(str(error).split())[:200].rstrip('.')}.",
            "Part of it counts on a fixed width; name that module with --leave-out.",
        ) from error


def prune_by_ratio(model: nn.Module, ratio: float, settings: PruneSettings, progress: Progress) -> nn.Module:
    """A copy of ``model`` with this share of every layer's channels removed, least important first."""
    return Pruner(model, settings, (64, 64), progress).to(Budget("ratio", ratio)).model
