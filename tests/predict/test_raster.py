"""Rasters through an engine: right classes where the raster lies, nodata, bands, resume, cloud-optimised output."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine
from rasters import HERE, UTM, planes, rgb, write_raster
from toy_engines import COLOURS, expected_classes, write_engine

from edpct.errors import DataError, EngineError, RunError
from edpct.predict.engine import Engine
from edpct.predict.raster.job import RasterSettings, predict_raster
from edpct.predict.raster.read import Bands, Raster
from edpct.predict.raster.rows import HEADER, Workspace
from edpct.progress import Silent

SAY_NOTHING = Silent()


@pytest.fixture(scope="module", params=[False, True], ids=["logits", "classes"])
def engine_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_engine(tmp_path_factory.mktemp("engine"), fused=request.param)


@pytest.fixture(scope="module")
def logits_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_engine(tmp_path_factory.mktemp("engine"))


def _map(engine: Path, source: Path, out: Path, **settings: Any) -> Any:
    with Engine(engine, runtime="onnxruntime") as opened:
        return predict_raster(opened, source, out, RasterSettings(**settings), SAY_NOTHING)


@pytest.mark.parametrize("size", [(1, 1), (31, 33), (100, 70), (257, 641)])
def test_every_pixel_has_the_class_of_its_colour_at_its_place(
    engine_file: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    image = rgb(*size)
    source = write_raster(tmp_path / "in.tif", planes(image))
    found = _map(engine_file, source, tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as file:
        np.testing.assert_array_equal(file.read(1), expected_classes(image))
        assert (file.crs, file.transform) == (rasterio.CRS.from_string(UTM), HERE)
        assert file.nodata == 255 and file.dtypes == ("uint8",)
        assert [file.colormap(1)[index][:3] for index in range(3)] == list(COLOURS)
        assert file.tags()["CLASS_1"] == "b"
    expected = [int((expected_classes(image) == label).sum()) for label in range(3)]
    assert found.pixels.tolist() == expected
    np.testing.assert_allclose(found.square_metres, np.array(expected) * 0.09, rtol=1e-9)
    assert found.measured_on == "grid" and found.files == (tmp_path / "map.tif",)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_output_is_cloud_optimised_with_overviews_of_the_most_frequent_class(
    logits_file: Path, tmp_path: Path
) -> None:
    image = rgb(700, 1100)
    _map(logits_file, write_raster(tmp_path / "in.tif", planes(image)), tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.tags(ns="IMAGE_STRUCTURE")["COMPRESSION"] == "DEFLATE"
        assert file.profile["tiled"] and file.overviews(1) == [2, 4]
        whole = file.read(1)
    with rasterio.open(tmp_path / "map.tif", overview_level=0) as file:
        half = file.read(1)
    blocks = whole.reshape(350, 2, 550, 2).transpose(0, 2, 1, 3).reshape(350, 550, 4)
    votes = (blocks[..., None] == np.arange(3)).sum(2)
    chosen = np.take_along_axis(votes, half[..., None].astype(int), 2)[..., 0]
    np.testing.assert_array_equal(chosen, votes.max(2))


def test_what_has_no_data_stays_without(engine_file: Path, tmp_path: Path) -> None:
    """A nodata value, islands of data, and windows that the engine never sees."""
    image = rgb(150, 200)
    image[image == 7] = 8
    holes = np.ones((150, 200), bool)
    holes[10:40, 20:60] = holes[140:, 190:] = False
    image[holes] = 7
    source = write_raster(tmp_path / "in.tif", planes(image), nodata=7)
    found = _map(engine_file, source, tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as file:
        classes = file.read(1)
    np.testing.assert_array_equal(classes == 255, holes)
    np.testing.assert_array_equal(classes[~holes], expected_classes(image)[~holes])
    assert found.pixels.sum() == (~holes).sum()


def test_a_channel_that_happens_to_be_the_nodata_value_is_a_colour(logits_file: Path, tmp_path: Path) -> None:
    image = np.full((40, 40, 3), (0, 0, 200), np.uint8)
    image[:5] = 0
    _map(logits_file, write_raster(tmp_path / "in.tif", planes(image), nodata=0), tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as file:
        classes = file.read(1)
    assert (classes[:5] == 255).all() and (classes[5:] == 2).all()


def test_a_raster_without_any_data(logits_file: Path, tmp_path: Path) -> None:
    source = write_raster(tmp_path / "in.tif", np.full((3, 90, 90), 7, np.uint8), nodata=7)
    assert _map(logits_file, source, tmp_path / "map.tif", probabilities=True).pixels.sum() == 0
    with rasterio.open(tmp_path / "map.tif") as file:
        assert (file.read(1) == 255).all()


def test_an_alpha_band_is_a_mask_and_no_colour(logits_file: Path, tmp_path: Path) -> None:
    image, alpha = rgb(60, 60), np.full((60, 60), 255, np.uint8)
    alpha[:, :25] = 0
    bands = np.concatenate((planes(image), alpha[None]))
    _map(logits_file, write_raster(tmp_path / "in.tif", bands, photometric="RGB", alpha="yes"), tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as file:
        classes = file.read(1)
    assert (classes[:, :25] == 255).all()
    np.testing.assert_array_equal(classes[:, 25:], expected_classes(image)[:, 25:])


def test_bands_are_chosen_and_scaled(logits_file: Path, tmp_path: Path) -> None:
    image = rgb(64, 64)
    deep = np.zeros((5, 64, 64), np.uint16)
    deep[[4, 2, 0]] = planes(image).astype(np.uint16) * 10 + 1000
    source = write_raster(tmp_path / "in.tif", deep)
    _map(logits_file, source, tmp_path / "map.tif", bands=Bands((5, 3, 1), (1000.0, 3550.0)))
    with rasterio.open(tmp_path / "map.tif") as file:
        np.testing.assert_array_equal(file.read(1), expected_classes(image))


def test_16_bits_go_from_percentile_to_percentile(tmp_path: Path) -> None:
    values = np.arange(3 * 100 * 100, dtype=np.uint16).reshape(3, 100, 100)
    with Raster(write_raster(tmp_path / "in.tif", values), Bands()) as raster:
        pixels = raster.read(0, 100)
    for band in range(3):
        low, high = np.percentile(values[band], (2, 98))
        expected = np.clip((values[band] - low) / (high - low) * 255, 0, 255)
        np.testing.assert_allclose(pixels[..., band], expected, atol=0.51)


@pytest.mark.parametrize("tiled", [False, True])
def test_percentiles_come_from_where_there_is_data(tmp_path: Path, tiled: bool) -> None:
    """A strip of data that lies outside the blocks that are spread over the raster, and a lone corner of it."""
    values = np.zeros((1, 4096, 600), np.uint16)
    strip = np.random.default_rng(0).integers(1000, 3000, (60, 600)).astype(np.uint16)
    values[0, 20:80] = strip
    layout = {"tiled": True, "blockxsize": 256, "blockysize": 256} if tiled else {"blockysize": 64}
    with Raster(write_raster(tmp_path / "in.tif", values, nodata=0, **layout), Bands()) as raster:
        pixels = raster.read(0, 128)
    low, high = np.percentile(strip, (2, 98))
    expected = np.clip((strip - low) / (high - low) * 255, 0, 255)
    np.testing.assert_allclose(pixels[20:80, :, 0], expected, atol=0.51)

    values[:] = 0
    values[0, 4090:, 590:] = np.arange(5000, 5060).reshape(6, 10)
    with Raster(write_raster(tmp_path / "corner.tif", values, nodata=0, **layout), Bands()) as raster:
        pixels = raster.read(4090, 4096)
    assert pixels[0, 590, 0] == 0 and pixels[-1, -1, 0] == 255 and len(np.unique(pixels[:, 590:])) > 50


def test_a_raster_too_large_to_look_for_data_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edpct.predict.raster.samples.MOST", 2**20)
    source = write_raster(tmp_path / "in.tif", np.zeros((1, 4096, 600), np.uint16), nodata=0)
    with pytest.raises(DataError, match=r"no data in any .* looked at .*Say which .* --scale 0,3000"):
        Raster(source, Bands())
    with Raster(source, Bands(scale=(0.0, 3000.0))) as raster:
        assert raster.scale is not None


def test_bands_of_several_types_are_brought_to_8_bits_each_as_its_type_is(logits_file: Path, tmp_path: Path) -> None:
    """8 bits stay, the others go from percentile to percentile; what is no number in one band has no data."""
    image = rgb(80, 60)
    values = {"Byte": image[..., 0], "UInt16": image[..., 1] * np.uint16(9) + 70, "Float32": image[..., 2] / 1e3}
    parts = []
    for number, (kind, band) in enumerate(values.items(), 1):
        band = band.astype({"Byte": np.uint8, "UInt16": np.uint16, "Float32": np.float32}[kind])
        if kind == "Float32":
            band[3, 4] = np.nan
        write_raster(tmp_path / f"{kind}.tif", band[None])
        parts.append(
            f'<VRTRasterBand dataType="{kind}" band="{number}"><SimpleSource><SourceFilename relativeToVRT="1">{kind}'
            ".tif</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        )
    source = tmp_path / "in.vrt"
    source.write_text(f'<VRTDataset rasterXSize="60" rasterYSize="80">{"".join(parts)}</VRTDataset>')
    seen = image.astype(np.float64)
    there = np.ones((80, 60), bool)
    there[3, 4] = False
    for band in (1, 2):
        low, high = np.percentile(image[..., band][there], (2, 98))
        seen[..., band] = np.clip((seen[..., band] - low) / (high - low) * 255, 0, 255)
    with Raster(source, Bands()) as raster:
        pixels = raster.read(0, 80)
    np.testing.assert_array_equal(pixels[there][:, 0], image[there][:, 0])
    np.testing.assert_allclose(pixels[there], seen[there], atol=0.6)
    found = _map(logits_file, source, tmp_path / "map.tif", bands=Bands((3, 2, 1)))
    assert found.pixels.sum() == 80 * 60 - 1
    with rasterio.open(tmp_path / "map.tif") as file:
        np.testing.assert_array_equal(file.read(1)[there], expected_classes(pixels[..., ::-1])[there])


def test_a_file_of_several_rasters_is_told_how_to_take_one_out(tmp_path: Path) -> None:
    source = tmp_path / "two.gpkg"
    for table, more in (("one", "NO"), ("other", "YES")):
        write_raster(
            source, planes(rgb(40, 40)), "EPSG:3857", driver="GPKG", RASTER_TABLE=table, APPEND_SUBDATASET=more
        )
    with pytest.raises(DataError, match=r"two.gpkg has no bands of its own.*gdal_translate GPKG:.*two.gpkg:one OUT"):
        Raster(source, Bands())


def test_values_that_are_no_numbers_have_no_data(logits_file: Path, tmp_path: Path) -> None:
    image = rgb(50, 50)
    real = planes(image).astype(np.float32)
    real[1, 5, 6], real[0, 7, 8] = np.nan, np.inf
    source = write_raster(tmp_path / "in.tif", real)
    _map(logits_file, source, tmp_path / "map.tif", bands=Bands(scale="none"))
    with rasterio.open(tmp_path / "map.tif") as file:
        classes = file.read(1)
    assert np.argwhere(classes == 255).tolist() == [[5, 6], [7, 8]]
    np.testing.assert_array_equal(classes[20:], expected_classes(image)[20:])


def test_one_band_is_grey_and_a_palette_is_looked_up(logits_file: Path, tmp_path: Path) -> None:
    index = np.tile(np.arange(3, dtype=np.uint8), (40, 20))
    source = write_raster(tmp_path / "in.tif", index[None], photometric="palette")
    colours = {0: (250, 0, 0, 255), 1: (0, 250, 0, 255), 2: (0, 0, 250, 255)}
    with rasterio.open(source, "r+") as file:
        file.write_colormap(1, colours)
    _map(logits_file, source, tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as file:
        np.testing.assert_array_equal(file.read(1), index)
    grey = write_raster(tmp_path / "grey.tif", index[None] * 100)
    with Raster(grey, Bands()) as raster:
        assert raster.bands == (1, 1, 1)
        np.testing.assert_array_equal(raster.read(0, 40), np.repeat(index[..., None] * 100, 3, 2))


@pytest.mark.parametrize("transform", [Affine(0.2, 0.1, 5e5, 0.1, -0.2, 2e6), Affine.identity()])
@pytest.mark.parametrize("crs", [UTM, None, "EPSG:4326"])
def test_turned_rasters_and_rasters_without_a_place(
    logits_file: Path, tmp_path: Path, crs: str | None, transform: Affine
) -> None:
    image = rgb(70, 70)
    found = _map(logits_file, write_raster(tmp_path / "in.tif", planes(image), crs, transform), tmp_path / "map.tif")
    with rasterio.open(tmp_path / "in.tif") as source, rasterio.open(tmp_path / "map.tif") as file:
        assert (file.crs, file.transform) == (source.crs, source.transform)
        np.testing.assert_array_equal(file.read(1), expected_classes(image))
    assert (found.square_metres is None) or crs is not None


def test_probabilities_are_those_of_the_logits(logits_file: Path, tmp_path: Path) -> None:
    image = rgb(40, 40)
    found = _map(
        logits_file, write_raster(tmp_path / "in.tif", planes(image)), tmp_path / "map.tif", probabilities=True
    )
    assert found.files[1] == tmp_path / "map-probabilities.tif"
    with rasterio.open(found.files[1]) as file:
        assert file.descriptions == ("a", "b", "c") and file.transform == HERE
        shares = file.read() * file.scales[0]
    np.testing.assert_allclose(shares.sum(0), 1, atol=0.01)
    np.testing.assert_array_equal(shares.argmax(0)[shares.max(0) > 0.51], expected_classes(image)[shares.max(0) > 0.51])


def test_an_engine_of_classes_has_no_probabilities(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "in.tif", planes(rgb(40, 40)))
    with pytest.raises(EngineError, match="gives classes and no probabilities"):
        _map(write_engine(tmp_path, fused=True), source, tmp_path / "map.tif", probabilities=True)
    assert not (tmp_path / "map.tif").exists() and not (tmp_path / ".map.tif.part").exists()


def test_what_was_predicted_before_a_stop_is_kept(logits_file: Path, tmp_path: Path) -> None:
    """Rows of an earlier attempt are marked, so that it can be told which of them were made again."""
    image = rgb(300, 90)
    source = write_raster(tmp_path / "in.tif", planes(image))

    class Stop:
        def task(self, title: str, total: int, start: int = 0) -> Any:
            from contextlib import contextmanager

            @contextmanager
            def counting() -> Any:
                def update(done: int, note: str) -> None:
                    if done >= 150:
                        raise KeyboardInterrupt

                yield update

            return counting()

        def say(self, text: str) -> None:
            pass

    with Engine(logits_file, runtime="onnxruntime") as engine, pytest.raises(KeyboardInterrupt):
        predict_raster(engine, source, tmp_path / "map.tif", RasterSettings(), Stop())
    assert not (tmp_path / "map.tif").exists()
    rows = tmp_path / ".map.tif.part" / "classes.rows"
    kept = (rows.stat().st_size - HEADER.size) // 90
    assert 150 <= kept < 300
    marked = bytearray(rows.read_bytes())
    marked[HEADER.size : HEADER.size + 90 * 100] = bytes([2]) * 9000
    rows.write_bytes(marked[:-45])  # the last row only half written
    found = _map(logits_file, source, tmp_path / "map.tif")
    assert 100 <= found.resumed_at < kept
    with rasterio.open(tmp_path / "map.tif") as file:
        classes = file.read(1)
    assert (classes[:100] == 2).all()
    np.testing.assert_array_equal(classes[100:], expected_classes(image)[100:])
    assert not rows.parent.exists()


def test_another_engine_or_raster_begins_anew(logits_file: Path, tmp_path: Path) -> None:
    image = rgb(100, 90)
    source = write_raster(tmp_path / "in.tif", planes(image))
    work = tmp_path / ".map.tif.part"
    work.mkdir()
    (work / "job.json").write_text('{"engine": "other"}')
    (work / "classes.rows").write_bytes(bytes(9000))
    assert _map(logits_file, source, tmp_path / "map.tif").resumed_at == 0
    with rasterio.open(tmp_path / "map.tif") as file:
        np.testing.assert_array_equal(file.read(1), expected_classes(image))


def test_a_map_that_is_there_is_kept_and_counted(logits_file: Path, engine_file: Path, tmp_path: Path) -> None:
    image, out = rgb(1100, 700), tmp_path / "map.tif"
    source = write_raster(tmp_path / "in.tif", planes(image))
    first = _map(logits_file, source, out)
    made = out.stat().st_mtime_ns
    again = _map(logits_file, source, out, polygons=tmp_path / "areas.geojson")
    assert (first.kept, again.kept) == (False, True) and out.stat().st_mtime_ns == made
    assert again.pixels.tolist() == first.pixels.tolist()
    np.testing.assert_array_equal(again.square_metres, first.square_metres)
    assert again.written == (tmp_path / "areas.geojson",) and again.polygons

    assert not _map(logits_file, source, out, overlap=16).kept
    assert not _map(engine_file, source, out).kept
    write_raster(source, planes(rgb(1100, 700)[::-1]))
    assert not _map(engine_file, source, out).kept
    assert not _map(logits_file, source, out, probabilities=True).kept
    assert _map(logits_file, source, out, probabilities=True).written == ()
    assert _map(logits_file, source, out).kept  # the same map, with or without them


def _vrt(path: Path, source: Path) -> Path:
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"><SimpleSource><SourceFilename relativeToVRT="1">{source.name}'
        f"</SourceFilename><SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
        for band in (1, 2, 3)
    )
    path.write_text(f'<VRTDataset rasterXSize="90" rasterYSize="70">{bands}</VRTDataset>')
    return path


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_place_nodata_or_mask_in_a_file_beside_the_raster_makes_another_map(
    logits_file: Path, tmp_path: Path
) -> None:
    image, out = rgb(70, 90), tmp_path / "map.tif"
    image[:20] = 0
    source = tmp_path / "in.tif"
    Image.fromarray(image).save(source)
    assert not _map(logits_file, source, out).kept and _map(logits_file, source, out).kept
    (tmp_path / "in.tfw").write_text("0.5\n0\n0\n-0.5\n1000.25\n1999.75\n")
    assert not _map(logits_file, source, out).kept
    with rasterio.open(out) as file:
        assert file.transform == Affine(0.5, 0, 1000, 0, -0.5, 2000)
    sidecar = "<PAMDataset><SRS>EPSG:32640</SRS>{}</PAMDataset>"
    (tmp_path / "in.tif.aux.xml").write_text(sidecar.format(""))
    assert not _map(logits_file, source, out).kept
    with rasterio.open(out) as file:
        assert file.crs == rasterio.CRS.from_string(UTM) and (file.read(1) != 255).all()
    bands = "".join(f'<PAMRasterBand band="{n}"><NoDataValue>0</NoDataValue></PAMRasterBand>' for n in (1, 2, 3))
    (tmp_path / "in.tif.aux.xml").write_text(sidecar.format(bands))
    assert _map(logits_file, source, out).pixels.sum() == 50 * 90
    (tmp_path / "in.tif.aux.xml").write_text(sidecar.format(""))
    mask = np.full((70, 90), 255, np.uint8)
    mask[:, :30] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(source, "r+") as file:
        file.write_mask(mask)
    assert _map(logits_file, source, out).pixels.sum() == 70 * 60 and _map(logits_file, source, out).kept
    touched = (tmp_path / "in.tif.msk").stat()
    os.utime(tmp_path / "in.tif.msk", ns=(touched.st_atime_ns, touched.st_mtime_ns + 1000))
    assert not _map(logits_file, source, out).kept


def test_what_programs_leave_beside_a_raster_that_they_only_look_at_makes_no_other_map(
    logits_file: Path, tmp_path: Path
) -> None:
    """Statistics, a histogram and overviews, as QGIS and gdalinfo write them; what says something still counts."""
    out, source = tmp_path / "map.tif", write_raster(tmp_path / "in.tif", planes(rgb(600, 500)))
    assert not _map(logits_file, source, out).kept
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(source, "r+") as file:
        file.build_overviews([2, 4])
    pam = tmp_path / "in.tif.aux.xml"
    histogram = "<Histograms><HistItem><HistMin>0</HistMin></HistItem></Histograms>"
    statistics = '<Metadata><MDI key="STATISTICS_MEAN">3</MDI></Metadata>'
    pam.write_text(f'<PAMDataset><PAMRasterBand band="1">{histogram}{statistics}</PAMRasterBand></PAMDataset>\n')
    assert (tmp_path / "in.tif.ovr").exists() and _map(logits_file, source, out).kept
    described = statistics.replace("</M", '<MDI key="SENSOR">thermal</MDI></M')
    pam.write_text(f'<PAMDataset><PAMRasterBand band="1">{described}</PAMRasterBand></PAMDataset>')
    assert not _map(logits_file, source, out).kept
    pam.write_text("<PAMDataset")
    assert not _map(logits_file, source, out).kept


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("deep", [False, True])
def test_changed_sources_of_a_vrt_make_another_map(logits_file: Path, tmp_path: Path, deep: bool) -> None:
    tile, out = tmp_path / "tile.tif", tmp_path / "map.tif"
    write_raster(tile, planes(rgb(70, 90)))
    source = _vrt(tmp_path / "in.vrt", _vrt(tmp_path / "mid.vrt", tile) if deep else tile)
    assert not _map(logits_file, source, out).kept and _map(logits_file, source, out).kept
    write_raster(tile, planes(rgb(70, 90, 1)))
    assert not _map(logits_file, source, out).kept
    with rasterio.open(out) as file:
        np.testing.assert_array_equal(file.read(1), expected_classes(rgb(70, 90, 1)))


def test_what_lies_beside_a_map_that_is_kept(
    logits_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed just before its working folder went, that goes now; the unfinished work of another job stays."""
    source, out = write_raster(tmp_path / "in.tif", planes(rgb(100, 90))), tmp_path / "map.tif"
    work = tmp_path / ".map.tif.part"
    with monkeypatch.context() as patched:
        patched.setattr(Workspace, "remove", lambda self: None)
        _map(logits_file, source, out)
    assert (work / "classes.rows").exists()
    assert _map(logits_file, source, out).kept and not work.exists()
    work.mkdir()
    (work / "job.json").write_text('{"job": "another"}')
    (work / "classes.rows").write_bytes(bytes(9000))
    assert _map(logits_file, source, out).kept and (work / "classes.rows").exists()


