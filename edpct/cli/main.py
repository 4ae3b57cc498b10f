"""The ``edpct`` command: one module per command, each imported only when it is called."""

from __future__ import annotations

import io
import sys

import typer

from edpct import __version__
from edpct.cli.bench import bench_command
from edpct.cli.boundary import GuardedGroup
from edpct.cli.build import build_command
from edpct.cli.compare import compare_command
from edpct.cli.compress import compress_command
from edpct.cli.data import data_app
from edpct.cli.doctor import doctor_command
from edpct.cli.export import export_command
from edpct.cli.package import package_command
from edpct.cli.predict import predict_command
from edpct.cli.prune import prune_command
from edpct.cli.quantise import quantise_command
from edpct.cli.recipe import recipe_command
from edpct.cli.sensitivity import sensitivity_command
from edpct.cli.train import train_command

app = typer.Typer(
    cls=GuardedGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich help would double the start-up time
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Edge-deployment compression toolkit: a segmentation teacher in, a small and measured engine out.",
)
app.command("train")(train_command)
app.command("compress")(compress_command)
app.command("prune")(prune_command)
app.command("sensitivity")(sensitivity_command)
app.command("bench")(bench_command)
app.command("predict")(predict_command)
app.command("compare")(compare_command)
app.command("export")(export_command)
app.command("quantise")(quantise_command)
app.command("build")(build_command)
app.command("package")(package_command)
app.command("doctor")(doctor_command)
app.command("recipe")(recipe_command)
app.add_typer(data_app, name="data")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"edpct {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Edge-deployment compression toolkit: a segmentation teacher in, a small and measured engine out."""


def main() -> None:
    """Entry point of the ``edpct`` command."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name or a sign that the terminal cannot show is no reason to stop
        sys.stdout.reconfigure(errors="backslashreplace")
    app(prog_name="edpct")
