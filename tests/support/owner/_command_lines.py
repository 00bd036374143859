# SPDX-License-Identifier: Apache-2.0
"""Every command of every program, as Typer knows it."""

import importlib
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from cocos.cli._anywhere import in_place
from cocos.cli._values import GRAMMAR
from cocos.errors import CocosError

ROOT = Path(__file__).resolve().parents[3]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
PROGRAMS = {
    **{name: target.partition(":")[0] for name, target in sorted(SCRIPTS.items())},
    "grpcurl": "cocos.cli.owner.grpcurl",
}


def commands() -> Iterator[tuple[str, Any]]:
    for name, module in PROGRAMS.items():
        yield from walk(name, typer.main.get_command(importlib.import_module(module).app))


def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield name, command
    for sub, child in getattr(command, "commands", {}).items():
        yield from walk(f"{name} {sub}", child)


COMMANDS = dict(commands())


def parse(words: list[str]) -> str:
    """Read a command line as its program does, down to each value; run nothing.

    Returns:
        The command.

    Raises:
        AssertionError: what the program would say is wrong.
    """
    name, command = words[0], COMMANDS[words[0]]
    left = in_place(command, words[1:])
    context: Any = None
    while True:
        context = command.context_class(command, info_name=name, parent=context)
        try:
            given, left, _ = command.make_parser(context).parse_args(left)
            for each in command.params:
                _judge(command, each, given.get(each.name), context)
        except (CocosError, typer.exceptions.TyperException) as error:
            raise AssertionError(f"{name}: {error}") from error
        children = getattr(command, "commands", {})
        if not left:
            assert not children or command.invoke_without_command, f"{name}: of its commands none"
            return name
        assert left[0] in children, f"{name}: {left} is too much"
        name, command = f"{name} {left[0]}", children[left.pop(0)]


def _judge(command: Any, parameter: Any, given: Any, context: Any) -> None:
    if given is None or given == []:
        assert not parameter.required or parameter.envvar, f"{parameter.name} is missing"
        return
    judge = GRAMMAR.get(f"{command.name} {parameter.name}", GRAMMAR.get(parameter.name))
    read = parameter.get_runtime_param().coerce(given, param=parameter, ctx=context)
    for text in read if isinstance(read, list | tuple) else [read]:
        if judge is not None and isinstance(text, str) and text != "":
            judge(text)
