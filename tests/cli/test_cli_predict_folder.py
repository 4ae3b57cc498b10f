"""``edpct predict`` of folders, again and again: what is kept is counted, and nothing is written over."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from edpct.cli.main import app
from edpct.predict.engine import Engine
from edpct.predict.pictures import PictureSettings, predict_folder
from edpct.progress import Silent

sys.path.insert(0, str(Path(__file__).parents[1] / "predict"))
from rasters import planes, rgb, write_raster
from toy_engines import expected_classes, write_engine

SIZE = (30, 40)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_engine(tmp_path_factory.mktemp("engine"))


def _predict(engine: Path, source: Path, out: Path, *more: str) -> Result:
    arguments = ["predict", "--engine", str(engine), "--input", str(source), "--out", str(out), *more]
    return CliRunner().invoke(app, [*arguments, "--runtime", "onnxruntime"])


def _images(folder: Path, *names: str) -> list[int]:
    """Images, and rasters, of other colours each; the pixels of each class in all of them."""
    folder.mkdir(parents=True)
    total = np.zeros(3, int)
    for seed, name in enumerate(names):
        image = rgb(*SIZE, seed)
        if name.endswith(".tif"):
            write_raster(folder / name, planes(image))
        else:
            Image.fromarray(image).save(folder / name)
        total += np.bincount(expected_classes(image).ravel(), minlength=3)
    return total.tolist()


def _pixels(file: Path) -> list[int]:
    return [entry["pixels"] for entry in json.loads(file.read_text())["classes"]]


@pytest.mark.parametrize("view", ["classes", "mask", "overlay"])
def test_what_is_kept_is_counted(engine: Path, tmp_path: Path, view: str) -> None:
    expected = _images(tmp_path / "in", "a.png", "b.png", "c.png", "map.tif")
    found, out, more = tmp_path / "found.json", tmp_path / "out", ("--view", view)
    results = {"a": ".png", "b": ".png", "c": ".png"} if view != "overlay" else dict.fromkeys("abc", ".jpg")
    for removed in ((), (), ("b",), ("a", "c")):
        for name in removed:
            (out / f"{name}{results[name]}").unlink()
        result = _predict(engine, tmp_path / "in", out, "--json", str(found), *more)
        assert result.exit_code == 0 and _pixels(found) == expected, result.stderr
        found.unlink()
    assert "Wrote 2 to" in result.stdout and "2 were there" in result.stdout


def test_a_result_whose_count_a_kill_lost_is_made_anew(engine: Path, tmp_path: Path) -> None:
    expected = _images(tmp_path / "in", "a.png", "b.png", "c.png")
    found, out = tmp_path / "found.json", tmp_path / "out"
    more = ("--view", "overlay", "--json", str(found))
    assert _predict(engine, tmp_path / "in", out, *more).exit_code == 0
    state = json.loads((out / ".edpct-predict.json").read_text())
    assert [sum(state["pixels"][f"{name}.jpg"]) for name in "abc"] == [SIZE[0] * SIZE[1]] * 3
    del state["pixels"]["b.jpg"]
    (out / ".edpct-predict.json").write_text(json.dumps(state))
    again = _predict(engine, tmp_path / "in", out, *more)
    assert "Wrote 1 to" in again.stdout and "2 were there" in again.stdout and _pixels(found) == expected


def test_a_damaged_map_of_classes_is_made_anew(engine: Path, tmp_path: Path) -> None:
    expected = _images(tmp_path / "in", "a.png", "b.png")
    found, out = tmp_path / "found.json", tmp_path / "out"
    assert _predict(engine, tmp_path / "in", out).exit_code == 0
    (out / "a.png").write_bytes((out / "a.png").read_bytes()[:-40])
    again = _predict(engine, tmp_path / "in", out, "--json", str(found))
    assert "Wrote 1 to" in again.stdout and _pixels(found) == expected


def test_counts_are_written_as_results_appear(engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but that of the last, which may still be on its way to the disk."""
    monkeypatch.setattr("edpct.predict.kept.SHARE", 0)  # however long a write takes here
    source, out = tmp_path / "in", tmp_path / "out"
    _images(source, *(f"{letter}.png" for letter in "abcdef"))
    images = [(path, out / f"{path.stem}.jpg") for path in sorted(source.iterdir())]
    on_disk = []

    def written() -> int:
        return len(json.loads((out / ".edpct-predict.json").read_text())["pixels"])

    class Watch(Silent):
        @contextmanager
        def task(self, title: str, total: int, start: int = 0) -> Iterator[Any]:
            def update(done: int, note: str) -> None:
                on_disk.append(written())
                if done == 5:
                    raise KeyboardInterrupt

            yield update

    with Engine(engine, runtime="onnxruntime") as opened, pytest.raises(KeyboardInterrupt):
        predict_folder(opened, images, out, PictureSettings("overlay"), Watch())
    assert on_disk == [0, 1, 2, 3, 4] and written() == 4


