"""A sensitivity analysis as a table, as Markdown and as one HTML file that fetches nothing and runs no script."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from math import sqrt

from edpct.bench.report.charts import WIDE, both
from edpct.bench.report.document import document, swatch, typeset
from edpct.bench.report.svg import COLOURS, Scale, around, colour, drawing, line, mark, number, shortened, tag, words
from edpct.bench.report.tables import Table, markdown_table
from edpct.bench.report.wording import UNKNOWN, join
from edpct.pruning.sensitivity import GroupSensitivity, Measured, Sensitivity

HARMLESS = 2.0  # points: the default of [prune] spare_drop
LETTERS_WIDE, LETTERS_NARROW = 34, 17  # of a group's name beside its line
LETTER = 8.0  # pixels a bold letter takes at most
PITCH = 16.0  # pixels between two names, one under the other
ROOM = 20  # names that fit beside the plot
FOOT = 44.0  # pixels for what is written under the axis
MOST_INK = 45  # percent of the heat map's colour in its hottest cell, so that its number stays legible
PATH_CELL = ' class="path"'
# Beside the style of the project's reports.
STYLE = """
.zero { stroke: var(--soft); }
td.heat { background: color-mix(in srgb, var(--bad) var(--h), var(--paper)); print-color-adjust: exact; }
tbody tr:hover > td.heat { background: color-mix(in srgb, var(--bad) var(--h), var(--panel)); }
.numbers .path { text-align: left; }
.numbers thead th:last-child { min-width: 7rem; }
@media (max-width: 700px) { .path { display: none; } }
"""


# ---- words and tables


def headline_of(result: Sensitivity) -> str:
    """The finding in two sentences."""
    share = f"{100 * result.ratios[result.middle]:.3g} %"
    first = result.ranked()[0]
    found = first.measured[result.middle]
    harmless = sum(group.measured[result.middle].drop <= HARMLESS for group in result.groups)
    others = f"{harmless} of {len(result.groups)} groups cost at most {HARMLESS:g} points each."
    if found.drop <= 0:
        return f"No group of layers costs mIoU when it alone loses {share} of its channels."
    return (
        f"Without {share} of its channels, {first.name} alone takes mIoU from {100 * result.baseline:.1f} % to "
        f"{100 * found.miou:.1f} % ({-found.drop:+.1f} points), more than any other group. {others}"
    )


def explanation_of(result: Sensitivity) -> str:
    """How it was measured."""
    left_out = f" Left out: {join(result.leave_out)}." if result.leave_out else ""
    return (
        f"Each group of layers whose widths are tied was pruned alone, by the criterion {result.criterion}, to widths "
        f"in steps of {result.step}, without training afterwards; mIoU was measured on {result.sample.windows} windows "
        f"of the training split (seed {result.sample.seed}), so that the validation split stays unseen. The unpruned "
        f"network has {100 * result.baseline:.2f} % there. {UNKNOWN}: rounding leaves nothing to prune.{left_out}"
    )


def table_of(result: Sensitivity) -> Table:
    """A line per group, the largest drop at the middle ratio first; drops in points of mIoU."""
    titles = [f"−{100 * ratio:.3g}%" for ratio in result.ratios]
    header = ["group", "path", "width", *titles, f"MACs saved % at {titles[result.middle]}"]
    return header, [_cells(group, result.middle) for group in result.ranked()]


def _cells(group: GroupSensitivity, middle: int) -> list[str]:
    drops = [drop_text(group, found) for found in group.measured]
    return [group.name, group.path, width_text(group), *drops, f"{100 * group.measured[middle].macs_saved:.1f}"]


def width_text(group: GroupSensitivity) -> str:
    """ "64", or "4 × 32" for parts."""
    return f"{group.width}" if group.parts == 1 else f"{group.parts} × {group.width}"


def drop_text(group: GroupSensitivity, found: Measured) -> str:
    """Points of mIoU with one decimal; a dash where nothing was pruned."""
    return UNKNOWN if found.kept == group.width else f"{round(found.drop, 1) + 0.0:.1f}"  # + 0.0: no "-0.0"


def sensitivity_markdown(result: Sensitivity) -> str:
    """The whole analysis as a Markdown page."""
    table = markdown_table(*table_of(result))
    legend = "Drop in points of mIoU at each share of channels that goes."
    title = f"# {' '.join(result.network.split())}, sensitivity to pruning"
    return "\n\n".join([title, headline_of(result), legend, table, explanation_of(result)]) + "\n"


# ---- the page


def sensitivity_html(result: Sensitivity, worst: int) -> str:
    """The whole page.

    Args:
        worst: groups that the plot names.
    """
    sections = (
        ("plot", "Drop against ratio", _plot(result, worst)),
        ("groups", "Groups", _heat_table(result)),
        ("method", "Method", f"<p>{_typeset(explanation_of(result))}</p>"),
    )
    top = f'<p class="lead">{_typeset(headline_of(result))}</p>'
    title = f"{result.network}, sensitivity to pruning"
    return document(title, f"edpct sensitivity · {result.teacher}", top, sections, STYLE)


def _typeset(text: str) -> str:
    """Escaped, with a real minus before numbers, percent signs held to them, and breaks allowed at a name's dots."""
    return re.sub(r"(?<=\w)\.(?=\w*[a-z_])", ".<wbr>", typeset(text))


