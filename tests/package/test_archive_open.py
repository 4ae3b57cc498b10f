"""Engines out of packages: which one, from where it is read, and what happens to the copy on the disk."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from odd_archives import read, with_manifest, write
from toy_engines import SIDE, expected_classes
from toy_runs import write_toy
from typer.testing import CliRunner

from edpct import Segmenter
from edpct.archive import locate
from edpct.archive.locate import beside, located
from edpct.archive.manifest import MANIFEST
from edpct.archive.read import Package
from edpct.cli.main import app
from edpct.errors import EngineError
from edpct.package.write import package
from edpct.runtimes.artefact import read_card, sha256_of
from edpct.runtimes.gpu import GpuDevice, GpuState
from edpct.runtimes.sidecar import Sidecar, sidecar_path, write_sidecar
from edpct.runtimes.table import runtimes_for
from edpct.weights import FOLDER, SHIPPED

IMAGE = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
QUICK = ("--no-accuracy", "--seconds", "0.02", "--rounds", "1", "--runs", "2", "--threads", "1")


def write_plan(path: Path, builder: str = "tensorrt-rtx", version: str = "1.0", capability: str = "8.7") -> Path:
    """Bytes that no TensorRT would load, with a sidecar that vouches for them."""
    path.write_bytes(b"plan " * 100 + path.name.encode())
    card = read_card(path.with_name("student.onnx"))
    assert card is not None
    write_sidecar(
        path,
        Sidecar(
            card=card.model_copy(update={"precision": "int8"}), builder=builder, builder_version=version,  # type: ignore[arg-type]
            precision="int8", inputs=(), outputs=(), onnx_sha256="0" * 64, plan_sha256=sha256_of(path),
            compute_capabilities=(capability,), created="2026-01-01", command="edpct build",
        ),
    )  # fmt: skip
    return path


@pytest.mark.parametrize("suffix", [".plan", ".engine"])
@pytest.mark.parametrize("builder", ["tensorrt", "tensorrt-rtx"])
def test_a_plan_alone_is_opened_by_what_built_it(toy_run: Path, tmp_path: Path, suffix: str, builder: str) -> None:
    """``edpct build`` writes .plan and .engine for every target."""
    plan = write_plan(toy_run / f"student{suffix}", builder)
    assert [row.name for row in runtimes_for(plan)] == [builder]
    (tmp_path / "alone").mkdir()
    for path in (plan, sidecar_path(plan)):
        path.rename(tmp_path / "alone" / path.name)
    packed = package(tmp_path / "alone", tmp_path / "alone.zip")
    assert packed.manifest.default == plan.name and packed.manifest.engines[0].runtimes == (builder,)


def test_the_default_is_the_fused_int8(toy_zip: Path, toy_run: Path, cache: Path) -> None:
    found = located(toy_zip)
    assert found == cache / sha256_of(toy_zip) / "student-int8-fused.onnx"
    assert found.read_bytes() == (toy_run / found.name).read_bytes()
    with Segmenter(toy_zip) as seg:
        np.testing.assert_array_equal(seg(IMAGE), expected_classes(IMAGE))
        assert seg.card.precision == "int8" and seg.classes == ("a", "b", "c")


def test_one_by_name(toy_zip: Path) -> None:
    with Segmenter(f"{toy_zip}:student-fp16.onnx") as seg:
        np.testing.assert_array_equal(seg(IMAGE), expected_classes(IMAGE))
        assert seg.card.precision == "fp16"
    for name in ("teacher.onnx", "report.json"):
        with pytest.raises(EngineError) as caught:
            located(Path(f"{toy_zip}:{name}"))
        assert caught.value.what == f"There is no engine '{name}' in student.zip."
        assert caught.value.hint.startswith("It holds: student-int8-fused.onnx, student-int8.onnx, student.onnx")
    with pytest.raises(EngineError, match="There is no file"):
        Segmenter(f"{toy_zip}:../run/student.onnx")


def test_other_names_stay_as_they_are(toy_run: Path, tmp_path: Path) -> None:
    assert located(toy_run / "student.onnx") == toy_run / "student.onnx"
    assert located(Path("dubai-small")) == FOLDER / SHIPPED["dubai-small"]
    odd = tmp_path / "a.zip:b.onnx"
    shutil.copyfile(toy_run / "student.onnx", odd)
    assert located(odd) == odd  # a file of that name wins


def test_only_what_is_asked_for_is_unpacked_and_once(toy_zip: Path, cache: Path) -> None:
    first = located(toy_zip)
    before = first.stat()
    assert located(toy_zip).stat() == before
    assert [path.name for path in cache.rglob("*") if path.is_file()] == [first.name]
    assert first.parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("harm", ["changed", "cut", "link", "gone", "folder-gone"])
def test_a_copy_that_was_changed_is_made_again(toy_zip: Path, tmp_path: Path, harm: str) -> None:
    path = located(toy_zip)
    whole = path.read_bytes()
    if harm == "changed":
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    elif harm == "cut":
        path.write_bytes(whole[:100])
    elif harm == "link":
        elsewhere = tmp_path / "elsewhere.onnx"
        elsewhere.write_bytes(whole)
        path.unlink()
        path.symlink_to(elsewhere)
    elif harm == "gone":
        path.unlink()
    else:
        shutil.rmtree(path.parent)
    again = located(toy_zip)
    assert again == path and not again.is_symlink() and again.read_bytes() == whole


def test_another_archive_of_the_same_name_has_a_folder_of_its_own(toy_zip: Path, toy_run: Path) -> None:
    first = located(toy_zip)
    write_toy(toy_run / "student-int8-fused.onnx", "int8", fused=False)
    (toy_run / "report.json").unlink()
    (toy_run / "stages").rmdir()
    package(toy_run, toy_zip)
    second = located(toy_zip)
    assert second != first and second.read_bytes() != first.read_bytes() and first.is_file()


CODE = (
    "import sys\nfrom pathlib import Path\nfrom edpct.archive.locate import located\nprint(located(Path(sys.argv[1])))"
)


def start(code: str, *arguments: object, **variables: str) -> subprocess.Popen[str]:
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": root, **variables}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_several_processes_at_once(toy_zip: Path, cache: Path) -> None:
    found = [process.communicate() for process in [start(CODE, toy_zip) for _ in range(5)]]
    assert [err for _, err in found] == [""] * 5
    (line,) = {out for out, _ in found}
    assert [str(path) for path in cache.rglob("*") if path.is_file()] == [line.strip()]


def test_a_home_that_cannot_be_written(toy_zip: Path, tmp_path: Path) -> None:
    """A file stands where the cache would be; what was unpacked elsewhere goes when the process ends."""
    blocked = tmp_path / "blocked"
    blocked.touch()
    elsewhere = tmp_path / "tmp"
    elsewhere.mkdir()
    code = f"{CODE}\nprint(located(Path(sys.argv[1])).read_bytes()[:4])"
    out, err = start(code, toy_zip, XDG_CACHE_HOME=str(blocked), TMPDIR=str(elsewhere)).communicate()
    assert err == ""
    path, begin = out.splitlines()
    assert Path(path).is_relative_to(elsewhere) and begin.startswith("b'")
    assert list(elsewhere.iterdir()) == []


def test_a_forked_child_leaves_the_parents_files(toy_zip: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.touch()
    code = f"{CODE}\nimport os\nchild = os.fork()\nif not child:\n    sys.exit(0)\nos.waitpid(child, 0)\n"
    code += "print(located(Path(sys.argv[1])).is_file())\n"
    out, err = start(code, toy_zip, XDG_CACHE_HOME=str(blocked), TMPDIR=str(tmp_path)).communicate()
    assert err == "" and out.splitlines()[-1] == "True"


def test_a_full_disk_is_one_sentence(toy_zip: Path, tmp_path: Path) -> None:
    """A file system of four kilobytes, made in a namespace of its own."""
    small = tmp_path / "small"
    small.mkdir()
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom edpct.archive.locate import located\n"
        "try:\n    located(Path(sys.argv[1]))\nexcept Exception as error:\n    print(type(error).__name__, error)\n"
        "print([name for _, _, names in os.walk(sys.argv[2]) for name in names if name != 'full'])"
    )
    script = (
        'mount -t tmpfs -o size=16k none "$1" && { head -c 16384 /dev/zero > "$1/full"; exec "$2" -c "$3" "$4" "$1"; }'
    )
    command = ["unshare", "-m", "sh", "-c", script, "sh", str(small), sys.executable, code, str(toy_zip)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "XDG_CACHE_HOME": str(small)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("this user may not mount a file system")
    said, left = done.stdout.splitlines()
    assert said == "EngineError The disk is full, so that student.zip cannot be unpacked. Free some space."
    assert left == "[]"


def test_opening_takes_no_time_to_speak_of(toy_zip: Path) -> None:
    took = []
    for _ in range(5):
        began = time.perf_counter()
        located(toy_zip)
        took.append(time.perf_counter() - began)
    assert min(took) < 0.1


# ---- plans


def plan_zip(folder: Path, **more: str) -> Path:
    """A package of an INT8 plan and an FP32 ONNX file."""
    folder.mkdir()
    write_toy(folder / "student.onnx")
    write_plan(folder / "student.plan", **more)
    return package(folder, folder / "student.zip").path


def test_a_plan_comes_with_its_sidecar(tmp_path: Path) -> None:
    found = located(Path(f"{plan_zip(tmp_path / 'made')}:student.plan"))
    assert sidecar_path(found).is_file() and locate.read_sidecar(found).plan_sha256 == sha256_of(found)


def test_the_default_is_no_plan_where_there_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locate, "probe_gpu", lambda: GpuState(False, "none"))
    archive = plan_zip(tmp_path / "made")
    assert located(archive).name == "student.onnx"
    assert located(archive, runtime="tensorrt-rtx").name == "student.plan"
    with pytest.raises(
        EngineError, match=r"student\.zip holds nothing for tensorrt\. It holds: student\.plan, student"
    ):
        located(archive, runtime="tensorrt")


@pytest.mark.parametrize(
    ("version", "capability", "taken"),
    [("", "8.7", "student.plan"), ("0.1", "8.7", "student.onnx"), ("", "12.0", "student.onnx")],
)
def test_a_plan_is_the_default_where_it_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, capability: str, taken: str
) -> None:
    """TensorRT for RTX is really there; the GPU is given."""
    builder = pytest.importorskip("tensorrt_rtx")
    pycuda_less = locate.RUNTIMES["tensorrt-rtx"]
    monkeypatch.setitem(
        locate.RUNTIMES, "tensorrt-rtx", type(pycuda_less)(**{**vars(pycuda_less), "packages": ("tensorrt_rtx",)})
    )
    gpu = GpuState(True, devices=(GpuDevice("Orin", "8.7", 8 * 2**30),))
    monkeypatch.setattr(locate, "probe_gpu", lambda: gpu)
    archive = plan_zip(tmp_path / "made", version=version or str(builder.__version__), capability=capability)
    assert located(archive).name == taken


def test_a_plan_is_trusted_no_more_than_on_disk(tmp_path: Path) -> None:
    """Another plan's sidecar, in a package whose manifest is right about both."""
    archive = plan_zip(tmp_path / "made")
    members = read(archive)
    plan = next(content for info, content in members if info.filename == "student.plan")
    changed = plan[:-1] + b"!"
    members = [(info, changed if info.filename == "student.plan" else content) for info, content in members]

    def say(manifest: dict) -> None:  # type: ignore[type-arg]
        for entry in manifest["engines"]:
            if entry["name"] == "student.plan":
                entry["sha256"] = hashlib.sha256(changed).hexdigest()

    write(archive, with_manifest(members, say))
    command = ["bench", "--engine", f"{archive}:student.plan"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert "student.plan is not the file that its sidecar describes (its SHA-256 differs)." in done.stderr
    trusted = CliRunner().invoke(app, [*command, "--trust"])
    assert trusted.exit_code == 2 and "sidecar" not in trusted.stderr


# ---- every command that takes an engine


def test_bench_takes_the_engine_that_its_runtime_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_zip: Path
) -> None:
    done = CliRunner().invoke(app, ["bench", "--engine", str(toy_zip), "--runtime", "onnxruntime", *QUICK])
    assert done.exit_code == 0, done.output
    assert "| student-int8-fused.onnx | int8 |" in done.stdout
    archive = plan_zip(tmp_path / "made")
    for order in (["--runtime", "tensorrt-rtx", "--engine", str(archive)],
                  ["--engine", str(archive), "--runtime", "tensorrt-rtx"]):  # fmt: skip
        done = CliRunner().invoke(app, ["bench", *order, *QUICK])
        assert done.exit_code == 2 and "student.plan" in done.stderr, done.output


