# SPDX-License-Identifier: Apache-2.0
"""Challenges whose maker keeps nothing: what a verifier must remember travels sealed.

Between challenge and evidence the state of a verifier is with whoever asked: a key broker's
session, or anybody who reaches the gRPC port. It opens only here, for the nonce and the TEE
that it was made for, until it expires, and once. The secret of a challenge is not even in
it, but derived anew.

The keys stand beside the marks of what has been used, and change every hour: who loses the
marks loses the keys.
"""

import datetime as dt
import hashlib
import hmac
import os
from dataclasses import dataclass, field
from typing import Final

import msgspec

from cocos._clock import Clock
from cocos._types import JsonObject
from cocos.crypto import base64url, envelope
from cocos.crypto.envelope import KEY_BYTES, KEY_ID_BYTES, DataKey
from cocos.errors import EvidenceError, Finding, FormatError, IntegrityError, InternalError
from cocos.stores.base import Namespace, Store
from cocos.verifiers import Kept
from cocos.wire import json
from cocos.wire.kbs.protocol import Tee

PERIOD: Final = dt.timedelta(hours=1)
"""How long one key seals."""

MAX_STATE: Final = 64 * 1024
"""Characters of a sealed state, which is decoded before it is known to be ours."""

_SKEW: Final = dt.timedelta(minutes=5)  # of the clocks of replicas
_NOT_OURS: Final = "was not made by this service for this nonce"
_BEGAN: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_PLACE: Final = "challenge"
_SEALING: Final = b"cocos challenge: sealing"
_SECRETS: Final = b"cocos challenge: secret\0"


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of an attester.

    Attributes:
        nonce: That its evidence must carry, base64 of 32 bytes.
        params: Beside the nonce; for the attester.
        state: To be given back with the evidence; opaque.
    """

    nonce: str
    params: JsonObject
    state: str


class _Sealed(msgspec.Struct, frozen=True):
    expires: dt.datetime
    state: JsonObject


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge that is being made.

    Attributes:
        nonce: That the evidence must carry.
        secret: What only the challenged attester shall learn, 32 bytes.
    """

    nonce: str
    secret: bytes = field(repr=False)
    _place: str
    _key: DataKey = field(repr=False)
    _expires: dt.datetime

    def asked(self, params: JsonObject, state: JsonObject) -> Asked:
        """Return the challenge with the verifier's state sealed."""
        record = json.encode(_Sealed(self._expires, state))
        sealed = envelope.seal(_sealing(self._key), _PLACE, self._place, record)
        return Asked(self.nonce, params, base64url.encode(sealed))


class Challenges:
    """Makes challenges, and opens each once.

    Args:
        store: Where the keys and the marks are; replicas share it.
        clock: Decides what has expired.
        lifetime: From a challenge to the evidence.
    """

    def __init__(self, store: Store, *, clock: Clock, lifetime: dt.timedelta) -> None:
        self._store = store
        self._clock = clock
        self._lifetime = lifetime

    async def begin(self, tee: Tee, nonce: str) -> Challenge:
        """Begin a challenge of an attester; ``nonce`` is a fresh one."""
        key = await self._present_key()
        place = _place(tee, nonce)
        return Challenge(nonce, _secret(key, place), place, key, self._clock() + self._lifetime)

    async def redeem(self, tee: Tee, nonce: object, state: str) -> Kept:
        """Open what :meth:`Challenge.asked` sealed; never again after this.

        Args:
            tee: Whose evidence has come.
            nonce: That it is bound to.
            state: As it was given back.

        Raises:
            EvidenceError: not of this service, of another challenge, expired, or used.
        """
        if len(state) > MAX_STATE:
            raise _refusal(tee, _NOT_OURS)
        try:
            record = base64url.decode(state, "the state")
            key = await self._key(int.from_bytes(envelope.key_id(record), "big"))
            if key is None or not isinstance(nonce, str):
                raise _refusal(tee, _NOT_OURS)
            place = _place(tee, nonce)
            opened = envelope.unseal(_sealing(key), _PLACE, place, record)
        except (FormatError, IntegrityError) as error:
            raise _refusal(tee, _NOT_OURS) from error
        kept: _Sealed = json.decode(opened, _Sealed, "the state of a challenge")
        if self._clock() >= kept.expires:
            raise _refusal(tee, "has expired")
        mark = f"{_PLACE}-{hashlib.sha256(place.encode()).hexdigest()}"
        until = kept.expires + _SKEW
        if not await self._store.put_new(Namespace.SESSION, mark, b"used", expires=until):
            raise _refusal(tee, "has been used")
        return Kept(kept.state, _secret(key, place))

    async def _present_key(self) -> DataKey:
        number = self._period()
        found = await self._key(number)
        if found is None:
            name, made = _name(number), os.urandom(KEY_BYTES)
            until = _BEGAN + (number + 1) * PERIOD + self._lifetime + _SKEW
            await self._store.put_new(Namespace.SESSION, name, made, expires=until)
            found = await self._key(number)  # a replica may have been quicker
        if found is None:
            raise InternalError("the key of challenges vanished from the store")
        return found

    async def _key(self, number: int) -> DataKey | None:
        """Return the key of an hour since 1970; None if there is none any more, or yet."""
        present = self._period()
        if not present - self._lifetime // PERIOD - 2 <= number <= present + 1:
            return None  # of what a stranger names, not even looked for
        secret = await self._store.get(Namespace.SESSION, _name(number))
        return None if secret is None else DataKey(number.to_bytes(KEY_ID_BYTES, "big"), secret)

    def _period(self) -> int:
        return (self._clock() - _BEGAN) // PERIOD


def _name(number: int) -> str:
    return f"{_PLACE}-key-{number}"


def _place(tee: Tee, nonce: str) -> str:
    return f"{tee} {nonce}"


def _sealing(key: DataKey) -> DataKey:
    return DataKey(key.id, hmac.digest(key.secret, _SEALING, "sha256"))


def _secret(key: DataKey, place: str) -> bytes:
    return hmac.digest(key.secret, _SECRETS + place.encode(), "sha256")


def _refusal(tee: Tee, problem: str) -> EvidenceError:
    finding = Finding(f"{tee}.state", f"what was kept of the challenge {problem}")
    return EvidenceError(
        "the evidence is not the answer to a challenge of this service, or comes too late",
        findings=(finding,),
        hint="start a new handshake",
    )
