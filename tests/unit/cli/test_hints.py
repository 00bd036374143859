# SPDX-License-Identifier: Apache-2.0
"""A hint at a name that somebody may have meant opens no door."""

import ast
import importlib
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from cocos.attestation_service.config import ServerSettings
from cocos.cli import _common
from cocos.errors import ConfigError, did_you_mean, proposable
from cocos.kbs.config import Settings as KbsSettings
from cocos.keyprovider.config import Settings as KeyProviderSettings

ROOT = Path(__file__).resolve().parents[3]
SRC = ROOT / "src"
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield name, command
    for sub, child in getattr(command, "commands", {}).items():
        yield from walk(f"{name} {sub}", child)


APPS = {
    name: importlib.import_module(target.partition(":")[0]).app for name, target in SCRIPTS.items()
}
COMMANDS = {
    path: command
    for name, app in APPS.items()
    for path, command in walk(name, typer.main.get_command(app))
}
DOORS = ("insecure_api", "--insecure-http", "InsecureAllowAll", "--allow-all", "allow_all",
         "--any-computation", "any_computation", "--replace-policy")  # fmt: skip


@pytest.mark.parametrize("door", DOORS)
def test_no_door_is_proposed(door: str) -> None:
    assert did_you_mean(door, [door]) is None
    assert did_you_mean(door[:-1], [door, "other"]) is None
    assert proposable([door, "sockets"]) == ["sockets"]


def test_other_names_are() -> None:
    assert did_you_mean("sokets", ["sockets", "insecure_sockets"]) == "did you mean sockets?"
    # Claims that say that something is insecure are for policies to look at.
    assert did_you_mean("ear.cocos.insecur", ["ear.cocos.insecure"]) is not None


def doors_of(name: str) -> list[str]:
    options = [each for parameter in COMMANDS[name].params for each in parameter.opts]
    return [each for each in options if not proposable([each])]


WITH_DOORS = [name for name in COMMANDS if doors_of(name)]


@pytest.mark.parametrize("name", WITH_DOORS)
def test_no_command_line_proposes_one(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program, *path = name.split()
    for door in doors_of(name):
        for typo in (door[:-1] + "x", door[:-2], door.replace("--", "--x", 1)):
            monkeypatch.setattr("sys.argv", [program, *path, typo])
            with pytest.raises(SystemExit) as caught:
                _common.run_app(APPS[program], program)
            assert caught.value.code == 2
            assert door not in capsys.readouterr().err.replace(typo, "")


@pytest.mark.parametrize("shape", [KbsSettings, KeyProviderSettings, ServerSettings])
@given(cut=st.integers(1, 4), more=st.sampled_from(["", "x", "_key"]))
def test_no_file_proposes_one(shape: type[BaseModel], cut: int, more: str) -> None:
    for door in (name for name in shape.model_fields if not proposable([name])):
        typo = door[:-cut] + more
        with pytest.raises(ConfigError) as caught:
            _common.load_settings(shape, flags={typo: True})
        assert typo in caught.value.message
        assert "insecure" not in (caught.value.hint or "").replace(typo, "")


def test_an_old_name_in_another_section_proposes_none() -> None:
    for text in ({"insecure_key": True}, {"type": "InsecureAllowAl"}):
        with pytest.raises(ConfigError) as caught:
            _common.load_settings(KbsSettings, flags={"admin": text})
        assert "insecure" not in (caught.value.hint or "").lower()


def test_there_is_one_such_helper() -> None:
    """Policies' reviews look for near names of rules and claims, which open nothing."""
    users = {
        path.relative_to(SRC / "cocos").as_posix()
        for path in SRC.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import) and any(name.name == "difflib" for name in node.names)
    }
    assert users == {"errors.py", "policy/review.py"}
