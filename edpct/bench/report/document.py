"""What every page of ours is made of: one HTML file that opens from disk, fetches nothing and runs no script."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from itertools import groupby

from edpct import __version__
from edpct.bench.report.tables import Table

# No network and no script, even if an escape were forgotten.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def document(
    title: str, eyebrow: str, top: str, sections: Sequence[tuple[str, str, str]], style: str = "", links: bool = False
) -> str:
    """A whole page.

    Args:
        title: text of the head and of the first heading.
        eyebrow: text of the small line above it.
        top: markup between the heading and the first section.
        sections: key, heading (text) and content (markup); those without content are left out.
        style: CSS beside that of all pages.
        links: whether the sections are listed at the top.
    """
    css = resources.files("edpct.bench.report").joinpath("page.css").read_text(encoding="utf-8")
    shown = [section for section in sections if section[2]]
    listed = "".join(f'<li><a href="#{key}">{escape(name)}</a></li>' for key, name, _ in shown)
    navigation = f'<nav aria-label="Sections"><ul>{listed}</ul></nav>' if links else ""
    body = "".join(
        f'<section id="{key}" aria-labelledby="{key}-h"><h2 id="{key}-h">{escape(name)}</h2>{content}</section>'
        for key, name, content in shown
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<meta name="generator" content="edpct {__version__}"><title>{escape(title)}</title>'
        f"<style>{css}{style}</style></head>"
        f'<body><a class="skip" href="#main">Skip to the results</a><header>'
        f'<p class="eyebrow">{escape(eyebrow)}</p>'
        f'<h1>{escape(title)}</h1>{top}{navigation}</header><main id="main">{body}</main></body></html>\n'
    )


def typeset(text: str) -> str:
    """Escaped, with a real minus before numbers and their percent signs held to them."""
    return re.sub(r"(?<=\d) %", "\u00a0%", re.sub(r"(?<![\w.-])-(?=\d)", "−", escape(text)))


def swatch(hue: str) -> str:
    """A colour, beside what has it."""
    return f'<span class="swatch {escape(hue)}" aria-hidden="true"></span>'


def figure(chart: str, caption: str, legend: str = "") -> str:
    """A chart with a legend above and a text below; empty where there is no chart."""
    return f"<figure>{legend}{chart}<figcaption>{typeset(caption)}</figcaption></figure>" if chart else ""


def html_table(
    table: Table, caption: str, colours: Mapping[str, str], words: bool = False, groups: Sequence[str] = ()
) -> str:
    """A table that scrolls within itself, so that a phone does not scroll sideways as a whole; empty without lines.

    Args:
        colours: name to colour class, for rows whose first cell begins with a name.
        words: the cells are sentences and not numbers.
        groups: what titles of neighbouring columns begin with, to be said once.
    """
    header, lines = table
    if not lines:
        return ""
    body = "".join(_line(cells, colours) for cells in lines)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f'<table class="{"words" if words else "numbers"}"><caption><span>{typeset(caption)}</span></caption>'
        f"<thead>{_head(header, groups)}</thead><tbody>{body}</tbody></table></div>"
    )


def _head(header: Sequence[str], groups: Sequence[str]) -> str:
    """One row of titles; two where titles begin with the name of a group, which then stands once above them."""
    owners = [next((name for name in groups if text.startswith(f"{name} ")), "") for text in header]
    if not any(owners):
        return f"<tr>{''.join(_title(text) for text in header)}</tr>"
    above, below = "", ""
    for owner, found in groupby(range(len(header)), key=lambda i: owners[i] or i):
        columns = list(found)
        if isinstance(owner, int):
            above += _title(header[owner], ' rowspan="2"')
        else:
            above += f'<th scope="colgroup" colspan="{len(columns)}">{typeset(owner)}</th>'
            below += "".join(_title(header[i].removeprefix(f"{owner} ")) for i in columns)
    return f"<tr>{above}</tr><tr>{below}</tr>"


def _title(text: str, more: str = "") -> str:
    unbroken = text.replace(" %", "\u00a0%")
    return f'<th scope="col"{more}>{typeset(unbroken)}</th>'


def _line(cells: Sequence[str], colours: Mapping[str, str]) -> str:
    """A row; where its first cell names an engine, with the engine's colour."""
    first = cells[0]
    name = max((name for name in colours if first == name or first.startswith(f"{name}, ")), key=len, default=None)
    key = "" if name is None else swatch(colours[name])
    rest = "".join(f"<td>{typeset(text)}</td>" for text in cells[1:])
    keyed = ' class="keyed"' if key else ""
    return f'<tr><th scope="row"{keyed}>{key}{escape(first)}</th>{rest}</tr>'
