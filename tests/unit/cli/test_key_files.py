# SPDX-License-Identifier: Apache-2.0
"""Whoever gives a file that is no key is told which file that is."""

import importlib
from pathlib import Path

import pytest
from _command_lines import PROGRAMS

from cocos.cli import _common

ADMIN = "--kbs http://127.0.0.1:1 --auth-private-key nokey.pem"


@pytest.mark.parametrize(
    "line",
    [
        "cocos-cli secret vault kbs:///a/b/c --signing-key nokey.pem --kid kbs:///a/b/d",
        "cocos-cli secret public-key --signing-key nokey.pem",
        f"kbs-client config {ADMIN.replace('--kbs', '--url')} list-resources",
        "kbs-client admin-token --auth-private-key nokey.pem",
        "kbs-client --url http://127.0.0.1:1 get-resource --path a/b/c --tee-key-file nokey.pem",
        "cocos-cli result sealed.jwe --key nokey.pem",
    ],
)
def test_a_file_that_is_no_key_is_named(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    line: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("nokey.pem").write_text("no key")
    Path("sealed.jwe").write_text("{}")
    words = line.split()
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as ended:
        _common.run_app(importlib.import_module(PROGRAMS[words[0]]).app, words[0])
    assert ended.value.code in {65, 78}
    said = capsys.readouterr().err
    assert "nokey.pem" in said or "sealed.jwe" in said
