"""The guard: a graph that never ends is stopped and its module named; what is left out no longer hinders the rest."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
import torch
import torch_pruning as tp
from torch import Tensor, nn

from edpct.errors import PruningError
from edpct.pruning import guard
from edpct.pruning.guard import Opaques, left_out, time_limit

IMAGE = torch.zeros(1, 3, 32, 32)


class MapAttention(nn.Module):
    """Attention over (B, C, H, W) whose reshapes torch-pruning follows for ever."""

    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.kv = nn.Conv2d(width, width, 1), nn.Conv2d(width, 2 * width, 1)
        self.norm, self.proj = nn.BatchNorm2d(width), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q = self.q(x).reshape(b, self.heads, c // self.heads, -1)
        k, v = self.kv(x).reshape(b, 2, self.heads, c // self.heads, -1).unbind(1)
        weights = (q.transpose(-2, -1) @ k).softmax(-1)
        return self.proj(self.norm((v @ weights.transpose(-2, -1)).reshape(b, c, h, w)))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.attention = MapAttention(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return x + self.attention(x)


class Net(nn.Module):
    """conv, attention, conv, conv, head; the two in the middle can always be pruned."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.a, self.b, self.head = nn.Conv2d(16, 32, 3), nn.Conv2d(32, 24, 3), nn.Conv2d(24, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(self.a(self.encoder(x)).relu()).relu())


def pruner_of(model: nn.Module, opaques: Opaques | None = None, image: object = IMAGE) -> tp.pruner.BasePruner:
    return tp.pruner.BasePruner(
        model,
        image,
        importance=tp.importance.GroupMagnitudeImportance(),
        pruning_ratio=0.5,
        out_channel_groups={},
        customized_pruners=opaques.customized_pruners if opaques else None,
    )


def prune(model: nn.Module, names: list[str], keep: list[nn.Module], image: object = IMAGE) -> None:
    with left_out(model, names) as opaques, time_limit(20, model):
        pruner = pruner_of(model, opaques, image)
        pruner.ignored_layers += [*keep, *opaques.held(pruner.DG)]
        pruner.step()


def widths(model: nn.Module) -> dict[str, int]:
    return {n: m.weight.shape[0] for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}


# ---- the time limit


def test_a_graph_that_never_ends_is_stopped_and_its_module_named() -> None:
    model, start = Net(), time.perf_counter()
    with pytest.raises(PruningError) as caught, time_limit(1.0, model):
        pruner_of(model)
    assert time.perf_counter() - start < 5
    assert caught.value.what == "Following the widths of 'encoder.attention' took longer than 1 s."
    assert "--leave-out encoder.attention, or raise [prune] graph_seconds" in caught.value.hint


def test_it_works_in_another_thread_and_leaves_the_rest_alone() -> None:
    caught: list[BaseException] = []

    def follow() -> None:
        try:
            with time_limit(0.5, model):
                pruner_of(model)
        except BaseException as error:
            caught.append(error)

    model = Net()
    thread = threading.Thread(target=follow)
    thread.start()
    thread.join(20)
    assert [type(error) for error in caught] == [PruningError] and "'encoder.attention'" in str(caught[0])