def paths_of(result: Sensitivity) -> dict[str, str]:
    """The colour class of every path; the first is not ink, which is the colour of text."""
    names = dict.fromkeys(group.path for group in result.groups)
    return {name: colour(index + 1 if index + 1 < COLOURS else COLOURS) for index, name in enumerate(names)}


def _plot(result: Sensitivity, worst: int) -> str:
    keys = "".join(f"<li>{swatch(hue)}{escape(name)}</li>" for name, hue in paths_of(result).items())
    chart = both("drop", lambda key, width: _chart(key, width, result, worst))
    count = min(worst, ROOM, len(result.groups))
    caption = (
        "Points of mIoU lost over the share of the group's channels that really went, after rounding. One line a "
        f"group, coloured by the part of the network it is in; the {count} groups with the largest "
        "drops are named at their last point. Below zero, mIoU rose."
    )
    return f'<figure><ul class="legend">{keys}</ul>{chart}<figcaption>{caption}</figcaption></figure>'


def _chart(key: str, width: float, result: Sensitivity, worst: int) -> str:
    wide = width == WIDE
    height = 460.0 if wide else 420.0
    letters = LETTERS_WIDE if wide else LETTERS_NARROW
    courses = [_course(group) for group in result.groups]
    most = max(share for course in courses for share, _ in course) or 100.0
    x = Scale(0.0, most, 46.0, width - LETTER * letters - 24)
    y = around([0.0, 1.0, *(drop for course in courses for _, drop in course)], height - FOOT, 14.0)
    named = {group.name for group in sorted(result.groups, key=_worst_drop, reverse=True)[: min(worst, ROOM)]}
    hues = paths_of(result)
    parts = [_grid(x, y, wide), words(4, 8, "points of mIoU lost", "axis")]
    parts.append(words(x.end, height - 6, "% of channels gone", "axis", "end"))
    faint_first = sorted(zip(result.groups, courses, strict=True), key=lambda pair: pair[0].name in named)
    for group, course in faint_first:
        parts.append(_line(x, y, course, hues[group.path], group.name, group.name not in named))
    ends = [
        (group.name, hues[group.path], x(course[-1][0]), y(course[-1][1]))
        for group, course in faint_first
        if group.name in named
    ]
    parts += _names(ends, x.end, y.start, letters)
    told = "; ".join(f"{name}: {', '.join(_told(group))}" for group in result.ranked() if (name := group.name))
    return drawing(key, width, height, "Drop of mIoU against the share of channels pruned", told, "".join(parts))


def _course(group: GroupSensitivity) -> list[tuple[float, float]]:
    """Percent of channels gone and points lost, from nothing on."""
    return sorted({(0.0, 0.0), *((100 * group.share_gone(found), found.drop) for found in group.measured)})


def _worst_drop(group: GroupSensitivity) -> float:
    return max(found.drop for found in group.measured)


def _told(group: GroupSensitivity) -> list[str]:
    return [f"{drop:.1f} at {share:.0f} %" for share, drop in _course(group)[1:]]


