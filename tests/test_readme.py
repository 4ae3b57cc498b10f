"""What README.md promises is there: links, pictures, commands and their options."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

from edpct.models.dpctnet import PRESETS, dpctnet

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)[^)]*\)")
BLOCK = re.compile(r"^(?:    |\t)(.*)$|^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"\bedpct\s+[a-z-].*")


def readme() -> str:
    return README.read_text(encoding="utf-8")


def links(text: str) -> list[str]:
    """Targets within the repository."""
    return [t for t in LINK.findall(text) if not re.match(r"[a-z]+:", t)]


def anchors(text: str) -> set[str]:
    """The anchors that a forge makes of headings."""
    found = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in found}


def code(text: str) -> list[str]:
    """Lines of code blocks, indented or fenced, and what stands in backticks within the prose."""
    lines = [line for indented, fenced in BLOCK.findall(text) for line in (indented or fenced).splitlines()]
    prose = BLOCK.sub("", text)
    return lines + [span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", prose)]


def commands(text: str) -> list[list[str]]:
    """Every ``edpct ...`` that a reader may type, as arguments; comments, pipes and redirections cut off."""
    found = []
    for line in code(text):
        match = COMMAND.match(line.strip().removeprefix("$ ").removeprefix(".venv/bin/"))
        if match:
            words = shlex.split(match[0], comments=True)
            ends = [i for i, word in enumerate(words) if word in (">", "|", "&&", "||", ">>")]
            found.append(words[1 : ends[0] if ends else None])
    return found


def known() -> dict[tuple[str, ...], set[str]]:
    """Commands with their options, from the ``--help`` that a user sees."""
    from typer.testing import CliRunner

    from edpct.cli.main import app

    runner = CliRunner()

    def read(path: tuple[str, ...]) -> dict[tuple[str, ...], set[str]]:
        result = runner.invoke(app, [*path, "--help"], prog_name="edpct")
        assert result.exit_code == 0, result.output
        table = {path: set(re.findall(r"(?<![\w-])(--?[a-z][a-z-]*)", result.output.split("Options:", 1)[1]))}
        if "Commands:" in result.output:
            for name in re.findall(r"^  ([a-z-]+)  ", result.output.split("Commands:", 1)[1], re.MULTILINE):
                table |= read((*path, name))
        return table

    return read(())


def complaint(words: list[str], table: dict[tuple[str, ...], set[str]]) -> str:
    """What is wrong with a command line; empty where nothing is."""
    path: tuple[str, ...] = ()
    rest = list(words)
    while rest and (*path, rest[0]) in table:
        path = (*path, rest.pop(0))
    if not path and rest and not rest[0].startswith("-"):
        return f"no command '{rest[0]}'"
    if any(len(other) > len(path) and other[: len(path)] == path for other in table) and path and rest:
        return f"no command '{rest[0]}' in {' '.join(path)}"
    wrong = [word for word in rest if word.startswith("-") and word.split("=")[0] not in table[path]]
    return f"no option {wrong[0]} in edpct {' '.join(path)}" if wrong else ""


def test_there_is_a_readme() -> None:
    assert README.is_file()
    assert readme().startswith("# edpct")


def test_every_link_and_picture_is_there() -> None:
    targets = links(readme())
    assert targets, "the README shows and links nothing"
    broken = [t for t in targets if t.split("#")[0] and not (ROOT / t.split("#")[0]).exists()]
    assert broken == []
    inner = [t[1:] for t in targets if t.startswith("#")]
    assert [name for name in inner if name not in anchors(readme())] == []


def test_every_command_is_known_with_its_options() -> None:
    table, found = known(), commands(readme())
    assert {"train", "compress", "bench", "doctor"} <= {words[0] for words in found}
    assert [f"edpct {shlex.join(words)}: {why}" for words in found if (why := complaint(words, table))] == []


def test_every_make_target_is_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    asked = {m for line in code(readme()) for m in re.findall(r"^\s*make ([a-z]+)", line)}
    assert asked and asked <= targets


def test_the_presets_are_as_large_as_it_says() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \| ([\d.]+) \|$", readme(), re.MULTILINE)
    assert [name for name, _, _ in rows] == list(PRESETS)
    for name, parameters, gmacs in rows:
        model = dpctnet(name, 5).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, 512, 512))
        assert f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}" == parameters
        assert f"{counter.get_total_flops() / 2e9:.2f}" == gmacs


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("edpct compress --teacher a.pt --target-macs 0.1", ""),
        ("edpct recipe train", ""),
        ("edpct --version", ""),
        ("edpct data scenes --out=x", ""),
        ("edpct compress --teach a.pt", "no option --teach in edpct compress"),
        ("edpct fly x.png", "no command 'fly'"),
        ("edpct data tiles", "no command 'tiles' in data"),
    ],
)
def test_this_file_finds_wrong_commands(line: str, why: str) -> None:
    assert complaint(shlex.split(line)[1:], known()) == why


def test_this_file_finds_commands_in_blocks_and_in_prose() -> None:
    text = "Run `edpct doctor`.\n\n    $ edpct train --data d  # now\n\n```\nedpct recipe > r.toml\n```\n"
    assert sorted(commands(text)) == [["doctor"], ["recipe"], ["train", "--data", "d"]]
