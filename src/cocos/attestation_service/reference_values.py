# SPDX-License-Identifier: Apache-2.0
"""Reference values: what policies compare claims with. Kept for a year, then gone."""

import datetime as dt
from typing import Any, Final, Literal

import msgspec

from cocos._clock import Clock
from cocos._types import JsonObject
from cocos.errors import FormatError, NotFoundError
from cocos.policy.engine import check_data
from cocos.stores.base import Namespace, Store
from cocos.wire import json

VERSION: Final = "0.1.0"
MAX_NAME: Final = 512
_TIME = "%Y-%m-%dT%H:%M:%SZ"


class Message(msgspec.Struct, frozen=True):
    """What an operator registers; ``payload`` is standard base64 of a JSON object."""

    type: str
    payload: str
    version: Literal["0.1.0"] = VERSION


class ReferenceValue(msgspec.Struct, frozen=True):
    """A registered value; also the form in the store, that of Trustee's RVPS."""

    version: str
    name: str
    expiration: str
    value: Any


class ReferenceValues:
    """Registers and reads reference values."""

    def __init__(self, store: Store, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def register(self, message: JsonObject) -> tuple[str, ...]:
        """Store the values of a message over those of the same names.

        Args:
            message: ``{"version": "0.1.0", "type": "sample", "payload": base64 of a JSON
                object}``; each member of the payload becomes a value.

        Returns:
            The names.

        Raises:
            FormatError: another form, another type, an unusable name or value.
        """
        values = _payload(message)
        for name, value in values.items():
            _check_name(name)
            check_data({name: value})
        expires = _in_a_year(self._clock())
        for name, value in values.items():
            stored = ReferenceValue(VERSION, name, expires.strftime(_TIME), value)
            await self._store.put(
                Namespace.REFERENCE_VALUE, name, json.encode(stored), expires=expires
            )
        return tuple(values)

    async def get(self, name: str) -> Any:
        """Return a value.

        Raises:
            NotFoundError: there is none, or it has expired.
        """
        stored = await self._read(name)
        if stored is None:
            raise NotFoundError(f"there is no reference value {name!r}")
        return stored.value

    async def list(self) -> tuple[ReferenceValue, ...]:
        """Return everything that is registered and has not expired, by name."""
        names = await self._store.keys(Namespace.REFERENCE_VALUE)
        read = [await self._read(name) for name in names]
        return tuple(stored for stored in read if stored is not None)

    async def all(self) -> JsonObject:
        """Return every value that has not expired, by name."""
        return {stored.name: stored.value for stored in await self.list()}

    async def delete(self, name: str) -> None:
        """Delete a value.

        Raises:
            NotFoundError: there is none, or it has expired.
        """
        if not await self._store.delete(Namespace.REFERENCE_VALUE, name):
            raise NotFoundError(f"there is no reference value {name!r}")

    async def _read(self, name: str) -> ReferenceValue | None:
        data = await self._store.get(Namespace.REFERENCE_VALUE, name)
        if data is None:
            return None
        stored: ReferenceValue = json.decode(
            data, ReferenceValue, f"the stored reference value {name!r}"
        )
        # The store drops what has expired; values from elsewhere may have come without.
        expiration = dt.datetime.strptime(stored.expiration, _TIME).replace(tzinfo=dt.UTC)
        return stored if expiration > self._clock() else None


def _payload(message: JsonObject) -> JsonObject:
    try:
        parsed = msgspec.convert(message, Message)
    except msgspec.ValidationError as error:
        raise FormatError(
            f"the reference value message is malformed: {error}",
            hint='{"version": "0.1.0", "type": "sample", "payload": "<base64>"}',
        ) from error
    if parsed.type != "sample":
        raise FormatError(
            f"reference values of type {parsed.type!r} are not supported", hint="sample is"
        )
    payload = json.b64decode(parsed.payload, "the payload")
    values: JsonObject = json.decode(payload, dict[str, Any], "the payload")
    return values


def _check_name(name: str) -> None:
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise FormatError(f"a reference value's name has 1 to {MAX_NAME} printable characters")


def _in_a_year(now: dt.datetime) -> dt.datetime:
    whole = now.astimezone(dt.UTC).replace(microsecond=0)
    try:
        return whole.replace(year=whole.year + 1)
    except ValueError:  # the 29th of February
        return whole.replace(year=whole.year + 1, day=28)
