# SPDX-License-Identifier: Apache-2.0
"""A value that cannot be one ends with 2, a file that is not there with 66: every program's."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from _command_lines import PROGRAMS, walk

from cocos.cli import _common, _values

GOOD = {
    "cvms_url": "localhost:7001",
    "data": "-",
    "denial": "0123456789abcdef",
    "destination": "oci:there",
    "fingerprint": "ab" * 32,
    "identity": "some",
    "key": "default/key/1",
    "kid": "kbs:///default/key/1",
    "name": "kbs:///default/key/1",
    "path": "default/key/1",
    "source": "oci:here",
    "value": "1",
    "vm_id": "1",
    "vm_ids": "1",
}
"""Values for what must be given."""

ANY = {
    # names and texts that somebody else knows, or not: a KBS, a manager, an identity provider
    *("audience", "issuer", "role", "vm_id", "vm_ids", "resource", "prefix", "policy_id"),
    *("name", "value", "event", "init_data", "revoke kid", "allow_user"),
    *("grpc_host", "http_host"),
    # what the manager judges
    *("ttl", "registry_credentials", "ca_url"),
    *("aws_access_key_id", "aws_endpoint_url", "aws_region"),
    "attestation",  # a name, a URL of two protocols or a socket: judged where it is opened
}
"""Parameters for which every text is a value; with their command where others judge."""

BAD = {"storage": "ftp://h", "session_storage": "ftp://h"}
"""What others would take for a path."""


def programs() -> Iterator[tuple[str, Any, Any]]:
    """Yield each program, each of its commands, each parameter of it that has a value."""
    for name, module in PROGRAMS.items():
        for path, command in walk(
            name, typer.main.get_command(importlib.import_module(module).app)
        ):
            for parameter in command.params:
                if not getattr(parameter, "is_flag", False):
                    yield path, command, parameter


def kind(parameter: Any) -> Any:
    return parameter.type_descriptor.annotation


ALL = {f"{path} {each.opts[-1]}": (path, command, each) for path, command, each in programs()}
FILES = [
    name
    for name, (_, command, each) in ALL.items()
    if kind(each) in {Path, list[Path]}
    and not _values.MADE & {each.name, f"{command.name} {each.name}"}
]
FREE = [
    name
    for name, (_, command, each) in ALL.items()
    if kind(each) in {Path, list[Path]} or ANY & {each.name, f"{command.name} {each.name}"}
]
AT_ONCE = {"kbs --attestation-token-type", "kbs --oldest-protocol", "kbs --trusted-proxy"}
"""The KBS tells all that is wrong at once, its file's settings among them, and ends with 78."""
JUDGED = [name for name in ALL if name not in FREE and name not in AT_ONCE]


def ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, bad: str) -> tuple[int, str]:
    """Run a command whose one parameter has a value; return how it ended before it did anything."""
    path, command, parameter = ALL[name]
    present = tmp_path / "present"
    present.write_text("x")
    words: list[str] = path.split()
    for each in command.params:
        if each is not parameter and not each.required:
            continue
        given = str(present) if kind(each) is Path else GOOD.get(each.name, str(present))
        value = bad if each is parameter else given
        dashed = [opt for opt in each.opts if opt.startswith("-")]
        words += [dashed[-1], value] if dashed else [value]

    def begun(main: Any) -> None:
        main.close()
        raise AssertionError("it began")

    monkeypatch.setattr(_common, "run_async", begun)
    monkeypatch.setattr("sys.argv", words)
    for variable in ("KBS_URL", "COCOS_LOG_LEVEL", "AA_KBC_PARAMS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        _common.run_app(importlib.import_module(PROGRAMS[words[0]]).app, words[0])
    assert isinstance(caught.value.code, int)
    return caught.value.code, " ".join(words)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    assert ended(monkeypatch, tmp_path, name, "nowhere/none")[0] == 66
    assert "nowhere/none is not there" in capsys.readouterr().err


@pytest.mark.parametrize("name", JUDGED)
def test_a_value_that_is_none(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    bad = BAD.get(ALL[name][2].name, "?? \x01:")
    code, line = ended(monkeypatch, tmp_path, name, bad)
    assert code == 2, (line, capsys.readouterr().err)


def test_what_nobody_gave_is_not_looked_at(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty default stands for nothing: ``agent create`` without --aa-kbs-params begins."""
    [name] = [
        name
        for name in ALL
        if name.startswith("cocos-cli agent create") and ALL[name][2].name == "cvms_url"
    ]
    code, line = ended(monkeypatch, tmp_path, name, "localhost:7001")
    assert code == 70, line
    assert "AssertionError" in capsys.readouterr().err
    code, line = ended(
        monkeypatch, tmp_path, "cocos-cli checksum subject", "docker://localhost/a:1"
    )
    assert code == 70, line
