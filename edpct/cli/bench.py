"""``edpct bench``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edpct.cli import options as o

if TYPE_CHECKING:
    from edpct.bench.report.schema import Report
    from edpct.bench.requests import Request
    from edpct.data.samples import Dataset
    from edpct.progress import Progress


def bench_command(
    engine: o.Engines,
    data: Path = typer.Option(
        None, "--data", help="Dataset folder for mIoU; where the engine's data lay if not given."
    ),
    layout: o.Layout = None,
    runtime: str = typer.Option(
        None, "--runtime", is_eager=True, help="Only this runtime; all that fit and open if not given."
    ),
    device: str = typer.Option("", "--device", help="cpu, cuda or tensorrt, where a runtime has several."),
    threads: int = typer.Option(0, "--threads", help="CPU threads; 0: all cores."),
    batch: list[int] = typer.Option([1], "--batch", help="Images an inference; repeat for a sweep."),
    streams: int = typer.Option(1, "--streams", help="Above 1: also the throughput with that many requests in flight."),
    cuda_graph: str = typer.Option("on", "--cuda-graph", help="TensorRT as one CUDA graph: on, off or both."),
    trusted: bool = typer.Option(
        False, "--trust", help="Load plans without a sidecar, or not of its hash; a plan is code."
    ),
    seconds: float = typer.Option(3.0, "--seconds", help="Least time spent timing each row in each scope."),
    runs: int = typer.Option(24, "--runs", help="Least number of inferences timed in each scope."),
    rounds: int = typer.Option(6, "--rounds", help="How often the rows take turns."),
    accuracy: bool = typer.Option(True, "--accuracy/--no-accuracy", help="Measure mIoU where data is known."),
    reference: str = typer.Option(
        None,
        "--reference",
        help="File name of the engine to compare the others with; the heaviest if not given.",
    ),
    report: Path = typer.Option(None, "--report", help="Write a page to this file: .html or .md."),
    json_file: Path = typer.Option(None, "--json", help="Write all results to this file, for edpct compare."),
) -> None:
    """Measure FPS and mIoU of engines, each in its own process, taking turns in one run.

    With --report or --json, a bench that is stopped goes on where it was when the same command is run again.
    """
    from edpct.bench.measure import bench
    from edpct.bench.report.cautions import cautions_of
    from edpct.bench.report.claim import explanation_of, headline, machine_line
    from edpct.bench.report.make import load_average, make_report
    from edpct.bench.report.tables import (
        class_table_of,
        failure_table_of,
        scopes_table_of,
        table_of,
        throughput_table_of,
    )
    from edpct.bench.requests import find_dataset, plan_rows
    from edpct.cli.screen import screen, show_table
    from edpct.data.layouts import open_dataset
    from edpct.recipe import BenchSettings, Section
    from edpct.recipe.file import load_recipe
    from edpct.runtimes.artefact import card_of
    from edpct.runtimes.sidecar import trust

    class Asked(Section):
        bench: BenchSettings = BenchSettings()

    outputs = [path for path in (report, json_file) if path is not None]
    _check_outputs(outputs, report)
    progress = screen()
    load = load_average()
    flags = {
        "bench.threads": threads, "bench.seconds": seconds, "bench.rounds": rounds, "bench.runs": runs,
        "bench.batch": tuple(batch), "bench.streams": streams, "bench.cuda_graph": cuda_graph,
    }  # fmt: skip
    settings = load_recipe(Asked, None, flags).bench
    given = open_dataset(data, layout) if data is not None else None
    for path in engine if trusted else []:
        trust(path)
    requests, failures = plan_rows(engine, runtime, device, settings, progress)
    _check_reference(reference, requests)
    cards = [card_of(request.path) for request in requests]
    known = find_dataset(cards, given, progress) if accuracy or given else None
    journal = outputs[0].with_name(f".{outputs[0].name}.journal") if outputs else None
    measured = bench(requests, known, settings, progress, journal, accuracy=accuracy)
    result = make_report(measured, known, settings, load, reference=reference, failures=failures)
    for table in (table_of, scopes_table_of, throughput_table_of, class_table_of):
        show_table(*table(result))
    show_table(*failure_table_of(result), numbers=False)
    typer.echo(f"{headline(result)}\n\n{explanation_of(result)}\n")
    for caution in cautions_of(result):
        typer.echo(f"- {caution}")
    typer.echo(f"\n{machine_line(result)}")
    if json_file is not None:
        json_file.write_text(result.model_dump_json(indent=1) + "\n", encoding="utf-8")
        typer.echo(f"Wrote {json_file}.")
    if report is not None:
        _write_page(report, result, requests, known, progress)
        typer.echo(f"Wrote {report}.")
    if journal is not None:
        journal.unlink(missing_ok=True)


def _check_outputs(outputs: list[Path], report: Path | None) -> None:
    from edpct.errors import RunError

    for path in outputs:
        if not path.resolve().parent.is_dir():
            raise RunError(f"There is no folder {path.parent} for {path.name}.", "Make it first.")
        if path.is_dir():
            raise RunError(f"{path} is a folder.", "Name a file in it.")
    if report is not None and report.suffix.lower() not in (".html", ".htm", ".md"):
        raise RunError(f"A report is .html or .md, and {report.name} is neither.", "Data goes to --json FILE.")


def _check_reference(reference: str | None, requests: list[Request]) -> None:
    from edpct.errors import EngineError

    names = list(dict.fromkeys(request.name for request in requests))
    if reference is not None and reference not in names:
        raise EngineError(f"There is no engine '{reference}' to compare with.", f"Choose from: {', '.join(names)}.")


def _write_page(
    target: Path, report: Report, requests: list[Request], dataset: Dataset | None, progress: Progress
) -> None:
    """The page; with pictures where there is data and a second engine to disagree with the reference."""
    from edpct.bench.report.page import html_page
    from edpct.bench.report.pictures import pictures_of
    from edpct.bench.report.tables import markdown

    if target.suffix.lower() == ".md":
        text = markdown(report)
    else:
        text = html_page(report, pictures_of(report, requests, dataset, progress) if dataset is not None else None)
    target.write_text(text, encoding="utf-8")
