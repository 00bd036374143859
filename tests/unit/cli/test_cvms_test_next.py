# SPDX-License-Identifier: Apache-2.0
"""cvms-test says beside a stored result how it is opened, with paths that are there."""

import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cocos.cli.host import cvms_test
from cocos.cli.owner.command import app
from cocos.crypto import sealed
from cocos.cvms.order import consumer_key


@pytest.mark.parametrize("name", ["1.zip.jwe", "a result; ls.zip.jwe", "-o.zip.jwe"])
def test_the_command_opens_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    assert runner.invoke(app, ["keys", "-o", "my keys"]).exit_code == 0
    public = Path("my keys/public.pem")
    archive = b"PK\x05\x06" + bytes(18)  # a ZIP without files
    Path(name).write_bytes(sealed.seal(archive, [consumer_key(public.read_bytes())]))
    program, *arguments = shlex.split(cvms_test.next_command(name, public))
    assert program == "cocos-cli"
    done = runner.invoke(app, arguments)
    assert done.exit_code == 0, done.output


def test_a_private_key_that_is_elsewhere_is_not_made_up(tmp_path: Path) -> None:
    for public in (None, tmp_path / "public.pem"):
        assert "--private-key PRIVATE_KEY " in cvms_test.next_command("1.zip.jwe", public)


@pytest.mark.parametrize("as_json", [True, False])
def test_it_is_shown_beside_the_result(
    capsys: pytest.CaptureFixture[str], *, as_json: bool
) -> None:
    show = cvms_test._show_json if as_json else cvms_test.Timeline().show
    shown = cvms_test._with_next(show, None)
    shown({"result": "/r/1.zip.jwe", "earlier": "/r/1.zip.jwe.old"})
    shown({"waiting": "for an agent"})
    out = capsys.readouterr().out
    command = "cocos-cli result --private-key PRIVATE_KEY -- /r/1.zip.jwe"
    assert out.count(command) == 1
    assert out.count("/r/1.zip.jwe.old") == 1
