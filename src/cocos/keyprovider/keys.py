# SPDX-License-Identifier: Apache-2.0
"""Keys that a KBS keeps, fetched like any resource."""

from cocos.clients.resources import ResourceSource
from cocos.crypto import kek
from cocos.errors import FormatError
from cocos.wire.kbs.protocol import ResourcePath, ResourceUri


async def fetch(source: ResourceSource, uri: ResourceUri, url: str | None = None) -> bytes:
    """Return the 32 bytes of a key.

    Args:
        source: Who has it.
        uri: The key's resource.
        url: The KBS; the configured one if None.

    Raises:
        FormatError: what there is is no key; the message names the length found.
        CocosError: as :meth:`ResourceSource.get`.
    """
    where = "" if url is None else f" at {url}"
    return kek.parse(await source.get(uri, url), f"the key {uri}{where}")


def resource_path(uri: ResourceUri) -> ResourcePath | None:
    """Return the path of a plain KBS resource, None for a plugin's or an odd one."""
    if uri.plugin != "resource" or uri.query:
        return None
    try:
        return ResourcePath.parse(uri.path)
    except FormatError:
        return None
