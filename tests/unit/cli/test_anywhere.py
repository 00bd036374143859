# SPDX-License-Identifier: Apache-2.0
"""Options of a command may stand behind its subcommand."""

from typing import Annotated, Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from cocos.cli import _common
from cocos.cli._anywhere import in_place
from cocos.cli.kbs.command import app as kbs
from cocos.cli.kbs_client.command import app as kbs_client

CLIENT = typer.main.get_command(kbs_client)
KBS = typer.main.get_command(kbs)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "config list-resources --auth-private-key K",
            "config --auth-private-key K list-resources",
        ),
        (
            "config list-resources --auth-private-key=K",
            "config --auth-private-key=K list-resources",
        ),
        ("config list-resources --url U", "--url U config list-resources"),
        ("audit show --url U --after 3 --role r", "--url U audit --role r show --after 3"),
        ("config --debug list-resources", "--debug config list-resources"),
        ("explain ID --url U", "--url U explain ID"),
        # The value of an option is no option, and no command.
        ("config list-resources --prefix --url", "config list-resources --prefix --url"),
        ("config --auth-private-key config list-resources", ""),
        # Nobody's, and not ours to look at.
        ("config list-resources --nobody x", "config list-resources --nobody x"),
        ("config list-resources -- --url U", "config list-resources -- --url U"),
        ("confg list-resources --url", "confg list-resources --url"),
        ("config list-resources --auth-private-key", "config --auth-private-key list-resources"),
    ],
)
def test_options_are_brought_to_their_command(line: str, expected: str) -> None:
    assert " ".join(in_place(CLIENT, line.split())) == (expected or line)


def test_the_innermost_has_it_first() -> None:
    assert in_place(KBS, ["token-key", "list", "--json"]) == ["token-key", "list", "--json"]
    assert in_place(KBS, ["token-key", "list", "--storage", "s"])[0] == "--storage"


WORDS = ["config", "list-resources", "--url", "U", "--auth-private-key", "--", "-", "--json", "x"]


@given(st.lists(st.sampled_from(WORDS), max_size=8))
def test_nothing_is_lost_and_what_is_in_place_stays(words: list[str]) -> None:
    once = in_place(CLIENT, words)
    assert sorted(once) == sorted(words)
    assert in_place(CLIENT, once) == once


@given(values=st.lists(st.sampled_from(["a", "b", "-c"]), max_size=3), split=st.integers(0, 6))
def test_wherever_options_stand_the_same_is_done(values: list[str], split: int) -> None:
    app = _common.make_app("A program.")
    seen: list[tuple[list[str], str]] = []
    group = _common.make_app("A group.")
    app.add_typer(group, name="group")

    @group.callback()
    def options(
        context: typer.Context, *, key: Annotated[list[str] | None, typer.Option()] = None
    ) -> None:
        """Keep them."""
        context.obj = key

    @group.command("run")
    def run(context: typer.Context, *, name: Annotated[str, typer.Option()] = "") -> None:
        """Show them."""
        seen.append((context.obj or [], name))

    @group.command("other")
    def other() -> None:
        """Do nothing."""

    command: Any = typer.main.get_command(app)
    options_given = [word for value in values for word in ("--key", value)]
    before, after = options_given[: split - split % 2], options_given[split - split % 2 :]
    line = ["group", *before, "run", "--name", "n", *after]
    command(in_place(command, line), standalone_mode=False)
    assert seen == [(values, "n")]