@pytest.mark.parametrize("view", ["classes", "overlay"])
def test_what_lay_there_before_is_neither_kept_nor_written_over(engine: Path, tmp_path: Path, view: str) -> None:
    _images(tmp_path / "in", "a.png")
    theirs = tmp_path / "out" / ("a.png" if view == "classes" else "a.jpg")
    theirs.parent.mkdir()
    Image.fromarray(rgb(8, 8)).save(theirs)
    before = theirs.read_bytes()
    for _ in range(2):
        result = _predict(engine, tmp_path / "in", tmp_path / "out", "--view", view)
        assert result.exit_code == 2 and f"{theirs.name} is there already" in result.stderr
    assert theirs.read_bytes() == before


@pytest.mark.parametrize("out", [".", "up", "results", "in/results"])
def test_out_may_hold_the_folder_of_images_or_lie_in_it(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    (tmp_path / "up").mkdir()
    source = Path("up/in" if out == "up" else "in")
    expected = _images(tmp_path / source, "a.png", "b.png", "map.tif")
    monkeypatch.chdir(tmp_path)
    for said in ("Wrote 3 to", "Wrote 0 to"):
        result = _predict(engine, source, Path(out), "--json", "found.json")
        assert result.exit_code == 0 and said in result.stdout, result.stderr
        assert _pixels(Path("found.json")) == expected
    assert sorted(path.name for path in Path(out).glob("*.*") if path.suffix in (".png", ".tif")) == [
        "a.png", "b.png", "map.tif",
    ]  # fmt: skip


def test_no_result_lies_among_the_images(engine: Path, tmp_path: Path) -> None:
    """Into the folder above goes what lies in in/in beside the images; a link's image may be the result's name."""
    _images(tmp_path / "in" / "in", "a.png", "map.tif")
    result = _predict(engine, tmp_path / "in", tmp_path)
    assert result.exit_code == 2 and "would lie among the images of --input" in result.stderr
    _images(tmp_path / "data", "map.tif")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "map.tif").symlink_to(tmp_path / "data" / "map.tif")
    before = (tmp_path / "data" / "map.tif").read_bytes()
    result = _predict(engine, tmp_path / "links", tmp_path / "data")
    assert result.exit_code == 2 and "would lie among the images of --input" in result.stderr
    assert (tmp_path / "data" / "map.tif").read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "in").rglob("*.*")) == ["a.png", "map.tif"]


FOR_MANY_BITS = "--bands, --scale and --percentiles are for rasters, and for grey images of more than 8 bits"


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--bands", "3,2,1"), FOR_MANY_BITS),
        (("--scale", "0,3000"), FOR_MANY_BITS),
        (("--scale", "none"), FOR_MANY_BITS),
        (("--percentiles", "1,99"), FOR_MANY_BITS),
        (("--probabilities",), "--probabilities and --polygons are for rasters"),
    ],
)
def test_options_that_no_image_has_a_use_for_are_refused(
    engine: Path, tmp_path: Path, option: tuple[str, ...], said: str
) -> None:
    _images(tmp_path / "in", "a.png", "b.jpg")
    out = tmp_path / "out"
    for source, target in ((tmp_path / "in", out), (tmp_path / "in" / "b.jpg", tmp_path / "b.png")):
        result = _predict(engine, source, target, *option)
        assert result.exit_code == 2 and said in result.stderr and not target.exists()
    write_raster(tmp_path / "in" / "map.tif", planes(rgb(*SIZE)))
    assert _predict(engine, tmp_path / "in", out, *option).exit_code == 0


def test_a_grey_image_of_16_bits_is_scaled(engine: Path, tmp_path: Path) -> None:
    values = np.arange(30 * 40, dtype=np.uint16).reshape(30, 40) * 50
    _images(tmp_path / "in", "a.png")
    Image.fromarray(values).save(tmp_path / "in" / "deep.png")
    for source, target in ((tmp_path / "in", tmp_path / "out"), (tmp_path / "in" / "deep.png", tmp_path / "b.png")):
        assert _predict(engine, source, target, "--scale", "0,30000").exit_code == 0
    grey = np.clip(np.rint(values / 30000 * 255), 0, 255).astype(np.uint8)
    expected = expected_classes(np.repeat(grey[..., None], 3, axis=2))
    for path in (tmp_path / "out" / "deep.png", tmp_path / "b.png"):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), expected)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--json", "a.json"), "--json is for images and rasters"),
        (("--bands", "3,2,1"), FOR_MANY_BITS),
        (("--scale", "0,3000"), FOR_MANY_BITS),
        (("--percentiles", "1,99"), FOR_MANY_BITS),
    ],
)
def test_options_that_no_video_has_a_use_for_are_refused(
    engine: Path, tmp_path: Path, option: tuple[str, ...], said: str
) -> None:
    result = _predict(engine, tmp_path / "flight.mp4", tmp_path / "out.mkv", *option)
    assert result.exit_code == 2 and said in result.stderr and list(tmp_path.iterdir()) == []
