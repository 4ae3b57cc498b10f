"""A whole bench with real workers: its numbers against an independent computation, stopping and going on."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image
from worker_processes import children

from edpct.bench.crew import Member
from edpct.bench.measure import bench
from edpct.bench.report.schema import SCOPES
from edpct.bench.requests import Request
from edpct.bench.worker import Job
from edpct.data.layouts import open_dataset
from edpct.errors import DataError, EngineError
from edpct.progress import Silent, Update
from edpct.recipe import BenchSettings
from edpct.runtimes.content import sha256_of
from edpct.runtimes.session import Options

QUICK = BenchSettings(seconds=0.02, rounds=1, runs=2, warm_up=0.2, threads=1)
THREAD = Options(threads=1)


class Watching(Silent):
    """Notes tasks with the count they begin at, updates, and what is said; may stop the bench at a point."""

    def __init__(self, stop: Callable[[str, int], BaseException | None] = lambda title, done: None) -> None:
        self.stop = stop
        self.lines: list[str] = []
        self.started: dict[str, int] = {}
        self.done: dict[str, list[int]] = {}

    @contextmanager
    def task(self, title: str, total: int, start: int = 0) -> Iterator[Update]:
        self.started[title] = start
        self.done[title] = []

        def update(done: int, note: str) -> None:
            assert done <= total, title
            self.done[title].append(done)
            if (error := self.stop(title, done)) is not None:
                raise error

        yield update

    def say(self, text: str) -> None:
        self.lines.append(text)


def request(path: Path, runtime: str = "onnxruntime", **more: object) -> Request:
    return Request(path.name, path, runtime, options=THREAD, **more)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    before = children()
    yield
    assert children() == before


@pytest.fixture
def broken(compressed_run: Path, tmp_path: Path) -> Path:
    """A student whose card is sound and whose graph no runtime knows."""
    model = onnx.load(compressed_run / "student.onnx")
    model.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(model, tmp_path / "broken.onnx")
    return tmp_path / "broken.onnx"


# ---- numbers


def test_accuracy_equals_an_independent_one(compressed_run: Path, scenes: Path) -> None:
    """From PNG to mIoU without a line of ours: Pillow, ONNX Runtime, scikit-learn."""
    from sklearn import metrics

    paths = [compressed_run / name for name in ("teacher.onnx", "student-int8.onnx")]
    measured = bench([request(path) for path in paths], open_dataset(scenes), QUICK, Silent())
    for path, row, scores in zip(paths, measured.rows, measured.scores, strict=True):
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        truths, answers = [], []
        for image in sorted((scenes / "val" / "images").iterdir()):
            (mask,) = (scenes / "val" / "masks").glob(f"{image.stem}.*")
            pixels = np.asarray(Image.open(image).convert("RGB")) / 255
            feed = ((pixels - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)).transpose(2, 0, 1)[None]
            answers.append(session.run(None, {"image": feed.astype(np.float32)})[0][0].argmax(0).ravel())
            truths.append(np.asarray(Image.open(mask)).ravel())
        truth, answer = np.concatenate(truths), np.concatenate(answers)
        counted = truth != 255
        truth, answer = truth[counted], answer[counted]
        labels = sorted({*truth.tolist(), *answer.tolist()})
        each = metrics.jaccard_score(truth, answer, labels=labels, average=None)
        f1 = metrics.f1_score(truth, answer, labels=labels, average=None)
        found = row.accuracy
        assert found is not None and scores is not None
        # A pixel or two may fall to the other class by the rounding of the normalisation.
        assert found.miou == pytest.approx(each.mean(), abs=2e-3)
        assert [list(found.iou.values())[label] for label in labels] == pytest.approx(list(each), abs=2e-3)
        assert [list(found.f1.values())[label] for label in labels] == pytest.approx(list(f1), abs=2e-3)
        assert [v for label, v in enumerate(found.iou.values()) if label not in labels] == [None] * (7 - len(labels))
        assert found.overall == pytest.approx(metrics.accuracy_score(truth, answer), abs=2e-3)
        assert (found.pixels, found.images) == (truth.size, 2)
        assert scores.accuracy.miou == found.miou


def test_a_row_says_what_was_measured_and_how(compressed_run: Path, scenes: Path) -> None:
    settings = BenchSettings(seconds=0.06, rounds=3, runs=7, warm_up=2.0, threads=1)
    path = compressed_run / "student-int8.onnx"
    measured = bench([request(path), request(path, "openvino")], open_dataset(scenes), settings, Silent())
    assert measured.sittings == 1 and measured.failures == ()
    for row, runtime in zip(measured.rows, ("onnxruntime", "openvino"), strict=True):
        assert (row.name, row.file, row.runtime, row.device) == (path.name, path.name, runtime, "cpu")
        assert row.sha256 == sha256_of(path) and row.file_bytes == path.stat().st_size
        assert (row.precision, row.input, row.batch, row.options) == ("int8", (128, 128), 1, {"threads": 1})
        assert row.details["threads"] == "1" and row.open_seconds > 0
        assert row.warm_up.runs >= 5 and row.warm_up.seconds > 0
        assert row.memory.peak > row.memory.before > 0
        assert row.throughput is None and row.accuracy is not None
        assert set(row.latency) == set(SCOPES)
        for times in row.latency.values():
            assert len(times.rounds) == 3 and times.runs >= 9  # seven, and as many in every turn
            assert times.interval[0] <= times.p50 <= times.interval[1]
            assert 0 < times.p50 <= times.p90 <= times.p95 <= times.p99 <= times.quantiles[100] + 1e-5
            assert times.fps == pytest.approx(1000 / times.p50)
        phases = row.latency["end_to_end"].phases
        assert list(phases) == ["decode", "preprocess", "infer", "argmax"]
        assert 0.1 * row.latency["end_to_end"].p50 < math.fsum(phases.values()) < 10 * row.latency["end_to_end"].p50
        assert row.latency["compute"].phases == row.latency["transfer"].phases == {}


def test_throughput_with_two_requests_in_flight(compressed_run: Path) -> None:
    settings = BenchSettings(seconds=0.2, rounds=2, runs=2, warm_up=0.2, threads=1, streams=2)
    paths = [compressed_run / "student.onnx", compressed_run / "teacher.onnx"]
    progress = Watching()
    measured = bench([request(path) for path in paths], None, settings, progress)
    assert progress.done["Throughput, 2 streams"] == [1, 2, 3, 4]
    for row in measured.rows:
        found = row.throughput
        assert found is not None
        assert found.streams == 2 and len(found.rounds) == 2 and found.frames >= 2
        assert min(found.rounds) - 1e-3 <= found.fps <= max(found.rounds) + 1e-3
        assert 0.05 < found.fps * found.p50 / 1000 < 20  # two in flight on average, were every request equally fast
        assert len(row.latency["transfer"].rounds) == 2


def test_without_data_there_is_latency_alone(compressed_run: Path) -> None:
    (row,) = bench([request(compressed_run / "student.onnx")], None, QUICK, Silent()).rows
    assert row.accuracy is None
    assert row.latency["transfer"].p50 > 0


def test_accuracy_that_is_not_asked_for_is_not_measured(compressed_run: Path, scenes: Path) -> None:
    progress = Watching()
    measured = bench([request(compressed_run / "student.onnx")], open_dataset(scenes), QUICK, progress, accuracy=False)
    assert measured.scores == (None,) and measured.rows[0].accuracy is None
    assert not [title for title in progress.started if "mIoU" in title]


def test_a_sweep_over_batches(tiny_teacher: Path, scenes: Path) -> None:
    """A checkpoint, whose batch is open; accuracy is the same whatever the batch and is measured once."""
    requests = [request(tiny_teacher, "torch", batch=batch) for batch in (1, 3)]
    progress = Watching()
    measured = bench(requests, open_dataset(scenes), QUICK, progress)
    one, three = measured.rows
    assert (one.batch, three.batch) == (1, 3)
    assert one.accuracy is not None and three.accuracy is None
    assert three.latency["transfer"].fps == pytest.approx(3000 / three.latency["transfer"].p50)
    assert len([title for title in progress.started if title.startswith("mIoU of ")]) == 1


# ---- refusals and failures


def test_an_engine_that_cannot_be_opened_is_left_out_and_named(compressed_run: Path, broken: Path) -> None:
    progress = Watching()
    requests = [request(broken), request(compressed_run / "student.onnx"), request(broken, "openvino")]
    measured = bench(requests, None, QUICK, progress)
    assert [row.name for row in measured.rows] == ["student.onnx"]
    assert [(failure.name, failure.runtime) for failure in measured.failures] == [
        ("broken.onnx", "onnxruntime"), ("broken.onnx", "openvino"),
    ]  # fmt: skip
    assert measured.failures[0].reason.startswith("ONNX Runtime cannot open broken.onnx: ")
    assert "NoSuchOperator" in measured.failures[0].reason
    assert progress.lines == [
        f"Left out: {failure.name} on {failure.runtime}. {failure.reason}" for failure in measured.failures
    ]


def killing_the_last_started() -> Watching:
    """Kills the newest worker after the first turn of all."""
    before = children()

    def kill(title: str, done: int) -> None:
        if title == "Timing in turns" and done == 1:
            os.kill(max(children() - before), signal.SIGKILL)

    return Watching(kill)


def test_an_engine_whose_process_dies_is_left_out_and_the_others_go_on(compressed_run: Path) -> None:
    paths = [compressed_run / name for name in ("student.onnx", "teacher.onnx")]
    settings = QUICK.model_copy(update={"rounds": 2})
    measured = bench([request(path) for path in paths], None, settings, killing_the_last_started())
    assert [row.name for row in measured.rows] == ["student.onnx"]
    assert len(measured.rows[0].latency["transfer"].rounds) == 2
    (failure,) = measured.failures
    assert failure.name == "teacher.onnx" and "its process ended by SIGKILL" in failure.reason


def test_where_the_only_engine_dies_its_reason_is_given(compressed_run: Path) -> None:
    with pytest.raises(EngineError, match="its process ended by SIGKILL"):
        bench(
            [request(compressed_run / "student.onnx")],
            None,
            QUICK.model_copy(update={"rounds": 2}),
            killing_the_last_started(),
        )


def test_where_no_engine_opens_the_first_reason_is_given(broken: Path) -> None:
    with pytest.raises(EngineError, match=r"ONNX Runtime cannot open broken\.onnx: "):
        bench([request(broken), request(broken, "openvino")], None, QUICK, Silent())


def test_data_that_does_not_fit_is_refused_before_any_engine_is_opened(
    compressed_run: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(self: Member, job: Job) -> None:
        raise AssertionError("a worker was started")

    monkeypatch.setattr(Member, "__init__", started)
    data = Path(shutil.copytree(scenes, tmp_path / "data"))
    table = json.loads((data / "classes.json").read_text())
    table["classes"][0]["name"] = "ground"
    (data / "classes.json").write_text(json.dumps(table))
    with pytest.raises(DataError, match=r"has the 7 classes ground, "):
        bench([request(compressed_run / "student.onnx")], open_dataset(data), QUICK, Silent())


def test_an_engine_that_does_not_open_for_several_requests_keeps_its_latency(
    compressed_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory suffices for one request and not for two, say: that costs this row's throughput, and no other's."""
    opening = Member.open

    def short_of_memory(self: Member) -> object:
        if self._job.options.streams > 1 and self._job.path.name == "teacher.onnx":
            raise EngineError("Memory ran out.")
        return opening(self)

    monkeypatch.setattr(Member, "open", short_of_memory)
    requests = [request(compressed_run / name) for name in ("teacher.onnx", "student.onnx")]
    measured = bench(requests, None, QUICK.model_copy(update={"streams": 2}), Silent())
    teacher, student = measured.rows
    assert teacher.latency["transfer"].p50 > 0 and teacher.throughput is None
    assert student.throughput is not None
    assert [(failure.name, failure.reason) for failure in measured.failures] == [("teacher.onnx", "Memory ran out.")]


