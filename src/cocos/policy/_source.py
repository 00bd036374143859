# SPDX-License-Identifier: Apache-2.0
"""What must hold of a policy's text before the engine sees it.

rego-cpp runs in our process, without limits of its own: it writes what ``print`` says to
standard output, shows the environment through ``opa.runtime``, and ``with data…`` makes
it abort. A policy has no use for any of these; those who write policies are trusted, and
these checks keep them from hurting themselves.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from cocos.errors import ConfigError, FormatError
from cocos.policy._input import escaped

MAX_BYTES: Final = 256 * 1024
HELPER_NAME: Final = "query_reference_value"
REFERENCE_VALUES: Final = "reference_shards"
"""Base document that the helper looks into.

The engine copies a document that it looks into: small ones in a large one, so that a
query does not take longer with every value registered (36 ms for 4,000, 2.7 ms so).
"""

HELPER: Final = (
    f"package policy\n\n{HELPER_NAME}(id) := object.get(object.get(data.{REFERENCE_VALUES}, "
    "substring(crypto.sha256(id), 0, 2), {}), id, null)\n"
)

REQUEST: Final = "cocos.request"
"""Member of an input that stands for base documents; no claim of a token has this name."""

_REQUEST_NAMES: Final = frozenset({"plugin", "resource-path", "query"})

_TEXT = re.compile(r'#[^\n]*|`[^`]*`|"(?:\\.|[^"\\\n])*"')
_PACKAGE = re.compile(r"\s*package[ \t]+policy(?=\s|$)")
_ROOT = re.compile(
    _TEXT.pattern + r"|(?<![\w.])(?P<root>data|input)(?!\w)"
    r'(?P<member>\.(?P<name>[A-Za-z_]\w*)|\["(?P<key>[^"\\\n]*)"\])?'
)
_FORBIDDEN = re.compile(
    r"(?<![\w.])(with|print|trace|opa\.runtime|http\.send|time\.now_ns"
    r"|net\.\w+|rand\.\w+|uuid\.\w+|json\.patch)(?!\w)"
)
# What looks at more than its arguments, such as the clock, or makes the engine abort.
_UNAVAILABLE = re.compile(
    r"(opa|http|net|rand|uuid)\..*|trace|internal\.(print|template_string)|json\.patch"
    r"|time\.now_ns|io\.jwt\.decode_verify|crypto\.x509\.parse_and_verify_certificates.*"
)
_PURE_HINT: Final = "a verdict depends on input and data alone"


def check(text: str) -> None:
    """Check a policy's text.

    Raises:
        FormatError: empty, too long, another package, or something that a policy must
            not use.
    """
    if not text.strip():
        raise FormatError("the policy is empty", hint="it starts with: package policy")
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise FormatError(f"the policy is larger than {MAX_BYTES} bytes")
    if any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in text):
        raise FormatError("the policy is not text")
    code = _code(text)
    if not _PACKAGE.match(code):
        raise FormatError("the policy does not start with: package policy")
    found = _FORBIDDEN.search(code)
    if found is not None:
        raise FormatError(
            f"line {_line(code, found.start())}: {found[1]} is not available to policies",
            hint=_PURE_HINT,
        )
    if "$" in code:
        raise FormatError("template strings are not available to policies", hint="use sprintf")


def check_builtins(names: Iterable[str]) -> None:
    """Check what a policy calls, as the engine has understood it.

    A text can write a name in many ways, such as ``time["now_ns"]()``.

    Raises:
        ConfigError: something that a policy must not use.
    """
    for name in names:
        if _UNAVAILABLE.fullmatch(name):
            raise ConfigError(f"{name} is not available to policies", hint=_PURE_HINT)


def shards(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return reference values as :data:`HELPER` finds them."""
    found: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        digest = hashlib.sha256(escaped(name)).hexdigest()
        found.setdefault(digest[:2], {})[name] = value
    return found


def request_in_input(text: str) -> str | None:
    """Return a policy that reads what is asked for from its input instead of base documents.

    The engine compiles base documents into a policy: what differs from one request to the
    next is better in the input. ``data.plugin`` becomes ``input[REQUEST].plugin``. None if
    the policy uses ``data`` or ``input`` in a way in which it could tell the difference.
    """
    if re.search(r"\bimport\s+(data|input)\b", _code(text)):
        return None
    pieces, done = [], 0
    for match in _ROOT.finditer(text):
        if match["root"] is None:
            continue  # a comment or a string
        name = match["name"] or match["key"]
        if match["member"] is None or name == REQUEST:
            return None
        if match["root"] == "data":
            if name not in _REQUEST_NAMES:
                return None
            pieces += [text[done : match.start()], f'input["{REQUEST}"]']
            done = match.start("member")
    return "".join([*pieces, text[done:]])


def defines_helper(text: str) -> bool:
    """Tell whether a policy brings its own ``query_reference_value``."""
    depth = 0
    for line in _code(text).splitlines():
        if depth == 0 and line.startswith(f"{HELPER_NAME}("):
            return True
        depth += sum(map(line.count, "{[(")) - sum(map(line.count, "}])"))
    return False


def describe(error: str, text: str) -> str:
    """Shorten the engine's syntax tree of an error to its first message and line."""
    message = re.search(r"\(errormsg \d+:([^()\n]*)", error)
    place = re.search(r"\(error \d+:policy\.rego\|(\d+)\|", error)
    what = message[1].strip() if message else "the engine refuses it"
    if place is None:
        return what
    # The engine counts bytes.
    before = text.encode("utf-8", "replace")[: int(place[1])]
    line = before.count(b"\n") + 1
    return f"line {line}: {what}"


def _code(text: str) -> str:
    """Blank out comments and the content of strings; line numbers stay."""

    def blank(match: re.Match[str]) -> str:
        kept = "" if match[0].startswith("#") else '""'
        return kept + "\n" * match[0].count("\n")

    return _TEXT.sub(blank, text)


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1
