"""``edpct data check``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edpct.cli import options as o

if TYPE_CHECKING:
    from edpct.data.check import DataCheck, SplitCheck
    from edpct.data.findings import Finding

LISTED = 20  # lines of a list on the screen; the JSON has all


def check_command(
    directory: Path = typer.Argument(..., metavar="DIR", help="Dataset folder."),
    layout: o.Layout = None,
    size: int = typer.Option(512, "--size", help="Input height and width to come, pixels."),
    out: Path = typer.Option(None, "--out", help="Folder for check.png and check.json."),
    json_file: Path = typer.Option(None, "--json", help="File for the numbers alone."),
) -> None:
    """Read a whole dataset before training does: sizes, broken files, unknown colours, class shares, shared ground.

    Exit code 2 if training would stop, or if train and val show the same ground.
    """
    from edpct.cli.screen import screen
    from edpct.data.check import check_dataset
    from edpct.data.check_pictures import PictureSheet
    from edpct.data.findings import judge
    from edpct.data.layouts import open_dataset
    from edpct.errors import DataError, RecipeError

    if size < 1:
        raise RecipeError(f"--size {size} is no size.", "Give the input height and width in pixels.")
    if json_file is not None and not json_file.parent.is_dir():
        raise RecipeError(f"There is no folder {json_file.parent} to write {json_file.name} to.", "Make it first.")
    dataset = open_dataset(directory, layout)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    sheet = PictureSheet(dataset)
    check = check_dataset(dataset, size, screen(), sheet.show if out is not None else None)
    findings = judge(check, dataset.structure)
    text = json.dumps(check.model_dump(mode="json") | {"findings": [f.model_dump() for f in findings]}, indent=2) + "\n"
    _show(check)
    for path in (json_file, out / "check.json" if out is not None else None):
        if path is not None:
            path.write_text(text, "utf-8")
    if out is not None:
        (out / "check.png").write_bytes(sheet.draw(check))
        typer.echo(f"Wrote {out / 'check.png'} and {out / 'check.json'}.")
    _say(findings)
    errors = sum(finding.kind == "error" for finding in findings)
    if errors:
        problems = "1 problem" if errors == 1 else f"{errors} problems"
        raise DataError(f"{directory} has {problems}, see above.", "Mend what is said there, then check again.")
    typer.echo(f"{directory} can be trained on (layout {check.layout}).")
    named = f" --layout {layout}" if layout else ""
    typer.echo(f"Next: edpct train --data {directory}{named} --out runs/teacher")


def _show(check: DataCheck) -> None:
    from edpct.cli.screen import show_table
    from edpct.data.check import SPLITS

    columns = [_column(check.split(split), check.size) for split in SPLITS]
    show_table(["", *SPLITS], [[name, *(column[name] for column in columns)] for name in columns[0]])
    unknown = [
        [u.value, split, str(u.files), f"{100 * u.share:.3f}", u.example]
        for split in SPLITS
        for u in check.split(split).unknown
    ]
    values = sum(check.split(split).unknown_values for split in SPLITS)
    show_table(["of no class", "split", "masks", "% of pixels", "for example"], _cut(unknown, values), numbers=False)
    problems = [p for split in SPLITS for p in check.split(split).problems]
    for problem in problems[:LISTED]:
        typer.echo(f"- {problem.what} {problem.hint}".rstrip())
    if len(problems) > LISTED:
        typer.echo(f"- … and {len(problems) - LISTED} more")
    shared = [[s.val, s.train, f"{100 * s.share:.0f}", str(s.patches)] for s in check.overlaps]
    show_table(
        ["val image", "shares ground with", "% of val image", "patches"], _cut(shared, len(shared)), numbers=False
    )


def _column(split: SplitCheck, size: int) -> dict[str, str]:
    """What the table says of a split, by the title of the line."""
    sides = {"smallest": split.smallest, "largest": split.largest}
    shares = split.shares().items()
    return (
        {"images": str(split.images), "usable": str(split.usable), "megapixels": f"{split.pixels / 1e6:.1f}"}
        | {name: f"{found[1]}x{found[0]}" if found else "–" for name, found in sides.items()}
        | {f"smaller than {size}": str(split.small), "ignored %": f"{100 * split.ignored:.2f}"}
        | {f"{name} %": "–" if share is None else f"{100 * share:.2f}" for name, share in shares}
    )


def _cut(lines: list[list[str]], total: int) -> list[list[str]]:
    """The first lines, and how many more there are."""
    more = total - min(len(lines), LISTED)
    return lines[:LISTED] + ([[f"… and {more} more", *[""] * (len(lines[0]) - 1)]] if more else [])


def _say(findings: list[Finding]) -> None:
    for finding in findings:
        typer.echo(f"{finding.kind}: {finding.what}")
        if finding.hint:
            typer.echo(f"    {finding.hint}")
