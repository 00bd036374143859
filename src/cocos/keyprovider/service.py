# SPDX-License-Identifier: Apache-2.0
"""Wrapping and unwrapping layer keys for ocicrypt.

Wrap: the key-encryption key comes, in this order, from the file that the parameter names,
the owner's key folder, the KBS by attestation like any guest. A key that the KBS does not
have is made and registered, if we have its administrator's key. Unwrap: from the folder,
which a guest does not have, or the KBS. Instead of a KBS there can be files.

Layer keys never reach a log, a message or an exception.
"""

import asyncio
import uuid
from typing import TYPE_CHECKING

import structlog

from cocos.clients.resources import ResourceSource
from cocos.crypto import kek
from cocos.crypto.kek import WrapType
from cocos.errors import ConfigError, FormatError, IntegrityError, NotFoundError
from cocos.host.files import read_file
from cocos.host.key_folder import KeyFolder
from cocos.keyprovider import parameters
from cocos.keyprovider.keys import fetch, resource_path
from cocos.keyprovider.parameters import WrapParameters
from cocos.wire import ocicrypt
from cocos.wire.kbs.protocol import ResourceUri

if TYPE_CHECKING:
    from cocos.keyprovider.registration import Registrar

SAMPLE_KEY_ID = ResourceUri("resource", "default/test-key/1")
# Published with the original key provider: it protects nothing.
_SAMPLE_KEY = bytes.fromhex("d99b7705b0ba7a168295b3a3367270b0dd9b371bf514ca8b9ba7f0a33711daea")
_MAX_KEY_FILE = 4096

_log = structlog.get_logger(__name__)


