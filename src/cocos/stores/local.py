# SPDX-License-Identifier: Apache-2.0
"""Which database servers are reached without a network."""

from urllib.parse import unquote

from cocos.transport.loopback import is_loopback


def is_local(host: str) -> bool:
    """Tell whether a host, with or without port, is this machine or the path of a socket."""
    name = unquote(host)
    if name.startswith("/"):
        return True
    if name.startswith("["):
        name = name[1:].partition("]")[0]
    elif name.count(":") == 1:
        name = name.partition(":")[0]
    return is_loopback(name)
