# SPDX-License-Identifier: Apache-2.0
"""``cocos-cli secret`` prints what upstream's data hub takes from a file as it is."""

import pytest

from cocos.cli import _common
from cocos.cli.owner import command


def run(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.setattr("sys.argv", line.split())
    with pytest.raises(SystemExit) as ended:
        _common.run_app(command.app, "cocos-cli")
    assert ended.value.code == 0


@pytest.mark.parametrize("tty", [False, True])
def test_no_newline_where_nobody_reads(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: object,
    *,
    tty: bool,
) -> None:
    run(monkeypatch, f"cocos-cli keys -k ecdsa -o {tmp_path}")
    capsys.readouterr()
    monkeypatch.setattr(_common.stdout, "is_terminal", tty)
    key = f"--signing-key {tmp_path}/private.pem --kid kbs:///default/signing-key/owner"
    run(monkeypatch, f"cocos-cli secret vault kbs:///default/secret/1 {key}")
    text = capsys.readouterr().out
    assert text.startswith("sealed.")
    assert text.endswith("\n") is tty
