"""The command line as a drone has it: quick to start, and whole where nothing of the workstation is installed."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HEAVY = ("torch", "onnx", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "numpy", "PIL", "nncf")
WORKSTATION = (
    "torch", "torchvision", "timm", "accelerate", "torch_pruning", "nncf", "onnx", "onnxsim", "onnxscript",
    "safetensors", "sklearn",
)  # fmt: skip
# Makes packages absent: importing, find_spec and importlib.metadata answer as on a machine without them.
ABSENT = f"""
import sys
ABSENT = {{name.replace("_", "-") for name in {WORKSTATION}}}

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0].replace("_", "-") in ABSENT:
            return None
        return self.finder.find_spec(name, path, target)

    def find_distributions(self, *context):
        for found in getattr(self.finder, "find_distributions", lambda *_: ())(*context):
            if found.metadata["Name"].replace("_", "-").lower() not in ABSENT:
                yield found

    def invalidate_caches(self):
        getattr(self.finder, "invalidate_caches", lambda: None)()

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(cli_environment: dict[str, str], tmp_path: Path) -> Run:
    """Run edpct in a process of its own; ``python=`` runs code instead, ``site=`` a folder that is searched first."""

    def start(*arguments: object, python: str = "", site: Path | None = None) -> subprocess.CompletedProcess[str]:
        environment = dict(cli_environment)
        if site is not None:
            environment["PYTHONPATH"] = os.pathsep.join([str(site), environment["PYTHONPATH"]])
        command = [sys.executable, *(("-c", python) if python else ("-m", "edpct", *map(str, arguments)))]
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        return done

    return start


@pytest.fixture(scope="session")
def drone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that makes the workstation's packages absent."""
    folder = tmp_path_factory.mktemp("drone")
    (folder / "sitecustomize.py").write_text(ABSENT)
    return folder


# ---- starting


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("compress", "--help"),
        ("bench", "--help"),
        ("package", "--help"),
        ("data", "scenes", "--help"),
        ("data", "check", "--help"),
        ("--version",),
    ],
)
def test_help_imports_nothing_heavy(run: Run, arguments: tuple[str, ...]) -> None:
    # A command's own help brings in pydantic with typer; the list of commands and the version do without.
    heavy = (*HEAVY, "pydantic") if arguments in (("--help",), ("--version",)) else HEAVY
    code = (
        f"import sys\nsys.argv = ['edpct', *{arguments}]\nfrom edpct.cli.main import main\n"
        f"try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        f"print('imported:', *sorted(set({heavy}) & set(sys.modules)))"
    )
    done = run(python=code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].strip() == "imported:"


def test_help_is_there_at_once(run: Run) -> None:
    """0.3 s of the processor's time: the clock on the wall also counts what else the machine does."""

    def took(*arguments: str, python: str = "") -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run(*arguments, python=python).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    turns = [(took(python="pass"), took("--help")) for _ in range(7)]
    bare, ours = min(turns, key=lambda turn: turn[1] / turn[0])
    # A slower processor is slower with bare Python, too, and the goal is given as much more time.
    allowed = 0.3 * max(1.0, bare / 0.03)
    assert ours < allowed, f"edpct --help took {ours:.2f} s (bare Python {bare:.2f} s); the goal is 0.3 s"


def test_help_lists_every_command(run: Run) -> None:
    shown = run("--help").stdout
    for command in (
        "train",
        "compress",
        "prune",
        "sensitivity",
        "bench",
        "compare",
        "build",
        "package",
        "doctor",
        "recipe",
        "data",
    ):
        assert f"\n  {command} " in shown


