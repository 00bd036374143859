# SPDX-License-Identifier: Apache-2.0
"""One name for one thing: docs/operate/options.md says which, and every program keeps to it."""

import importlib
import re
import typing
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from _command_lines import COMMANDS, PROGRAMS, ROOT, walk

from cocos.cli import _values
from cocos.cli._anywhere import in_place
from cocos.cli._names import SHORT, install, shown
from cocos.cli._values import GRAMMAR

FOREIGN = "grpcurl"  # another project's program, of which we speak the command line
ROWS = re.findall(
    r"^\| `(-.*?)`(?:, `(-.)`)? \| (.*?) \|(.*?)\|$",
    (ROOT / "docs/operate/options.md").read_text(),
    re.MULTILINE,
)
TABLE = {name: (short, thing, also) for name, short, thing, also in ROWS}
ALIASES = {name: set(re.findall(r"`([^`]+)`", also)) for name, (_, _, also) in TABLE.items()}
OPTIONS = [
    (name, option)
    for name, command in COMMANDS.items()
    if not name.startswith(FOREIGN)
    for option in command.params
    if option.param_type_name == "option" and not option.hidden
]
"""Every option that help shows, with its command."""


def name_of(option: Any) -> str:
    return shown(option.opts)[-1]


def aliases(option: Any) -> set[str]:
    """Return its hidden names; of -name and --name, as Go has them, the latter."""
    hidden = set(option.opts) - set(shown(option.opts))
    return {name for name in hidden if f"-{name}" not in option.opts}


def kind(option: Any) -> object:
    """Return what a value of it is: text, a number, a file or nothing; one or several."""
    kind = option.type_descriptor.annotation
    kind = typing.get_args(kind)[0] if typing.get_origin(kind) is list else kind
    return str if isinstance(kind, type) and issubclass(kind, str) else kind


def test_the_table_has_every_name_that_needs_one() -> None:
    meanings: dict[str, set[str]] = defaultdict(set)
    hidden: dict[str, set[str]] = defaultdict(set)
    for _, option in OPTIONS:
        meanings[name_of(option)].add(option.help)
        hidden[name_of(option)] |= aliases(option)
    wanted = {name for name in meanings if len(meanings[name]) > 1 or hidden[name]}
    assert set(TABLE) == wanted
    assert len(TABLE) == len(ROWS)
    assert {name: hidden[name] for name in wanted} == ALIASES
    assert {name: short for name, (short, _, _) in TABLE.items() if short} == {
        long: short for short, long in SHORT.items() if long in TABLE
    }


def test_no_thing_has_two_names() -> None:
    things = [thing for _, thing, _ in TABLE.values()]
    assert len(things) == len(set(things)) > 40
    names: dict[str, set[str]] = defaultdict(set)
    for _, option in OPTIONS:
        names[option.help].add(name_of(option))
    assert {text: found for text, found in names.items() if len(found) > 1} == {}


def test_no_name_means_two_things() -> None:
    kinds: dict[str, set[object]] = defaultdict(set)
    for _, option in OPTIONS:
        kinds[name_of(option)].add(kind(option))
    assert {name: found for name, found in kinds.items() if len(found) > 1} == {}
    for short in SHORT:
        assert {name_of(each) for _, each in OPTIONS if short in shown(each.opts)} == {SHORT[short]}


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"url", "kbs", "kbs_url", "aa_kbs_params"}, "--kbs"),
        ({"cert_file", "kbs_ca"}, "--kbs-ca"),
        ({"path"}, "--resource"),
        ({"aa", "aa_addr"}, "--aa"),
    ],
)
def test_what_is_read_alike_is_called_alike(parameters: set[str], name: str) -> None:
    readers = {GRAMMAR[each] for each in parameters if each in GRAMMAR} - {GRAMMAR["cvms_url"]}
    alike = {each for each, reader in GRAMMAR.items() if reader in readers} | parameters
    found = {
        (command, re.sub("^--(?:algo|dataset)-", "--", name_of(each)))  # whose it is
        for command, each in OPTIONS
        if each.name in alike
    }
    if name == "--aa":  # the hub's address is read like the agent's, and is another thing
        found = {pair for pair in found if pair[1] != "--cdh"}
    assert found
    assert {called for _, called in found} == {name}, found


@pytest.mark.parametrize(("command", "option"), OPTIONS, ids=lambda each: getattr(each, "name", ""))
def test_names_are_words(command: str, option: Any) -> None:
    """The ways in which the originals abbreviate; each is somewhere else another."""
    words = set(re.split("[-_]", name_of(option).lstrip("-")))
    assert not words & {"crt", "cert", "prikey", "pubkey", "sock", "addr"}, command
    assert "_" not in name_of(option)
    assert not ({"kbs"} & words and {"url", "urls", "path", "paths", "params"} & words), command


def installed() -> Iterator[tuple[str, Any]]:
    for program, module in PROGRAMS.items():
        command = typer.main.get_command(importlib.import_module(module).app)
        install(command)
        yield from walk(program, command)


INSTALLED = dict(installed())


@pytest.mark.parametrize("name", INSTALLED)
def test_help_shows_one_name_and_all_are_taken(name: str) -> None:
    command = INSTALLED[name]
    context = command.context_class(command, info_name=name)
    options = {each.name: each for each in COMMANDS[name].params}
    for option in command.params:
        if option.param_type_name != "option":
            continue
        every = options[option.name].opts
        assert option.opts == shown(every)
        if not option.hidden:
            told = option.get_help_record(context)[0]
            assert not set(re.split(r"[\s,/]+", told)) & (set(every) - set(shown(every)))
            assert all(each in told for each in shown(every))
        for spelling in every:
            words = [spelling] if option.is_flag else [spelling, "word"]
            values, left, _ = command.make_parser(context).parse_args(words)
            assert option.name in values, f"{name} {spelling}"
            assert left == []


def test_what_nobody_typed_is_not_judged() -> None:
    """An option that may be left out has a default that need not be a value of it."""
    for words, given in ((["agent", "create"], ["--cvms-url", "h:1"]), (["doctor"], [])):
        command: Any = typer.main.get_command(
            importlib.import_module("cocos.cli.owner.command").app
        )
        _values.install(command)
        for word in words:
            command = command.commands[word]
        command.make_context("it", given)


def test_an_older_name_is_taken_anywhere_on_the_line() -> None:
    """Programs move options to their command before help and errors know one name alone."""
    program = COMMANDS["kbs-client"]
    line = ["config", "list-resources", "--url", "U", "--cert-file", "C"]
    assert in_place(program, line) == ["--url", "U", "--cert-file", "C", *line[:2]]
