# SPDX-License-Identifier: Apache-2.0
"""Whose process is at the other end of a TCP connection on this machine.

The kernel lists the sockets of our network namespace with their owners. A socket that its
owner has closed is listed as root's, so only connected ones with an inode count.
"""

import ipaddress
import sys
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_TABLES: Final = {4: Path("/proc/self/net/tcp"), 6: Path("/proc/self/net/tcp6")}
_ESTABLISHED: Final = "01"
_COLUMNS: Final = 10  # as far as the inode
_TRIES: Final = 3  # the table is not read at one moment: a row can be missed


class Endpoint(NamedTuple):
    """One end of a connection."""

    address: Address
    port: int

    @classmethod
    def of(cls, host: str, port: int) -> "Endpoint":
        """Return the end with that address; an IPv4 address in IPv6's clothes is one of IPv4.

        Raises:
            ValueError: no IP address.
        """
        address = ipaddress.ip_address(host)
        return cls(getattr(address, "ipv4_mapped", None) or address, port)


def owners(client: Endpoint, server: Endpoint) -> set[int]:
    """Return the user ids that a connection's client socket belongs to.

    Returns:
        One; none if the connection has ended, or is not one of this network namespace.
    """
    wanted = _as_listed(client, server)
    for _ in range(_TRIES):
        found = {uid for version, ends in wanted for uid in _look(_TABLES[version], ends)}
        if found:
            return found
    return set()


def _look(table: Path, ends: list[str]) -> set[int]:
    try:
        text = table.read_text("ascii")
    except FileNotFoundError:  # no IPv6 here
        return set()
    found = set()
    for line in text.splitlines()[1:]:
        columns = line.split(maxsplit=_COLUMNS)
        if columns[1:4] == [*ends, _ESTABLISHED] and columns[9] != "0":
            found.add(int(columns[7]))
    return found


def _as_listed(client: Endpoint, server: Endpoint) -> list[tuple[int, list[str]]]:
    """The two ends as the tables name them; a client's IPv6 socket may speak IPv4."""
    ends = (client, server)
    plain = [_text(each.address, each.port) for each in ends]
    listed: list[tuple[int, list[str]]] = [(client.address.version, plain)]
    if client.address.version == server.address.version == 4:  # noqa: PLR2004
        mapped = [_text(ipaddress.IPv6Address(f"::ffff:{a}"), port) for a, port in ends]
        listed.append((6, mapped))
    return listed


def _text(address: Address, port: int) -> str:
    packed = address.packed
    words = (packed[at : at + 4] for at in range(0, len(packed), 4))
    shown = "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)
    return f"{shown}:{port:04X}"
