# SPDX-License-Identifier: Apache-2.0
"""Somebody else's text: to a pipe as it is, to a terminal so that it is seen, not obeyed."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocos.cli._screen import visible

ODD = (
    "ratio 10:1234:1000  key:lock:value oci:cat:v1 :e:\n"
    "[red]not red[/red] [/] [link=x]y[/link] \\[b]\n"
    "\x1b]0;owned\x07\x1b[2J\x1b[31mred\n"
    "over\rwritten\x08\x7f\x9b31m\n"
    "tab\tand\u00a0space\u3000\u200d é 日本 🐱\n"
    "\u202eturned\u2066"
)

PRINT = """
import sys
from cocos.cli import _common as common
from cocos.cli._screen import visible
from rich.table import Table
text = sys.stdin.buffer.read()
match sys.argv[1:]:
    case ["print", where]:
        getattr(common, where).print(text.decode("utf-8", "surrogateescape"), end="")
    case ["write"]:
        common.stdout.write(text)
    case ["pieces"]:
        for at in range(len(text)):
            common.stdout.write(text[at:at + 1], more=True)
    case ["table"]:
        table = Table("name")
        table.add_row(visible(text.decode()))
        table.add_row(text.decode())
        common.stdout.print(table)
    case ["status"]:
        with common.stderr.status(text.decode()):
            pass
"""


def on_pipes(text: bytes, *words: str) -> tuple[bytes, bytes]:
    argv = [sys.executable, "-c", PRINT, *words]
    env = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(argv, input=text, capture_output=True, check=True, env=env)
    return done.stdout, done.stderr


def on_terminal(text: bytes, *words: str) -> bytes:
    """Return what a terminal gets, from standard output and error."""
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-c", PRINT, *words]
    env = {**os.environ, "TERM": "xterm-mono", "COLUMNS": "200", "PYTHONUTF8": "1"}
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=theirs, stderr=theirs, env=env
    ) as child:
        os.close(theirs)
        assert child.stdin is not None
        child.stdin.write(text)
        child.stdin.close()
        shown = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            shown += piece
    os.close(ours)
    assert child.returncode == 0, shown
    return shown.replace(b"\r\n", b"\n")


def test_a_pipe_gets_text_as_it_is() -> None:
    assert on_pipes(ODD.encode(), "print", "stdout") == (ODD.encode(), b"")


def test_a_pipe_gets_what_a_program_wrote_byte_for_byte() -> None:
    data = bytes(range(256)) + b"\r\n\xff\xfe no newline"
    assert on_pipes(data, "write") == (data, b"")
    assert on_pipes(data, "pieces") == (data, b"")


@pytest.mark.parametrize("words", [("print", "stdout"), ("print", "stderr"), ("write",)])
def test_a_terminal_obeys_nothing_of_it(words: tuple[str, ...]) -> None:
    shown = on_terminal(ODD.encode(), *words).decode()
    assert not set(shown) & set("\x1b\x07\x08\r\x7f\x9b\u202e\u2066")
    text = ODD.replace("\r", "\n") if words == ("write",) else ODD
    assert shown == visible(text).expandtabs()


@pytest.mark.parametrize("kind", ["table", "status"])
def test_tables_and_spinners_are_no_way_round(kind: str) -> None:
    text = "\x1b[31mred\x07 [bold]:cat:"
    shown = on_terminal(text.encode(), kind).decode()
    # A spinner hides and shows the cursor: sequences of ours.
    assert "[31m" not in shown.replace("␛[31m", "")
    assert "␛[31mred␇ [bold]:cat:" in shown


def test_half_characters_and_foreign_bytes_are_shown_too() -> None:
    assert on_terminal(b"a\xffb\xc3", "write") == rb"a\xffb\xc3"
    assert on_pipes(b"name\xff", "print", "stdout") == (rb"name\udcff", b"")
    assert on_terminal("日本\r\nx".encode(), "pieces").decode() == "日本\nx"


@given(st.text())
def test_nothing_that_a_terminal_obeys_is_visible_text(text: str) -> None:
    shown = visible(text)
    assert all(letter in "\n\t" or ord(letter) >= 0x20 for letter in shown)
    assert not any(0x7F <= ord(letter) < 0xA0 for letter in shown)
    assert visible(shown) == shown
    shown.encode()


def test_every_command_s_output_goes_through_the_screen() -> None:
    """A console of rich's own would show :cat: as a cat, and obey what it is told."""
    for path in Path("src/cocos").rglob("*.py"):
        if path.name != "_screen.py":
            text = path.read_text()
            assert "rich.console" not in text, path
            assert "rich.print" not in text, path
