"""The kernels of TensorRT for RTX between two openings, on made TensorRT objects with the real ones' names."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

from edpct.runtimes import rtx_cache
from edpct.runtimes.rtx_cache import RuntimeCache, cache_path


class Cache:
    """Takes blobs of this machine only."""

    def __init__(self) -> None:
        self.kernels = b""

    def deserialize(self, blob: bytes) -> bool:
        if not blob.startswith(b"this machine"):
            return False
        self.kernels = blob
        return True

    def serialize(self) -> bytes:
        return self.kernels or b"this machine: compiled now"


class Config:
    def __init__(self) -> None:
        self.set: Cache | None = None

    def create_runtime_cache(self) -> Cache:
        return Cache()

    def set_runtime_cache(self, cache: Cache) -> bool:
        self.set = cache
        return True


class Engine:
    def create_runtime_config(self) -> Config:
        return Config()

    def create_execution_context(self, config: Config) -> Config:
        return config


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "a.cache"


def test_the_second_opening_finds_what_the_first_compiled(path: Path) -> None:
    first = RuntimeCache(Engine(), path)
    assert not first.warm and not path.exists()
    first.save()
    assert path.read_bytes() == b"this machine: compiled now"
    second = RuntimeCache(Engine(), path)
    assert second.warm
    context = second.create_execution_context(Engine())
    assert context.set.kernels == b"this machine: compiled now"
    assert [file.name for file in path.parent.iterdir()] == ["a.cache"]


def test_kernels_of_another_machine_are_replaced(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"another GPU")
    cache = RuntimeCache(Engine(), path)
    assert not cache.warm
    cache.save()
    assert path.read_bytes().startswith(b"this machine")


def test_what_was_found_is_not_written_again(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this machine: former")
    cache = RuntimeCache(Engine(), path)
    path.unlink()
    cache.save()
    assert not path.exists()


def test_where_nothing_can_be_written_nothing_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = RuntimeCache(Engine(), tmp_path / "file" / "a.cache")
    cache.save()
    assert not cache.warm


def test_kernels_lie_in_the_users_cache_under_the_plans_hash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_path(b"a plan").parent == tmp_path / "edpct" / "rtx"
    assert cache_path(b"a plan") != cache_path(b"another plan")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_path(b"a plan").parent == Path.home() / ".cache" / "edpct" / "rtx"


def test_tensorrt_for_rtx_has_all_that_is_called() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    owners = {"engine": trt.ICudaEngine, "_config": trt.IRuntimeConfig, "_cache": trt.IRuntimeCache}
    called = [
        (ast.unparse(node.value).removeprefix("self."), node.attr)
        for node in ast.walk(ast.parse(inspect.getsource(rtx_cache)))
        if isinstance(node, ast.Attribute)
    ]
    touched = [(owner, name) for owner, name in called if owner in owners]
    assert {name for _, name in touched} >= {
        "create_runtime_config",
        "create_runtime_cache",
        "deserialize",
        "serialize",
    }
    assert all(hasattr(owners[owner], name) for owner, name in touched), touched