def test_what_is_made_of_it_lies_here_and_not_in_the_cache(
    toy_zip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    pytest.importorskip("tensorrt_rtx")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    name = f"{toy_zip}:student.onnx"
    done = CliRunner().invoke(app, ["build", "--onnx", name, "--target", "rtx"])
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in here.iterdir()) == ["student.plan", "student.plan.json"]
    assert beside(located(Path(name)), ".plan") == Path("student.plan")
    assert {path.name for path in cache.rglob("*") if path.is_file()} == {"student.onnx"}


def test_a_checkpoint_option_takes_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_zip: Path) -> None:
    run = tmp_path / "weights"
    run.mkdir()
    write_toy(run / "student.onnx")
    shutil.copyfile(FOLDER / SHIPPED["dubai-small-student"], run / "student.safetensors")
    monkeypatch.chdir(tmp_path)
    archive = package(run, tmp_path / "both.zip", weights=True).path
    assert located(archive).name == "student.onnx"
    done = CliRunner().invoke(app, ["export", "--checkpoint", str(archive), "--size", "64", "--out", "made.onnx"])
    assert done.exit_code == 0 and Path("made.onnx").is_file(), done.output
    done = CliRunner().invoke(app, ["export", "--checkpoint", str(toy_zip), "--size", "64"])
    assert done.exit_code == 2
    assert "student.zip holds nothing of the kind .safetensors or .pt." in done.stderr


def test_the_manifest_says_what_opens_each(toy_zip: Path) -> None:
    with Package(toy_zip) as opened, zipfile.ZipFile(toy_zip) as archive:
        manifest = opened.manifest
        assert manifest.default == "student-int8-fused.onnx"
        assert [(e.name, e.precision) for e in manifest.engines] == [
            ("student-int8-fused.onnx", "int8"),
            ("student-int8.onnx", "int8"),
            ("student.onnx", "fp32"),
            ("student-fp16.onnx", "fp16"),
        ]
        assert {e.runtimes for e in manifest.engines} == {("openvino", "onnxruntime")}
        assert {e.name for e in manifest.entries()} | {MANIFEST, "SHA256SUMS"} == set(archive.namelist())
