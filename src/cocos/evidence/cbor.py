# SPDX-License-Identifier: Apache-2.0
"""CBOR (RFC 8949) that strangers wrote, as values of Python; ADR 0042.

Tags stay tags: what somebody sent chooses no code. Lengths are definite, maps have each key
once, and nothing follows.
"""

import struct
from dataclasses import dataclass
from typing import Any, Final

from cocos.errors import FormatError
from cocos.evidence._reader import Reader

_MAX_DEPTH: Final = 24
_SIMPLE: Final = {20: False, 21: True, 22: None, 23: None}
_FLOATS: Final = {25: ">e", 26: ">f", 27: ">d"}


@dataclass(frozen=True, slots=True)
class Tagged:
    """A value and the number of its tag."""

    tag: int
    value: Any


def loads(data: bytes, what: str) -> Any:
    """Return the one item that bytes are.

    Integers, bytes, text, tuples, dictionaries (keys: integers, bytes, text), booleans, None,
    floats and :class:`Tagged`.

    Raises:
        FormatError: something else, or not all of it.
    """
    reader = Reader(data, what, "big")
    item = _item(reader, what, _MAX_DEPTH)
    reader.end()
    return item


def head(major: int, number: int) -> bytes:
    """Return the head of an item, in its shortest form."""
    for short, (size, code) in {24: (0, 0), 2**8: (1, 24), 2**16: (2, 25), 2**32: (4, 26)}.items():
        if number < short:
            return bytes([major << 5 | (code or number)]) + number.to_bytes(4)[4 - size :]
    return bytes([major << 5 | 27]) + number.to_bytes(8)


def _item(reader: Reader, what: str, room: int) -> Any:
    if room == 0:
        raise FormatError(f"{what} is nested deeper than {_MAX_DEPTH}")
    first = reader.u8()
    major, info = first >> 5, first & 31
    if major == 7:  # noqa: PLR2004 - floats and simple values
        return _simple(reader, what, info)
    number = _number(reader, what, info)
    if major in {0, 1}:
        return number if major == 0 else -1 - number
    if major in {2, 3}:
        data = reader.take(number)
        return data if major == 2 else _text(data, what)  # noqa: PLR2004 - bytes
    if major == 6:  # noqa: PLR2004 - a tag
        return Tagged(number, _item(reader, what, room - 1))
    if number > reader.left:  # every item has a byte at least
        raise FormatError(f"{what} is cut short: {number} items wanted, {reader.left} bytes left")
    if major == 5:  # noqa: PLR2004 - a map
        return _map(reader, what, room, number)
    return tuple(_item(reader, what, room - 1) for _ in range(number))


def _map(reader: Reader, what: str, room: int, count: int) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for _ in range(count):
        key = _item(reader, what, room - 1)
        if isinstance(key, bool) or not isinstance(key, int | bytes | str):
            raise FormatError(f"{what} has a map whose keys are not numbers or text")
        if key in found:
            raise FormatError(f"{what} has a map with {str(key)[:40]} twice")
        found[key] = _item(reader, what, room - 1)
    return found


def _number(reader: Reader, what: str, info: int) -> int:
    if info < 24:  # noqa: PLR2004 - the number itself
        return info
    sizes = {24: reader.u8, 25: reader.u16, 26: reader.u32, 27: reader.u64}
    if info not in sizes:
        raise FormatError(f"{what} has an item without a definite length")
    return sizes[info]()


def _simple(reader: Reader, what: str, info: int) -> Any:
    if info in _SIMPLE:
        return _SIMPLE[info]
    if info in _FLOATS:
        form = _FLOATS[info]
        return struct.unpack(form, reader.take(struct.calcsize(form)))[0]
    raise FormatError(f"{what} has a simple value {info} that nobody knows")


def _text(data: bytes, what: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{what} has text that is not UTF-8") from error
