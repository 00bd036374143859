# SPDX-License-Identifier: Apache-2.0
"""Options count wherever they stand, before a subcommand, too."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cocos.cli.cocos_manager import app


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
