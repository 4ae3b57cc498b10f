"""The page of :mod:`networks`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edpct.bench.report.tables import markdown_table
from edpct.bench.report.wording import fps, times
from edpct.recipe import BenchSettings

Facts = dict[str, Any]


def page(facts: Facts) -> str:
    """All of it in Markdown."""
    rows, runtimes = facts["networks"], BenchSettings().runtimes
    head = [
        "network",
        "GMACs",
        f"% (within {100 * facts['margin']:g} points)",
        "M parameters",
        "pruning s",
        "parity",
        "plan",
    ]
    head += [column for each in runtimes for column in (f"FPS {each}", "factor (95 %)")]
    size, host = facts["size"], facts["machine"]
    parts = [
        f"# Networks at {facts['macs']:.0%} of their MACs",
        (
            f"{size}x{size}, classes and windows of the Dubai set, random weights (seed {facts['seed']}) with "
            "batch-norm statistics of real windows, so no accuracy. Before → after pruning. Parity: largest difference "
            f"of ONNX Runtime from torch over {facts['windows']} windows, as a share of the logits' range (limit "
            f"{facts['tolerance']:g}). Loaded, exported, compared and built (plan: TensorRT for RTX) in a fresh "
            "process in which torch-pruning cannot be imported. FPS: FP32 at batch 1, from normalised image to logits, "
            "unpruned and pruned in turns."
        ),
        markdown_table(head, [line(row, runtimes) for row in rows]),
        "Output channels of all convolutions and Linears of each path, added up; every layer's are in networks.json.",
        markdown_table(["network", "path: channels"], [[row["network"], paths(row)] for row in rows], numbers=False),
    ]
    if failures := [[row["network"], *why] for row in rows if (why := failure(row))]:
        parts.append(markdown_table(["network", "failed", "why"], failures, numbers=False))
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    parts += [f"{host['cpu']}, {host['cores']} cores, load {facts['load']}; {versions}; {facts['date']}."]
    return "\n\n".join([*parts, f"`{facts['command']}`"]) + "\n"


def line(row: Facts, runtimes: Sequence[str]) -> list[str]:
    cells = [row["network"], *["–"] * (6 + 2 * len(runtimes))]
    if pruned := row.get("pruning"):
        (was, now), (many, few) = pruned["macs"], pruned["parameters"]
        within = "yes" if pruned["within"] else "NO"
        cells[1:5] = [f"{was / 1e9:.2f} → {now / 1e9:.2f}", f"{100 * now / was:.1f} ({within})",
                      f"{many / 1e6:.2f} → {few / 1e6:.2f}", f"{pruned['seconds']:.0f}"]  # fmt: skip
    if deployed := row.get("deployment"):
        size = deployed["plan"].get("bytes")
        cells[5:7] = [f"{deployed['parity']:.1e}", f"yes ({size / 1e6:.1f} MB)" if size else "no"]
    for place, each in enumerate(runtimes if "timing" in row else ()):
        speed = row["timing"]["runtimes"][each]
        value, low, high = map(times, speed["factor"])
        cells[7 + 2 * place : 9 + 2 * place] = [" → ".join(map(fps, speed["fps"])), f"{value} ({low} to {high})"]
    return cells


def paths(row: Facts) -> str:
    found = row.get("pruning", {}).get("paths", {})
    return ", ".join(f"{path}: {before} → {after}" for path, (before, after) in found.items()) or "–"


def failure(row: Facts) -> list[str]:
    """The step that failed, and why; empty where none did."""
    if "failed" in row:
        return [row["failed"]["step"], row["failed"]["reason"]]
    reason = row.get("deployment", {}).get("plan", {}).get("reason")
    return ["plan", reason] if reason else []
