"""What a terminal gets: the text as it is, brackets and all, and swatches of colours."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import pytest
from typer.testing import CliRunner

from edpct.cli.main import app
from edpct.cli.screen import Bars, show_table


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    @property
    def text(self) -> str:
        """What is read there, without colours and movements."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.getvalue())


@contextmanager
def terminal() -> Iterator[Terminal]:
    """A terminal of 120 columns and all colours, to which stdout and stderr go."""
    shown = Terminal()
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(shown), redirect_stderr(shown):
        patched.delenv("NO_COLOR", raising=False)
        for name, value in {"TERM": "xterm", "COLORTERM": "truecolor", "COLUMNS": "120"}.items():
            patched.setenv(name, value)
        yield shown


def test_brackets_are_text_and_not_markup() -> None:
    with terminal() as shown:
        show_table(["package", "comes with"], [["numpy", "edpct[cpu]"], ["[/] road", "[bold]"]], numbers=False)
    assert "edpct[cpu]" in shown.text and "[/] road" in shown.text and "[bold]" in shown.text
    assert "|" not in shown.text


def test_a_colour_has_a_swatch() -> None:
    with terminal() as shown:
        show_table(["class", "colour"], [["water", "#1e90ff"], ["1", "#nothex"]])
    assert "\x1b[38;2;30;144;255m██ " in shown.getvalue()
    assert "██ #1e90ff" in shown.text and shown.text.count("██") == 1


def test_the_title_of_a_bar_may_have_brackets() -> None:
    with terminal() as shown, Bars().task("Writing [/] map[1].tif", 1) as update:
        update(1, "[done]")
    assert "Writing [/] map[1].tif" in shown.text and "[done]" in shown.text


def test_where_output_goes_to_a_file_it_is_markdown() -> None:
    said = CliRunner().invoke(app, ["doctor"]).stdout
    assert re.search(r"^\| onnxruntime +\| [\d.]+ +\| edpct\[cpu\] *\|$", said, re.MULTILINE), said
