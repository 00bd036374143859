# SPDX-License-Identifier: Apache-2.0
"""Keys that a KBS keeps: fetched like any resource, registered by its administrator."""

from pathlib import Path

from cocos._clock import Clock
from cocos.clients.kbs import KbsAdmin
from cocos.clients.resources import ResourceSource
from cocos.crypto import admin_jwt, kek
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


class Registrar:
    """Stores new keys at a KBS with the administrator's key.

    Args:
        url: The KBS.
        private_key: Ed25519 private key of the administrator, PEM; None for a KBS that
            was started without authentication.
        clock: For the token.
        ca_file: The only CA to trust.
    """

    def __init__(
        self, url: str, *, private_key: bytes | None, clock: Clock, ca_file: Path | None = None
    ) -> None:
        self.url = url
        self._private_key = private_key
        self._clock = clock
        self._ca_file = ca_file

    async def register(self, key: ResourcePath, data: bytes, *, new: bool) -> None:
        """Store a key.

        Args:
            key: Its name.
            data: The key.
            new: It was made just now, so that one of that name must be somebody else's.

        Raises:
            StateError: it is new, and the KBS has another one of that name.
            AuthenticationError: the KBS does not accept the administrator's key.
            UnreachableError: it does not answer.
        """
        token = None
        if self._private_key is not None:
            token = admin_jwt.mint(self._private_key, now=self._clock())
        async with KbsAdmin(self.url, token=token, ca_file=self._ca_file) as admin:
            await admin.set_resource(key, data, overwrite=not new)


def resource_path(uri: ResourceUri) -> ResourcePath | None:
    """Return the path of a plain KBS resource, None for a plugin's or an odd one."""
    if uri.plugin != "resource" or uri.query:
        return None
    try:
        return ResourcePath.parse(uri.path)
    except FormatError:
        return None
