"""What keeps a network that torch-pruning cannot follow from hanging the run: a time limit, and leaving parts out.

torch-pruning copies channel indices around every reshape; where reshapes form a cycle (attention over (B, C, H, W)),
the lists grow without end. ``time_limit`` stops that and names the module; ``left_out`` then hides it from the graph.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import difflib
import itertools
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch_pruning.dependency import Dependency, Group, Node

from edpct.errors import PruningError

SAMPLES = 9  # looks at the stack before naming a culprit: one alone may catch it next door
SAMPLE_SECONDS = 0.02
REPEAT_SECONDS = 1.0  # torch-pruning's bare except around the forward pass may swallow the first exception

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)  # these never reshape: whoever holds them does
# An exception that lands here is outside both the block and this file's handlers.
_EDGES = {getattr(contextlib._GeneratorContextManager, name).__code__ for name in ("__enter__", "__exit__")}


@contextlib.contextmanager
def time_limit(seconds: float, model: nn.Module) -> Iterator[None]:
    """Stop the code inside when it takes longer than ``seconds``, and name the part of ``model`` it was busy with.

    Works in any thread. The code is stopped between two Python instructions: one long call into C (a convolution, a
    blocking read) is finished first. What it was changing stays half changed: torch-pruning's hooks stay on the model.

    Raises:
        PruningError: it took longer.
    """
    watch = _Watch(seconds, model, sys._getframe(2))
    grad, cause = torch.is_grad_enabled(), None
    try:
        try:
            watch.start()
            yield
        finally:
            watch.ended = True  # first: Ctrl-C, or an outer limit, could interrupt the call
            watch.end()
    except watch.error:
        watch.end()  # it may have come in the middle of the first
    except Exception as error:
        if not watch.fired:
            raise
        cause = error
    if watch.fired:
        torch.set_grad_enabled(grad)  # a no_grad block may have been stopped on its way out
        raise watch.verdict() from cause


class _OutOfTime(BaseException):
    """Raised in the watched thread, never seen outside ``time_limit``; not an Exception, which code may catch."""


class _Watch:
    """A thread that raises ``error`` in the thread that made it, again and again until ``end``."""

    def __init__(self, seconds: float, model: nn.Module, top: FrameType) -> None:
        self.error: type[BaseException] = type("_OutOfTime", (_OutOfTime,), {})  # its own: limits may be nested
        self.fired = self.ended = False
        self._seconds, self._model, self._top, self._culprit = seconds, model, top, ""
        self._thread, self._over, self._lock = threading.current_thread(), threading.Event(), threading.Lock()

    def start(self) -> None:
        threading.Thread(target=self._watch, name="edpct-time-limit", daemon=True).start()

    def end(self) -> None:
        """Take back what has not been raised yet; nothing follows once ``ended`` is set and this returns."""
        with self._lock:
            self._throw(None)
        self._over.set()

    def verdict(self) -> PruningError:
        part, it = (f"'{self._culprit}'", "it") if self._culprit else ("the network", "what cannot be followed")
        what = f"Following the widths of {part} took longer than {self._seconds:g} s."
        leave = f"Leave {it} out with --leave-out {self._culprit or 'NAME'}"
        return PruningError(what, f"{leave}, or raise [prune] graph_seconds.")

    def _watch(self) -> None:
        if self._over.wait(self._seconds):
            return
        self._culprit = self._most_seen()
        wait = 0.0
        while not (self._over.wait(wait) or self.ended) and self._thread.is_alive():
            wait = REPEAT_SECONDS if self._fire() else SAMPLE_SECONDS

    def _fire(self) -> bool:
        with self._lock:
            stack = self._stack()
            if self.ended or (stack and stack[0].f_code in _EDGES):
                return False
            self.fired = True
            self._throw(self.error)
            return True

    def _throw(self, error: type[BaseException] | None) -> None:
        thrown = error and ctypes.py_object(error)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread.ident or 0), thrown)

    def _stack(self) -> list[FrameType]:
        """What runs inside the block now, innermost first."""
        frame, frames = sys._current_frames().get(self._thread.ident or 0), []
        while frame is not None and frame is not self._top:
            frames.append(frame)
            frame = frame.f_back
        return frames

    def _most_seen(self) -> str:
        seen: Counter[str] = Counter()
        modules = {name: module for name, module in self._model.named_modules() if name}
        for _ in range(SAMPLES):
            seen[_followed(self._stack(), modules)] += 1
            if self._over.wait(SAMPLE_SECONDS):
                break
        return max(filter(None, seen), key=seen.__getitem__, default="")


def _followed(frames: Sequence[FrameType], modules: dict[str, nn.Module]) -> str:
    """The module that these frames, innermost first, are busy with; empty where none says."""
    for frame in frames:
        name = _around(_nodes(frame), modules)
        if name:
            return name
    names = {module: name for name, module in modules.items()}
    held = (value for frame in frames for value in frame.f_locals.values() if isinstance(value, nn.Module))
    return next((names[module] for module in held if module in names), "")


def _nodes(frame: FrameType) -> tuple[Node, ...]:
    # The last one is the newest: torch-pruning's loop has `dep`, then `new_dep`. `_dep` runs over the whole group.
    found: tuple[Node, ...] = ()
    for name, value in list(frame.f_locals.items()):
        if isinstance(value, Dependency) and not name.startswith("_"):
            found = (value.source, value.target)
        elif isinstance(value, Node) and not found:
            found = (value,)
    return found


def _around(nodes: Sequence[Node], modules: dict[str, nn.Module]) -> str:
    """The module whose forward pass runs these operations: the parent of the modules right before and after them."""
    names = {module: name for name, module in modules.items()}
    before = {name for node in nodes for name in _nearest(node, "inputs", names)}
    after = {name for node in nodes for name in _nearest(node, "outputs", names)}
    parents = (_parent(before | after, modules), _parent(before, modules))
    return next((name for name in (*parents, *sorted(before), *sorted(after)) if name), "")


def _nearest(start: Node, direction: str, names: dict[nn.Module, str]) -> set[str]:
    found, todo = set[str](), [start]
    for node in todo:  # it grows meanwhile
        if node.module in names:
            found.add(names[node.module])
        else:
            todo += [other for other in getattr(node, direction) if other not in todo]
    return found


def _parent(names: set[str], modules: dict[str, nn.Module]) -> str:
    """The deepest module that holds all of these and computes something itself; empty where that is the network."""
    levels = zip(*(name.split(".")[:-1] for name in names), strict=False)
    shared = [parts[0] for parts in itertools.takewhile(lambda parts: len(set(parts)) == 1, levels)]
    while shared and type(modules[".".join(shared)]) in _CONTAINERS:
        shared.pop()
    return ".".join(shared)


# ---- leaving parts out


class Opaques:
    """What torch-pruning must be told about the modules that are left out.

    Attributes:
        customized_pruners: to be given to ``BasePruner`` or ``DependencyGraph.build_dependency``.
    """

    def __init__(self) -> None:
        self.customized_pruners: dict[type, tp.pruner.function.BasePruningFunc] = {_Leaf: _FixedWidth()}

    def touched(self, group: Group) -> bool:
        """Whether a group feeds, or is joined to, a module that is left out: its width must stay."""
        return any(isinstance(node.module, _Leaf) for dep, _ in group for node in (dep.source, dep.target))

    def held(self, graph: tp.DependencyGraph) -> list[nn.Module]:
        """The layers of a built graph whose output widths must stay: those of all groups that are touched."""
        groups = [group for group in graph.get_all_groups() if self.touched(group)]
        members = (dep for group in groups for dep, _ in group if graph.is_out_channel_pruning_fn(dep.handler))
        return [dep.target.module for dep in members if not isinstance(dep.target.module, (_Leaf, nn.Parameter))]


@contextlib.contextmanager
def left_out(model: nn.Module, names: Sequence[str]) -> Iterator[Opaques]:
    """Hide modules of ``model`` from torch-pruning while inside: they run, but the graph ends at their doors.

    Args:
        names: as in ``model.named_modules()``; one inside another is covered by the outer.

    Raises:
        PruningError: no such module, the network itself, or a list of modules without a forward pass of its own.
    """
    reals = {real: name for name, real in _resolve(model, names).items()}
    opaques = {real: _Opaque(name, real) for real, name in reals.items()}
    # Every place that holds it, not the name's alone: a shared module has several.
    places = [(holder, key, m) for holder in model.modules() for key, m in holder._modules.items() if m in opaques]
    try:
        for holder, key, real in places:
            holder._modules[key] = opaques[real]
        yield Opaques()
    finally:
        for holder, key, real in places:
            holder._modules[key] = real


def _resolve(model: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    modules = dict(model.named_modules(remove_duplicate=False))
    for name in names:
        if name not in modules:
            near = ", ".join(difflib.get_close_matches(name, modules, n=3, cutoff=0.4))
            raise PruningError(f"The network has no module '{name}'.", f"Did you mean {near}?" if near else "")
        if modules[name] is model:
            raise PruningError("The whole network cannot be left out of pruning.", "Name a module inside it.")
        if type(modules[name]).forward is nn.Module.forward:
            inside = ", ".join(f"{name}.{child}" for child, _ in modules[name].named_children())
            raise PruningError(f"'{name}' is a list of modules that is not run as one.", f"Leave out {inside}.")
    found = {name: modules[name] for name in names}
    inner = {module for outer in found.values() for module in outer.modules() if module is not outer}
    return {name: module for name, module in found.items() if module not in inner}


class _Link(torch.autograd.Function):
    """A copy of ``value`` that autograd believes was computed from ``sources``."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, *sources: Tensor) -> Tensor:
        return value.clone()


