"""``edpct data``."""

from __future__ import annotations

from pathlib import Path

import typer

from edpct.cli.data_check import check_command

data_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Datasets.")


@data_app.callback()
def data_root() -> None:
    """Datasets."""


data_app.command("check")(check_command)


@data_app.command("scenes")
def scenes_command(
    out: Path = typer.Option(..., "--out", help="Folder to write to, in the layout 'folder'."),
    train: int = typer.Option(48, "--train", help="Training scenes."),
    val: int = typer.Option(12, "--val", help="Validation scenes."),
    size: int = typer.Option(512, "--size", help="Height and width, pixels."),
    seed: int = typer.Option(0, "--seed", help="The same seed makes the same scenes."),
) -> None:
    """Make aerial scenes with exact labels: roads, buildings, trees, water, fields, vehicles."""
    from edpct.cli.screen import screen
    from edpct.data.scenes import write_scenes

    with screen().task("Making scenes", train + val) as update:
        write_scenes(out, train, val, seed, size, lambda done: update(done, ""))
    typer.echo(f"Wrote {train} training and {val} validation scenes to {out}.")
    typer.echo(f"Next: edpct train --data {out} --out runs/teacher")
