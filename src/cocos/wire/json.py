# SPDX-License-Identifier: Apache-2.0
"""Strict JSON at the edge: one decoder, one canonical form, one error."""

import base64
import binascii
from typing import Any, TypeVar

import msgspec
import rfc8785

from cocos.errors import FormatError

T = TypeVar("T")


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
