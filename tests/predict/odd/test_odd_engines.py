"""Engines that are none: damaged graphs, strangers' graphs, packages that would write elsewhere."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from odd_archives import SAID, odd_archives
from odd_cases import check_refused, seen, whole
from odd_server import Answer, Edpct
from onnx import TensorProto, helper
from rasters import planes, rgb, write_raster
from toy_runs import write_run

from edpct.package.write import package

IMAGE = rgb(40, 40, 71)


def _predict(edpct: Edpct, engine: object, folder: Path) -> tuple[Answer, Path]:
    here, results = folder / "here", folder / "out"
    here.mkdir()
    results.mkdir()
    source = write_raster(folder / "a.tif", planes(IMAGE))
    return edpct(here, "predict", "--engine", engine, "--input", source, "--out", results / "map.tif"), results


def test_odd_packages(edpct: Edpct, tmp_path: Path) -> None:
    sound = package(write_run(tmp_path / "run"), tmp_path / "sound.zip").path
    for name, path in odd_archives(tmp_path / "odd", sound):
        folder = tmp_path / "at" / name
        folder.mkdir(parents=True)
        answer, results = _predict(edpct, path, folder)
        check_refused(answer, SAID[name], results / "map.tif")
        assert not list(tmp_path.rglob("escaped*")) and not list((folder / "here").iterdir())


def _text(path: Path) -> None:
    path.write_text("This is no graph.\n" * 50)


def _bare(path: Path) -> None:
    """A sound graph of a stranger: no card."""
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 32, 32]) for name in ("image", "logits")]
    graph = helper.make_graph([helper.make_node("Identity", ["image"], ["logits"])], "bare", ports[:1], ports[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _link_loop(path: Path) -> None:
    path.symlink_to(path.name)


NONE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "There is no file"),
    "empty": (Path.touch, "is empty"),
    "text": (_text, "is not an ONNX model"),
    "folder": (Path.mkdir, "is a directory"),
    "bare": (_bare, "does not say what it is"),
    "pipe": (_pipe, ""),
    "link-loop": (_link_loop, "There is no file"),
    "html": (lambda path: path.write_text("<html>404</html>"), "is not an ONNX model"),
    "zeros": (lambda path: path.write_bytes(bytes(5000)), "is not an ONNX model"),
}


@pytest.mark.parametrize("name", NONE)
@pytest.mark.parametrize("suffix", [".onnx", ".plan", ".zip", ".xyz"])
def test_what_is_no_engine(edpct: Edpct, tmp_path: Path, name: str, suffix: str) -> None:
    path = tmp_path / f"engine{suffix}"
    make, said = NONE[name]
    make(path)
    answer, results = _predict(edpct, path, tmp_path)
    check_refused(answer, said if suffix == ".onnx" else "", results / "map.tif")


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_graph(edpct: Edpct, engine: Path, tmp_path: Path, seed: int) -> None:
    """Cut, or with a few other bytes; a flipped byte of a name may leave a sound graph."""
    content, rng = bytearray(engine.read_bytes()), random.Random(seed)
    if seed < 15:
        del content[rng.randrange(len(content)) :]
    else:
        for _ in range(rng.choice((1, 2, 9))):
            content[rng.randrange(len(content))] = rng.choice((0, 255, rng.randrange(256)))
    path = tmp_path / "engine.onnx"
    path.write_bytes(content)
    answer, results = _predict(edpct, path, tmp_path)
    if seed >= 15 and answer.code == 0:
        assert whole(results / "map.tif").shape == (40, 40)
    else:
        check_refused(answer, "", results / "map.tif")


def test_the_sound_engine_would_have_done(edpct: Edpct, engine: Path, tmp_path: Path) -> None:
    answer, results = _predict(edpct, engine, tmp_path)
    assert answer.code == 0
    np.testing.assert_array_equal(whole(results / "map.tif"), seen(IMAGE))
