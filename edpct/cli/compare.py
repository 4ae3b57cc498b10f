"""``edpct compare``."""

from __future__ import annotations

from pathlib import Path

import typer


def compare_command(
    first: Path = typer.Argument(..., metavar="A.json", help="The report to compare with."),
    second: Path = typer.Argument(..., metavar="B.json", help="The report to judge."),
    fail_if: list[str] = typer.Option(
        [],
        "--fail-if",
        metavar="CONDITION",
        help='End with exit code 1 if a row changed like this: "fps<-5%" (relative), "miou<-0.5" (points), '
        '"iou:road<-1", "p99>2" (ms), "memory>100" (MB), or if a row of A is missing in B; repeat for more.',
    ),
    json_file: Path = typer.Option(None, "--json", help="Write all differences to this file."),
    markdown: bool = typer.Option(False, "--markdown", help="Print one Markdown text, for a comment."),
) -> None:
    """Compare two reports of edpct bench, row by row; for CI, with conditions."""
    import json

    from edpct.bench.report.compare import (
        class_change_table,
        compare,
        comparison_data,
        comparison_markdown,
        comparison_table,
        sentences_of,
    )
    from edpct.bench.report.schema import read_report
    from edpct.cli.screen import show_table
    from edpct.errors import RunError

    if json_file is not None and not json_file.resolve().parent.is_dir():
        raise RunError(f"There is no folder {json_file.parent} for --json.", "Make it first.")
    found = compare(read_report(first), read_report(second), fail_if)
    if markdown:
        typer.echo(comparison_markdown(found), nl=False)
    else:
        show_table(*comparison_table(found))
        show_table(*class_change_table(found))
        typer.echo("\n".join(sentences_of(found)))
    if json_file is not None:
        json_file.write_text(json.dumps(comparison_data(found), indent=1) + "\n", encoding="utf-8")
        typer.echo(f"Wrote {json_file}.", err=markdown)
    for text in found.failures:
        typer.echo(f"edpct: {text}", err=True)
    if found.failures:
        raise typer.Exit(1)