def _grid(x: Scale, y: Scale, wide: bool) -> str:
    parts = []
    for value in y.ticks(6):
        kind = "zero" if value == 0 else "grid"
        parts.append(line(x.start, y(value), x.end, y(value), kind))
        parts.append(words(x.start - 8, y(value) + 4, number(value).replace("-", "−"), "tick", "end"))
    for value in x.ticks(8 if wide else 3):
        parts.append(line(x(value), y.start, x(value), y.end, "grid"))
        parts.append(words(x(value), y.start + 16, number(value), "tick", "middle"))
    return "".join(parts)


def _line(x: Scale, y: Scale, course: Sequence[tuple[float, float]], hue: str, name: str, faint: bool) -> str:
    spots = [(x(share), y(drop)) for share, drop in course]
    path = "M" + "L".join(f"{px:g},{py:g}" for px, py in spots)
    parts = [tag("path", tag("title", escape(name)), d=path, class_=f"course {'faint ' if faint else ''}{hue}")]
    if not faint:
        parts += [
            mark("circle", px, py, hue, f"{name}: {drop:.1f} points at {share:.0f} %", 3.5)
            for (px, py), (share, drop) in zip(spots[1:], course[1:], strict=True)
        ]
    return "".join(parts)


def _names(ends: Sequence[tuple[str, str, float, float]], edge: float, bottom: float, letters: int) -> list[str]:
    """Names in a column right of the plot, each as near its line's end as the others let it, with a thin line to it.

    Args:
        ends: name, colour, and where the line ends.
        edge, bottom: of the plot.
    """
    parts = []
    rows = sorted(ends, key=lambda end: end[3])
    for (name, hue, px, py), at in zip(rows, _spread([end[3] for end in rows], bottom), strict=True):
        parts.append(line(px + 5, py, edge + 18, at, "leader"))
        parts.append(words(edge + 22, at + 4.5, brief(name, letters), f"name {hue}"))
    return parts


def brief(name: str, letters: int) -> str:
    """A module's name; where it is too long, every word of it cut to three letters, numbers left."""
    return name if len(name) <= letters else shortened(re.sub(r"([A-Za-z_]{3})[A-Za-z_]+", r"\1", name), letters)


def _spread(heights: Sequence[float], bottom: float) -> list[float]:
    """The rising heights moved apart to at least the pitch: down, and up again where that goes below the bottom."""
    found: list[float] = []
    for height in heights:
        found.append(max(height, found[-1] + PITCH) if found else height)
    for index in reversed(range(len(found))):
        found[index] = min(found[index], bottom - PITCH * (len(found) - 1 - index))
    return found


def _heat_table(result: Sensitivity) -> str:
    header, _ = table_of(result)
    hottest = max([1.0, *(_worst_drop(group) for group in result.groups)])
    hues = paths_of(result)
    # A phone has no room for the path, which the row's colour tells too.
    head = "".join(f'<th scope="col"{PATH_CELL if title == "path" else ""}>{_typeset(title)}</th>' for title in header)
    body = "".join(_row(group, result.middle, hottest, hues[group.path]) for group in result.ranked())
    caption = (
        "Points of mIoU lost at each share of channels that goes; the largest drop at "
        f"−{100 * result.ratios[result.middle]:.3g}% first. "
        "The deeper the colour, the larger the drop (by its square root)."
    )
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Groups and their drops"><table class="numbers">'
        f"<caption><span>{caption}</span></caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _row(group: GroupSensitivity, middle: int, hottest: float, hue: str) -> str:
    name, path, width, *drops, saved = map(_typeset, _cells(group, middle))
    heat = [MOST_INK * sqrt(max(found.drop, 0.0) / hottest) for found in group.measured]
    cells = "".join(f'<td class="heat" style="--h:{h:.0f}%">{text}</td>' for h, text in zip(heat, drops, strict=True))
    more = f' title="{escape(", ".join(group.layers))}"'
    return (
        f'<tr><th scope="row" class="keyed"{more}>{swatch(hue)}{name}</th>'
        f"<td{PATH_CELL}>{path}</td><td>{width}</td>{cells}<td>{saved}</td></tr>"
    )
