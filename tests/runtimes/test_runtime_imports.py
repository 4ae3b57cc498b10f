"""What flies imports no torch, and no runtime before one is opened."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import edpct.runtimes

HEAVY = ("torch", "onnx", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "pycuda")
FILES = sorted(path.stem for path in Path(edpct.runtimes.__path__[0]).glob("*.py"))
LIGHT = [name for name in FILES if name not in ("torch_network", "__init__")]


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_brings_in_no_runtime() -> None:
    modules = ", ".join(f"edpct.runtimes.{name}" for name in LIGHT)
    assert run_python(f"import sys, {modules}; print(*(set({HEAVY}) & set(sys.modules)))") == ""


def test_even_the_torch_row_imports_torch_only_when_opened() -> None:
    assert run_python(f"import sys, edpct.runtimes.torch_network; print(*(set({HEAVY}) & set(sys.modules)))") == ""


def test_doctor_works_where_torch_cannot_be_imported() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from edpct.runtimes.inventory import take_inventory\n"
        "print([r.next_step for r in take_inventory().runtimes if r.runtime.name == 'torch'][0])"
    )
    assert run_python(code) == "Install it with: pip install 'edpct[compress]'"


def test_a_checkpoint_is_opened_without_what_only_training_needs(tiny_teacher: Path) -> None:
    """torchvision and the compiler of PyTorch that it brings in take longer to import than PyTorch."""
    late = ("torchvision", "torch._dynamo", "timm", "accelerate", "torch_pruning")
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from edpct.models.checkpoint import load_checkpoint\n"
        f"load_checkpoint(Path({str(tiny_teacher)!r}))\n"
        f"print(*(set({late}) & set(sys.modules)))"
    )
    assert run_python(code) == ""
