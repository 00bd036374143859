# SPDX-License-Identifier: Apache-2.0
"""Reference values: what policies compare claims with. They hold for a year.

Then they are still known as what has expired, until somebody renews or deletes them: to a
policy that is something else than a value that was never registered.
"""

import datetime as dt
import hashlib
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from cocos._clock import Clock
from cocos._types import JsonObject
from cocos.attestation_service.corim import Makers
from cocos.errors import FormatError, NotFoundError, StateError, TooLargeError, UnsupportedError
from cocos.policy.documents import BaseDocuments
from cocos.stores.base import Namespace, Store
from cocos.stores.view import View
from cocos.wire import json
from cocos.wire.reference_values import TIME as _TIME

VERSION: Final = "0.1.0"
MAX_NAME: Final = 512
MAX_COUNT: Final = 10_000
MAX_BYTES: Final = 4 * 2**20
_TYPES: Final = ("sample", "corim")
_NEVER = dt.datetime.max.replace(tzinfo=dt.UTC)


class Message(msgspec.Struct, frozen=True):
    """What an operator registers.

    ``payload`` is standard base64 of a JSON object, or of a CoRIM.
    """

    type: str
    payload: str
    version: Literal["0.1.0"] = VERSION


class ReferenceValue(msgspec.Struct, frozen=True):
    """A registered value; also the form in the store, that of Trustee's RVPS."""

    version: str
    name: str
    expiration: str
    value: Any

    @property
    def end(self) -> dt.datetime:
        """When it expires."""
        return dt.datetime.strptime(self.expiration, _TIME).replace(tzinfo=dt.UTC)


