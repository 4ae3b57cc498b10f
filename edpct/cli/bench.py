"""``edpct bench``."""

from __future__ import annotations

from pathlib import Path

import typer


def bench_command(
    engine: list[Path] = typer.Option(
        ..., "--engine", help="Engine file (.onnx, .plan, .pt, .safetensors); repeat for more."
    ),
    data: Path = typer.Option(
        None, "--data", help="Dataset folder for mIoU; where the engine's data lay if not given."
    ),
    layout: str = typer.Option(None, "--layout", help="Layout of --data; recognised if not given."),
    runtime: str = typer.Option(None, "--runtime", help="Only this runtime; all that fit and open if not given."),
    device: str = typer.Option("", "--device", help="cpu or cuda, where a runtime has both."),
    threads: int = typer.Option(0, "--threads", help="CPU threads; 0: all cores."),
    seconds: float = typer.Option(6.0, "--seconds", help="Least time spent timing each row."),
    rounds: int = typer.Option(4, "--rounds", help="How often the rows take turns."),
    accuracy: bool = typer.Option(True, "--accuracy/--no-accuracy", help="Measure mIoU where data is known."),
    json_file: Path = typer.Option(None, "--json", help="Write all results to this file."),
) -> None:
    """Measure FPS and mIoU of engines, taking turns in one run."""
    import json
    from dataclasses import replace

    from edpct.bench.engines import bench, card_of, find_dataset, plan_rows
    from edpct.bench.report import class_table_of, machine_line, method_of, report_data, table_of
    from edpct.cli.screen import screen, show_table
    from edpct.data.layouts import open_dataset
    from edpct.errors import RunError
    from edpct.recipe import BenchSettings, Section, load_recipe

    class Asked(Section):
        bench: BenchSettings = BenchSettings()

    if json_file is not None and not json_file.resolve().parent.is_dir():
        raise RunError(f"There is no folder {json_file.parent} for --json.", "Make it first.")
    progress = screen()
    flags = {"bench.threads": threads, "bench.seconds": seconds, "bench.rounds": rounds}
    settings = load_recipe(Asked, None, flags).bench
    given = open_dataset(data, layout) if data is not None else None
    requests = plan_rows(engine, runtime, device, progress)
    cards = [card_of(request.path) for request in requests]
    dataset = find_dataset(cards, given, progress) if accuracy or given else None
    if not accuracy:
        requests = [replace(request, accuracy=False) for request in requests]
    report = report_data(bench(requests, dataset, settings, progress), settings=settings.model_dump(mode="json"))
    show_table(*table_of(report))
    show_table(*class_table_of(report))
    typer.echo(method_of(report) + "\n")
    typer.echo(machine_line(report))
    if json_file is not None:
        json_file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        typer.echo(f"Wrote {json_file}.")
