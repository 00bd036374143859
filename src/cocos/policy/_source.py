# SPDX-License-Identifier: Apache-2.0
"""What must hold of a policy's text before the engine sees it, and what it says of a text."""

import re
from typing import Final

from cocos.errors import FormatError

MAX_BYTES: Final = 256 * 1024
MAX_LINES: Final = 20_000
MAX_BRACKETS: Final = 10
"""Within each other. The engine reads what is in brackets once for every guess at what they
are: each further pair doubles its time, 12 s at 18."""

FILE: Final = "policy.rego"
"""What the engine knows a policy's text as."""

TEXT: Final = re.compile(r'#[^\n]*|`[^`]*`|"(?:\\.|[^"\\\n])*"')
"""A comment or a string."""

_PACKAGE = re.compile(r"\s*package[ \t]+policy(?=\s|;|$)")
_PLACE = re.compile(rf"--> {re.escape(FILE)}:(\d+):\d+")
_ELSEWHERE = re.compile(rf" at {re.escape(FILE)}:(\d+):\d+")
_MAX_MESSAGE = 300


def check(text: str) -> None:
    """Check a policy's text.

    Raises:
        FormatError: empty, too long, another package, or nested too deep.
    """
    if not text.strip():
        raise FormatError("the policy is empty", hint="it starts with: package policy")
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise FormatError(f"the policy is larger than {MAX_BYTES} bytes")
    if any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in text):
        raise FormatError("the policy is not text")
    code = blanked(text)
    if not _PACKAGE.match(code):
        raise FormatError("the policy does not start with: package policy")
    depth = 0
    for place in re.finditer(r"[\[\]{}]", code):
        depth += 1 if place[0] in "[{" else -1
        if depth > MAX_BRACKETS:
            line = code.count("\n", 0, place.start()) + 1
            raise FormatError(
                f"line {line}: more than {MAX_BRACKETS} brackets and braces within each other",
                hint="give parts of it names of their own",
            )


def blanked(text: str) -> str:
    """Blank out comments and the content of strings; line numbers stay."""

    def blank(match: re.Match[str]) -> str:
        kept = "" if match[0].startswith("#") else '""'
        return kept + "\n" * match[0].count("\n")

    return TEXT.sub(blank, text)


def describe(error: BaseException) -> str:
    """Shorten what the engine says of an error to its first message and line."""
    # Which goes on with a stack trace, where the environment asks for one.
    said = str(error).partition("Stack backtrace")[0].strip()
    found = re.search(r"^(?:error|warning): (.*)$", said, re.MULTILINE)
    message = found[1] if found else (said.splitlines() or ["the engine refuses it"])[0]
    message = _ELSEWHERE.sub(r" in line \1", message).rstrip(" :")[:_MAX_MESSAGE]
    place = _PLACE.search(said)
    return f"line {place[1]}: {message}" if place else message
