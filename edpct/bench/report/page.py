"""A report as one HTML file: opens from disk, fetches nothing, runs no script.

Everything that a user named (engines, classes, commands) is escaped: here by ``_typeset`` and
``escape``, in the charts by :func:`edpct.bench.report.svg.words` and :func:`edpct.bench.report.svg.tag`.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from itertools import groupby

from edpct import __version__
from edpct.bench.report import charts
from edpct.bench.report.cautions import FEW_RUNS, UNSTEADY, cautions_of
from edpct.bench.report.claim import (
    SCOPE_TITLES,
    Claim,
    claim_of,
    explanation_of,
    headline,
    machine_line,
    main_scope,
    spread,
    variant_of,
)
from edpct.bench.report.pareto import pareto_chart
from edpct.bench.report.schema import Report
from edpct.bench.report.tables import (
    MEASURES,
    Table,
    class_difference_of,
    class_table_of,
    detail_table_of,
    failure_table_of,
    known,
    scopes_table_of,
    stage_table_of,
    state_table_of,
    table_of,
    throughput_table_of,
)
from edpct.bench.report.wording import points, times

# No network and no script, even if an escape were forgotten.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
PNG = b"\x89PNG\r\n\x1a\n"


def html_page(report: Report, pictures: bytes | None = None) -> str:
    """The whole page.

    Args:
        pictures: the sheet of pictures, a PNG.
    """
    sections = [
        ("speed", "Accuracy and speed", _speed(report)),
        ("scopes", "What a frame costs", _scopes(report)),
        ("latency", "Distribution of latency", _latency(report)),
        ("steady", "Steadiness", _steadiness(report)),
        ("classes", "Accuracy per class", _classes(report)),
        ("pictures", "Pictures", _pictures(report, pictures)),
        (
            "failures",
            "Not measured",
            _failures(report),
        ),
        ("power", "Power and state", _power(report)),
        ("stages", "Stages", _stages(report)),
        ("method", "Method and machine", _method(report)),
    ]
    shown = [section for section in sections if section[2]]
    title = f"{report.reference_row().network}, {'compressed' if report.stages else 'measured'}"
    where = f"{report.date} · {report.machine.gpu or report.machine.cpu}"
    css = resources.files("edpct.bench.report").joinpath("page.css").read_text(encoding="utf-8")
    links = "".join(f'<li><a href="#{key}">{escape(name)}</a></li>' for key, name, _ in shown)
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
        f"<style>{css}</style></head>"
        f'<body><a class="skip" href="#main">Skip to the results</a><header>'
        f'<p class="eyebrow">edpct report · {escape(where)}</p>'
        f'<h1>{escape(title)}</h1><p class="lead">{_typeset(headline(report))}</p>{_tiles(report)}{_cautions(report)}'
        f'<nav aria-label="Sections"><ul>{links}</ul></nav></header><main id="main">{body}</main></body></html>\n'
    )


def _typeset(text: str) -> str:
    """Escaped, with a real minus before numbers and their percent signs held to them."""
    return re.sub(r"(?<=\d) %", "\u00a0%", re.sub(r"(?<![\w.-])-(?=\d)", "−", escape(text)))


# ---- the top


def _tiles(report: Report) -> str:
    claim = claim_of(report)
    if claim is None:
        return ""
    tiles = "".join(
        f'<div class="tile"><dt>{_typeset(name)}</dt><dd>{_typeset(value)}</dd>'
        f'<dd class="fine">{_typeset(fine)}</dd></div>'
        for value, name, fine in _figures(claim, report)
    )
    return f'<dl class="tiles" aria-label="Key figures">{tiles}</dl>'


def _figures(claim: Claim, report: Report) -> Iterable[tuple[str, str, str]]:
    """Value, name and small print of the key figures."""
    if claim.speed is not None:
        place = f"FPS, {variant_of(claim.other, report)}" if claim.same else "FPS"
        yield f"{times(claim.speed.value)}×", place, spread(claim.speed)
    if claim.miou is not None:
        worst = f"most on {claim.worst[0]}: {claim.worst[1]:+.1f}" if claim.worst else "no class lost"
        sure = f"95 % interval {points(*claim.between)}; " if claim.between else ""
        yield f"{claim.miou:+.2f}", "points of mIoU", sure + worst
    before, after = claim.reference, claim.other
    yield f"{100 * claim.macs:.1f} %", "of the MACs", f"{before.macs / 1e9:.2f} → {after.macs / 1e9:.2f} GMACs"
    yield f"{100 * claim.file:.1f} %", "of the file", f"{before.file_bytes / 1e6:.2f} → {after.file_bytes / 1e6:.2f} MB"


def _cautions(report: Report) -> str:
    found = cautions_of(report)
    if not found:
        return ""
    items = "".join(f"<li>{_typeset(text)}</li>" for text in found)
    head = '<h2 id="cautions-h">To be kept in mind</h2>'
    return f'<aside class="cautions" aria-labelledby="cautions-h">{head}<ul>{items}</ul></aside>'


# ---- sections


def _speed(report: Report) -> str:
    scope = SCOPE_TITLES[main_scope(report)]
    chart = _figure(
        pareto_chart(report),
        f"Up and to the right is better. FPS {scope}; bars are 95 % intervals. The dashed line is the frontier: no "
        "engine measured here is both faster and more accurate than those on it. An engine's mIoU stands for all its "
        "runtimes where it was measured on one. The mIoU axis does not begin at zero; ↓ is below it.",
        _runtime_legend(report),
    )
    return chart + _table(table_of(report), f"Engines; FPS and p99 {scope}", report, groups=["FPS", "p99 ms"])


def _scopes(report: Report) -> str:
    phases = charts.phases_chart(report)
    keys = "".join(
        f'<li><span class="swatch {charts.phase_class(name)}" aria-hidden="true"></span>{escape(name)}</li>'
        for name in charts.phases_of(report)
    )
    caption = "What an end-to-end frame is made of. At the right the sum, and the inference's share of it."
    table = scopes_table_of(report)
    title = "Rows; latency is the median, with the 95 % interval of the median"
    text = _table(table, title, report, groups=list(SCOPE_TITLES.values()))
    more = _table(throughput_table_of(report), "Throughput, several requests in flight at once", report)
    return text + _figure(phases, caption, f'<ul class="legend">{keys}</ul>') + more


def _latency(report: Report) -> str:
    return _figure(
        charts.latency_chart(report),
        "Thin line: fastest to slowest. Pale bar: 5 to 95 %. Full bar: the middle half. Upright stroke: median. "
        "Diamond: p99. At the right median / p99 in ms. "
        f"With fewer than {FEW_RUNS} runs, p99 is hardly less than the slowest.",
    )


def _steadiness(report: Report) -> str:
    found = charts.steadiness_charts(report)
    if not found:
        return ""
    cells = "".join(
        f'<li><span class="cell-title">{charts.swatch(hue)}{escape(label)}</span>{svg}</li>'
        for label, hue, svg in found
    )
    scope = SCOPE_TITLES[main_scope(report)]
    return (
        f'<figure><ul class="sparks">{cells}</ul><figcaption>The median of each turn ({scope}) over the median of all; '
        f"one scale for all rows. The number is the slowest turn over the fastest; above {UNSTEADY} a machine is not "
        "steady. Rows that swing together saw the same disturbance.</figcaption></figure>"
    )


def _classes(report: Report) -> str:
    colours, scored = charts.engines_of(report), [row.name for row in report.rows if row.accuracy is not None]
    keys = "".join(f"<li>{charts.swatch(colours[name])}{escape(name)}</li>" for name in dict.fromkeys(scored))
    caption = f"From top to bottom in the order of the legend; the upright rule is {report.reference_row().name}."
    parts = [_figure(charts.class_chart(report), caption, f'<ul class="legend">{keys}</ul>')]
    for measure, name in MEASURES.items():
        values = _table(class_table_of(report, measure), f"{name} per class, in percent", report)
        points = _table(class_difference_of(report, measure), f"{name}, difference in points", report)
        if values and measure != "iou":
            values = f"<details><summary>{name[0].upper()}{name[1:]} per class</summary>{values}{points}</details>"
        elif values:
            values += points
        parts.append(values)
    return "".join(parts)


def _pictures(report: Report, pictures: bytes | None) -> str:
    if not pictures:
        return ""
    size = ""
    if pictures.startswith(PNG) and len(pictures) >= 24:
        width, height = (int.from_bytes(pictures[at : at + 4], "big") for at in (16, 20))
        size = f' width="{width}" height="{height}"'
    names = report.data.classes if report.data else ()
    about = "Sheet of pictures: image, truth, what engines see, and where they disagree"
    colours = "".join(
        f'<li><span class="swatch" style="background:rgb({r},{g},{b})" aria-hidden="true"></span>{escape(name)}</li>'
        for name, (r, g, b) in zip(names, report.data.colours if report.data else (), strict=False)
    )
    legend = f'<ul class="legend">{colours}</ul>' if colours else ""
    return (
        f'{legend}<figure id="sheet"><p class="zoom"><a class="full" href="#sheet">Full size</a>'
        '<a class="fit" href="#pictures">Fit to the page</a></p>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="Sheet of pictures">'
        f'<img alt="{about}" src="data:image/png;base64,{b64encode(pictures).decode()}"{size}></div></figure>'
    )


def _failures(report: Report) -> str:
    return _table(failure_table_of(report), "Rows that were asked for", report, words=True)


def _power(report: Report) -> str:
    header, lines = state_table_of(report)
    notes = list(dict.fromkeys(note for row in report.rows for note in row.state.notes))
    table = _table((header, lines), "Power and state while timing", report) if len(header) > 1 else ""
    listed = "".join(f"<li>{_typeset(note)}</li>" for note in notes)
    return table + (f'<ul class="notes">{listed}</ul>' if listed else "")


def _stages(report: Report) -> str:
    """Without the colours of engines: a stage may have the name of one."""
    return _table(stage_table_of(report), "Time of each stage", None)


def _method(report: Report) -> str:
    settings = known(["setting", "value"], [[name, _plain(value)] for name, value in report.settings.items()])
    settings[1].append(["seed", str(report.seed)])
    parts = [
        f"<p>{_typeset(explanation_of(report))}</p>",
        f"<p>{_typeset(machine_line(report))}</p>",
        f"<h3>To measure it again</h3>{_code(report.command)}",
        _details("Rows in detail", _table(detail_table_of(report), "Rows in detail", report)),
        _details("Settings", _table(settings, "Settings of the bench", report, words=True)),
    ]
    if report.recipe is not None:
        parts.append(_details("Recipe", _code(json.dumps(report.recipe, indent=1, ensure_ascii=False))))
    return "".join(parts)


# ---- parts of sections


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _code(text: str) -> str:
    return f'<pre tabindex="0"><code>{escape(text)}</code></pre>'


def _details(title: str, content: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def _figure(chart: str, caption: str, legend: str = "") -> str:
    return f"<figure>{legend}{chart}<figcaption>{_typeset(caption)}</figcaption></figure>" if chart else ""


def _runtime_legend(report: Report) -> str:
    shapes = charts.shapes_of(report)
    keys = "".join(f"<li>{charts.mark_icon(kind)}{escape(name)}</li>" for name, kind in shapes.items())
    return f'<ul class="legend">{keys}</ul>'


def _table(table: Table, caption: str, report: Report | None, words: bool = False, groups: Sequence[str] = ()) -> str:
    """A table that scrolls within itself, so that a phone does not scroll sideways as a whole.

    Args:
        words: the cells are sentences and not numbers.
        groups: what titles of neighbouring columns begin with, to be said once.
    """
    header, lines = table
    if not lines:
        return ""
    colours = charts.engines_of(report) if report else {}
    body = "".join(_line(cells, colours) for cells in lines)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f'<table class="{"words" if words else "numbers"}"><caption><span>{_typeset(caption)}</span></caption>'
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
            above += f'<th scope="colgroup" colspan="{len(columns)}">{_typeset(owner)}</th>'
            below += "".join(_title(header[i].removeprefix(f"{owner} ")) for i in columns)
    return f"<tr>{above}</tr><tr>{below}</tr>"


def _title(text: str, more: str = "") -> str:
    unbroken = text.replace(" %", "\u00a0%")
    return f'<th scope="col"{more}>{_typeset(unbroken)}</th>'


def _line(cells: Sequence[str], colours: dict[str, str]) -> str:
    """A row; where its first cell names an engine, with the engine's colour."""
    first = cells[0]
    name = max((name for name in colours if first == name or first.startswith(f"{name}, ")), key=len, default=None)
    key = "" if name is None else charts.swatch(colours[name])
    rest = "".join(f"<td>{_typeset(text)}</td>" for text in cells[1:])
    keyed = ' class="keyed"' if key else ""
    return f'<tr><th scope="row"{keyed}>{key}{escape(first)}</th>{rest}</tr>'
