"""``edpct predict`` through the real command line, in one process that has opened nothing before."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from typer.testing import CliRunner

from edpct.cli.main import app

sys.path.insert(0, str(Path(__file__).parents[1] / "predict"))
from rasters import planes, rgb, write_raster
from toy_engines import COLOURS, expected_classes, write_engine


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_engine(tmp_path_factory.mktemp("engine"))


def _predict(engine: Path, source: Path, out: Path, *more: str) -> Result:
    arguments = ["predict", "--engine", str(engine), "--input", str(source), "--out", str(out), *more]
    result = CliRunner().invoke(app, [*arguments, "--runtime", "onnxruntime"])
    return Result(result.exit_code, result.stdout, result.stderr)


def test_an_image_becomes_a_png_of_class_indices_in_the_classes_colours(engine: Path, tmp_path: Path) -> None:
    image = rgb(50, 77)
    Image.fromarray(image).save(tmp_path / "a.png")
    result = _predict(engine, tmp_path / "a.png", tmp_path / "mask.png", "--json", str(tmp_path / "found.json"))
    assert result.code == 0, result.err
    with Image.open(tmp_path / "mask.png") as mask:
        assert mask.mode == "P"
        np.testing.assert_array_equal(np.asarray(mask), expected_classes(image))
        np.testing.assert_array_equal(np.asarray(mask.convert("RGB")), np.array(COLOURS)[expected_classes(image)])
    found = json.loads((tmp_path / "found.json").read_text())["classes"]
    assert [entry["pixels"] for entry in found] == [int((expected_classes(image) == label).sum()) for label in range(3)]
    assert tuple(tuple(bytes.fromhex(entry["colour"][1:])) for entry in found) == COLOURS


def test_views_show_the_colours_over_and_beside_the_image(engine: Path, tmp_path: Path) -> None:
    image = rgb(40, 40)
    Image.fromarray(image).save(tmp_path / "a.png")
    colours = np.array(COLOURS)[expected_classes(image)]
    expected = {
        "mask": colours,
        "overlay": image * 0.75 + colours * 0.25,
        "side-by-side": np.concatenate((image, colours), axis=1),
    }
    for view, picture in expected.items():
        result = _predict(engine, tmp_path / "a.png", tmp_path / "o.png", "--view", view, "--opacity", "0.25")
        assert result.code == 0, result.err
        np.testing.assert_allclose(np.asarray(Image.open(tmp_path / "o.png")).astype(float), picture, atol=1.01)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_is_seen_as_it_is_shown(engine: Path, tmp_path: Path, orientation: int) -> None:
    """Against ImageMagick's table of the eight orientations, written out by hand."""
    image = np.zeros((48, 80, 3), np.uint8)
    image[:24, :40], image[:24, 40:], image[24:, :40], image[24:, 40:] = (255, 0, 0), (0, 255, 0), (0, 0, 255), 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(image).save(tmp_path / "a.jpg", quality=95, exif=exif)
    shown = {
        1: image, 2: image[:, ::-1], 3: image[::-1, ::-1], 4: image[::-1], 5: image.transpose(1, 0, 2),
        6: np.rot90(image, -1), 7: np.rot90(image, 2).transpose(1, 0, 2), 8: np.rot90(image),
    }[orientation]  # fmt: skip
    assert _predict(engine, tmp_path / "a.jpg", tmp_path / "mask.png").code == 0
    found = np.asarray(Image.open(tmp_path / "mask.png"))
    assert found.shape == shown.shape[:2]
    assert (found == expected_classes(shown)).mean() > 0.9  # JPEG blurs the borders between the quarters


def test_what_is_transparent_is_no_class(engine: Path, tmp_path: Path) -> None:
    image = rgb(40, 40)
    alpha = np.full((40, 40), 255, np.uint8)
    alpha[:10] = 0
    Image.fromarray(np.dstack((image, alpha))).save(tmp_path / "a.png")
    assert _predict(engine, tmp_path / "a.png", tmp_path / "mask.png").code == 0
    found = np.asarray(Image.open(tmp_path / "mask.png"))
    assert (found[:10] == 255).all()
    np.testing.assert_array_equal(found[10:], expected_classes(image)[10:])