def test_a_forward_pass_that_hangs_is_named_though_torch_pruning_catches_everything_around_it() -> None:
    class Slow(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            end = time.monotonic() + 5
            while time.monotonic() < end:
                pass
            return x

    model = nn.Sequential(nn.Conv2d(3, 4, 1), Slow())
    start = time.perf_counter()
    with pytest.raises(PruningError, match=r"of '1' took longer than 0\.2 s"), time_limit(0.2, model):
        pruner_of(model)
    assert time.perf_counter() - start < 4


def test_nothing_known_is_said_as_such() -> None:
    with pytest.raises(PruningError, match=r"of the network took.*--leave-out NAME"), time_limit(0.05, Net()):
        while True:
            pass


def test_what_takes_no_longer_passes_and_its_own_errors_do_too() -> None:
    with time_limit(60, Net()):
        pass
    with pytest.raises(ZeroDivisionError), time_limit(60, Net()):
        raise ZeroDivisionError
    with pytest.raises(KeyboardInterrupt), time_limit(60, Net()):
        raise KeyboardInterrupt


def test_an_error_that_the_stop_was_turned_into_is_not_what_the_user_sees() -> None:
    with pytest.raises(PruningError, match="took longer") as caught, time_limit(0.05, Net()):
        try:
            time.sleep(0.6)
        except BaseException as stop:
            raise ValueError("no such shape") from stop
    assert isinstance(caught.value.__cause__, ValueError)


def test_of_two_limits_the_one_that_is_over_speaks() -> None:
    for outer, inner in ((0.1, 60.0), (60.0, 0.1)):
        with pytest.raises(PruningError, match=r"than 0\.1 s"), time_limit(outer, Net()), time_limit(inner, Net()):
            while True:
                pass


def test_a_block_that_ends_as_the_time_does_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "SAMPLES", 0)  # no looking around first: the stop comes at the end of the time
    stopped = 0
    for trial in range(160):  # a thread gets its turn within 5 ms: blocks end before, at and after the stop
        end = time.monotonic() + 0.002 + trial % 20 * 0.0005
        try:
            with time_limit(0.002, nn.Identity()):
                while time.monotonic() < end:
                    pass
        except PruningError:
            stopped += 1
        for _ in range(2000):  # a stray exception would come here
            pass
    time.sleep(0.1)
    assert stopped > 0 and "edpct-time-limit" not in {thread.name for thread in threading.enumerate()}


# ---- leaving parts out


def test_the_rest_is_pruned_and_the_network_runs_with_the_attention_back() -> None:
    model, start = Net().eval(), time.perf_counter()
    attention, before = model.encoder.attention, widths(model)
    prune(model, ["encoder.attention"], [model.head])
    assert time.perf_counter() - start < 2
    assert model.encoder.attention is attention and "encoder.attention.q" in dict(model.named_modules())
    assert widths(model) == before | {"a": 16, "b": 12}
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 5, 12, 12)


def test_groups_that_touch_it_are_told_from_those_that_do_not() -> None:
    model = Net()
    with left_out(model, ["encoder.attention"]) as opaques:
        graph = pruner_of(model, opaques).DG
        touched = {}
        for group in list(graph.get_all_groups()):
            touched[graph._module2name[group[0].dep.target.module]] = opaques.touched(group)
            if not opaques.touched(group) and group[0].dep.target.module is model.a:
                group.prune(list(range(8)))
    assert touched == {"encoder.stem": True, "a": False, "b": False, "head": False}
    assert model.a.out_channels == model.b.in_channels == 24 and model.eval()(IMAGE).shape == (1, 5, 12, 12)


def test_a_width_that_must_stay_cannot_be_changed_by_mistake() -> None:
    model = Net()
    with left_out(model, ["encoder.attention"]) as opaques, pytest.raises(PruningError, match="was to change"):
        pruner_of(model, opaques).step()


def test_left_out_modules_keep_their_statistics() -> None:
    model = Net().train()
    mean = model.encoder.attention.norm.running_mean.clone()
    prune(model, ["encoder.attention"], [model.head])
    assert torch.equal(model.encoder.attention.norm.running_mean, mean)


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(12, 12)

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        grid = self.q(tokens).transpose(1, 2).reshape(tokens.shape[0], -1, height, width)
        return grid.flatten(2).transpose(1, 2)