class _Leaf(nn.Module):
    """One tensor that enters or leaves a module that is left out: a node of torch-pruning's graph."""

    def __init__(self, shape: Sequence[int] = ()) -> None:
        super().__init__()
        axis = -1 if len(shape) in (1, 3) else 1  # tokens are (B, N, C), maps (B, C, ...)
        self.width = shape[axis] if shape else 1

    def forward(self, value: Tensor, *sources: Tensor) -> Tensor:
        return _Link.apply(value, *sources)


class _FixedWidth(tp.pruner.function.BasePruningFunc):
    """Tells torch-pruning a leaf's width, and refuses to change it."""

    def prune_out_channels(self, layer: nn.Module, idxs: Sequence[int]) -> nn.Module:
        what = "A layer next to a module that is left out of pruning was to change its width."
        raise PruningError(what, "Leave that layer out too with --leave-out.")

    def prune_in_channels(self, layer: nn.Module, idxs: Sequence[int]) -> nn.Module:
        # Not the same function: torch-pruning would take what goes in and what comes out for one width.
        return self.prune_out_channels(layer, idxs)

    def get_out_channels(self, layer: _Leaf) -> int:
        return layer.width

    get_in_channels = get_out_channels


class _InsideError(PruningError, AttributeError):
    """The network reaches into a module that is left out; an AttributeError too, so that ``hasattr`` works."""


