"""Outputs that cannot be: disks that are full or become so, folders that are read-only, files that are in use."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
from odd_cases import Disk, Meant, check_refused, check_right, seen, whole
from odd_images import calm
from odd_places import LOCAL
from odd_server import Answer, Edpct
from PIL import Image
from rasterio.transform import Affine
from rasters import planes, rgb, write_raster
from scipy import ndimage

FAST = ("--runtime", "onnxruntime", "--threads", 1, "--streams", 1)


def _raster(path: Path, height: int = 200, width: int = 300) -> Meant:
    image = rgb(height, width, 61)
    return Meant(write_raster(path, planes(image)), seen(image))


def _picture(path: Path) -> Meant:
    image = np.random.default_rng(62).integers(0, 256, (200, 300, 3), np.uint8)
    Image.fromarray(image).save(path)
    return Meant(path, seen(image))


def _predict(edpct: Edpct, engine: Path, source: Path, out: Path, *more: object) -> Answer:
    here = source.parent / "cwd"
    here.mkdir(exist_ok=True)
    return edpct(here, "predict", "--engine", engine, "--input", source, "--out", out, *FAST, *more)


@pytest.mark.parametrize("kilobytes", [4, 8, 20, 60, 100, 130, 160, 400])
@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_a_disk_of_any_size(
    edpct: Edpct, engine: Path, tmp_path: Path, disk: Disk, suffix: str, kilobytes: int
) -> None:
    meant = _raster(tmp_path / "a.tif") if suffix == ".tif" else _picture(tmp_path / "a.png")
    out = disk(kilobytes) / f"map{suffix}"
    answer = _predict(edpct, engine, meant.source, out)
    if kilobytes == 400:
        check_right(answer, meant, tmp_path, out)
    elif answer.code == 0:
        np.testing.assert_array_equal(whole(out), meant.classes)
    else:
        check_refused(answer, "", out)
    assert answer.code == 2 or kilobytes >= 20


@pytest.mark.parametrize("kilobytes", [130, 160, 200, 300, 900])
@pytest.mark.parametrize("suffix", [".geojson", ".gpkg"])
def test_a_disk_too_small_for_the_polygons(
    edpct: Edpct, engine: Path, tmp_path: Path, disk: Disk, suffix: str, kilobytes: int
) -> None:
    meant = _raster(tmp_path / "a.tif")
    folder = disk(kilobytes)
    polygons = folder / f"areas{suffix}"
    answer = _predict(
        edpct, engine, meant.source, folder / "map.tif", "--polygons", polygons, "--smallest", 0, "--simplify", 0
    )
    if answer.code == 0:
        found = pyogrio.read_info(polygons, force_feature_count=True)["features"]
        assert found == sum(ndimage.label(meant.classes == label)[1] for label in range(3))
        return
    assert answer.err.count("edpct: ") == 1 and answer.code == 2 and "Unexpected" not in answer.err, answer.err
    assert not polygons.exists()
    assert {path.name for path in folder.iterdir()} <= {".map.tif.part", "map.tif"}
    if (folder / "map.tif").exists():
        np.testing.assert_array_equal(whole(folder / "map.tif"), meant.classes)


@pytest.mark.parametrize("kilobytes", [500, 700, 900])
def test_a_disk_too_small_for_the_probabilities(
    edpct: Edpct, engine: Path, tmp_path: Path, disk: Disk, kilobytes: int
) -> None:
    meant = _raster(tmp_path / "a.tif")
    folder = disk(kilobytes)
    answer = _predict(edpct, engine, meant.source, folder / "map.tif", "--probabilities")
    if answer.code == 0:
        np.testing.assert_array_equal(whole(folder / "map.tif"), meant.classes)
    else:
        check_refused(answer, "", folder / "map.tif")


def test_a_full_disk_for_the_numbers(edpct: Edpct, engine: Path, tmp_path: Path, disk: Disk) -> None:
    meant = _raster(tmp_path / "a.tif")
    folder = disk(4)
    (folder / "full").write_bytes(bytes(4096))
    answer = _predict(edpct, engine, meant.source, tmp_path / "map.tif", "--json", folder / "found.json")
    assert answer.code == 2, answer
    assert "edpct: " + str(folder / "found.json") + " cannot be written: No space left on device." in answer.err
    assert [path.name for path in folder.iterdir()] == ["full"]
    np.testing.assert_array_equal(whole(tmp_path / "map.tif"), meant.classes)


@pytest.mark.parametrize("when", ["rows", "map"])
def test_a_disk_that_fills_up_meanwhile(
    engine: Path, tmp_path: Path, disk: Disk, cli_environment: dict[str, str], when: str
) -> None:
    """Something else writes to it. With room again, the same command goes on."""
    meant = _raster(tmp_path / "a.tif", 2500, 1500)
    folder = disk(20_000)
    out, work = folder / "map.tif", folder / ".map.tif.part"
    rows, finished = work / "classes.rows", work / "classes.vrt"
    process = _started(engine, meant.source, out, tmp_path / "err", cli_environment)
    _wait_until(lambda: _size(rows) > 100_000 if when == "rows" else finished.exists(), process)
    with (folder / "filler").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(100_000 if when == "rows" else 4_000_000))
    answer = Answer(process.wait(60), "", (tmp_path / "err").read_text())
    kept = rows.stat().st_size
    (folder / "filler").unlink()
    check_refused(answer, "", out)
    assert 0 < kept < 2500 * 1500 if when == "rows" else kept > 2500 * 1500
    again = _started(engine, meant.source, out, tmp_path / "err", cli_environment)
    check_right(Answer(again.wait(60), "", (tmp_path / "err").read_text()), meant, tmp_path, out)
    assert "Going on at row" in (tmp_path / "err").read_text()


def test_ctrl_c_in_a_raster(engine: Path, tmp_path: Path, cli_environment: dict[str, str]) -> None:
    meant = _raster(tmp_path / "a.tif", 2500, 1500)
    (tmp_path / "out").mkdir()
    out = tmp_path / "out" / "map.tif"
    rows = out.parent / ".map.tif.part" / "classes.rows"
    process = _started(engine, meant.source, out, tmp_path / "err", cli_environment)
    _wait_until(lambda: _size(rows) > 100_000, process)
    process.send_signal(signal.SIGINT)
    answer = Answer(process.wait(60), "", (tmp_path / "err").read_text())
    check_refused(answer, "Interrupted; what was finished is kept.", out)
    assert 0 < rows.stat().st_size < 2500 * 1500
    again = _started(engine, meant.source, out, tmp_path / "err", cli_environment)
    check_right(Answer(again.wait(60), "", (tmp_path / "err").read_text()), meant, tmp_path, out)
    assert "Going on at row" in (tmp_path / "err").read_text()


def _started(engine: Path, source: Path, out: Path, log: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    command = ["predict", "--engine", engine, "--input", source, "--out", out, *FAST]
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "edpct", *map(str, command)], env=environment, stdout=subprocess.DEVNULL,
            stderr=file, preexec_fn=_listen,
        )  # fmt: skip


def _listen() -> None:
    """Where the tests run in the background, Ctrl-C is ignored, and that is inherited."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _wait_until(condition: object, process: subprocess.Popen[bytes]) -> None:
    assert callable(condition)
    end = time.monotonic() + 60
    while not condition():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.001)