class KeyProvider:
    """The key provider's use cases, on the documents of :mod:`cocos.wire.ocicrypt`.

    Args:
        folder: The owner's own keys.
        resources: Who has the other keys: KBSs, or files of this machine.
        registrar: Where new keys go; without one none are made.
        insecure_sample: Allow the well-known sample key.
        insecure_ctr: Allow packets that show no change of them.
    """

    def __init__(
        self,
        *,
        folder: KeyFolder | None = None,
        resources: ResourceSource | None = None,
        registrar: "Registrar | None" = None,
        insecure_sample: bool = False,
        insecure_ctr: bool = False,
    ) -> None:
        self._folder = folder
        self._resources = resources
        self._registrar = registrar
        self._insecure_sample = insecure_sample
        self._insecure_ctr = insecure_ctr
        # Two layers must not make two keys of one name.
        self._making = asyncio.Lock()

    async def answer(self, document: bytes) -> bytes:
        """Do what the document says: the command form.

        Raises:
            CocosError: as :meth:`wrap` and :meth:`unwrap`.
        """
        if ocicrypt.operation(document) == "keywrap":
            return await self.wrap(document)
        return await self.unwrap(document)

    async def wrap(self, document: bytes) -> bytes:
        """Wrap a layer's private options; returns the reply document.

        Raises:
            FormatError: the input, a parameter or a key is malformed.
            NotFoundError: there is no such key anywhere.
            ConfigError: nothing is configured that could have the key.
            CocosError: as the KBS says.
        """
        request = ocicrypt.parse_wrap(document)
        ocicrypt.check_options(request.options)
        if len(request.parameters) != 1:
            raise FormatError(
                f"an image is encrypted to one key, not to {len(request.parameters)}",
                hint="give --encryption-key once",
            )
        wanted = parameters.parse_wrap(request.parameters[0])
        self._check_type(wanted.wrap_type)
        key_id, key = await self._wrapping_key(wanted)
        packet = ocicrypt.Packet(key_id, kek.wrap(key, request.options, wanted.wrap_type))
        _log.info("key.wrapped", key=str(key_id), wrap_type=wanted.wrap_type.value)
        return ocicrypt.wrap_output(packet.encode())

    async def unwrap(self, document: bytes) -> bytes:
        """Unwrap an annotation packet; returns the reply document.

        Raises:
            FormatError: the input, the packet or the key is malformed.
            IntegrityError: the packet does not open with the key that it names.
            NotFoundError: there is no such key.
            CocosError: as the KBS says.
        """
        request = ocicrypt.parse_unwrap(document)
        url = parameters.parse_unwrap(request.parameters)
        packet = ocicrypt.Packet.parse(request.annotation)
        self._check_type(packet.wrapped.wrap_type)
        key = self._own_key(packet.key)
        if key is None:
            if self._resources is None:
                raise ConfigError(f"the key {packet.key} is needed, but no KBS can be asked")
            key = await fetch(self._resources, packet.key, url)
        options = kek.unwrap(key, packet.wrapped, f"the key {packet.key}")
        ocicrypt.check_options(options)
        _log.info("key.unwrapped", key=str(packet.key))
        return ocicrypt.unwrap_output(options)

    def _check_type(self, wrap_type: WrapType) -> None:
        """Refuse a packet whose change nobody would notice.

        Whoever stores an image could turn A256GCM into A256CTR, which is the same cipher
        without the tag, change bits, and learn the layer key from which changes fail early.
        """
        if wrap_type is not WrapType.A256GCM and not self._insecure_ctr:
            raise IntegrityError(
                f"the layer key is wrapped with {wrap_type}, which shows no change of it",
                hint="encrypt the image with A256GCM; --insecure-ctr takes it as it is",
            )

    async def _wrapping_key(self, wanted: WrapParameters) -> tuple[ResourceUri, bytes]:
        if wanted.sample:
            if not self._insecure_sample:
                raise ConfigError(
                    "sample=true asks for a key that everybody knows",
                    hint="for a trial, start the key provider with --insecure-sample",
                )
            _log.warning("key.insecure-sample", problem="everybody can decrypt this image")
            return SAMPLE_KEY_ID, _SAMPLE_KEY
        new_id = ResourceUri("resource", f"default/image-kek/{uuid.uuid4()}")
        key_id = wanted.key or new_id
        if wanted.key_path is not None:
            what = f"the key {wanted.key_path.absolute()}"
            key = kek.parse(read_file(wanted.key_path, what, limit=_MAX_KEY_FILE), what)
            if self._registrar is not None:
                await self._register(key_id, key, self._registrar, new=False)
            return key_id, key
        async with self._making:
            return key_id, await self._look_up(key_id, new=wanted.key is None)

    async def _look_up(self, key_id: ResourceUri, *, new: bool) -> bytes:
        problem = NotFoundError(
            f"there is no key {key_id}" + (f" in {self._folder.folder}" if self._folder else ""),
            hint="make it with cocos-cli encrypt, or give --keys DIR, or --kbs URL",
        )
        if not new:
            key = self._own_key(key_id)
            if key is not None:
                return key
            if self._resources is not None:
                try:
                    return await fetch(self._resources, key_id)
                except NotFoundError as error:
                    problem = error
        if self._registrar is None or (self._resources is None and not new):
            # Without having asked the KBS we could overwrite a key that others use.
            raise problem
        key = kek.generate()
        await self._register(key_id, key, self._registrar, new=True)
        path = resource_path(key_id)
        if self._folder is not None and path is not None:
            self._folder.store(path, key)
        return key

    def _own_key(self, key_id: ResourceUri) -> bytes | None:
        path = resource_path(key_id)
        if self._folder is None or path is None:
            return None
        return self._folder.read(path)

    async def _register(
        self, key_id: ResourceUri, key: bytes, registrar: "Registrar", *, new: bool
    ) -> None:
        path = resource_path(key_id)
        if path is None:
            raise FormatError(
                f"the key {key_id} cannot be registered", hint="kbs:///repository/type/tag"
            )
        await registrar.register(path, key, new=new)
        _log.info("key.registered", key=str(key_id), kbs=registrar.url)