class _Opaque(nn.Module):
    """Stands in for a module: runs it unrecorded, and ties what goes in to what comes out with leaves.

    Every tensor of every call has a leaf of its own, so widths may differ and the module may be called twice.
    """

    def __init__(self, name: str, real: nn.Module) -> None:
        super().__init__()
        self._name = name
        self._real = (real,)  # in a tuple: torch-pruning must not find what is in it among the network's modules
        self._leaf = _Leaf()  # never called: torch-pruning puts its hook on it, and the leaves of a call share that
        self.training = real.training

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._run(self._real[0], args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name in self._modules:
            return self._modules[name]
        value = getattr(self._real[0], name)
        if isinstance(value, (nn.Module, nn.Parameter)):
            what = f"The network uses '{self._name}.{name}' directly, so '{self._name}' cannot be left out."
            raise _InsideError(what, "Leave out the module around it.")
        return (lambda *args, **kwargs: self._run(value, args, kwargs)) if callable(value) else value

    def _run(self, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self.training:  # torch-pruning's model.eval() does not reach it
            self._real[0].eval()
        with torch.no_grad():
            result = method(*args, **kwargs)
        inputs = {id(x): x for x in _tensors((args, kwargs)) if x.requires_grad}.values()
        return self._tie(result, [self._node(x, x.new_zeros(()), x) for x in inputs])

    def _node(self, like: Tensor, value: Tensor, *sources: Tensor) -> Tensor:
        leaf = _Leaf(like.shape)
        leaf._forward_hooks = self._leaf._forward_hooks
        return leaf(value, *sources)

    def _tie(self, value: Any, doors: list[Tensor]) -> Any:
        if isinstance(value, Tensor):
            # One more source that needs a gradient: torch-pruning cannot hold a tensor that has no grad_fn.
            anchor = torch.zeros((), device=value.device, requires_grad=True)
            return self._node(value, value, anchor, *doors) if value.is_floating_point() else value
        if isinstance(value, (tuple, list)):
            parts = [self._tie(part, doors) for part in value]
            return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
        if isinstance(value, dict):
            tied = copy.copy(value)
            for key, part in value.items():
                tied[key] = self._tie(part, doors)
            return tied
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        what = f"'{self._name}' returns a {type(value).__name__}, not tensors, so it cannot be left out."
        raise PruningError(what, "Leave out the module around it.")


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else ()
    return [tensor for part in parts for tensor in _tensors(part)]
