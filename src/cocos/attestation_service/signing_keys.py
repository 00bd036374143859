# SPDX-License-Identifier: Apache-2.0
"""The keys that sign tokens, in the store: all replicas have the same.

Every replica reads them again after :data:`FRESH_SECONDS`, and a key becomes active no
sooner than :data:`LEAD` after it was published, so that nobody sees a token by a key that
it cannot know.
"""

import asyncio
import datetime as dt
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

import structlog

from cocos._clock import Clock
from cocos.crypto import jwk, jwt
from cocos.crypto.signing import SigningKey
from cocos.errors import ConfigError, InternalError
from cocos.stores.base import Namespace, Store
from cocos.tokens.key_ring import KeyRing, RingKey
from cocos.tokens.signer import Signer
from cocos.wire import json

NAME: Final = "attestation-token"
FRESH_SECONDS: Final = 5.0
LEAD: Final = dt.timedelta(seconds=30)
"""The least time between the publication of a key and its first signature."""

_ATTEMPTS: Final = 8
_LONG_AGO: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_PEM: Final = b"-----BEGIN"

Note: TypeAlias = Callable[[str], Awaitable[None]]

_log = structlog.get_logger(__name__)


class SigningKeys:
    """Signs with the active key of a store, or with the operator's own.

    Args:
        store: Where the keys are kept; the first is made when it is needed.
        clock: Decides which key is active.
        token_lifetime: How long a key is believed after another has taken over.
        own: The operator's own key; it signs, and those in the store are still believed.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock,
        token_lifetime: dt.timedelta,
        own: Signer | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._lifetime = token_lifetime
        self._own = own
        self._raw: bytes | None = None
        self._ring = KeyRing(())
        self._signers: dict[str, Signer] = {}
        self._read_at = -math.inf

    async def signer(self) -> Signer:
        """Return who signs a token now."""
        if self._own is not None:
            return self._own
        ring = await self._current()
        return self._signers[ring.signing(self._clock()).kid]

    async def verify(self, token: str) -> dict[str, Any]:
        """Verify a token that this issuer signed, and return its claims.

        Raises:
            FormatError: not a JWT.
            AuthenticationError: none of the keys that are believed signed it.
        """
        kid = jwt.header_of(token).get("kid")
        ring = await self._current(kid=kid if isinstance(kid, str) else None)
        signers = self._believed(ring)
        keys = [signer.key.verification_key() for signer in signers]
        return jwk.verify_with_any(tuple(keys), token)

    async def published(self) -> Mapping[str, Any]:
        """Return the JWK set (RFC 7517 §5) of all keys that are believed."""
        signers = self._believed(await self._current())
        return {"keys": [signer.published() for signer in signers]}

    async def ring(self) -> KeyRing:
        """Return the keys in the store, as they are now."""
        self._read_at = -math.inf
        return await self._current()

    async def rotate(self, lead: dt.timedelta, *, note: Note | None = None) -> RingKey:
        """Publish a new key that takes over after ``lead``, and return it.

        Args:
            lead: From now to its first signature.
            note: Told its name before anything is changed.

        Raises:
            ConfigError: the lead is too short for every replica to learn of the key.
            StateError: another rotation is under way.
        """
        if self._own is not None:
            raise ConfigError(
                "the operator's own key signs tokens here",
                hint="put another file in its place, keep the old public key among "
                "trusted_jwk_sets until its tokens have expired, and restart one KBS after "
                "the other",
            )
        if lead < LEAD:
            raise ConfigError(f"a new key is published at least {LEAD} before it signs")
        now = self._clock()
        new = _made(now + lead)

        lifetime = self._lifetime
        await self._change(
            lambda ring: ring.rotated(new, now=now, token_lifetime=lifetime), new.kid, note
        )
        _log.info("attestation.key-published", kid=new.kid, active=new.active.isoformat())
        return new

    async def revoke(self, kid: str, *, note: Note | None = None) -> None:
        """Believe no token by a key any more; if it is the one that signs, a new one does.

        Args:
            kid: Its name.
            note: Told it before anything is changed.

        Raises:
            NotFoundError: there is none of that name.
        """
        now = self._clock()
        spare = _made(now)
        await self._change(lambda ring: ring.revoked(kid, now=now, spare=spare), kid, note)
        _log.warning("attestation.key-revoked", kid=kid)

    async def _change(
        self, change: Callable[[KeyRing], KeyRing], kid: str, note: Note | None
    ) -> None:
        for _ in range(_ATTEMPTS):
            ring = await self.ring()
            raw, new = self._raw, json.encode(change(ring))
            if note is not None:
                await note(kid)
                note = None
            self._read_at = -math.inf
            if raw is not None and await self._store.replace(Namespace.KEY, NAME, raw, new):
                return
        raise InternalError("others keep changing the token signing keys")

    async def _current(self, *, kid: str | None = None) -> KeyRing:
        now = asyncio.get_running_loop().time()
        own = None if self._own is None else self._own.key.kid
        known = kid in {None, own} or kid in self._signers
        if not known or now - self._read_at >= FRESH_SECONDS:
            raw = await self._store.get(Namespace.KEY, NAME)
            if raw is None and self._own is None:
                raw = await self._first()
            if raw != self._raw:
                self._take(raw)
            self._read_at = now
        return self._ring

    async def _first(self) -> bytes:
        made = json.encode(KeyRing((_made(_LONG_AGO),)))
        if await self._store.put_new(Namespace.KEY, NAME, made):
            return made
        kept = await self._store.get(Namespace.KEY, NAME)
        if kept is None:
            raise InternalError("the token signing keys vanished from the store")
        return kept

    def _take(self, raw: bytes | None) -> None:
        ring = KeyRing(()) if raw is None else _parse(raw)
        self._signers = {
            key.kid: Signer(SigningKey.from_pem(key.pem.encode())) for key in ring.keys
        }
        self._raw, self._ring = raw, ring

    def _believed(self, ring: KeyRing) -> list[Signer]:
        own = [] if self._own is None else [self._own]
        return own + [self._signers[key.kid] for key in ring.believed(self._clock())]


def _made(active: dt.datetime) -> RingKey:
    key = SigningKey.generate()
    return RingKey(key.kid, key.pem().decode("ascii"), active)


def _parse(raw: bytes) -> KeyRing:
    if raw.startswith(_PEM):  # one key, as the first versions kept it
        key = SigningKey.from_pem(raw)
        return KeyRing((RingKey(key.kid, raw.decode("ascii"), _LONG_AGO),))
    ring: KeyRing = json.decode(raw, KeyRing, "the stored token signing keys")
    return ring
