"""Areas against closed forms, polygons against the pixels they outline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from rasterio.transform import Affine
from rasters import HERE, write_raster
from toy_engines import TASK

from edpct.errors import MissingPackageError, RunError
from edpct.predict.raster.ground import Census, pixel_area
from edpct.predict.raster.overviews import half
from edpct.predict.raster.polygons import Outlines, check_polygon_file, write_polygons
from edpct.predict.raster.read import Bands, Raster

E2 = 0.00669437999014  # WGS 84, first eccentricity squared
MAJOR = 6378137.0


def _zone(south: float, north: float) -> float:
    """Square metres of the ellipsoid between two latitudes in degrees (Snyder 1987, equation 3-12)."""
    e = np.sqrt(E2)

    def q(latitude: float) -> float:
        s = np.sin(np.radians(latitude))
        return float((1 - E2) * (s / (1 - E2 * s * s) - np.log((1 - e * s) / (1 + e * s)) / (2 * e)))

    return np.pi * MAJOR**2 * (q(north) - q(south))


def test_degrees_are_measured_on_the_ellipsoid() -> None:
    transform = Affine(0.001, 0, 55.0, 0, -0.001, 25.5)
    area = pixel_area(rasterio.CRS.from_epsg(4326), transform, 500, 400)
    assert area is not None and area.on == "ellipsoid"
    census = Census(1, 500, 400, area)
    for first in range(0, 500, 120):
        census.append(np.zeros((min(120, 500 - first), 400), np.uint8))
    assert census.square_metres is not None
    np.testing.assert_allclose(census.square_metres[0], _zone(25.0, 25.5) * 0.4 / 360, rtol=1e-6)


def test_web_mercator_is_not_believed() -> None:
    """At 60 degrees north it shows ground four times as large as it is."""
    y = 8399737.9
    area = pixel_area(rasterio.CRS.from_epsg(3857), Affine(1, 0, 1e6, 0, -1, y), 100, 100)
    assert area is not None and area.on == "ellipsoid"
    np.testing.assert_allclose(area.square_metres, 0.25, rtol=0.01)


@pytest.mark.parametrize(("code", "unit"), [(32640, 1.0), (2263, 0.3048006096)])
def test_a_projection_in_metres_or_feet_is(code: int, unit: float) -> None:
    x, y = (500000, 2780000) if code == 32640 else (984000, 200000)
    area = pixel_area(rasterio.CRS.from_epsg(code), Affine(0.5, 0.1, x, 0.1, -0.5, y), 50, 60)
    assert area is not None and area.on == "grid"
    np.testing.assert_allclose(area.square_metres, 0.26 * unit**2, rtol=1e-9)


@pytest.mark.parametrize("west", [179.8, -180.2, 0.0, 180.0, 359.8])
def test_degrees_have_one_area_all_round_the_earth(west: float) -> None:
    area = pixel_area(rasterio.CRS.from_epsg(4326), Affine(0.001, 0, west, 0, -0.001, 25.5), 500, 400)
    assert area is not None and area.on == "ellipsoid"
    mean = float(area.square_metres.mean()) * 500 * 400
    np.testing.assert_allclose(mean, _zone(25.0, 25.5) * 0.4 / 360, rtol=1e-3)  # cells of 7 and 8 rows weigh alike


@pytest.mark.parametrize("west", [-180.0, 0.0])
def test_the_whole_earth_is_as_large_as_it_is(west: float) -> None:
    area = pixel_area(rasterio.CRS.from_epsg(4326), Affine(1, 0, west, 0, -1, 90), 180, 360)
    census = Census(1, 180, 360, area)
    census.append(np.zeros((180, 360), np.uint8))
    assert census.square_metres is not None
    np.testing.assert_allclose(census.square_metres[0], _zone(-90, 90), rtol=1e-6)


@pytest.mark.parametrize(("code", "x", "y"), [(32760, 819_200, 8_118_248), (3832, 3_339_400, 0)])
def test_a_projection_across_the_antimeridian(code: int, x: float, y: float) -> None:
    """UTM 60S at Fiji, and PDC Mercator at the equator: true to less than one in a hundred, there as elsewhere."""
    area = pixel_area(rasterio.CRS.from_epsg(code), Affine(0.5, 0, x, 0, -0.5, y), 1000, 1000)
    assert area is not None and area.on == "grid"
    assert area.square_metres.tolist() == [[0.25]]


@pytest.mark.parametrize(("code", "scale"), [(3031, 0.97276901), (3413, 0.96985819)])
def test_a_raster_over_a_pole(code: int, scale: float) -> None:
    """At the pole a polar stereographic map has this scale (Snyder 1987, equation 21-33 at 71 and 70 degrees)."""
    area = pixel_area(rasterio.CRS.from_epsg(code), Affine(10, 0, -32_000, 0, -10, 32_000), 6400, 6400)
    assert area is not None and area.on == "ellipsoid"
    np.testing.assert_allclose(area.square_metres, 100 / scale**2, rtol=1e-4)


def test_nowhere_has_no_area() -> None:
    assert pixel_area(None, Affine.identity(), 10, 10) is None


def test_half_of_a_map_keeps_the_most_frequent_class_and_the_first_of_several() -> None:
    quads = np.array([[a, b, c, d] for a in range(3) for b in range(3) for c in range(3) for d in range(3)], np.uint8)
    rows = quads.reshape(-1, 2, 2).transpose(1, 0, 2).reshape(2, -1)
    for four, found in zip(quads.tolist(), half(rows)[0].tolist(), strict=True):
        assert found == max(four, key=lambda label: (four.count(label), -four.index(label)))


@pytest.fixture
def islands(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """Large areas with ragged edges, specks of one pixel, and a part without data."""
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(0, 3, (4, 5)), np.ones((20, 20))).astype(np.uint8)
    for row in range(80):
        labels[row] = np.roll(labels[row], row % 3)
    labels[5, 5], labels[50:60, 70:90] = (labels[5, 5] + 1) % 3, 255
    return write_raster(tmp_path / "map.tif", labels[None], nodata=255), labels


def _polygons(path: Path, out: Path, outlines: Outlines) -> int:
    with Raster(path, Bands()) as raster:
        return write_polygons(path, raster, TASK, outlines, out)


def test_polygons_as_they_are_hold_exactly_their_pixels(islands: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    path, labels = islands
    count = _polygons(path, tmp_path / "p.gpkg", Outlines(0, 0))
    meta, _, geometry, fields = pyogrio.raw.read(tmp_path / "p.gpkg")
    assert meta["crs"] == "EPSG:32640" and list(meta["fields"]) == ["class", "name", "area_m2"]
    assert len(geometry) == count
    shapes = zip(shapely.from_wkb(geometry), fields[0].tolist(), strict=True)
    drawn = rasterio.features.rasterize(shapes, labels.shape, fill=255, transform=HERE)
    np.testing.assert_array_equal(drawn, labels)
    assert fields[1].tolist() == [TASK.names[index] for index in fields[0]]
    np.testing.assert_allclose(fields[2].sum(), (labels != 255).sum() * 0.09, rtol=2e-3)  # the map's scale


def test_simplified_polygons_leave_no_gaps(islands: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    path, labels = islands
    plain, few = (_polygons(path, tmp_path / f"{size}.gpkg", Outlines(size, 3.0)) for size in (0, 16))
    assert few < plain
    found = shapely.from_wkb(pyogrio.raw.read(tmp_path / "16.gpkg")[2])
    assert shapely.coverage_is_valid(found) and shapely.is_valid(found).all()
    np.testing.assert_allclose(shapely.area(found).sum(), (labels != 255).sum() * 0.09, rtol=0.01)


def test_geojson_is_in_degrees(islands: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    path, _ = islands
    count = _polygons(path, tmp_path / "p.geojson", Outlines())
    read = json.loads((tmp_path / "p.geojson").read_text())
    assert read["type"] == "FeatureCollection" and len(read["features"]) == count
    points = np.array([point for feature in read["features"] for point in feature["geometry"]["coordinates"][0]])
    assert (np.abs(points - (55.26, 25.12)) < 0.02).all()
    assert {"class", "name", "area_m2"} == set(read["features"][0]["properties"])


def test_geojson_is_cut_at_the_antimeridian(tmp_path: Path) -> None:
    """At Fiji: one area of 600 x 600 metres becomes two parts, west and east, which neither overlap nor leave a gap."""
    labels, place = np.zeros((1, 60, 60), np.uint8), Affine(10, 0, 819_200, 0, -10, 8_118_248)
    path = write_raster(tmp_path / "map.tif", labels, crs="EPSG:32760", transform=place, nodata=255)
    assert _polygons(path, tmp_path / "p.geojson", Outlines()) == 1
    (feature,) = json.loads((tmp_path / "p.geojson").read_text())["features"]
    assert feature["properties"]["area_m2"] == pytest.approx(360_000, rel=2e-3)
    assert feature["geometry"]["type"] == "MultiPolygon"
    west, east = shapely.get_parts(shapely.geometry.shape(feature["geometry"]))
    assert west.bounds[2] == 180 and east.bounds[0] == -180
    degree = 2 * np.pi * MAJOR * np.cos(np.radians(17)) / 360  # metres at Fiji's latitude, roughly
    assert (west.bounds[2] - west.bounds[0] + east.bounds[2] - east.bounds[0]) * degree == pytest.approx(600, rel=0.05)


def test_geojson_cannot_hold_a_pole(tmp_path: Path) -> None:
    labels, place = np.zeros((1, 64, 64), np.uint8), Affine(1000, 0, -32_000, 0, -1000, 32_000)
    path = write_raster(tmp_path / "map.tif", labels, crs="EPSG:3031", transform=place, nodata=255)
    with pytest.raises(RunError, match="a pole lies in the raster"):
        _polygons(path, tmp_path / "p.geojson", Outlines())
    _polygons(path, tmp_path / "p.gpkg", Outlines())
    (area,) = pyogrio.raw.read(tmp_path / "p.gpkg")[3][2].tolist()
    assert area == pytest.approx(64_000**2 / 0.97276901**2, rel=1e-4)


def test_a_map_without_any_area(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "map.tif", np.full((1, 8, 9), 255, np.uint8), nodata=255)
    for name in ("p.geojson", "p.gpkg"):
        assert _polygons(path, tmp_path / name, Outlines()) == 0
    assert json.loads((tmp_path / "p.geojson").read_text())["features"] == []


def test_a_raster_without_a_place_gives_pixels(tmp_path: Path) -> None:
    labels = np.zeros((1, 30, 40), np.uint8)
    path = write_raster(tmp_path / "map.tif", labels, crs=None, transform=Affine.identity(), nodata=255)
    _polygons(path, tmp_path / "p.geojson", Outlines())
    feature: Any = json.loads((tmp_path / "p.geojson").read_text())["features"][0]
    assert shapely.geometry.shape(feature["geometry"]).bounds == (0, 0, 40, 30)
    assert "area_m2" not in feature["properties"]


def test_files_that_polygons_cannot_go_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match=r"p\.shp is neither"):
        check_polygon_file(tmp_path / "p.shp")
    with pytest.raises(RunError, match="no folder"):
        check_polygon_file(tmp_path / "none" / "p.gpkg")
    monkeypatch.setitem(__import__("sys").modules, "pyogrio", None)
    with pytest.raises(MissingPackageError, match=r"edpct\[gpkg\]"):
        check_polygon_file(tmp_path / "p.gpkg")