@pytest.mark.parametrize("failing", [("teacher.onnx",), ("teacher.onnx", "student.onnx")])
def test_an_engine_that_fails_with_several_requests_keeps_its_latency(
    compressed_run: Path, monkeypatch: pytest.MonkeyPatch, failing: tuple[str, ...]
) -> None:
    """In the second round, so that what the first gave is left out as well."""
    flowing, asked = Member.flow, list[str]()

    def short_of_memory(self: Member, seconds: float) -> object:
        name = self._job.path.name
        asked.append(name)
        if asked.count(name) == 2 and name in failing:
            raise EngineError("Memory ran out.")
        return flowing(self, seconds)

    monkeypatch.setattr(Member, "flow", short_of_memory)
    names, progress = ("teacher.onnx", "student.onnx"), Watching()
    settings = QUICK.model_copy(update={"streams": 2, "rounds": 3})
    measured = bench([request(compressed_run / name) for name in names], None, settings, progress)
    for row in measured.rows:
        assert row.latency["transfer"].p50 > 0
        assert (row.throughput is None) == (row.name in failing)
    assert [asked.count(name) for name in names] == [2 if name in failing else 3 for name in names]
    assert [(failure.name, failure.reason) for failure in measured.failures] == [
        (name, "Memory ran out.") for name in failing
    ]
    assert progress.lines == [f"No throughput: {name} on onnxruntime. Memory ran out." for name in failing]


