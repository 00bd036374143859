# SPDX-License-Identifier: Apache-2.0
"""A value that cannot be one ends with 2, a file that is not there with 66: every program's."""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from _command_lines import COMMANDS, PROGRAMS, walk

from cocos.cli import _common, _values
from cocos.cli._names import shown

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
    "names": "amd/crl/vcek/milan",
    "source": "oci:here",
    "tee": "snp",
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
BY_NAME = {
    f"{path} {shown(each.opts)[-1]}": (path, command, each) for path, command, each in programs()
}
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
JUDGED = [name for name in ALL if name not in FREE]


def ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, bad: str) -> tuple[int, str]:
    """Run a command whose one parameter has a value; return how it ended before it did anything."""
    path, command, parameter = ALL.get(name) or BY_NAME[name]
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
    told = capsys.readouterr().err
    assert code == 2, (line, told)
    assert not any(word in told for word in ("Value error", "Input should", "Invalid value")), told
    program = line.split()[0]
    names = ALL[name][2].opts
    if names[-1].startswith("-") and program not in {
        "cvms-test",
        "grpcurl",
    }:  # speak for themselves
        assert told.startswith(f"{program}: {shown(names)[-1]}: "), told


@pytest.mark.parametrize(
    "case",
    [
        ("kbs", "--attestation-token-type", "attestation_token_type", "EAR", "'EAR' is not 'CoCo'"),
        ("kbs", "--oldest-protocol", "oldest_protocol", "9", "'9' is not '0.1.1', '0.2"),
        ("kbs", "--trusted-proxy", "trusted_proxies", ["h"], "'h' is not a network"),
        ("kbs", "--attestation", "attestation", "ftp://h", "'ftp://h' is nobody"),
        ("kbs", "--socket", "sockets", ["h:x"], "'h:x' is not an address"),
        ("kbs", "--timeout", "timeout", 0, "0 is less than 1"),
        ("kbs", "--auth-rate", "auth_rate", -1, "-1 is less than 0"),
        ("kbs", "--denial-status", "denial_status", 200, "200 is not 401 or 403"),
        ("grpc-as", "--socket", "socket", "h", "'h' is not an address"),
        ("grpc-as", "--http-socket", "http_socket", "unix:/x", "'unix:/x' is not an address"),
        ("cocos-manager", "--cpus", "cpus", 0, "0 is less than 1"),
        ("cocos-manager", "--grpc-port", "grpc_port", 65536, "65536 is more than 65535"),
        ("cocos-manager", "--accelerator", "accelerator", "hvf", "'hvf' is not 'auto', 'kvm'"),
        ("cocos-agent", "--retry-seconds", "retry_seconds", -1, "less than 0"),
        ("cvms-test", "--algo-hash", "", "zz", "zz"),
        ("cvms-test", "--algo-key", "", "a/b", "'a/b' is not"),
        ("cvms-test", "--algo-kbs", "", "ftp://x", "ftp"),
        ("cvms-test", "--kbs", "", "foo", "foo"),
        ("cvms-test", "--dataset-hash", "", f"{'ab' * 32},zz", "zz"),
        ("cvms-test", "--dataset-keys", "", "a/b/c,,a", "'a' is not"),
        ("cvms-test", "--dataset-kbs", "", ",http://h,foo", "foo"),
        ("api-server-rest", "--socket", "socket", "h:1", "h can be reached"),
        ("attestation-agent", "--socket", "attestation_sock", "h:1", "h can be reached"),
        ("coco-keyprovider", "--socket", "socket", "h:1", "h can be reached"),
        ("confidential-data-hub", "--socket", "socket", "h:1", "h can be reached"),
    ],
)
def test_a_wrong_command_line_is_2_and_a_wrong_file_78(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    case: tuple[str, str, str, Any, str],
) -> None:
    program, option, setting, bad, problem = case
    words = str(bad[0] if isinstance(bad, list) else bad)
    code, line = ended(monkeypatch, tmp_path, f"{program} {option}", words)
    told = capsys.readouterr().err
    assert (code, f"{program}: {option}: " in told, problem in told) == (2, True, True), (
        line,
        told,
    )
    assert "Input should" not in told
    names = {text for each in COMMANDS[program].params for text in each.opts}
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({setting: bad}))
    if "--config-file" not in names or program == "attestation-agent":  # its file has no address
        return
    code, line = ended(monkeypatch, tmp_path, f"{program} --config-file", str(file))
    told = capsys.readouterr().err
    assert (code, problem in told) == (78, True), (line, told)


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
