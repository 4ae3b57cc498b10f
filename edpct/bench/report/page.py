"""A report as one HTML file: opens from disk, fetches nothing, runs no script.

Everything that a user named (engines, classes, commands) is escaped: here by ``typeset`` and
``escape``, in the charts by :func:`edpct.bench.report.svg.words` and :func:`edpct.bench.report.svg.tag`.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape

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
from edpct.bench.report.curves import validation_figure
from edpct.bench.report.document import document, figure, html_table, swatch, typeset
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
        ("training", "Training", _training(report)),
        ("stages", "Stages", _stages(report)),
        ("method", "Method and machine", _method(report)),
    ]
    title = f"{report.reference_row().network}, {'compressed' if report.stages else 'measured'}"
    where = f"edpct report · {report.date} · {report.machine.gpu or report.machine.cpu}"
    top = f'<p class="lead">{typeset(headline(report))}</p>{_tiles(report)}{_cautions(report)}'
    return document(title, where, top, sections, links=True)


# ---- the top


def _tiles(report: Report) -> str:
    claim = claim_of(report)
    if claim is None:
        return ""
    tiles = "".join(
        f'<div class="tile"><dt>{typeset(name)}</dt><dd>{typeset(value)}</dd>'
        f'<dd class="fine">{typeset(fine)}</dd></div>'
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
    items = "".join(f"<li>{typeset(text)}</li>" for text in found)
    head = '<h2 id="cautions-h">To be kept in mind</h2>'
    return f'<aside class="cautions" aria-labelledby="cautions-h">{head}<ul>{items}</ul></aside>'


# ---- sections


def _speed(report: Report) -> str:
    scope = SCOPE_TITLES[main_scope(report)]
    chart = figure(
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
    return text + figure(phases, caption, f'<ul class="legend">{keys}</ul>') + more


def _latency(report: Report) -> str:
    return figure(
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
        f'<li><span class="cell-title">{swatch(hue)}{escape(label)}</span>{svg}</li>' for label, hue, svg in found
    )
    scope = SCOPE_TITLES[main_scope(report)]
    return (
        f'<figure><ul class="sparks">{cells}</ul><figcaption>The median of each turn ({scope}) over the median of all; '
        f"one scale for all rows. The number is the slowest turn over the fastest; above {UNSTEADY} a machine is not "
        "steady. Rows that swing together saw the same disturbance.</figcaption></figure>"
    )


def _classes(report: Report) -> str:
    colours, scored = charts.engines_of(report), [row.name for row in report.rows if row.accuracy is not None]
    keys = "".join(f"<li>{swatch(colours[name])}{escape(name)}</li>" for name in dict.fromkeys(scored))
    caption = f"From top to bottom in the order of the legend; the upright rule is {report.reference_row().name}."
    parts = [figure(charts.class_chart(report), caption, f'<ul class="legend">{keys}</ul>')]
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
    listed = "".join(f"<li>{typeset(note)}</li>" for note in notes)
    return table + (f'<ul class="notes">{listed}</ul>' if listed else "")


def _training(report: Report) -> str:
    """The validations of the stages that train, where there were several."""
    titles = {"distil": "Distillation", "qat": "Training with INT8 rounding"}
    classes = report.data.classes if report.data else ()
    parts = []
    for stage in report.stages:
        if (title := titles.get(stage.name)) is None:
            continue
        if chart := validation_figure(f"course-{stage.name}", stage.facts.get("measures", ()), classes):
            parts.append(f"<h3>{title}</h3>{chart}")
    return "".join(parts)


def _stages(report: Report) -> str:
    """Without the colours of engines: a stage may have the name of one."""
    return _table(stage_table_of(report), "Time of each stage", None)


def _method(report: Report) -> str:
    settings = known(["setting", "value"], [[name, _plain(value)] for name, value in report.settings.items()])
    settings[1].append(["seed", str(report.seed)])
    parts = [
        f"<p>{typeset(explanation_of(report))}</p>",
        f"<p>{typeset(machine_line(report))}</p>",
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


def _runtime_legend(report: Report) -> str:
    shapes = charts.shapes_of(report)
    keys = "".join(f"<li>{charts.mark_icon(kind)}{escape(name)}</li>" for name, kind in shapes.items())
    return f'<ul class="legend">{keys}</ul>'


def _table(table: Table, caption: str, report: Report | None, words: bool = False, groups: Sequence[str] = ()) -> str:
    """A table whose rows have the colours of the report's engines."""
    return html_table(table, caption, charts.engines_of(report) if report else {}, words, groups)
