# SPDX-License-Identifier: Apache-2.0
"""Environment files in the one form that every reader takes the same way.

One assignment a line, ``NAME="value"``; in the quotes only ``"``, ``$``, a backslash and a
backtick have a backslash before them. systemd's ``EnvironmentFile=`` and shells take
much more, not all of it alike; that much more is refused here.
"""

import re
from collections.abc import Mapping
from typing import Final

from cocos.errors import FormatError

_ASSIGNMENT: Final = re.compile(r'([A-Z_][A-Z0-9_]*)="((?:[^"\\$`]|\\["\\$`])*)"', re.ASCII)
_ESCAPED: Final = re.compile(r'(["\\$`])')
_ESCAPE: Final = re.compile(r'\\(["\\$`])')


def dumps(variables: Mapping[str, str]) -> str:
    """Return the text of some variables, in their order.

    Raises:
        FormatError: a name or a value that no line can hold.
    """
    lines = [f'{name}="{_ESCAPED.sub(_backslash, value)}"\n' for name, value in variables.items()]
    if loads("".join(lines)) != variables:
        raise FormatError("these variables do not fit an environment file")
    return "".join(lines)


def loads(text: str) -> dict[str, str]:
    """Parse such a text.

    Raises:
        FormatError: another form, a character that does not print, or a name that stands twice:
            the later line would win.
    """
    variables: dict[str, str] = {}
    for line in text.split("\n"):
        if not line:
            continue
        match = _ASSIGNMENT.fullmatch(line)
        name = line.partition("=")[0][:64]
        if match is None or not line.isprintable():
            raise FormatError(f'the line of {name!r} in the environment file is not NAME="value"')
        if name in variables:
            raise FormatError(f"{name} stands twice in the environment file")
        variables[name] = _ESCAPE.sub(r"\1", match[2])
    return variables


def _backslash(match: re.Match[str]) -> str:
    return f"\\{match[1]}"
