# SPDX-License-Identifier: Apache-2.0
"""Every command of every program says what it does, and what each of its options is for."""

import importlib
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from _command_lines import COMMANDS, PROGRAMS, parse, walk
from _shell_lines import commands

from cocos.cli import _common, _help, _names
from cocos.cli._examples import EXAMPLES

PLACEHOLDER = re.compile(r"[A-Z]+(?:[|/:=_-][A-Z]+)*(?:,…)?|[\w.-]+(?:\|[\w.-]+)*(?:\|[A-Z]+)?")
PARTS = re.compile(r"env var: |default: |required$|(?=[\d.]+<=|x[<>])")
"""What brackets hold, in this order."""


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_something_of_everything(name: str) -> None:
    command = COMMANDS[name]
    assert len(command.help or "") > 10
    for parameter in command.params:
        text = getattr(parameter, "help", None) or ""
        assert len(text) > 5, f"{name}: {parameter.name} has no help"


@pytest.mark.parametrize("name", COMMANDS)
def test_no_option_takes_a_secret(name: str) -> None:
    """Arguments are visible to everybody on the machine; secrets come in files."""
    for parameter in COMMANDS[name].params:
        words = set((parameter.name or "").split("_"))
        if words & {"password", "secret", "token"}:
            assert words & {"file", "type"}, f"{name}: {parameter.name} is no file"


def test_the_guides_commands_are_there() -> None:
    wanted = {"agent create", "agent list", "agent show", "agent logs", "agent remove", "create-vm",
              "remove-vm", "keys", "env", "doctor", "encrypt", "result", "checksum"}  # fmt: skip
    assert {f"cocos-cli {name}" for name in wanted} <= set(COMMANDS)
    for name in ("agent create", "create-vm"):
        options = {text for each in COMMANDS[f"cocos-cli {name}"].params for text in each.opts}
        assert {
            "--manager-url", "--cvms-url", "--server-url", "--ttl", "--log-level", "--server-ca",
            "--client-key", "--client-crt", "--ca-url", "--aa-kbs-params", "--wait",
        } <= options  # fmt: skip


@pytest.fixture(scope="module")
def installed() -> dict[str, Any]:
    """Every command as its program shows it."""
    found: dict[str, Any] = {}
    for program, module in PROGRAMS.items():
        command = typer.main.get_command(importlib.import_module(module).app)
        _names.install(command)
        _help.install(command, program)
        found |= walk(program, command)
    return found


def records(installed: dict[str, Any], name: str) -> Iterator[tuple[Any, str, str]]:
    command = installed[name]
    context = command.context_class(command, info_name=name)
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record is not None:
            yield parameter, *record


@pytest.mark.parametrize("name", COMMANDS)
def test_an_example_can_be_typed(installed: dict[str, Any], name: str) -> None:
    """It is a command line of that command, and help shows it as it is."""
    assert not re.search(r"[<>]\w|…|\$\w", EXAMPLES[name])  # a placeholder cannot
    typed = EXAMPLES[name].replace("\\\n", " ").replace('"$(', "$(").replace(')"', ")")
    found = [parse(words) for words in commands(typed)] or [parse(shlex.split(typed))]
    assert any(f"{each} ".startswith(f"{name} ") for each in found), found
    if getattr(COMMANDS[name], "commands", None) is None:
        assert found[-1] == name
    command = installed[name]
    shown = command.get_help(command.context_class(command, info_name=name))
    assert "Example:\n" in shown
    for text in EXAMPLES[name].splitlines():
        assert f"    {text}\n" in f"{shown}\n"
    assert max(map(len, EXAMPLES[name].splitlines())) < 100


@pytest.mark.parametrize("name", [each for each in COMMANDS if not each.startswith("grpcurl")])
def test_one_notation(installed: dict[str, Any], name: str) -> None:
    """Placeholders are capitals or what is possible; brackets hold variable, default, limits."""
    for parameter, told, text in records(installed, name):
        said, _, brackets = text.partition("  [")
        assert said.endswith((".", "…")), f"{name} {told}: {text}"
        assert not set(said) & set("[]"), f"{name} {told}: {text}"
        assert PARTS.match(brackets.removesuffix("]")) or not brackets, f"{name} {told}: {text}"
        assert brackets.find("default: ") <= 0 or brackets.startswith("env var: ")
        if getattr(parameter, "is_flag", False):  # what is off is not switched off
            assert not parameter.secondary_opts or parameter.default is True, f"{name} {told}"
        else:
            assert PLACEHOLDER.fullmatch(told.rpartition(" ")[2]), f"{name} {told}"
            if str(parameter.type_descriptor.annotation).startswith("list["):
                several = parameter.param_type_name == "argument" or told.endswith(",…")
                assert several or "repeatable" in text, f"{name} {told}: {text}"
        assert re.findall(r"(\w+.)PEM\b", text) in ([], ["as "]), f"{name} {told}: {text}"


@pytest.mark.parametrize(
    "name", [each for each in COMMANDS if getattr(COMMANDS[each], "commands", None)]
)
def test_a_bare_command_shows_its_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    program, *words = name.split()
    command = COMMANDS[name]
    bare = _help.is_bare(COMMANDS[program], words)
    assert bare is not command.invoke_without_command  # these serve
    if not bare:
        return
    monkeypatch.setattr("sys.argv", [program, *words])
    with pytest.raises(SystemExit) as caught:
        _common.run_app(importlib.import_module(PROGRAMS[program]).app, program)
    assert caught.value.code == 2
    told = capsys.readouterr()
    assert told.out.startswith(f"Usage: {name} ")
    assert "Example:" in told.out
    assert told.err == ""
