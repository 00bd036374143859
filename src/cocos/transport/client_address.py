# SPDX-License-Identifier: Apache-2.0
"""Who asks: the peer of the connection, or whom a trusted proxy speaks for."""

import functools
import ipaddress
from collections.abc import Sequence
from typing import Final, TypeAlias

from starlette.datastructures import Headers
from starlette.types import Scope

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_LONGEST: Final = 64
"""Characters of an address, with brackets, zone and port."""

LOOPBACK: Final[tuple[Network, ...]] = (
    ipaddress.ip_network("127.0.0.0/8"),
    ipaddress.ip_network("::1/128"),
)


class ClientAddresses:
    """Finds the address that a request comes from.

    Proxies append to X-Forwarded-For whom they got a request from. What stands before the
    entries of trusted proxies is a stranger's word and is not looked at.

    Args:
        proxies: Networks of trusted proxies; a local one is always trusted.
    """

    def __init__(self, proxies: Sequence[Network] = ()) -> None:
        self._proxies = (*LOOPBACK, *proxies)

    def find(self, scope: Scope) -> Address | None:
        """Return the address; None for a program of this machine, or without a network."""
        peer = _parse((scope.get("client") or ("",))[0])
        if peer is None or not self._is_proxy(peer):
            return peer
        forwarded = ",".join(Headers(scope=scope).getlist("x-forwarded-for"))
        address = peer
        for entry in reversed(forwarded.split(",") if forwarded else []):
            found = _parse(entry.strip())
            if found is None:
                break  # the last one that makes sense is to blame
            address = found
            if not self._is_proxy(found):
                break
        return None if any(address in network for network in LOOPBACK) else address

    def _is_proxy(self, address: Address) -> bool:
        return any(address in network for network in self._proxies)


def _parse(text: str) -> Address | None:
    # Nothing long is remembered: it would be a stranger's way to our memory.
    return _parsed(text) if len(text) <= _LONGEST else None


@functools.lru_cache(maxsize=4096)
def _parsed(text: str) -> Address | None:
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]  # with a port, as some proxies write it
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