@pytest.mark.parametrize("name", ["a.tif", "a.png", "folder", "numbers", "polygons"])
def test_a_read_only_disk(edpct: Edpct, engine: Path, tmp_path: Path, disk: Disk, name: str) -> None:
    source, folder = tmp_path / "in", disk(100, ",ro")
    source.mkdir()
    _picture(source / "a.png")
    _raster(source / "a.tif")
    more: tuple[object, ...] = ()
    out = folder / ("map.png" if name == "a.png" else "map.tif")
    if name in ("numbers", "polygons"):
        beside = folder / ("found.json" if name == "numbers" else "areas.geojson")
        more, out = ("--json" if name == "numbers" else "--polygons", beside), tmp_path / "map.tif"
    given = source if name == "folder" else source / (name if "." in name else "a.tif")
    answer = _predict(edpct, engine, given, folder / "results" if name == "folder" else out, *more)
    check_refused(answer, "Read-only file system", folder / "none")
    assert ".part" not in answer.err


@pytest.mark.parametrize("suffix", [".tif", ".png"])
@pytest.mark.parametrize("there", ["file", "link", "broken-link", "link-loop"])
def test_what_is_there_is_replaced_by_something_whole_only(
    edpct: Edpct, engine: Path, tmp_path: Path, suffix: str, there: str
) -> None:
    meant = _raster(tmp_path / "a.tif") if suffix == ".tif" else _picture(tmp_path / "a.png")
    (tmp_path / "out").mkdir()
    out, old = tmp_path / "out" / f"map{suffix}", tmp_path / "old"
    old.write_text("old")
    if there == "file":
        out.write_text("old")
    else:
        out.symlink_to({"link": old, "broken-link": tmp_path / "none", "link-loop": out}[there])
    broken = tmp_path / f"broken{suffix}"
    broken.write_bytes(meant.source.read_bytes()[:20_000])
    refused = _predict(edpct, engine, broken, out)
    assert refused.code == 2 and refused.err.count("edpct: ") == 1, refused
    assert there != "file" or out.read_text() == "old"
    assert out.is_symlink() == (there != "file")
    for path in out.parent.glob(".*.part/*"):
        path.unlink()
    for path in out.parent.glob(".*.part"):
        path.rmdir()
    check_right(_predict(edpct, engine, meant.source, out), meant, tmp_path, out)
    assert old.read_text() == "old" and not out.is_symlink()


