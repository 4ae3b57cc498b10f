"""``edpct compress``."""

from __future__ import annotations

from pathlib import Path

import typer


def compress_command(
    teacher: Path = typer.Option(..., "--teacher", help="Checkpoint of the teacher (.pt or .safetensors)."),
    data: Path = typer.Option(None, "--data", help="Dataset folder; where the checkpoint's data lay if not given."),
    layout: str = typer.Option(None, "--layout", help="Layout of --data; recognised if not given."),
    recipe: Path = typer.Option(None, "--recipe", help="TOML file; see: edpct recipe compress"),
    out: Path = typer.Option(None, "--out", help="Run folder.  [default: runs/NAME-OF-THE-TEACHER'S-FOLDER]"),
    macs: float = typer.Option(None, "--macs", help="Share of the teacher's MACs to keep, 0..1.  [default: 0.1]"),
    steps: int = typer.Option(None, "--steps", help="Distillation steps.  [default: 2000]"),
    lr: float = typer.Option(None, "--lr", help="Peak learning rate of distillation.  [default: 0.001]"),
    size: int = typer.Option(None, "--size", help="Input height and width of the student; the teacher's if not given."),
    target: str = typer.Option(None, "--target", help="Plans for: auto, tensorrt, rtx or none.  [default: auto]"),
    threads: int = typer.Option(None, "--threads", help="CPU threads while measuring; 0: all cores.  [default: 0]"),
    seed: int = typer.Option(None, "--seed", help="Of crops, calibration and timing images.  [default: 0]"),
) -> None:
    """Prune, distil with AKD, export, quantise, build and measure.

    Run the same command again after an interruption: finished stages are verified and skipped.
    """
    from edpct.cli.packages import require_compress
    from edpct.cli.screen import screen, show_table
    from edpct.recipe import CompressRecipe, load_recipe

    flags = {
        "prune.macs": macs, "distil.steps": steps, "distil.lr": lr, "build.target": target, "seed": seed,
        "export.size": None if size is None else (size, size), "bench.threads": threads,
    }  # fmt: skip
    settings = load_recipe(CompressRecipe, recipe, flags)
    require_compress("compressing")
    from edpct.bench.report.claim import headline
    from edpct.bench.report.tables import class_table_of, table_of
    from edpct.run.compress import compress

    folder = out or Path("runs") / (teacher.resolve().parent.name or "run")
    result = compress(teacher, data, layout, settings, folder, screen())
    show_table(*table_of(result.report))
    show_table(*class_table_of(result.report))
    typer.echo(headline(result.report) + "\n")
    for name, path in result.files.items():
        typer.echo(f"{name:22} {path}")
    typer.echo(f"\nThe page: {result.page}")
    typer.echo(f"Next: edpct bench --engine {result.files['student-int8.onnx']}")