class TokenNet(nn.Module):
    """Embedding, mixing of tokens (B, N, C) at a size given as integers, an MLP beside it, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix = nn.Linear(3, 12), Tokens()
        self.fc1, self.fc2, self.head = nn.Linear(12, 32), nn.Linear(32, 12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x.flatten(2).transpose(1, 2))
        tokens = tokens + self.mix(tokens, x.shape[2], width=x.shape[3])
        return self.head(tokens + self.fc2(self.fc1(tokens).relu()))


class Fusion(nn.Module):
    """Two tensors of different widths in; a tuple with a dict and an index out, of other widths."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 2.0
        self.left, self.right = nn.Conv2d(8, 10, 1), nn.Conv2d(6, 14, 1)

    def forward(self, x: Tensor, other: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        return self.left(x), {"right": self.right(other["y"])}, x.argmax(1)

    def alone(self, x: Tensor) -> Tensor:
        return self.left(x)


class FusionNet(nn.Module):
    """The fusion is called three times, once by another method; its second output is concatenated with a free width."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.y, self.free = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 6, 1), nn.Conv2d(3, 8, 1)
        self.fusion, self.beside = Fusion(), nn.Conv2d(3, 10, 1)
        self.head = nn.Conv2d(22, 5, 1)
        self.small = nn.Conv2d(10, 5, 1)

    def forward(self, image: Tensor) -> Tensor:
        x, y = self.x(image), self.y(image)
        left, others, index = self.fusion(x, other={"y": y})
        left = self.fusion(x * self.fusion.scale, {"y": y})[0] + left + self.fusion.alone(x) + self.beside(image)
        out = self.head(torch.cat([self.free(image), others["right"]], 1)) + self.small(left)
        return out + index.unsqueeze(1)


@pytest.mark.parametrize(
    ("build", "name", "free"),
    [(TokenNet, "mix", {"fc1": 16}), (FusionNet, "fusion", {"free": 4})],
    ids=["tokens", "fusion"],
)
def test_any_arguments_and_outputs_are_followed_up_to_the_door(
    build: Callable[[], nn.Module], name: str, free: dict[str, int]
) -> None:
    model = build().eval()
    before, image = widths(model), torch.randn(2, 3, 8, 8)
    inside = {n: w for n, w in before.items() if n.startswith(name)}
    with left_out(model, [name]), torch.no_grad():
        assert torch.equal(model(image), build_back(model, name)(image))
    prune(model, [name], [model.head], (image,))
    assert widths(model) == before | free | inside
    assert model(image).shape[0] == 2


def build_back(model: nn.Module, name: str) -> nn.Module:
    """The same network with its own module in place."""
    own = next(iter(getattr(model, name)._real))
    copy = type(model)().eval()
    for child, module in model.named_children():
        setattr(copy, child, own if child == name else module)
    return copy


def test_an_image_goes_straight_in_and_a_shared_module_is_hidden_everywhere() -> None:
    shared = nn.Conv2d(3, 8, 3, padding=1)
    model = nn.Sequential(shared, nn.Conv2d(8, 3, 1), nn.Sequential(shared), nn.Conv2d(8, 16, 1), nn.Conv2d(16, 2, 1))
    prune(model, ["2.0"], [model[4]])
    assert [m.out_channels for m in (shared, model[1], model[3])] == [8, 3, 8]
    assert model(torch.randn(1, 3, 8, 8)).shape == (1, 2, 8, 8)
    assert model[0] is model[2][0] is shared


def test_of_nested_names_the_outer_covers_the_inner_and_all_come_back_after_an_error() -> None:
    model = Net()
    encoder, attention = model.encoder, model.encoder.attention
    with pytest.raises(ZeroDivisionError), left_out(model, ["encoder.attention", "encoder", "b"]):
        assert model.encoder is not encoder and encoder.attention is attention and not isinstance(model.b, nn.Conv2d)
        raise ZeroDivisionError
    assert model.encoder is encoder and isinstance(model.b, nn.Conv2d)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("encoder.atention", r"no module 'encoder\.atention'\. Did you mean encoder\.attention"),
        ("", "whole network"),
        ("blocks", r"list of modules.*Leave out blocks\.0, blocks\.1"),
    ],
)
def test_names_that_cannot_be_left_out_are_refused(name: str, says: str) -> None:
    model = Net()
    model.blocks = nn.ModuleList([nn.Identity(), nn.Identity()])
    with pytest.raises(PruningError, match=says), left_out(model, [name]):
        pass


def test_reaching_into_it_and_outputs_that_are_no_tensors_are_refused() -> None:
    model = Net()
    with left_out(model, ["encoder.attention"]):
        assert model.encoder.attention.heads == 2 and not hasattr(model.encoder.attention, "qkv")
        with pytest.raises(PruningError, match=r"uses 'encoder\.attention\.proj' directly"):
            model.encoder.attention.proj(IMAGE)
    model.encoder.attention.forward = lambda x: object()
    with left_out(model, ["encoder.attention"]) as opaques, pytest.raises(PruningError, match="returns a object"):
        pruner_of(model, opaques)
