# SPDX-License-Identifier: Apache-2.0
"""Reference values in files: ours, and the forms in which Trustee and its operator keep them."""

import datetime as dt
from collections.abc import Iterable
from typing import Any, Final

from cocos._types import JsonObject
from cocos.errors import FormatError
from cocos.wire import json

TIME: Final = "%Y-%m-%dT%H:%M:%SZ"
INPUTS: Final = "inputs"
"""Member of an image's file that says what its values were computed from."""

_TIME_HINT: Final = "such as 2027-01-01T00:00:00Z"
_FIRST_YEAR: Final = 1970
_KNOWN: Final = frozenset({"version", "name", "expiration", "value"})
_HINT: Final = (
    '{"svn": ["1"]}, {"svn": {"value": ["1"], "expiration": "2027-01-01T00:00:00Z"}}, or '
    '[{"name": "svn", "value": ["1"], "expiration": "2027-01-01T00:00:00Z"}]'
)

Given = tuple[Any, dt.datetime | None]
"""A value, and when it expires if the file says so."""


def parse(data: bytes, what: str) -> dict[str, Given]:
    """Return the values of a file by name.

    Args:
        data: A JSON object, name → value or value with ``expiration``; or a list of objects
            with ``name``.
        what: The file, for messages.

    Raises:
        FormatError: names the value that is wrong.
    """
    document: JsonObject | list[JsonObject] = json.decode_strict(
        data, JsonObject | list[JsonObject], what
    )
    found: dict[str, Given] = {}
    for name, value in _named(document, what):
        if name in found:
            raise FormatError(f"{what}: {name} is there twice")
        found[name] = _given(value, f"{what}: {name}")
    return found


def _named(document: JsonObject | list[JsonObject], what: str) -> Iterable[tuple[str, Any]]:
    if isinstance(document, dict):
        for name, value in document.items():
            if name != INPUTS or not isinstance(value, dict) or _expires(value):
                yield name, value
        return
    for number, each in enumerate(document):
        named: Any = each.get("name")
        if not isinstance(named, str) or not each.keys() <= _KNOWN or "value" not in each:
            raise FormatError(f"{what}: [{number}] is no reference value", hint=_HINT)
        yield named, {"expiration": None, **each}


def _expires(value: Any) -> bool:
    """Whether this is a value with its expiration, not a value that is an object."""
    return isinstance(value, dict) and {"expiration", "value"} <= value.keys() <= _KNOWN


def _given(value: Any, what: str) -> Given:
    if not _expires(value):
        return value, None
    text = value["expiration"]
    return value["value"], None if text is None else parse_time(text, what)


def parse_time(text: Any, what: str) -> dt.datetime:
    """Return a moment, to the second.

    Raises:
        FormatError: not a time with its zone (RFC 3339).
    """
    try:
        moment = dt.datetime.fromisoformat(text)
        utc = moment.astimezone(dt.UTC).replace(microsecond=0)
    except (TypeError, ValueError, OverflowError) as error:
        raise FormatError(f"{what}: the expiration is no time", hint=_TIME_HINT) from error
    if moment.tzinfo is None or utc.year < _FIRST_YEAR:
        raise FormatError(
            f"{what}: the expiration has no zone, or is before {_FIRST_YEAR}", hint=_TIME_HINT
        )
    return utc


def dump(values: Iterable[JsonObject]) -> JsonObject:
    """Return values by name, in the form that :func:`parse` takes.

    Args:
        values: ``name``, ``value`` and ``expiration``, as the KBS lists them.
    """
    return {each["name"]: _plain(each) for each in values}


def _plain(each: JsonObject) -> Any:
    value = each["value"]
    if _expires(value) or (each["name"] == INPUTS and isinstance(value, dict)):
        # Left plain it would be taken for something else.
        return {"expiration": each["expiration"], "value": value}
    return value