@pytest.mark.parametrize("suffix", [".tif", ".png"])
@pytest.mark.parametrize("how", ["itself", "link", "hard-link", "dotted", "numbers", "polygons", "probabilities"])
def test_the_input_is_never_overwritten(edpct: Edpct, engine: Path, tmp_path: Path, suffix: str, how: str) -> None:
    if suffix == ".png" and how in ("polygons", "probabilities"):
        pytest.skip("of rasters alone")
    name = {"probabilities": "map-probabilities", "polygons": "a"}.get(how, "a")
    meant = (_raster if suffix == ".tif" else _picture)(tmp_path / f"{name}{suffix}")
    source, out = meant.source, tmp_path / f"map{suffix}"
    more: tuple[object, ...] = ()
    if how in ("itself", "dotted"):
        out = source if how == "itself" else tmp_path / "x" / ".." / source.name
        (tmp_path / "x").mkdir()
    elif how == "link":
        out.symlink_to(source)
    elif how == "hard-link":
        os.link(source, out)
    elif how == "numbers":
        more = ("--json", source)
    elif how == "polygons":
        (tmp_path / "a.geojson").symlink_to(source)
        more = ("--polygons", tmp_path / "a.geojson")
    else:
        more = ("--probabilities",)
    before = source.read_bytes()
    answer = _predict(edpct, engine, source, out, *more)
    assert answer.code == 2 and "is the file of --input" in answer.err, answer
    assert source.read_bytes() == before and answer.err.count("edpct: ") == 1


@pytest.mark.skipif(not os.geteuid(), reason="root may read everything")
@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_an_input_that_may_not_be_read(edpct: Edpct, engine: Path, tmp_path: Path, name: str) -> None:
    meant = _raster(tmp_path / name) if name == "a.tif" else _picture(tmp_path / name)
    meant.source.chmod(0)
    out = tmp_path / "out" / f"map{meant.source.suffix}"
    out.parent.mkdir()
    check_refused(_predict(edpct, engine, meant.source, out), name, out)


@pytest.mark.parametrize("name", ["map.jpg", "map.webp"])
def test_a_picture_larger_than_its_format(edpct: Edpct, engine: Path, tmp_path: Path, name: str) -> None:
    Image.fromarray(calm(1, 70_000)).save(tmp_path / "a.png")
    (tmp_path / "out").mkdir()
    out = tmp_path / "out" / name
    check_refused(_predict(edpct, engine, tmp_path / "a.png", out, "--view", "overlay"), f"{name} cannot be", out)


@pytest.mark.parametrize("crs", ["local", "nowhere", "none", "engineering"])
@pytest.mark.parametrize("suffix", [".geojson", ".gpkg"])
def test_polygons_of_rasters_that_lie_oddly(edpct: Edpct, engine: Path, tmp_path: Path, crs: str, suffix: str) -> None:
    systems = {"local": LOCAL, "nowhere": "EPSG:32640", "none": None, "engineering": "EPSG:4978"}
    far = Affine(1e9, 0, 0, 0, -1e9, 0)
    source = write_raster(tmp_path / "a.tif", planes(calm(90, 90)), systems[crs], far)
    polygons = tmp_path / f"areas{suffix}"
    answer = _predict(edpct, engine, source, tmp_path / "map.tif", "--polygons", polygons)
    if answer.code == 2:
        assert answer.err.count("edpct: ") == 1 and not polygons.exists()
        return
    assert answer.code == 0 and "Warning" not in answer.err, answer
    if suffix == ".geojson":
        text = polygons.read_text()
        assert len(json.loads(text)["features"]) > 3 and "Infinity" not in text and "inf" not in text
    with rasterio.open(tmp_path / "map.tif") as file:
        assert file.read(1).max() == 2