# ---- stopped, and gone on with


THREE_ROUNDS = BenchSettings(seconds=0.06, rounds=3, runs=3, warm_up=0.2, threads=1)
TIMING = "Timing in turns"


def stop_at(title: str, count: int, error: BaseException) -> Callable[[str, int], BaseException | None]:
    return lambda current, done: error if current == title and done == count else None


def entries(journal: Path, kind: str) -> list[dict[str, object]]:
    found = [json.loads(line) for line in journal.read_text().splitlines()]
    return [entry for entry in found if entry["kind"] == kind]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a bug")], ids=["Ctrl-C", "a bug"])
def test_a_bench_that_is_stopped_goes_on_with_the_rounds_that_are_missing(
    compressed_run: Path, scenes: Path, tmp_path: Path, error: BaseException
) -> None:
    """Stopped after the first turn of the second round: that round is begun again, the first is not."""
    journal, dataset = tmp_path / "journal", open_dataset(scenes)
    requests = [request(compressed_run / name) for name in ("teacher.onnx", "student-int8.onnx")]
    with pytest.raises(type(error)):
        bench(requests, dataset, THREE_ROUNDS, Watching(stop_at(TIMING, 3, error)), journal)
    (kept,) = entries(journal, "round")
    assert len(entries(journal, "accuracy")) == 2

    progress = Watching()
    measured = bench(requests, dataset, THREE_ROUNDS, progress, journal)
    assert progress.lines == ["Going on with a bench that was stopped: accuracy of 2 rows and 1 of 3 rounds are done."]
    assert (progress.started[TIMING], progress.done[TIMING]) == (2, [3, 4, 5, 6])
    assert not [title for title in progress.started if "mIoU" in title]
    assert measured.sittings == 2
    assert len(entries(journal, "round")) == 3 and entries(journal, "round")[0] == kept
    for index, row in enumerate(measured.rows):
        assert row.accuracy is not None and row.accuracy.images == 2
        for scope, times in row.latency.items():
            first = kept["turns"][str(index)]["scopes"][scope]["times"]  # type: ignore[index]
            assert len(times.rounds) == 3
            assert times.rounds[0] == pytest.approx(np.median(first), abs=1e-5)

    # Once more, as if the power had gone before the report was written: nothing is measured again.
    progress = Watching()
    again = bench(requests, dataset, THREE_ROUNDS, progress, journal)
    assert progress.done[TIMING] == [] and again.sittings == 3
    assert [row.latency for row in again.rows] == [row.latency for row in measured.rows]
    assert [row.accuracy for row in again.rows] == [row.accuracy for row in measured.rows]