class ReferenceValues:
    """Registers and reads reference values."""

    def __init__(
        self, store: Store, *, clock: Clock, sample: bool, makers: Makers | None = None
    ) -> None:
        """Keep them in a store.

        Args:
            store: Where.
            clock: For when they expire.
            sample: Take those of type ``sample``, which nobody signs.
            makers: Whose CoRIMs count; nobody's without.
        """
        self._view = View(store, Namespace.REFERENCE_VALUE)
        self._clock = clock
        self._sample = sample
        self._makers = makers or Makers()
        self._seen: Mapping[str, bytes] | None = None
        self._values: dict[str, ReferenceValue] = {}
        self._live: JsonObject = {}
        self._lapsed: frozenset[str] = frozenset()
        self._until = dt.datetime.min.replace(tzinfo=dt.UTC)

    async def register(self, message: JsonObject) -> tuple[str, ...]:
        """Store the values of a message over those of the same names.

        Args:
            message: ``{"version": "0.1.0", "type": "sample", "payload": base64 of a JSON
                object}``; each member of the payload becomes a value. Or ``"corim"``, a
                signed CoRIM; its values expire when it does, at the latest in a year.

        Returns:
            The names.

        Raises:
            FormatError: another form, another type, an unusable name or value.
            AuthenticationError: a CoRIM of nobody who is trusted.
            UnsupportedError: this type is switched off.
            TooLargeError: with it, there would be more than policies can be given.
        """
        parsed = _message(message)
        payload = json.b64decode(parsed.payload, "the payload")
        expires: dt.datetime | None = None
        if parsed.type == "corim":
            values, end = self._makers.values(payload, self._clock())
            expires = None if end is None else min(end, _in_a_year(self._clock()))
        else:
            values = json.decode(payload, dict[str, Any], "the payload")
            if not self._sample:
                raise _switched_off()
        await self._check_room(values)
        stored = {name: self._stored(name, value, expires) for name, value in values.items()}
        await self._view.put(stored)
        return tuple(values)

    async def set(
        self,
        name: str,
        value: Any,
        *,
        expires: dt.datetime | None = None,
        new: bool = False,
        tag: str | None = None,
    ) -> None:
        """Store one value.

        Args:
            name: Its name.
            value: JSON.
            expires: When; in a year without.
            new: Only if there is none that holds.
            tag: Only if that of the present one is this.

        Raises:
            StateError: the condition does not hold; nothing was changed.
            CocosError: as of :meth:`register`.
        """
        if not self._sample:
            raise _switched_off()
        await self._check_room({name: value})
        stored, made = await self._view.read(), self._stored(name, value, expires)
        present = stored.get(name)
        if tag is None and not new:
            await self._view.put({name: made})
        elif present is None:
            if tag is not None or not await self._view.put_new(name, made):
                raise _changed(name)
        elif new and _parse(name, present).end > self._clock():
            raise StateError(f"there is a reference value {name!r} already")
        elif (tag is not None and tag != _tag(present)) or not await self._view.replace(
            name, present, made
        ):
            raise _changed(name)

    async def find(self, name: str) -> tuple[Any, str]:
        """Return a value, and the tag of what is stored.

        Raises:
            NotFoundError: there is none, or it has expired.
        """
        stored = await self._view.read()
        value = None if name not in stored else _parse(name, stored[name])
        if value is None or value.end <= self._clock():
            raise NotFoundError(f"there is no reference value {name!r}")
        return value.value, _tag(stored[name])

    async def _check_room(self, values: JsonObject) -> None:
        for name in values:
            _check_name(name)
        await self.all()
        whole = {name: each.value for name, each in self._values.items()} | values
        # What policies could not be given is not taken: they would all fail.
        if len(BaseDocuments.of(whole).text) > MAX_BYTES or len(whole) > MAX_COUNT:
            raise TooLargeError(
                f"there can be {MAX_COUNT} reference values, and {MAX_BYTES} bytes of them"
            )

    def _stored(self, name: str, value: Any, expires: dt.datetime | None) -> bytes:
        end = (expires or _in_a_year(self._clock())).strftime(_TIME)
        return json.encode(ReferenceValue(VERSION, name, end, value))

    async def get(self, name: str) -> Any:
        """Return a value.

        Raises:
            NotFoundError: there is none, or it has expired.
        """
        values = await self.all()
        if name not in values:
            raise NotFoundError(f"there is no reference value {name!r}")
        return values[name]

    async def list(self) -> tuple[ReferenceValue, ...]:
        """Return everything that is registered, by name, also what has expired."""
        await self.all()
        return tuple(self._values[name] for name in sorted(self._values))

    @property
    def lapsed(self) -> frozenset[str]:
        """Names of those that had expired when :meth:`all` was last asked."""
        return self._lapsed

    async def all(self) -> JsonObject:
        """Return every value that has not expired, by name.

        The same object as long as nothing has changed; not to be changed.
        """
        stored, now = await self._view.read(), self._clock()
        if stored is not self._seen:
            self._values = {name: _parse(name, data) for name, data in stored.items()}
            self._seen = stored
            self._until = now
        if now >= self._until:
            ends = {name: value.end for name, value in self._values.items()}
            self._live = {name: self._values[name].value for name, end in ends.items() if end > now}
            self._lapsed = frozenset(self._values.keys() - self._live.keys())
            self._until = min((end for end in ends.values() if end > now), default=_NEVER)
        return self._live

    async def delete(self, name: str) -> None:
        """Delete a value.

        Raises:
            NotFoundError: there is none.
        """
        if not await self._view.delete(name):
            raise NotFoundError(f"there is no reference value {name!r}")


def _tag(stored: bytes) -> str:
    return hashlib.sha256(stored).hexdigest()[:32]


def _changed(name: str) -> StateError:
    return StateError(
        f"the reference value {name!r} has been changed meanwhile", hint="read it again"
    )


def _switched_off() -> UnsupportedError:
    return UnsupportedError(
        "reference values of type 'sample' are switched off",
        hint="nobody signs them; sample_extractor = true in the KBS's settings takes them",
    )


def _parse(name: str, data: bytes) -> ReferenceValue:
    value: ReferenceValue = json.decode(
        data, ReferenceValue, f"the stored reference value {name!r}"
    )
    return value


def _message(message: JsonObject) -> Message:
    try:
        parsed = msgspec.convert(message, Message)
    except msgspec.ValidationError as error:
        raise FormatError(
            f"the reference value message is malformed: {error}",
            hint='{"version": "0.1.0", "type": "sample", "payload": "<base64>"}',
        ) from error
    if parsed.type not in _TYPES:
        raise FormatError(
            f"reference values of type {parsed.type!r} are not supported",
            hint=f"{' and '.join(_TYPES)} are",
        )
    return parsed


def _check_name(name: str) -> None:
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise FormatError(f"a reference value's name has 1 to {MAX_NAME} printable characters")


def _in_a_year(now: dt.datetime) -> dt.datetime:
    whole = now.astimezone(dt.UTC)
    try:
        return whole.replace(year=whole.year + 1)
    except ValueError:  # the 29th of February
        return whole.replace(year=whole.year + 1, day=28)
