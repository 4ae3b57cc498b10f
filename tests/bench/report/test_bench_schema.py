"""The JSON of a report: the published schema is the model's, and both refuse what is no report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from report_factory import make_accuracy, make_data, make_pair, make_report, make_row

from edpct.bench.report import schema
from edpct.bench.report.schema import SCHEMA, SCOPES, Report, StageReport, ThroughputReport, read_report, report_schema
from edpct.errors import RunError

PUBLISHED = Path(schema.__file__).with_name("report.schema.json")


@pytest.fixture(scope="module")
def validator() -> jsonschema.protocols.Validator:
    """Of the published file, by its own draft."""
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    assert published["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(published)
    return jsonschema.Draft202012Validator(published)


@pytest.fixture
def report(compressed_run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((compressed_run / "report.json").read_text(encoding="utf-8"))
    return found


def full() -> Report:
    """A report in which every optional part is filled."""
    flow = ThroughputReport(streams=2, fps=100.0, p50=20.0, frames=12, rounds=(99.0, 101.0))
    rows = (
        make_row("teacher", accuracy=make_accuracy({"land": 0.5, "road": None})),
        make_row("INT8", throughput=flow, options={"cuda_graph": True, "threads": 2},
                 accuracy=make_accuracy({"land": 0.4, "road": None}, difference=(-0.2, 0.1))),
    )  # fmt: skip
    return make_report(
        *rows, data=make_data("land", "road"), seed=3, sittings=2, pictures="pictures.png", recipe={"seed": 3},
        failures=({"name": "a.plan", "runtime": "tensorrt", "reason": "no GPU"},),
        stages=(StageReport(name="prune", seconds=1.5, facts={"ratio": 0.5}),),
    )  # fmt: skip


def test_the_published_schema_is_the_models() -> None:
    assert json.loads(PUBLISHED.read_text(encoding="utf-8")) == report_schema(), (
        "write it again: python -m edpct.bench.report.schema > edpct/bench/report/report.schema.json"
    )


def test_the_published_schema_describes_every_field_of_a_report() -> None:
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    assert str(SCHEMA) in published["title"]
    assert set(published["properties"]) == set(Report.model_fields)
    latency = published["$defs"]["RowReport"]["properties"]["latency"]
    assert latency["propertyNames"] == {"enum": list(SCOPES)}
    assert published["$defs"]["MemoryReport"]["additionalProperties"] is False


def test_reports_are_valid(validator: jsonschema.protocols.Validator, report: dict[str, Any]) -> None:
    validator.validate(report)
    for made in (make_report(), make_pair(), full()):
        validator.validate(json.loads(made.model_dump_json()))


def lose(*path: str | int) -> Callable[[dict[str, Any]], None]:
    def damage(report: dict[str, Any]) -> None:
        part: Any = report
        for key in path[:-1]:
            part = part[key]
        del part[path[-1]]

    return damage


def put(value: Any, *path: str | int) -> Callable[[dict[str, Any]], None]:
    def damage(report: dict[str, Any]) -> None:
        part: Any = report
        for key in path[:-1]:
            part = part[key]
        part[path[-1]] = value

    return damage


DAMAGED = {
    "a row without its latency": lose("rows", 0, "latency"),
    "a time that is a text": put("fast", "rows", 1, "latency", "transfer", "p50"),
    "a scope that does not exist": put({}, "rows", 0, "latency", "everything"),
    "an interval of three": put([1.0, 2.0, 3.0], "rows", 0, "latency", "compute", "interval"),
    "a key that nobody knows": put(31.4, "rows", 0, "fps"),
    "no rows": put([], "rows"),
    "another version": put(1, "schema_version"),
    "throttled or not": put("perhaps", "rows", 0, "state", "throttled"),
    "a machine without cores": lose("machine", "cores"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_report_is_refused(
    validator: jsonschema.protocols.Validator, report: dict[str, Any], tmp_path: Path, kind: str
) -> None:
    """By the published schema and by the reader of edpct alike."""
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report), encoding="utf-8")
    read_report(path)
    DAMAGED[kind](report)
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(report)
    path.write_text(json.dumps(report), encoding="utf-8")
    with pytest.raises(RunError) as caught:
        read_report(path)
    assert caught.value.what.startswith(f"{path} is no report of this version (schema 2): ")
    assert "edpct bench" in caught.value.hint


def test_reading_gives_back_what_was_written(tmp_path: Path, report: dict[str, Any]) -> None:
    made = full()
    path = tmp_path / "report.json"
    path.write_text(made.model_dump_json(indent=1), encoding="utf-8")
    assert read_report(path) == made
    path.write_text(json.dumps(report), encoding="utf-8")
    assert json.loads(read_report(path).model_dump_json()) == report


def test_a_report_of_the_first_version(tmp_path: Path) -> None:
    """As edpct 0.1 wrote it: latencies without scopes, accuracy as plain numbers."""
    row = {"name": "teacher", "runtime": "openvino", "fps": 7.0, "miou": 0.5, "iou": {"land": 0.5}, "latency_ms": {}}
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"schema": 1, "date": "2026-11-22", "rows": [row]}), encoding="utf-8")
    with pytest.raises(RunError) as caught:
        read_report(path)
    assert str(path) in caught.value.what and "schema 2" in caught.value.what
    assert caught.value.hint.startswith("Measure again")


@pytest.mark.parametrize("content", [b"", b"# A page\n", b"[]", b"null", b'{"rows": [', b"\xff\xfe\x00"])
def test_a_file_that_is_no_report(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(content)
    with pytest.raises(RunError) as caught:
        read_report(path)
    assert str(path) in caught.value.what and "\n" not in caught.value.what


def test_a_report_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        read_report(tmp_path / "nowhere.json")
    assert caught.value.what == f"There is no report {tmp_path / 'nowhere.json'}."
    with pytest.raises(RunError) as caught:
        read_report(tmp_path)
    assert str(tmp_path) in caught.value.what


def test_the_reference_row_is_the_first_of_the_reference_engine() -> None:
    rows = [make_row("a"), make_row("b", "openvino"), make_row("b", "onnxruntime")]
    assert make_report(*rows, reference="b").reference_row() is rows[1]
    assert make_report(*rows, reference="not measured").reference_row() is rows[0]