def test_accuracy_that_is_done_stays_when_a_bench_is_stopped_in_the_next_one(
    compressed_run: Path, scenes: Path, tmp_path: Path
) -> None:
    journal, dataset = tmp_path / "journal", open_dataset(scenes)
    requests = [request(compressed_run / name) for name in ("teacher.onnx", "student.onnx")]
    second = "mIoU of student.onnx on onnxruntime"
    with pytest.raises(KeyboardInterrupt):
        bench(requests, dataset, QUICK, Watching(stop_at(second, 1, KeyboardInterrupt())), journal)
    progress = Watching()
    measured = bench(requests, dataset, QUICK, progress, journal)
    assert [title for title in progress.started if "mIoU" in title] == [second]
    assert all(row.accuracy is not None for row in measured.rows)


def test_a_bench_of_other_engines_or_settings_or_data_begins_anew(
    compressed_run: Path, scenes: Path, tmp_path: Path
) -> None:
    journal, dataset = tmp_path / "journal", open_dataset(scenes)
    path = shutil.copy(compressed_run / "student.onnx", tmp_path / "engine.onnx")
    bench([request(path)], None, QUICK, Silent(), journal)
    progress = Watching()
    assert bench([request(path)], None, QUICK, progress, journal).sittings == 2 and progress.done[TIMING] == []
    shutil.copy(compressed_run / "student-fp16.onnx", path)  # under the same name
    assert bench([request(path)], None, QUICK, Silent(), journal).sittings == 1
    other = QUICK.model_copy(update={"seconds": 0.03})
    assert bench([request(path)], None, other, Silent(), journal).sittings == 1
    assert bench([request(path)], dataset, other, Silent(), journal, accuracy=False).sittings == 1


