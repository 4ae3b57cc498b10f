"""``edpct sensitivity``."""

from __future__ import annotations

from pathlib import Path

import typer

from edpct.cli import options as o


def sensitivity_command(
    teacher: o.NeededTeacher,
    data: Path = typer.Option(None, "--data", help="Dataset folder; where the checkpoint's data lay if not given."),
    layout: o.Layout = None,
    out: Path = typer.Option("sensitivity.json", "--out", help="Results; .md and .html are put beside them."),
    ratio: list[float] = typer.Option(
        [0.25, 0.5, 0.75], "--ratio", help="Share of a group's channels that goes, 0..1; repeat for more."
    ),
    criterion: str = typer.Option(None, "--criterion", help="Which channels go first; see: edpct recipe compress"),
    images: int = typer.Option(24, "--images", help="Training windows that mIoU is measured on."),
    leave_out: list[str] = typer.Option([], "--leave-out", help="Module that stays as it is; repeat for more."),
    seed: int = typer.Option(0, "--seed", help="Of the windows."),
    worst: int = typer.Option(12, "--worst", min=0, help="Groups that the plot names."),
) -> None:
    """Prune every group of layers alone and measure mIoU: what to spare when compressing.

    Run the same command again after an interruption: what was measured is not measured again.
    """
    from edpct.cli.packages import require_compress
    from edpct.cli.screen import screen, show_table
    from edpct.recipe import CompressRecipe
    from edpct.recipe.file import load_recipe

    flags = {"prune.criterion": criterion, "prune.images": images, "prune.leave_out": tuple(leave_out), "seed": seed}
    settings = load_recipe(CompressRecipe, None, flags)
    require_compress("a sensitivity analysis")
    from edpct.run.sensitivity import analyse
    from edpct.run.sensitivity_page import headline_of, table_of

    result, files = analyse(teacher, data, layout, settings.prune, ratio, settings.seed, out, worst, screen())
    show_table(*table_of(result))
    typer.echo(headline_of(result) + "\n")
    for path in files:
        typer.echo(f"Wrote {path}.")
    typer.echo(f"Next: edpct compress --teacher {teacher} --spare {out}")
