# SPDX-License-Identifier: Apache-2.0
"""Addresses that only programs of this machine can reach."""

import ipaddress


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
    if not colon or not port.isascii() or not port.isdecimal():
        raise ValueError("write HOST:PORT or unix:/PATH")
    if host != "localhost":
        try:
            loopback = ipaddress.ip_address(host.strip("[]")).is_loopback
        except ValueError as error:
            raise ValueError(f"{host!r} is not an IP address") from error
        if not loopback:
            raise ValueError(f"{host} can be reached from other machines; use 127.0.0.1 or unix:")
    return address
