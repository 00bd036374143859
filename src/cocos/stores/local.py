# SPDX-License-Identifier: Apache-2.0
"""Which database servers are reached without a network."""

import ipaddress
from urllib.parse import unquote


def is_local(host: str) -> bool:
    """Tell whether a host, with or without port, is this machine or the path of a socket."""
    name = unquote(host)
    if name.startswith("/"):
        return True
    if name.startswith("["):
        name = name[1:].partition("]")[0]
    elif name.count(":") == 1:
        name = name.partition(":")[0]
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
