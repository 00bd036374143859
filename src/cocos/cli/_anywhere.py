# SPDX-License-Identifier: Apache-2.0
"""Options of a command that stand behind its subcommand: brought to where they belong."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class _Level:
    """A command of the line, which Typer shows the class of to nobody, and its words."""

    command: Any
    words: list[str] = field(default_factory=list)


def in_place(command: Any, arguments: Sequence[str]) -> list[str]:
    """Return a command line in which every option stands with the command that has it.

    ``config list-resources --auth-private-key K`` becomes ``config --auth-private-key K
    list-resources``. Where several have an option of that name the innermost gets it; what
    none has stays where it is, and so does everything behind ``--``.

    Args:
        command: The program.
        arguments: Without the program's name.
    """
    levels = [_Level(command)]
    left = list(arguments)
    while left:
        word = left.pop(0)
        child = getattr(levels[-1].command, "commands", {}).get(word)
        if word == "--":
            levels[-1].words += [word, *left]
            break
        if child is not None:
            levels.append(_Level(child, [word]))
        elif word.startswith("-"):
            name, equals, _ = word.partition("=")
            level, takes = _owner(levels, name)
            takes = 0 if equals else takes
            level.words += [word, *left[:takes]]
            del left[:takes]
        else:
            levels[-1].words.append(word)
    return [word for level in levels for word in level.words]


def _owner(levels: list[_Level], name: str) -> tuple[_Level, int]:
    """Return where an option belongs, and how many words are its value."""
    for level in reversed(levels):
        for option in level.command.params:
            if name in {*getattr(option, "opts", ()), *getattr(option, "secondary_opts", ())}:
                flag = getattr(option, "is_flag", False) or getattr(option, "count", False)
                return level, 0 if flag else option.nargs
    return levels[-1], 0
