"""``edpct package``."""

from __future__ import annotations

from pathlib import Path

import typer


def package_command(
    run: Path = typer.Argument(..., help="Run folder of edpct compress, or a folder with engines."),
    out: Path = typer.Option(Path("student.zip"), "--out", help="The package."),
    engine: list[str] = typer.Option(
        [], "--engine", help="Name of an engine in the folder; repeat for more; all of the student if not given."
    ),
    with_weights: bool = typer.Option(False, "--with-weights", help="Take student.safetensors too."),
) -> None:
    """Put a student, its report, a model card and a script into one file that opens wherever an engine does."""
    from edpct.cli.screen import show_table
    from edpct.package.write import package

    packed = package(run, out, engines=engine, weights=with_weights)
    lines = [[name, f"{size / 1e6:.2f}", f"{small / 1e6:.2f}"] for name, size, small in packed.members]
    show_table(["in the package", "MB", "MB packed"], lines)
    typer.echo(f"Wrote {packed.path} ({packed.size / 1e6:.2f} MB); its default engine is {packed.manifest.default}.")
    typer.echo(f"Next: edpct bench --engine {packed.path}")
