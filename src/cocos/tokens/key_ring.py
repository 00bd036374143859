# SPDX-License-Identifier: Apache-2.0
"""The keys of one issuer over time. Pure.

A new key is *published* first: everybody who verifies learns of it. When it becomes
*active* it signs. The key before it is *believed* until its last token has expired, with a
margin for clocks that differ; then it is forgotten.
"""

import datetime as dt
from typing import Final

import msgspec

from cocos.errors import NotFoundError, StateError

CLOCKS: Final = dt.timedelta(minutes=10)
"""How far apart the clocks of replicas may be."""


class RingKey(msgspec.Struct, frozen=True):
    """One key.

    Attributes:
        kid: Its name.
        pem: Private key, PKCS#8.
        active: From when on it signs.
        expires: Until when its tokens are believed; None while no other has taken over.
    """

    kid: str
    pem: str
    active: dt.datetime
    expires: dt.datetime | None = None

    def __repr__(self) -> str:
        return f"RingKey(kid={self.kid!r}, active={self.active!r}, expires={self.expires!r})"


class KeyRing(msgspec.Struct, frozen=True):
    """All keys whose tokens may be about."""

    keys: tuple[RingKey, ...]

    def believed(self, now: dt.datetime) -> tuple[RingKey, ...]:
        """Return the keys whose tokens hold."""
        return tuple(key for key in self.keys if key.expires is None or key.expires > now)

    def signing(self, now: dt.datetime) -> RingKey:
        """Return the key that signs: of those believed the one that became active last."""
        believed = self.believed(now) or self.keys
        in_order = sorted(believed, key=lambda key: key.active)
        active = [key for key in in_order if key.active <= now]
        # None is active if the clock was set back: the first one was, before.
        return active[-1] if active else in_order[0]

    def rotated(self, new: RingKey, *, now: dt.datetime, token_lifetime: dt.timedelta) -> "KeyRing":
        """Return the ring in which ``new`` takes over when it becomes active.

        Raises:
            StateError: another one is about to.
        """
        for key in self.keys:
            if key.active > now:
                raise StateError(
                    f"the key {key.kid} takes over at {key.active:%Y-%m-%d %H:%M:%S} UTC; wait "
                    "until then, or revoke it"
                )
        until = new.active + token_lifetime + CLOCKS
        old = (
            msgspec.structs.replace(key, expires=until) if key.expires is None else key
            for key in self.believed(now)
        )
        return KeyRing((*old, new))

    def revoked(self, kid: str, *, now: dt.datetime, spare: RingKey) -> "KeyRing":
        """Return the ring without a key: its tokens hold no longer.

        Args:
            kid: Which.
            now: Present time.
            spare: Takes over if it is the key that signs: an older one may have leaked, too.

        Raises:
            NotFoundError: there is none of that name.
        """
        left = [key for key in self.keys if key.kid != kid]
        if len(left) == len(self.keys):
            raise NotFoundError(f"there is no token signing key {kid!r}")
        signing = self.signing(now)
        if signing.kid == kid:
            return KeyRing((*left, spare))
        if all(key.expires is not None for key in left):  # the one to take over is gone
            left[left.index(signing)] = msgspec.structs.replace(signing, expires=None)
        return KeyRing(tuple(left))
