# SPDX-License-Identifier: Apache-2.0
"""How much strangers may ask for: requests per client, and sessions without evidence.

Both are counted in this process, in bounded memory. Pure: who calls brings the time.
"""

import datetime as dt
import ipaddress
from typing import Final

from cocos._recent import Recent
from cocos.errors import TooManyRequestsError

MAX_CLIENTS: Final = 65_536
"""Clients whose recent requests are remembered."""

BURST_SECONDS: Final = 10
"""A client that was quiet may spend the allowance of so many seconds at once."""

_IPV6_SITE: Final = 64  # bits of an address that its holder cannot choose


class OpenSessions:
    """Sessions that wait for evidence; when they are too many the oldest ones go."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._expires: dict[str, dt.datetime] = {}  # in the order of opening, so of expiry

    def add(self, session_id: str, expires: dt.datetime, now: dt.datetime) -> list[str]:
        """Note a session; return those that have to go for it."""
        self._expires[session_id] = expires
        dropped = []
        while len(self._expires) > self._limit:
            oldest = next(iter(self._expires))
            if self._expires.pop(oldest) > now:
                dropped.append(oldest)
        return dropped

    def remove(self, session_id: str) -> None:
        """Forget a session: its evidence has come."""
        self._expires.pop(session_id, None)


class RateLimit:
    """So many requests per second and client, and :data:`BURST_SECONDS` of them at once.

    Args:
        per_second: Lasting rate; 0 for no limit.
        clients: How many clients are remembered.
    """

    def __init__(self, per_second: float, *, clients: int = MAX_CLIENTS) -> None:
        self._interval = 1 / per_second if per_second else 0.0
        # When each client's allowance is whole again; later is more in debt.
        self._whole: Recent[str, float] = Recent(clients)

    def admit(self, client: str, now: float, *, cost: int = 1) -> None:
        """Return if the client may make one more request.

        Args:
            client: Whose requests are counted together.
            now: Seconds on a monotonic clock.
            cost: 0 to count it later, with :meth:`charge`, or not at all.

        Raises:
            TooManyRequestsError: it may not yet.
        """
        if not self._interval:
            return
        whole = max((self._whole.get(client) or now), now) + cost * self._interval
        excess = whole - now - BURST_SECONDS
        if excess > 0:
            raise TooManyRequestsError(
                "too many handshakes or refused requests from this address",
                retry_after=excess,
                hint="slow down; one handshake serves many resources",
            )
        if cost:
            self._whole.put(client, whole)

    def charge(self, client: str, now: float) -> None:
        """Count a request that was let in; the next one may have to wait for it."""
        if self._interval:
            self._whole.put(client, max((self._whole.get(client) or now), now) + self._interval)


def client_of(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """Return what requests of an address are counted by: who has one IPv6 address has 2⁶⁴."""
    if address.version == 4:  # noqa: PLR2004 - IPv4
        return str(address)
    return str(ipaddress.ip_network((address, _IPV6_SITE), strict=False))
