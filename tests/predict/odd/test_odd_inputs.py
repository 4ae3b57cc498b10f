"""Damaged and odd inputs through the real ``edpct predict``: right in every pixel, or one sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from odd_cases import Case, Meant, check_refused, check_right, whole
from odd_inputs import CASES
from odd_server import Edpct

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")  # that is what is odd


def _predicted(edpct: Edpct, engine: Path, case: Case, folder: Path) -> None:
    here, results = folder / "in", folder / "out"
    here.mkdir()
    results.mkdir()
    meant = case.make(here)
    picture = meant.source.suffix.lower() in (".png", ".jpg", ".jpeg", ".bmp", ".webp")
    out = results / (meant.out or ("map.png" if picture else "map.tif"))
    answer = edpct(
        here, "predict", "--engine", engine, "--input", meant.source, "--out", out, "--runtime", "onnxruntime",
        "--threads", 1, "--streams", 1, *meant.more,
    )  # fmt: skip
    if meant.either and answer.code == 0:
        whole(out)
        assert len(list(results.iterdir())) == 1
    elif meant.classes is None:
        check_refused(answer, meant.said, out)
    else:
        check_right(answer, meant, here, out)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_odd_input(edpct: Edpct, engine: Path, case: Case, tmp_path: Path) -> None:
    _predicted(edpct, engine, case, tmp_path)


def test_there_are_500_of_them_and_no_two_are_the_same() -> None:
    assert len({str(case) for case in CASES}) == len(CASES) >= 500


def test_one_wrong_pixel_or_a_missing_refusal_would_be_seen(edpct: Edpct, engine: Path, tmp_path: Path) -> None:
    case = next(case for case in CASES if str(case) == "size-33x31")

    def with_one_wrong(folder: Path) -> Meant:
        meant = case.make(folder)
        assert meant.classes is not None
        classes = meant.classes.copy()
        classes[-1, -1] = (classes[-1, -1] + 1) % 3
        return replace(meant, classes=classes)

    def refused(folder: Path) -> Meant:
        return replace(case.make(folder), classes=None)

    for index, make in enumerate((with_one_wrong, refused)):
        folder = tmp_path / str(index)
        folder.mkdir()
        with pytest.raises(AssertionError):
            _predicted(edpct, engine, replace(case, make=make), folder)
    assert np.unique(whole(tmp_path / "0" / "out" / "map.tif")).tolist() == [0, 1, 2]
