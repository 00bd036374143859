# SPDX-License-Identifier: Apache-2.0
"""Commands of ours in a line of shell."""

import re
import shlex
from collections.abc import Iterator

from _command_lines import SCRIPTS

_SETS = re.compile(r"[A-Z_0-9]+=")
_STARTS = {";", "&&", "||", "|", "&", "(", "then", "do", "until", "while", "if", "!", "\n"}
_ENDS = _STARTS | {")", ">", ">>", "<", "2>", "2", ">&", "<<"}


def words(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        return list(lexer)
    except ValueError:  # a quotation that goes over lines
        return line.split()


def commands(line: str) -> Iterator[list[str]]:
    found: list[str] | None = None
    start = True
    for word in words(line):
        if found is not None and (word in _ENDS or set(word) & set("|&;()<>")):
            yield found
            found = None
        if found is not None:
            found.append(word)
        elif start and word in SCRIPTS:
            found = [word]
        start = (
            word in _STARTS or word.endswith(("(", "|", "&", ";")) or _SETS.match(word) is not None
        )
    if found is not None:
        yield found
