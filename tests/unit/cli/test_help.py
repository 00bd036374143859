# SPDX-License-Identifier: Apache-2.0
"""Every command of every program says what it does, and what each of its options is for."""

import importlib
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

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
