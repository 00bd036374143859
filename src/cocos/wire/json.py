# SPDX-License-Identifier: Apache-2.0
"""Strict JSON at the edge: one decoder, one canonical form, one error."""

import base64
import binascii
import json
import re
from typing import Any, Final, TypeVar

import msgspec
import rfc8785

from cocos.errors import FormatError

T = TypeVar("T")

MAX_DEPTH: Final = 64
"""Levels of nesting in a stranger's JSON."""

MAX_VALUES: Final = 100_000
"""Values in a stranger's JSON; certificates as arrays of numbers have some thousand."""

# It also matches what does not end: nothing is scanned twice, whatever it is.
_TEXT: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
_NO_BRACKET: Final = bytes(set(range(256)) - set(b"[]{}"))
_ONE_KIND: Final = bytes.maketrans(b"{}", b"[]")


def decode(data: bytes | str, shape: type[T] | Any, what: str) -> T:
    """Decode JSON into ``shape``.

    Args:
        data: UTF-8 JSON text.
        shape: A ``msgspec`` struct, a union of them, or a built-in type.
        what: What the text is, for the message: "the attestation request".

    Raises:
        FormatError: not JSON, nested too deep, or not of that shape.
    """
    try:
        result: T = msgspec.json.decode(data, type=shape)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise FormatError(f"{what} is malformed: {error}") from error
    return result


def decode_strict(data: bytes, shape: type[T] | Any, what: str) -> T:
    """Decode a stranger's JSON, within limits, in which no name stands twice in an object.

    Two programs that read such a member may each believe another one (RFC 8259 §4), so
    that it is refused even where nobody looks at it.

    Raises:
        FormatError: as :func:`decode`, a name that stands twice, more than
            :data:`MAX_DEPTH` levels or :data:`MAX_VALUES` values.
    """
    # Before anything is made of it: a value of two bytes becomes an object of a hundred.
    if problem := _excess(data):
        raise FormatError(f"{what} is malformed: {problem}")
    result: T = decode(data, shape, what)
    if problem := _repetition(data):
        raise FormatError(f"{what} is malformed: {problem}")
    return result


def _excess(data: bytes) -> str | None:
    """Say what is too much in ``data``, if it is JSON."""
    # With few brackets and commas nothing can be: what honest peers send is not searched.
    if data.count(b"{") + data.count(b"[") <= MAX_DEPTH and data.count(b",") < MAX_VALUES:
        return None
    bare = _TEXT.sub(b"", data)
    if bare.count(b",") >= MAX_VALUES:
        return f"more than {MAX_VALUES} values"
    brackets = bare.translate(_ONE_KIND, _NO_BRACKET)
    for _ in range(MAX_DEPTH):  # each time the innermost level of every branch goes
        brackets = brackets.replace(b"[]", b"")
    return f"nested more than {MAX_DEPTH} levels deep" if brackets else None


def _repetition(data: bytes) -> str | None:
    """Say if a name stands twice in an object of ``data``, which is JSON."""
    try:
        _NAMES.decode(data.decode())
    except ValueError as error:
        return str(error)
    return None


def _distinct(members: list[tuple[str, Any]]) -> None:
    if len(dict(members)) != len(members):
        raise ValueError("a name stands twice in an object")


_NAMES: Final = json.JSONDecoder(object_pairs_hook=_distinct)


def encode(value: object) -> bytes:
    """Encode a struct or built-in value as compact UTF-8 JSON, members in declared order."""
    return msgspec.json.encode(value)


def canonical(value: object) -> bytes:
    """Encode ``value`` as RFC 8785 canonical JSON.

    Raises:
        FormatError: the value has no canonical form (NaN, a huge integer, a lone surrogate).
    """
    try:
        return rfc8785.dumps(msgspec.to_builtins(value))
    except (rfc8785.CanonicalizationError, RecursionError, UnicodeError) as error:
        raise FormatError("this JSON value has no canonical form") from error


def b64decode(text: str | bytes, what: str) -> bytes:
    """Decode standard base64 with padding; each byte string has one accepted spelling.

    Raises:
        FormatError: wrong alphabet or padding, foreign characters, unused bits that are not zero.
    """
    raw = text.encode() if isinstance(text, str) else text
    try:
        data = base64.b64decode(raw, validate=True)
    except (binascii.Error, ValueError) as error:
        raise FormatError(f"{what} is not standard base64") from error
    if base64.b64encode(data) != raw:
        raise FormatError(f"{what} is not standard base64")
    return data
