"""What a person sees while they wait: bars on a terminal, a line now and then in a log file."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import typer

from edpct.progress import Progress, Silent, Update

SECONDS_BETWEEN_LINES = 15.0
COLOUR = re.compile("#[0-9a-f]{6}")


def speaks() -> bool:
    """Whether this process is the one that prints: of those that ``accelerate launch`` starts, the main one."""
    return os.environ.get("RANK", "0") == "0"


def screen() -> Progress:
    """Bars if stderr is a terminal, else lines; nothing where another process speaks."""
    if not speaks():
        return Silent()
    return Bars() if sys.stderr.isatty() else Lines()


class Bars:
    """A rich progress bar per task, with units done, time left and a note."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False)

    @contextmanager
    def task(self, title: str, total: int, start: int = 0) -> Iterator[Update]:
        from rich import progress as bars

        columns = (
            bars.TextColumn("{task.description}", markup=False),
            bars.BarColumn(bar_width=28),
            bars.MofNCompleteColumn(),
            bars.TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            bars.TextColumn("{task.fields[note]}", markup=False),
        )
        with bars.Progress(*columns, console=self.console) as bar:
            task = bar.add_task(title, total=total, completed=start, note="")
            yield lambda done, note: bar.update(task, completed=done, note=note)

    def say(self, text: str) -> None:
        self.console.print(text, markup=False)


class Lines:
    """A line every quarter of a minute and at the end, for logs."""

    @contextmanager
    def task(self, title: str, total: int, start: int = 0) -> Iterator[Update]:
        began = last = time.monotonic()

        def update(done: int, note: str) -> None:
            nonlocal last
            now = time.monotonic()
            if done < total and now - last < SECONDS_BETWEEN_LINES:
                return
            last = now
            left = (now - began) / max(done - start, 1) * (total - done)
            when = f"{now - began:.0f} s" if done >= total else f"{left / 60:.1f} min left"
            self.say(f"  {title} {done}/{total}, {when}{', ' if note else ''}{note}")

        yield update

    def say(self, text: str) -> None:
        typer.echo(text, err=True)


def show_table(header: Sequence[str], lines: Sequence[Sequence[str]], numbers: bool = True) -> None:
    """Print a table on stdout; as Markdown where stdout is no terminal, so that it can be pasted.

    A cell such as ``#1e90ff`` has a swatch of that colour before it.

    Args:
        numbers: all columns but the first hold numbers and go to the right.
    """
    if not lines:
        return
    if not sys.stdout.isatty():
        from edpct.bench.report.tables import markdown_table

        typer.echo("\n" + markdown_table(header, lines, numbers) + "\n")
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for index, title in enumerate(header):
        table.add_column(title, justify="right" if numbers and index else "left")
    for line in lines:
        swatches = [("██ ", cell) if COLOUR.fullmatch(cell) else "" for cell in line]
        table.add_row(*map(Text.assemble, swatches, line))
    Console().print(table)
