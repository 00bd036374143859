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
    if not is_loopback(host.strip("[]")):
        raise ValueError(f"{host} can be reached from other machines; use 127.0.0.1 or unix:")
    return address


def is_loopback(host: str) -> bool:
    """Tell whether a host, ``localhost`` or an IP address without brackets, is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
