# SPDX-License-Identifier: Apache-2.0
"""Addresses that only programs of this machine can reach."""

import ipaddress

_MAX_PORT = 65535  # gRPC takes a larger one modulo 65536


def local_address(address: str) -> str:
    """Return ``address`` if only this machine can reach it; a validator for settings.

    Args:
        address: ``HOST:PORT``, ``unix:/PATH``.

    Raises:
        ValueError: another form, or reachable from elsewhere.
    """
    if address.startswith("unix:"):
        return address
    host, colon, port = address.rpartition(":")
    digits = port.isascii() and port.isdecimal()
    if not colon or not digits or int(port) > _MAX_PORT:
        raise ValueError("write HOST:PORT or unix:/PATH")
    if host != "localhost":
        try:
            loopback = ipaddress.ip_address(host.strip("[]")).is_loopback
        except ValueError as error:
            raise ValueError(f"{host!r} is not an IP address") from error
        if not loopback:
            raise ValueError(f"{host} can be reached from other machines; use 127.0.0.1 or unix:")
    return address