def test_a_map_that_was_made_before_and_is_damaged(logits_file: Path, tmp_path: Path) -> None:
    source, out = write_raster(tmp_path / "in.tif", planes(rgb(1100, 700))), tmp_path / "map.tif"
    _map(logits_file, source, out)
    out.write_bytes(out.read_bytes()[:-2000])
    with pytest.raises(DataError, match=r"map.tif was made before, and is damaged.\s+Remove it"):
        _map(logits_file, source, out)


def test_kill_minus_nine_costs_only_what_was_not_written(logits_file: Path, tmp_path: Path) -> None:
    image = rgb(6000, 1500)
    source = write_raster(tmp_path / "in.tif", planes(image))
    command = [
        sys.executable, "-m", "edpct", "predict", "--engine", str(logits_file), "--input", str(source),
        "--out", str(tmp_path / "map.tif"), "--runtime", "onnxruntime",
    ]  # fmt: skip
    rows = tmp_path / ".map.tif.part" / "classes.rows"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (rows.exists() and rows.stat().st_size > HEADER.size):
        time.sleep(0.005)
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Going on at row" in result.stderr
    with rasterio.open(tmp_path / "map.tif") as file:
        np.testing.assert_array_equal(file.read(1), expected_classes(image))


def test_two_at_once_on_the_same_output(logits_file: Path, tmp_path: Path) -> None:
    import fcntl

    source = write_raster(tmp_path / "in.tif", planes(rgb(40, 40)))
    (tmp_path / ".map.tif.part").mkdir()
    with (tmp_path / ".map.tif.part" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="Another edpct is making"):
            _map(logits_file, source, tmp_path / "map.tif")


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks(
    logits_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    image = rgb(40, 40)
    _map(logits_file, write_raster(tmp_path / "in.tif", planes(image)), tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as file:
        np.testing.assert_array_equal(file.read(1), expected_classes(image))
    assert not (tmp_path / ".map.tif.part").exists()


def test_a_raster_that_is_cut_short_keeps_what_was_read(logits_file: Path, tmp_path: Path) -> None:
    source = write_raster(tmp_path / "in.tif", planes(rgb(400, 300)))
    source.write_bytes(source.read_bytes()[:150_000])
    with pytest.raises(DataError, match=r"cannot be (read in rows|opened)"):
        _map(logits_file, source, tmp_path / "map.tif")
    assert not (tmp_path / "map.tif").exists()


def test_a_crop_is_seen_on_the_lattice_of_the_whole(tmp_path: Path) -> None:
    image = rgb(90, 90)
    whole = write_raster(tmp_path / "whole.tif", planes(image))
    crop = write_raster(tmp_path / "crop.tif", planes(image[17:, 23:]), transform=HERE @ Affine.translation(23, 17))
    with Raster(whole, Bands()) as a, Raster(crop, Bands()) as b:
        assert (b.phase[0] - a.phase[0], b.phase[1] - a.phase[1]) == (17, 23)
