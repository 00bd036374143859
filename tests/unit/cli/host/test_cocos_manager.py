# SPDX-License-Identifier: Apache-2.0
"""Options count wherever they stand, before a subcommand, too."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cocos.cli import _common
from cocos.cli.host.cocos_manager import app
from cocos.errors import CallerError, ConfigError, UsageError
from cocos.manager.config import ENVIRONMENT, ManagerConfig


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["--state-folder", "one", "--json"], []),
        ([], ["--state-folder", "one", "--json"]),
        (["--state-folder", "other"], ["--state-folder", "one", "--json"]),
        (["-c", "manager.toml", "--json"], []),
        (["-c", "absent.toml", "--json"], ["-c", "manager.toml"]),
    ],
)
def test_the_ca_is_made_where_the_options_say(
    before: list[str], after: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("manager.toml").write_text('state_folder = "one"\n', "ascii")
    done = CliRunner().invoke(app, [*before, "tpm-ca", *after], catch_exceptions=False)
    made = json.loads(done.stdout)
    assert Path(made["file"]).is_relative_to(tmp_path / "one")
    assert Path(made["file"]).read_text("ascii") == made["certificate"]
    assert {path.name for path in tmp_path.iterdir()} == {"manager.toml", "one"}


def test_settings_before_a_subcommand_are_checked() -> None:
    done = CliRunner().invoke(app, ["--grpc-host", "192.0.2.1", "tpm-ca"])
    assert "anybody could start VMs" in str(done.exception)


TLS = {"server_cert": Path("cert.pem"), "server_key": Path("key.pem")}
CHANGED: dict[str, tuple[str, Any]] = {
    "grpc_host": ("127.0.0.2", "127.0.0.2"),
    "grpc_port": ("1", 1),
    "server_cert": ("other.pem", Path("other.pem")),
    "server_key": ("other.pem", Path("other.pem")),
    "client_ca": ("ca.pem", Path("ca.pem")),
    "http_host": ("127.0.0.2", "127.0.0.2"),
    "http_port": ("1", 1),
    "max_vms": ("1", 1),
    "backend": ("local", "local"),
    "state_folder": ("state", Path("state")),
    "eos_version": ("13", "13"),
    "instance_id": ("one", "one"),
    "keep_vms": ("true", True),
    "image_folder": ("image", Path("image")),
    "memory_mib": ("4G", 4096),
    "cpus": ("1", 1),
    "accelerator": ("tcg", "tcg"),
    "confidential": ("auto", "auto"),
    "scratch_mib": ("1G", 1024),
    "guest_port": ("22", 22),
    "authorized_keys": ("keys", Path("keys")),
    "ovmf_code": ("code.fd", Path("code.fd")),
    "ovmf_variables": ("vars.fd", Path("vars.fd")),
    "ovmf_confidential": ("snp.fd", Path("snp.fd")),
}


@pytest.mark.parametrize("setting", ENVIRONMENT)
def test_every_variable_sets_something(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, value = CHANGED[setting]
    monkeypatch.setenv(ENVIRONMENT[setting], text)
    file = {name: path for name, path in TLS.items() if name != setting}
    config = _common.load_settings(ManagerConfig, environment=ENVIRONMENT, flags=file)
    before = ManagerConfig.model_validate(TLS)
    assert config == before.model_copy(update={setting: value})
    assert config != before


def test_a_variable_that_does_nothing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    ignored = {"MANAGER_QEMU_MEMORY", "MANAGER_QEMU_ENABLE_TDX", "COCOS_JAEGER_URL"}
    for name in (*ignored, "MANAGER_LOG_LEVEL", "MANAGER_HTTP_PORT", "MANAGER_GRPC_URL"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("MANAGER_LOG_LEVEL", "warning")
    done = CliRunner().invoke(app, ["--grpc-host", "192.0.2.1"])
    lines = [line for line in done.stderr.splitlines() if "setting.ignored" in line]
    assert {
        name for name in ignored if any(f"variable={name} " in line for line in lines)
    } == ignored
    assert len(lines) == len(ignored)


@pytest.mark.parametrize(
    ("words", "kind", "message"),
    [
        (["--memory", "foo"], UsageError, "'foo' is no size, such as 4G"),
        (["-c", "f.toml"], ConfigError, "no setting memory"),
    ],
)
def test_settings_that_are_wrong_say_what_is_right(
    words: list[str],
    kind: type[CallerError],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f.toml").write_text('memory = "4G"\n', "ascii")
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, kind)
    assert message in str(done.exception)
    if "-c" in words:
        assert done.exception.hint == "did you mean memory_mib?"