# ---- usage


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("compress", "--techer", "x"), "--techer"),
        (("compress",), "--teacher"),
        (("squeeze",), "squeeze"),
        (("compress", "--teacher", "x", "--steps", "many"), "--steps"),
        (("bench",), "--engine"),
    ],
)
def test_wrong_usage(run: Run, arguments: tuple[str, ...], said: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert said in done.stderr and "bug in edpct" not in done.stderr


@pytest.mark.parametrize("kind", ["compress", "train"])
def test_a_printed_recipe_is_taken_back(run: Run, scenes: Path, tmp_path: Path, kind: str) -> None:
    done = run("recipe", kind)
    assert done.returncode == 0 and done.stderr == ""
    values = tomllib.loads(done.stdout)
    assert values["seed"] == 0
    assert values["distil" if kind == "compress" else "train"]["steps"] == 2000
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(done.stdout)
    # Taken: what is refused is the teacher or the data, which come after the recipe.
    if kind == "compress":
        again = run("compress", "--teacher", tmp_path / "nowhere.pt", "--recipe", recipe)
        assert "There is no checkpoint " in again.stderr
    else:
        again = run("train", "--data", tmp_path / "nowhere", "--out", tmp_path / "out", "--recipe", recipe)
        assert "There is no data folder " in again.stderr
    assert again.returncode == 2


def test_an_unknown_recipe(run: Run) -> None:
    done = run("recipe", "bake")
    assert done.returncode == 2
    assert done.stderr == "edpct: There is no recipe 'bake'.\n       Choose from: compress, train.\n"


def test_a_reader_that_leaves_early_is_no_bug(cli_environment: dict[str, str]) -> None:
    """``edpct recipe | head -0``."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "edpct", "recipe"]
    done = subprocess.run(
        command, env=cli_environment, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    os.close(write)
    assert "bug in edpct" not in done.stderr and "Traceback" not in done.stderr


# ---- without the workstation's packages


def test_the_packages_are_really_absent(run: Run, drone: Path) -> None:
    code = (
        "import importlib.util, importlib.metadata as m\n"
        f"for name in {WORKSTATION}:\n"
        "    assert importlib.util.find_spec(name) is None, name\n"
        "    try:\n        __import__(name)\n    except ModuleNotFoundError:\n        pass\n"
        "    else:\n        raise SystemExit(name)\n"
        "names = {d.metadata['Name'].lower() for d in m.distributions()}\n"
        "assert 'numpy' in names and 'torch' not in names"
    )
    done = run(python=code, site=drone)
    assert done.returncode == 0, done.stderr


def test_bench_works_on_a_drone(run: Run, drone: Path, compressed_run: Path, scenes: Path, tmp_path: Path) -> None:
    engine, results = compressed_run / "student-int8.onnx", tmp_path / "results.json"
    done = run(
        "bench", "--engine", engine, "--data", scenes, "--seconds", 0.05, "--rounds", 1, "--runs", 2, "--threads", 1,
        "--json", results, "--report", tmp_path / "page.html", site=drone,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(results.read_text())
    assert [row["runtime"] for row in report["rows"]] == ["openvino", "onnxruntime"]
    assert all(times["fps"] > 0 for row in report["rows"] for times in row["latency"].values())
    there = json.loads((compressed_run / "report.json").read_text())
    expected = {row["runtime"]: row["accuracy"]["miou"] for row in there["rows"] if row["name"] == "INT8"}
    assert {row["runtime"]: row["accuracy"]["miou"] for row in report["rows"]} == pytest.approx(expected, abs=1e-6)
    assert "torch" not in report["versions"]
    assert "student-int8.onnx" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "| student-int8.onnx | int8 |" in done.stdout


def test_flight_code_works_on_a_drone(run: Run, drone: Path, compressed_run: Path) -> None:
    """What comes out is what the bench of the same engine scores: both go through the same ports."""
    code = (
        "import sys, numpy as np\nfrom edpct import Segmenter\n"
        f"with Segmenter({str(compressed_run / 'student-int8.onnx')!r}, runtime='onnxruntime', threads=1) as seg:\n"
        "    mask = seg(np.zeros((200, 300, 3), np.uint8))\n"
        "    print(mask.shape, mask.dtype, mask.max() < len(seg.classes), 'torch' in sys.modules)"
    )
    done = run(python=code, site=drone)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(200, 300) uint8 True False"


def test_rasters_images_and_packages_are_predicted_on_a_drone(
    run: Run, drone: Path, compressed_run: Path, tmp_path: Path
) -> None:
    import rasterio

    image = np.random.default_rng(0).integers(0, 256, (3, 150, 200), np.uint8)
    where = rasterio.Affine(0.5, 0, 5e5, 0, -0.5, 2e6)
    with rasterio.open(
        tmp_path / "in.tif", "w", driver="GTiff", width=200, height=150, count=3, dtype="uint8", crs="EPSG:32640",
        transform=where,
    ) as file:  # fmt: skip
        file.write(image)
    Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / "in.png")
    packed = run("package", compressed_run, "--out", tmp_path / "student.zip", site=drone)
    assert packed.returncode == 0, packed.stderr
    for source, target in (("in.tif", "map.tif"), ("in.png", "mask.png")):
        done = run(
            "predict", "--engine", f"{tmp_path / 'student.zip'}:student-int8.onnx", "--input", tmp_path / source,
            "--out", tmp_path / target, "--runtime", "onnxruntime", site=drone,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    with rasterio.open(tmp_path / "map.tif") as file:
        assert (file.crs, file.transform, file.shape) == (rasterio.CRS.from_epsg(32640), where, (150, 200))
        same = file.read(1) == np.asarray(Image.open(tmp_path / "mask.png"))
    assert same.mean() > 0.9  # the raster's windows lie on the map's lattice, the image's on its own


def test_importing_the_package_imports_nothing_heavy(run: Run) -> None:
    code = f"import sys, edpct\nprint('imported:', *sorted(set({(*HEAVY, 'pydantic')}) & set(sys.modules)))"
    assert run(python=code).stdout.strip() == "imported:"


def test_doctor_works_on_a_drone(run: Run, drone: Path) -> None:
    done = run("doctor", site=drone)
    assert done.returncode == 0, done.stderr
    (torch,) = [line for line in done.stdout.splitlines() if line.startswith("| PyTorch eager |")]
    assert "| no |" in torch and "pip install 'edpct[compress]'" in torch
    (onnxruntime,) = [line for line in done.stdout.splitlines() if line.startswith("| ONNX Runtime |")]
    assert "| yes |" in onnxruntime
    assert "| torch | – | edpct[compress] |" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [("compress", "--teacher", "t.pt"), ("train", "--data", "SCENES", "--out", "o"), ("bench", "--engine", "T.pt")],
)
def test_the_workstations_commands_say_what_to_install(
    run: Run, drone: Path, scenes: Path, tiny_teacher: Path, arguments: tuple[str, ...]
) -> None:
    places = {"SCENES": str(scenes), "T.pt": str(tiny_teacher)}
    done = run(*(places.get(a, a) for a in arguments), site=drone)
    assert done.returncode == 2
    assert " needs the package torch, which is not installed." in done.stderr
    assert "pip install 'edpct[compress]'" in done.stderr


def test_building_a_plan_says_what_to_install(run: Run, drone: Path, compressed_run: Path, tmp_path: Path) -> None:
    """Building needs TensorRT alone: no torch and no onnx."""
    pytest.importorskip("tensorrt_rtx")
    plan = tmp_path / "student.plan"
    done = run("build", "--onnx", compressed_run / "student.onnx", "--target", "rtx", "--out", plan, site=drone)
    assert done.returncode == 0, done.stderr
    assert plan.is_file() and plan.with_name("student.plan.json").is_file()


def test_a_data_set_is_checked_on_a_drone(run: Run, scenes: Path, drone: Path) -> None:
    done = run("data", "check", scenes, "--size", 128, "--out", "check", site=drone)
    assert done.returncode == 0, done.stderr
    assert "| images | 3 | 2 |" in done.stdout


# ---- a plan without a GPU


def test_a_plan_without_a_gpu_is_one_sentence(run: Run, compressed_run: Path) -> None:
    from edpct.runtimes.gpu import probe_gpu

    if probe_gpu().available:
        pytest.skip("this machine has a GPU")
    done = run("bench", "--engine", compressed_run / "student-int8.plan")
    assert done.returncode == 2
    what, hint = done.stderr.splitlines()
    assert what.startswith("edpct: student-int8.plan needs an NVIDIA GPU and this machine has none (")
    assert hint.strip().startswith("Run it on a machine with a GPU, or bench the ONNX")
    assert hint.endswith(f"edpct bench --engine {compressed_run / 'student-int8.onnx'}")


def test_of_the_processes_of_a_launcher_one_says_what_is_wrong(tmp_path: Path, cli_environment: dict[str, str]) -> None:
    """``accelerate launch`` and ``torchrun`` number the processes of a machine; all end with exit code 2."""
    command = [sys.executable, "-m", "edpct", "train", "--data", str(tmp_path / "none"), "--out", str(tmp_path / "out")]
    said = []
    for rank in ("0", "1"):
        environment = {**cli_environment, "LOCAL_RANK": rank, "RANK": rank}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 2 and done.stdout == ""
        said.append(done.stderr)
    assert said[0].startswith("edpct: ") and str(tmp_path / "none") in said[0]
    assert said[1] == ""


def test_no_callback_takes_a_generic_type() -> None:
    """Typer asks whether it is a class; on Python 3.10, a Jetson's, list[Path] says yes, and every command ends."""
    import typing

    from edpct.cli.main import app

    commands = [command.callback for command in app.registered_commands]
    hints = [typing.get_type_hints(command, include_extras=True) for command in commands if command is not None]
    settings = [given for hint in hints for kind in hint.values() for given in getattr(kind, "__metadata__", ())]
    callbacks = [given.callback for given in settings if getattr(given, "callback", None) is not None]
    assert callbacks
    for callback in callbacks:
        taken = [kind for name, kind in typing.get_type_hints(callback).items() if name != "return"]
        assert not any(typing.get_origin(kind) in (list, tuple, dict, set) for kind in taken), callback.__name__
