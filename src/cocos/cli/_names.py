# SPDX-License-Identifier: Apache-2.0
"""One name for one thing: help shows one name of an option; its other names work all the same.

The first long name of an option is its name, the same in all programs, as
docs/operate/options.md lists them. What stands behind it are names that the originals, or
earlier versions of ours, have for it.
"""

from typing import Any, Final

SHORT: Final = {
    "-c": "--config-file",
    "-f": "--follow",
    "-o": "--output-dir",
    "-s": "--socket",
}
"""Short names that help shows: they mean the same wherever they stand."""


def shown(names: list[str]) -> list[str]:
    """Return those of an option's names that people are told."""
    long = next((name for name in names if name.startswith("--")), None)
    if long is None:
        return names
    return [*(name for name in names if SHORT.get(name) == long), long]


def option_of(command: Any, parameter: str) -> str:
    """Return what people call a parameter of a program; its own name if it is none."""
    for each in command.params:
        if each.name == parameter and each.param_type_name == "option":
            return shown(each.opts)[-1]
    below = [option_of(child, parameter) for child in getattr(command, "commands", {}).values()]
    return next((name for name in below if name != parameter), parameter)


def install(command: Any) -> None:
    """Have help, errors and hints of a program speak of one name, whatever is typed.

    Typer shows the class of commands and options to nobody.
    """
    for option in command.params:
        if option.param_type_name == "option":
            _hide(option)
    for child in getattr(command, "commands", {}).values():
        install(child)


def _hide(option: Any) -> None:
    every, told, add = option.opts, shown(option.opts), option.add_to_parser

    def add_every(parser: Any, context: Any) -> None:
        option.opts = every
        try:
            add(parser, context)
        finally:
            option.opts = told

    option.add_to_parser = add_every
    option.opts = told
