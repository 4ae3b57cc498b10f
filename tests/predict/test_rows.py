"""Rows that grow into a BigTIFF, read back by GDAL."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edpct.predict.raster.rows import HEADER, STRIP, Rows, rows_in

rasterio = pytest.importorskip("rasterio")


@pytest.mark.parametrize("height", [1, 7, STRIP, STRIP + 1, 3 * STRIP - 5])
@pytest.mark.parametrize("width", [1, 3, 40])
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_gdal_reads_what_was_appended(tmp_path: Path, height: int, width: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width), np.uint8)
    rows = Rows(tmp_path / "some.rows", width)
    for start in range(0, height, 100):
        rows.append(pixels[start : start + 100])
    rows.finish()
    with rasterio.open(tmp_path / "some.rows") as file:
        if height > STRIP:  # GDAL cuts a lone strip as it likes
            assert file.block_shapes == [(STRIP, width)]
        np.testing.assert_array_equal(file.read(), pixels[None])


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_finished_file_is_gone_on_with(tmp_path: Path) -> None:
    path, pixels = tmp_path / "some.rows", np.arange(70, dtype=np.uint8).reshape(10, 7)
    rows = Rows(path, 7)
    assert rows_in(path, 7) == 0
    rows.append(pixels)
    assert rows_in(path, 7) == 10
    rows.finish()
    assert rows_in(path, 7) >= 10
    again = Rows(path, 7, begin=6)
    assert path.stat().st_size == HEADER.size + 42
    again.append(pixels[:2])
    again.finish()
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(1), np.concatenate((pixels[:6], pixels[:2])))


def test_no_file_has_no_rows(tmp_path: Path) -> None:
    assert rows_in(tmp_path / "none.rows", 3) == 0
    (tmp_path / "cut.rows").write_bytes(b"II")
    assert rows_in(tmp_path / "cut.rows", 3) == 0