def test_a_folder_keeps_its_names_and_goes_on_where_it_was(engine: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    (source / "Übung").mkdir(parents=True)
    images = {name: rgb(30, 30, seed) for seed, name in enumerate(("a.png", "b.bmp", "Übung/ö.png", "a.webp"))}
    for name, image in images.items():
        Image.fromarray(image).save(source / name, lossless=True)
    write_raster(source / "map.tif", planes(rgb(30, 30, 9)))
    (source / "broken.jpg").write_bytes(b"\xff\xd8nothing")
    (source / ".hidden.png").write_bytes(b"")
    result = _predict(engine, source, out)
    assert result.code == 2 and "1 of 6 could not be read; the rest was predicted" in result.err
    assert "broken.jpg" in result.err
    results = {"a.png": "a.png.png", "b.bmp": "b.png", "Übung/ö.png": "Übung/ö.png", "a.webp": "a.webp.png"}
    for name, image in images.items():
        np.testing.assert_array_equal(np.asarray(Image.open(out / results[name])), expected_classes(image))
    with rasterio.open(out / "map.tif") as file:
        np.testing.assert_array_equal(file.read(1), expected_classes(rgb(30, 30, 9)))
    (source / "broken.jpg").unlink()
    (out / "b.png").unlink()
    before = (out / "a.png.png").stat().st_mtime_ns
    again = _predict(engine, source, out)
    assert again.code == 0 and "Wrote 1 to" in again.out and "4 were there" in again.out
    assert (out / "a.png.png").stat().st_mtime_ns == before and (out / "b.png").exists()
    kept = _predict(engine, source, out)
    assert kept.code == 0 and "Wrote 0 to" in kept.out and "share" not in kept.out  # no table of nothing
    named = _predict(engine, source, tmp_path / "maps.tif")
    assert named.code == 2 and "is the name of a file" in named.err
    other = _predict(engine, source, out, "--view", "mask")
    assert other.code == 2 and "results of another engine or other settings" in other.err


def test_files_of_one_stem_and_other_settings_are_not_mixed_up(engine: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    images = {name: rgb(30, 30, seed) for seed, name in enumerate(("a.tif", "a.tiff"))}
    for name, image in images.items():
        write_raster(source / name, planes(image))
    assert _predict(engine, source, out).code == 0
    for name, image in images.items():
        with rasterio.open(out / f"{name}.tif") as file:
            np.testing.assert_array_equal(file.read(1), expected_classes(image))
    other = _predict(engine, source, out, "--bands", "3,2,1")
    assert other.code == 2 and "other settings" in other.err
    more = _predict(engine, source, out, "--probabilities")
    assert more.code == 0 and (out / "a.tiff-probabilities.tif").exists(), more.err


def test_a_raster_is_told_with_its_areas(engine: Path, tmp_path: Path) -> None:
    image = rgb(60, 60)
    source = write_raster(tmp_path / "in.tif", planes(image))
    found = tmp_path / "found.json"
    result = _predict(
        engine, source, tmp_path / "map.tif", "--polygons", str(tmp_path / "p.gpkg"), "--json", str(found)
    )
    assert result.code == 0, result.err
    assert "area m²" in result.out and "polygons" in result.out
    read = json.loads(found.read_text())
    assert read["area_on"] == "grid"
    assert sum(entry["area_m2"] for entry in read["classes"]) == pytest.approx(3600 * 0.09)
    assert (tmp_path / "p.gpkg").exists()


def test_bands_and_scale_come_from_the_command_line(engine: Path, tmp_path: Path) -> None:
    image = rgb(40, 40)
    deep = np.concatenate((planes(image)[::-1].astype(np.uint16) * 4, np.zeros((1, 40, 40), np.uint16)))
    source = write_raster(tmp_path / "in.tif", deep)
    result = _predict(engine, source, tmp_path / "map.tif", "--bands", "3,2,1", "--scale", "0,1020")
    assert result.code == 0, result.err
    with rasterio.open(tmp_path / "map.tif") as file:
        np.testing.assert_array_equal(file.read(1), expected_classes(image))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--view", "heat"), "There is no view 'heat'"),
        (("--bands", "1,2"), "no such bands 1,2"),
        (("--bands", "1,2,9"), "no such bands 1,2,9"),
        (("--bands", "red"), "--bands are numbers"),
        (("--scale", "5"), "--scale is two numbers"),
        (("--scale", "9,3"), "first is to be less"),
        (("--percentiles", "2,101"), "between 0 and 100"),
        (("--scale", "0,9", "--percentiles", "2,98"), "the same thing twice"),
        (("--opacity", "1.5"), "--opacity lies in 0..1"),
        (("--polygons", "areas.shp"), "areas.shp is neither"),
        (("--out", "none/map.tif"), "There is no folder none"),
        (("--out", "map.jpg"), "is written as .tif"),
        (("--out", "in.tif"), "--out is the file of --input"),
        (("--input", "missing.tif"), "There is no missing.tif"),
        (("--runtime", "abacus"), "abacus"),
        (("--view", "overlay"), "--view overlay is for images and video"),
        (("--engine", "dubai-smal-int8"), "Did you mean dubai-small-int8?"),
        (("--engine", "abacus"), "With edpct come dubai-small, "),
    ],
)
def test_what_cannot_be_is_one_sentence(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_raster(Path("in.tif"), planes(rgb(40, 40)))
    arguments = {"--input": "in.tif", "--out": "map.tif", "--runtime": "onnxruntime"}
    arguments |= dict(zip(more[::2], more[1::2], strict=True))
    flat = [part for pair in ({"--engine": str(engine)} | arguments).items() for part in pair]
    result = CliRunner().invoke(app, ["predict", *flat])
    assert result.exit_code == 2 and said in result.stderr, result.stderr
    assert not Path("map.tif").exists() and "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("mask.jpg", (), "would not keep the class indices"),
        ("mask.xyz", (), "mask.xyz is none of these"),
        ("mask.png", ("--probabilities",), "--probabilities and --polygons are for rasters"),
        ("none/mask.png", (), "There is no folder"),
        ("mask.png", ("--show",), "--show is for video and cameras."),
        ("mask.png", ("--codec", "avc1", "--no-hud"), "--no-hud and --codec are for video and cameras."),
    ],
)
def test_what_an_image_cannot_become(engine: Path, tmp_path: Path, name: str, more: tuple[str, ...], said: str) -> None:
    Image.fromarray(rgb(40, 40)).save(tmp_path / "a.png")
    result = _predict(engine, tmp_path / "a.png", tmp_path / name, *more)
    assert result.code == 2 and said in result.err


def test_a_video_and_a_package_go_the_same_way(engine: Path, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(str(tmp_path / "in.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 32))
    for seed in range(4):
        writer.write(rgb(32, 64, seed))
    writer.release()
    result = _predict(engine, tmp_path / "in.avi", tmp_path / "out.mkv", "--view", "classes", "--overlap", "0")
    assert result.code == 0 and "4 frames in" in result.out, result.err
    wrong = _predict(engine, tmp_path / "in.avi", tmp_path / "out.mkv", "--fit", "squeeze")
    assert wrong.code == 2 and "There is no fit 'squeeze'" in wrong.err
