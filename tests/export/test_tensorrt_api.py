"""Every attribute of TensorRT that edpct touches exists: in 10 (its stubs), 11 (its bindings), and for RTX (itself).

TensorRT 10 and 11 cannot be installed without NVIDIA's own index and a GPU; their stubs and bindings can, and lie in
``.venv/tensorrt-api``. mypy checks the calls against the stubs as well (see ``mypy_path`` in pyproject.toml).
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
API = ROOT / ".venv" / "tensorrt-api" / "tensorrt_bindings"
SOURCES = ("edpct/export/tensorrt_builder.py", "edpct/runtimes/tensor_rt.py")
# Objects by the name that they have in our sources, where no annotation says what they are.
OBJECTS = {
    "inner": "ICudaEngine",
    "_execution": "IExecutionContext",
    "_deserialiser": "Runtime",
    "engine": "ICudaEngine",
}
OURS = {"inner", "trt", "log", "cuda", "name", "runtime", "details", "on_gpu", "refused", "close"}  # of our own _Engine


class Touched(ast.NodeVisitor):
    """Attributes of the module (``trt.A.B``) and of its objects (class, attribute) in one source."""

    def __init__(self) -> None:
        self.of_module: set[tuple[str, ...]] = set()
        self.of_objects: set[tuple[str, str]] = set()
        self._types = dict(OBJECTS)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._remember(_name(node.target), node.annotation)
        self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> None:
        self._remember(node.arg, node.annotation)

    def _remember(self, name: str, annotation: ast.AST | None) -> None:
        for part in ast.walk(annotation) if annotation is not None else ():
            if isinstance(part, ast.Attribute) and _name(part.value) == "tensorrt":
                self._types[name] = part.attr

    def visit_Attribute(self, node: ast.Attribute) -> None:
        chain = _chain(node)
        if "trt" in chain[:-1]:
            self.of_module.add(tuple(chain[chain.index("trt") + 1 :]))
        elif (owner := self._types.get(chain[-2])) is not None and chain[-1] not in OURS - {"name"}:
            self.of_objects.add((owner, chain[-1]))
        self.generic_visit(node)


def _chain(node: ast.AST) -> list[str]:
    """``a.b.c`` as its names; what is no name is empty."""
    if isinstance(node, ast.Attribute):
        return [*_chain(node.value), node.attr]
    return [node.id] if isinstance(node, ast.Name) else [""]


def _name(node: ast.AST) -> str:
    return _chain(node)[-1]


@pytest.fixture(scope="module")
def touched() -> Touched:
    found = Touched()
    for source in SOURCES:
        tree = ast.parse((ROOT / source).read_text(encoding="utf-8"))
        for function in tree.body:  # names mean something within a function or class only
            found._types = dict(OBJECTS)
            found.visit(function)
    return found


def test_the_sources_were_read(touched: Touched) -> None:
    assert {("Builder",), ("Runtime",), ("ILogger",), ("TensorIOMode", "INPUT")} <= touched.of_module
    assert {
        ("Builder", "build_serialized_network"), ("IBuilderConfig", "set_memory_pool_limit"), ("ParserError", "desc"),
        ("IExecutionContext", "execute_async_v3"), ("IExecutionContext", "set_tensor_address"),
        ("ICudaEngine", "get_tensor_profile_shape"), ("Runtime", "deserialize_cuda_engine"),
        ("IOptimizationProfile", "set_shape"), ("ILayer", "get_input"),
    } <= touched.of_objects  # fmt: skip
    assert len(touched.of_module) > 15 and len(touched.of_objects) > 35


# ---- version 10: NVIDIA's stubs


def _stubs() -> dict[str, set[str]]:
    """Class to attributes, inherited ones included, of TensorRT 10; nested classes under their own names."""
    path = API / "tensorrt.pyi"
    if not path.exists():
        pytest.skip("the stubs of TensorRT 10 are not here; make setup fetches them")
    members: dict[str, set[str]] = {}
    bases: dict[str, list[str]] = {}

    def read(node: ast.ClassDef) -> None:
        names = members.setdefault(node.name, set())
        bases[node.name] = [_name(base) for base in node.bases]
        for part in node.body:
            if isinstance(part, ast.FunctionDef):
                names.add(part.name)
            elif isinstance(part, ast.AnnAssign):
                names.add(_name(part.target))
            elif isinstance(part, ast.Assign):
                names.update(_name(target) for target in part.targets)
            elif isinstance(part, ast.ClassDef):
                names.add(part.name)
                read(part)

    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            read(node)
    for name in members:
        for base in bases[name]:
            members[name] |= members.get(base, set())
    return members


def test_all_of_it_is_in_tensorrt_10(touched: Touched) -> None:
    classes = _stubs()
    package = (API.parent / "tensorrt" / "__init__.pyi").read_text(encoding="utf-8")
    for chain in sorted(touched.of_module):
        if chain[0] in ("__version__", "nptype"):
            assert chain[0] in package
        else:
            assert chain[0] in classes, chain
            assert len(chain) == 1 or chain[1] in classes[chain[0]] | {"__init__"}, chain
    for owner, attribute in sorted(touched.of_objects):
        assert attribute in classes[owner], f"{owner}.{attribute} is not in TensorRT 10"


# ---- version 11: the names that its bindings register


def test_all_of_it_is_in_tensorrt_11(touched: Touched) -> None:
    path = API / "tensorrt.so"
    if not path.exists():
        pytest.skip("the bindings of TensorRT 11 are not here; make setup fetches them")
    library = path.read_bytes()
    wrapper = (API / "__init__.py").read_text(encoding="utf-8")
    pairs = touched.of_module | touched.of_objects
    for name in sorted({name for pair in pairs for name in pair} - {"__version__", "__init__"}):
        # Ends with it, since the linker keeps a string that ends another one only once.
        assert name.encode() + b"\0" in library or f"def {name}(" in wrapper, f"{name} is not in TensorRT 11"
    assert b"PREFER_PRECISION_CONSTRAINTS\0" not in library  # what 11 dropped is not found either


# ---- for RTX: the package itself


def test_what_is_asked_of_tensorrt_for_rtx_is_in_it(touched: Touched) -> None:
    rtx: Any = pytest.importorskip("tensorrt_rtx")
    for chain in sorted(touched.of_module):
        found = rtx
        for name in chain:
            found = getattr(found, name)
    for owner, attribute in sorted(touched.of_objects):
        assert hasattr(getattr(rtx, owner), attribute), f"{owner}.{attribute}"
