# SPDX-License-Identifier: Apache-2.0
"""Every command of ours that a page shows is one: its subcommands and options are there."""

import importlib
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from _shell_lines import commands

from cocos.cli._names import shown

ROOT = Path(__file__).resolve().parents[3]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

_BLOCK = re.compile(r"^ *```(?:bash|sh)[ \w]*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_HEREDOC = re.compile(r"<< ?'?(\w+)'?[^\n]*\n.*?^\1$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(rf"(?<!`)`((?:{'|'.join(SCRIPTS)}) [^`\n]+)`")


def lines(page: str) -> Iterator[str]:
    """What is in shell blocks, and what stands in a sentence and begins with a program's name."""
    for block in _BLOCK.finditer(page):
        text = _HEREDOC.sub("", block[1]).replace("\\\n", " ").replace('"$(', "$(")
        yield from text.splitlines()
    for inline in _INLINE.finditer(page):
        yield inline[1]


def every(option: Any) -> set[str]:
    return {*getattr(option, "opts", ()), *getattr(option, "secondary_opts", ())}


def told(option: Any) -> set[str]:
    """Return the names that help shows, with one dash, too, as Go has them."""
    if option.param_type_name != "option":
        return set()
    names = {*shown(option.opts), *option.secondary_opts}
    return names | ({name.removeprefix("-") for name in names} & set(option.opts))


def wrong(command: list[str], names: Callable[[Any], set[str]] = every) -> str | None:
    """Say what is not there, by these names of an option."""
    module = importlib.import_module(SCRIPTS[command[0]].partition(":")[0])
    levels: list[Any] = [typer.main.get_command(module.app)]
    left = command[1:]
    while left:
        word = left.pop(0)
        name = word.partition("=")[0]
        children = getattr(levels[-1], "commands", {})
        if word == "…":
            continue
        if word.startswith("-"):
            options = [
                option for level in levels for option in level.params if name in names(option)
            ]
            if not options and name not in {"--help", "-h"}:
                return name
            if options and "=" not in word and not getattr(options[-1], "is_flag", False):
                del left[:1]
        elif word in children:
            levels.append(children[word])
        elif children:
            return word
    return None


SHOWN = [
    pytest.param(command, id=f"{page.relative_to(ROOT)}: {' '.join(command)}"[:150])
    for page in PAGES
    for line in lines(page.read_text("utf-8"))
    for command in commands(line)
]


@pytest.mark.parametrize("command", SHOWN)
def test_a_command_that_a_page_shows_is_there(command: list[str]) -> None:
    assert wrong(command) is None


@pytest.mark.parametrize("command", [each for each in SHOWN if "docs/guide.md" not in str(each.id)])
def test_a_page_calls_options_as_help_does(command: list[str]) -> None:
    """The guide may not: it shows the original's command lines, too."""
    assert wrong(command, told) is None


def test_pages_show_commands() -> None:
    assert len(SHOWN) > 100


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("kbs --storge x", "--storge"),
        ("A=1 kbs-client config list-resource", "list-resource"),
        ("X=$(cocos-cli checksum --jsn x)", "--jsn"),
        ("sleep 1 && cocos-cli agent lst", "lst"),
        ("cvms-test -onse > log 2>&1 &", "-onse"),
        ("kbs … token-key rotte", "rotte"),
    ],
)
def test_a_wrong_one_is_found(line: str, names: str) -> None:
    [command] = commands(line)
    assert wrong(command) == names