def test_labels_that_were_mended_meanwhile_are_scored_anew(compressed_run: Path, scenes: Path, tmp_path: Path) -> None:
    """The images are the same, one mask is not: an mIoU of the former labels would be wrong."""
    journal, data = tmp_path / "journal", Path(shutil.copytree(scenes, tmp_path / "data"))
    requests = [request(compressed_run / "student.onnx")]
    (before,) = bench(requests, open_dataset(data), QUICK, Silent(), journal).rows
    mask = min((data / "val" / "masks").iterdir())
    labels = np.array(Image.open(mask))
    labels[:64] = 255
    Image.fromarray(labels).save(mask)
    (after,) = bench(requests, open_dataset(data), QUICK, Silent(), journal).rows
    assert before.accuracy is not None and after.accuracy is not None
    assert before.accuracy.pixels - after.accuracy.pixels >= 64 * 64


def test_an_engine_that_opens_in_the_second_sitting_only(
    compressed_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory was short the first time, say. Rounds count only where all engines lie side by side."""
    journal = tmp_path / "journal"
    requests = [request(compressed_run / name) for name in ("teacher.onnx", "student.onnx")]
    opening = Member.open

    def short_of_memory(self: Member) -> object:
        if self._job.path.name == "student.onnx":
            raise EngineError("Memory ran out.")
        return opening(self)

    with monkeypatch.context() as patch:
        patch.setattr(Member, "open", short_of_memory)
        with pytest.raises(KeyboardInterrupt):
            bench(requests, None, THREE_ROUNDS, Watching(stop_at(TIMING, 2, KeyboardInterrupt())), journal)
    measured = bench(requests, None, THREE_ROUNDS, Silent(), journal)
    assert [row.name for row in measured.rows] == ["teacher.onnx", "student.onnx"]
    assert {len(times.rounds) for row in measured.rows for times in row.latency.values()} == {3}


def test_throughput_stays_with_its_engine_over_sittings(
    compressed_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first engine has gone when the bench goes on; the second must not get its numbers."""
    settings = QUICK.model_copy(update={"streams": 2, "seconds": 0.3})
    journal = tmp_path / "journal"
    requests = [request(compressed_run / name) for name in ("teacher.onnx", "student-int8.onnx")]
    first = bench(requests, None, settings, Silent(), journal)
    opening = Member.open

    def gone(self: Member) -> object:
        if self._job.path.name == "teacher.onnx":
            raise EngineError("Memory ran out.")
        return opening(self)

    monkeypatch.setattr(Member, "open", gone)
    (row,) = bench(requests, None, settings, Silent(), journal).rows
    assert row.name == "student-int8.onnx"
    assert row.throughput == first.rows[1].throughput
