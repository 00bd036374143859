# SPDX-License-Identifier: Apache-2.0
"""The one error handler, and settings from flags, environment and file."""

import json
import re
import socket
from pathlib import Path
from typing import Annotated

import pytest
import structlog
import typer
from pydantic import BaseModel, ConfigDict

from cocos import __version__
from cocos.cli import _common
from cocos.errors import ConfigError, NotFoundError


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    port: int = 7001
    host: str = "localhost"


def run(monkeypatch: pytest.MonkeyPatch, error: BaseException | None, *argv: str) -> int:
    app = _common.make_app("A program.")

    @app.command()
    def main(*, debug: _common.DebugFlag = False, as_json: _common.JsonFlag = False) -> None:
        """Do it."""
        assert debug == ("--debug" in argv)
        assert as_json == ("--json" in argv)
        if error:
            raise error

    monkeypatch.setattr("sys.argv", ["prog", *argv])
    with pytest.raises(SystemExit) as caught:
        _common.run_app(app, "prog")
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_success_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, None) == 0


def test_known_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    error = NotFoundError("no [key] at kbs:///a/b/c", hint="store it")
    assert run(monkeypatch, error) == 66
    shown = capsys.readouterr().err
    assert shown == "prog: no [key] at kbs:///a/b/c\n  hint: store it\n"


def test_known_error_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, NotFoundError("gone"), "--json") == 66
    assert json.loads(capsys.readouterr().err) == {
        "error": "not-found",
        "message": "gone",
        "hint": None,
    }


def test_unknown_error_shows_no_traceback_and_no_text_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, RuntimeError("s3cret")) == 70
    shown = capsys.readouterr().err
    assert "internal error: RuntimeError" in shown
    assert "Traceback" not in shown
    assert "s3cret" not in shown


def test_debug_shows_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, RuntimeError("why"), "--debug") == 70
    assert "Traceback" in capsys.readouterr().err


def test_usage_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, None, "--nonsense") == 2
    assert "--nonsense" in capsys.readouterr().err


def run_group(monkeypatch: pytest.MonkeyPatch, *argv: str) -> int:
    """Run a program with commands within commands, as kbs-client and kbs are."""
    app, inner = _common.make_app("A program."), _common.make_app("Some commands.")

    @app.callback()
    def outer(*, as_json: _common.JsonFlag = False) -> None: ...

    @inner.callback()
    def middle(*, thing: Annotated[int | None, typer.Option(help="A thing.")] = None) -> None: ...

    @inner.command("list")
    def last(*, as_json: _common.JsonFlag = False) -> None:
        """Say something."""
        _common.emit([1], lambda: _common.stdout.print("one"), as_json=as_json)

    app.add_typer(inner, name="config")
    monkeypatch.setattr("sys.argv", ["prog", *argv])
    with pytest.raises(SystemExit) as caught:
        _common.run_app(app, "prog")
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.mark.parametrize("flags", ["--thing 1", "--thing=1"])
def test_an_option_of_the_command_before_may_stand_behind(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: str
) -> None:
    assert run_group(monkeypatch, "config", "list", *flags.split()) == 0
    assert run_group(monkeypatch, "config", "list", "--nonsense") == 2
    assert "hint: prog config list --help tells what there is" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "shown"),
    [("config list", "one"), ("config list --json", "[1]"), ("--json config list", "[1]")],
)
def test_json_before_or_behind_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, shown: str
) -> None:
    assert run_group(monkeypatch, *line.split()) == 0
    assert capsys.readouterr().out == f"{shown}\n"


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, None, "--version") == 0
    assert run_group(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"prog {__version__}\n" * 2


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), 130), (typer.Exit(3), 3)])
def test_exits(monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int) -> None:
    assert run(monkeypatch, error) == status


def test_flags_win_over_environment_over_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "s.toml"
    file.write_text('port = 1\nhost = "file"')
    names = {"port": "PORT", "host": "HOST"}
    monkeypatch.delenv("HOST", raising=False)
    monkeypatch.setenv("PORT", "2")

    def load(**flags: object) -> Settings:
        return _common.load_settings(Settings, file=file, environment=names, flags=flags)

    assert load(port=None) == Settings(port=2, host="file")
    assert load(port=3) == Settings(port=3, host="file")
    monkeypatch.setenv("PORT", "x")
    with pytest.raises(ConfigError, match=r"^port: "):
        load()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot = 1", "there is no setting prot"),
        ("port = ", "is not TOML"),
        ("port = 'x'", "port: "),
    ],
)
def test_bad_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "s.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        _common.load_settings(Settings, file=file, flags={})
    if "prot" in text:
        assert caught.value.hint == "did you mean port?"
    with pytest.raises(ConfigError, match="cannot read"):
        _common.load_settings(Settings, file=tmp_path / "none", flags={})


def test_unknown_log_level() -> None:
    with pytest.raises(ConfigError, match="'loud' is no log level"):
        _common.configure_logs("loud")


@pytest.mark.parametrize("terminal", [False, True])
def test_what_strangers_write_does_nothing_to_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], terminal: bool
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    _common.configure_logs("info")
    structlog.get_logger().info("x", path="/ä\x1b[2J\nforged", findings=["\x1b"])
    structlog.get_logger().error("y", exc_info=ValueError("\x1b"))
    structlog.reset_defaults()
    written = capsys.readouterr().err
    assert r"/ä\x1b[2J\nforged" in written
    assert re.search(r"ValueError: \\+x1b", written)
    assert "\x1b" not in re.sub(r"\x1b\[\d*m", "", written)


def test_a_service_manager_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        _common.announce("prog", "127.0.0.1:1", as_json=False)
        manager.settimeout(5)
        assert manager.recv(100) == b"READY=1"
    assert capsys.readouterr().out == "prog: listening on 127.0.0.1:1\n"
    _common.announce("prog", "127.0.0.1:1", as_json=True)  # nobody listens: no failure
    assert json.loads(capsys.readouterr().out) == {"listening": "127.0.0.1:1"}


@pytest.mark.parametrize("name", ["aa.yaml", "kbs.yml"])
def test_yaml_is_named_and_what_to_write_instead(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_text("port: 1\n")
    with pytest.raises(ConfigError, match="is YAML") as caught:
        _common.load_settings(Settings, file=file, flags={})
    assert "TOML" in (caught.value.hint or "")
