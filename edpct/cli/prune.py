"""``edpct prune``."""

from __future__ import annotations

from pathlib import Path

import typer

from edpct.cli import options as o


def prune_command(
    teacher: o.Teacher = None,
    model: o.Model = None,
    weights: o.Weights = None,
    data: o.Data = None,
    layout: o.Layout = None,
    recipe: Path = typer.Option(None, "--recipe", help="TOML file; see: edpct recipe compress"),
    out: Path = typer.Option(None, "--out", help="Folder.  [default: runs/NAME-OF-THE-TEACHER'S-FOLDER-pruned]"),
    target_macs: o.TargetMacs = None,
    target_params: o.TargetParams = None,
    ratio: o.Ratio = None,
    target_fps: o.TargetFps = None,
    on: o.On = None,
    min_miou: o.MinMiou = None,
    max_miou_drop: o.MaxDrop = None,
    criterion: o.CriterionName = None,
    scope: o.ScopeName = None,
    iterations: o.Iterations = None,
    leave_out: o.LeaveOut = None,
    spare: o.Spare = None,
    size: o.Size = None,
    threads: int = typer.Option(None, "--threads", help="CPU threads while timing; 0: all cores.  [default: 0]"),
    seed: o.Seed = None,
) -> None:
    """Prune alone: a narrower network, and the width of every layer before and after.

    With --model, weights may be left out: a budget can be tried, and a speed be searched for, before any training.
    """
    from edpct.cli.packages import require_compress
    from edpct.cli.screen import screen, show_table
    from edpct.recipe import CompressRecipe
    from edpct.recipe.file import load_recipe

    flags = {
        **o.prune_flags(
            target_macs, target_params, ratio, target_fps, on, min_miou, max_miou_drop, criterion, scope, iterations,
            leave_out, spare,
        ),
        "seed": seed, "export.size": None if size is None else (size, size), "bench.threads": threads,
    }  # fmt: skip
    settings = load_recipe(CompressRecipe, recipe, flags)
    named = o.folder_name(teacher, model)
    require_compress("pruning")
    from edpct.run.prune import prune, tables_of
    from edpct.run.teacher import teacher_file

    folder = out or Path("runs") / f"{named}-pruned"
    source = teacher_file(teacher, model, weights, data, layout, size, folder, random_weights=True)
    result = prune(source, data, layout, settings, folder, screen())
    for table in tables_of(result):
        show_table(*table)
    typer.echo(f"Every layer's width: {result.table}")
    typer.echo(f"The network: {result.checkpoint}")
    typer.echo(f"Next: edpct bench --engine {result.checkpoint}")
