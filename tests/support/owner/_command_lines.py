# SPDX-License-Identifier: Apache-2.0
"""Every command of every program, as Typer knows it."""

import importlib
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
