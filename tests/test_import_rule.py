"""Imports run one way, and what flies pulls in no torch: read from the source, so that no import has to run."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "edpct"
FILES = sorted(PACKAGE.rglob("*.py"))

# From the top to the bottom; a part may import what stands lower, and itself.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("cli",),
    ("package", "run"),
    ("bench", "distillation", "export", "predict", "pruning"),
    ("training",),  # a stage too, but its loop and its loss are what distillation is built of
    ("archive",),
    ("runtimes",),  # its torch row rebuilds a checkpoint
    ("data", "models"),
    ("card",),
    ("recipe",),
    ("task",),
    ("errors", "progress", "weights"),
)
LAYER_OF = {part: depth for depth, parts in enumerate(LAYERS) for part in parts}

HEAVY = {
    "accelerate", "nncf", "onnx", "onnxruntime", "onnxscript", "onnxsim", "openvino", "pycuda", "safetensors",
    "segmentation_models_pytorch", "sklearn", "tensorrt", "tensorrt_rtx", "timm", "torch", "torch_pruning",
    "torchvision",
}  # fmt: skip
# What a drone imports, as paths inside the package; the torch session is the workstation's.
LIGHT = ("data/", "runtimes/", "bench/", "predict/", "archive/", "package/", "cli/", "recipe/", "weights/",
         "task.py", "card.py", "errors.py", "progress.py",
         "run/folder.py", "run/plan.py", "run/__init__.py", "__init__.py")  # fmt: skip
NOT_LIGHT = ("runtimes/torch_network.py",)
LIGHTWEIGHT = {"numpy", "PIL", "pydantic", "rich", "tomli", "typer", "typing_extensions"}


@dataclass(frozen=True)
class Import:
    """One import: the dotted module, its line, and whether it runs as soon as the file is imported."""

    module: str
    line: int
    at_once: bool


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}


def imports_of(source: str) -> list[Import]:
    return list(_walk(ast.parse(source), at_once=True))


def _walk(node: ast.AST, at_once: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, at_once) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "relative imports are not used here, and this reader does not resolve them"
            yield Import(child.module or "", child.lineno, at_once)
            # "from edpct.run import plan" names a module, not only a name inside one.
            for alias in child.names:
                if f"{child.module}.{alias.name}" in MODULES:
                    yield Import(f"{child.module}.{alias.name}", child.lineno, at_once)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for kept in child.body:
                yield from _walk(ast.Module([kept], []), at_once=False)
            for other in child.orelse:
                yield from _walk(ast.Module([other], []), at_once)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _walk(child, at_once and not inside)


IMPORTS = {name: imports_of(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def part_of(module: str) -> str:
    """``edpct.run.plan`` is of the part ``run``; the package itself is of none."""
    return module.split(".")[1] if "." in module else ""


def upward(name: str, imports: list[Import]) -> list[str]:
    """The imports of a module that go against the rule."""
    own = part_of(name)
    wrong = []
    for found in imports:
        other = part_of(found.module)
        if not found.module.startswith("edpct.") or other == own or other == "__version__":
            continue
        if LAYER_OF[other] <= LAYER_OF[own]:
            wrong.append(f"{name}:{found.line} imports {found.module}")
    return wrong


def is_light(name: str) -> bool:
    path = MODULES[name].relative_to(PACKAGE).as_posix()
    return path.startswith(LIGHT) and path not in NOT_LIGHT


def test_every_part_has_its_place() -> None:
    parts = {part_of(name) for name in MODULES} - {"", "__main__"}
    assert parts == set(LAYER_OF), "a new part needs a row in LAYERS, and a part that is gone loses its row"


@pytest.mark.parametrize("name", sorted(name for name in MODULES if part_of(name) not in ("", "__main__")))
def test_imports_run_one_way(name: str) -> None:
    assert upward(name, IMPORTS[name]) == []


def test_the_rule_sees_an_import_inside_a_function() -> None:
    hidden = "def f():\n    if True:\n        from edpct.run.plan import Stage\n"
    assert upward("edpct.data.tiling", imports_of(hidden)) == ["edpct.data.tiling:3 imports edpct.run.plan"]
    assert upward("edpct.bench.report", imports_of("import edpct.export.fp16"))  # stages do not know each other
    assert not upward("edpct.cli.build", imports_of(hidden))


def test_no_module_imports_another_in_a_circle() -> None:
    """Within a part, too: at import time the files make a tree without loops."""
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way, name))
        if name in done:
            return
        for found in IMPORTS[name]:
            if found.at_once and found.module in MODULES and found.module not in ("edpct", name):
                visit(found.module, (*way, name))
        done.add(name)

    for name in MODULES:
        visit(name, ())


@pytest.mark.parametrize("name", sorted(filter(is_light, MODULES)))
def test_what_flies_imports_nothing_heavy(name: str) -> None:
    """Neither itself nor through another of our files."""
    reached, open_names = {name: (name,)}, [name]
    while open_names:
        current = open_names.pop()
        for found in IMPORTS[current]:
            way = " -> ".join((*reached[current], f"{found.module} (line {found.line})"))
            if found.at_once:
                assert found.module.split(".")[0] not in HEAVY, way
                if found.module in MODULES and found.module not in reached:
                    reached[found.module] = (*reached[current], found.module)
                    open_names.append(found.module)


def test_what_flies_imports_only_what_pip_install_edpct_brings() -> None:
    allowed = LIGHTWEIGHT | {"edpct"} | set(sys.stdlib_module_names)
    for name in filter(is_light, MODULES):
        for found in IMPORTS[name]:
            if found.at_once:
                assert found.module.split(".")[0] in allowed, f"{name}:{found.line} imports {found.module}"


def test_the_reader_tells_module_level_from_later() -> None:
    text = (
        "import torch\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import onnx\n"
        "class A:\n    import nncf\ndef f():\n    import timm\ntry:\n    import accelerate\nexcept ImportError: pass\n"
    )
    at_once = {found.module for found in imports_of(text) if found.at_once}
    assert at_once == {"torch", "typing", "nncf", "accelerate"}
    assert {found.module for found in imports_of(text) if not found.at_once} == {"onnx", "timm"}
