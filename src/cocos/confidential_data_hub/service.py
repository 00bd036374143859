# SPDX-License-Identifier: Apache-2.0
"""Use cases of the confidential data hub: resources, and what is sealed to them."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import structlog

from cocos.clients.resources import ResourceSource
from cocos.crypto import kek
from cocos.crypto.kek import WrapType
from cocos.errors import FormatError, IntegrityError, NotFoundError, UnsupportedError
from cocos.host.files import read_file
from cocos.wire import sealed_secret
from cocos.wire.json import b64decode, decode
from cocos.wire.kbs.protocol import ResourceUri
from cocos.wire.sealed_secret import Envelope, Payload, SealedSecret, Vault

_MAX_KEY_BYTES: Final = 2**16

_log = structlog.get_logger(__name__)


class DataHub:
    """Gives secrets to the programs of this guest.

    Args:
        resources: Who has resources.
        keys: Folder of keys that verify sealed secrets.
        insecure_unverified: Take sealed secrets from anybody.
        insecure_ctr: Take A256CTR, too.
    """

    def __init__(
        self,
        resources: ResourceSource,
        *,
        keys: Path,
        insecure_unverified: bool = False,
        insecure_ctr: bool = False,
    ) -> None:
        self._resources = resources
        self._keys = keys
        self._insecure_unverified = insecure_unverified
        self._insecure_ctr = insecure_ctr

    async def resource(self, uri: str) -> bytes:
        """Return a resource.

        Raises:
            FormatError: no resource URI.
            CocosError: as :meth:`ResourceSource.get`.
        """
        return await self._resources.get(ResourceUri.parse(uri))

    async def unseal(self, secret: bytes) -> bytes:
        """Return the secret that a sealed secret stands for.

        Raises:
            FormatError: malformed.
            AuthenticationError: not signed by the key that it names.
            IntegrityError: an envelope that does not open.
            UnsupportedError: it is with another key service than a KBS.
            CocosError: as :meth:`ResourceSource.get`.
        """
        payload = await self._payload(secret)
        if payload.provider.lower() != sealed_secret.KBS:
            raise UnsupportedError(
                f"the key service {payload.provider[:50]!r} is not supported", hint="kbs"
            )
        if isinstance(payload, Vault):
            return await self._resources.get(ResourceUri.parse(payload.name))
        return await self._open(payload)

    async def _payload(self, secret: bytes) -> Payload:
        if self._insecure_unverified:
            _log.warning("sealed-secret.unverified", problem="anybody may have made it")
            return sealed_secret.unverified(secret)
        sealed = SealedSecret.parse(secret)
        return sealed.verified(await self._public_key(sealed.kid))

    async def _public_key(self, kid: ResourceUri | str) -> Mapping[str, Any]:
        if isinstance(kid, ResourceUri):
            text = await self._resources.get(kid)
        else:
            text = await asyncio.to_thread(self._read_key, self._keys / kid)
        what = f"the key {kid} of the sealed secret"
        try:
            jwk: dict[str, Any] = decode(text, dict[str, Any], what)
        except FormatError:
            # The decoder's message could quote what may be a secret: without a cause.
            raise FormatError(f"{what} is no JWK") from None
        return jwk

    def _read_key(self, path: Path) -> bytes:
        if not path.is_file():
            raise NotFoundError(f"there is no key {path} to verify the sealed secret with")
        return read_file(path, "the key of the sealed secret", limit=_MAX_KEY_BYTES)

    async def _open(self, envelope: Envelope) -> bytes:
        wrapped = envelope.wrapped()
        if wrapped.wrap_type is not WrapType.A256GCM and not self._insecure_ctr:
            raise IntegrityError(
                f"the sealed secret is encrypted with {wrapped.wrap_type}, which shows no change",
                hint="seal it with A256GCM",
            )
        encrypted_key = b64decode(envelope.encrypted_key, "the sealed secret's encrypted_key")
        uri = ResourceUri.parse(envelope.key_id)
        what = f"the key {uri}"
        key = kek.parse(await self._resources.get(uri), what)
        data_key = kek.unwrap_key(key, encrypted_key, what)
        return kek.unwrap(data_key, wrapped, "its data key")
