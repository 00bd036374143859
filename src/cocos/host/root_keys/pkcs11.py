# SPDX-License-Identifier: Apache-2.0
"""The key that opens a key broker's storage, in a device that never shows it (PKCS#11).

The device encrypts and decrypts the storage's data keys with an AES-256 key of its own
(AES-GCM). It is named by a URI of RFC 7512.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import unquote, unquote_to_bytes

import pkcs11
import structlog
from pkcs11.exceptions import PKCS11Error

from cocos.crypto.envelope import DataKey, RootKey
from cocos.errors import ConfigError, IntegrityError
from cocos.host.files import read_file

SCHEME: Final = "pkcs11:"
_LABEL: Final = "cocos-storage"
_NONCE_BYTES: Final = 12
_TAG_BITS: Final = 128
_KEY_BITS: Final = 256
_CONTEXT: Final = b"cocos data-key\0"

T = TypeVar("T")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Pkcs11Uri:
    """What a URI says of a key.

    Attributes:
        module: The device's library.
        token: Its label.
        label: The key's label.
        key_id: The key's id; empty to find it by its label alone.
        pin_file: File with the PIN, or None.
    """

    module: Path
    token: str
    label: str
    key_id: bytes
    pin_file: Path | None

    @classmethod
    def parse(cls, text: str) -> "Pkcs11Uri":
        """Parse ``pkcs11:token=…;object=…?module-path=…&pin-source=…``.

        Raises:
            ConfigError: something is missing, or not supported.
        """
        path, _, query = text.removeprefix(SCHEME).partition("?")
        named: dict[str, str] = {}
        for part in [*path.split(";"), *query.split("&")]:
            name, equals, value = part.partition("=")
            if not equals or name not in _ATTRIBUTES or name in named:
                raise ConfigError(f"the PKCS#11 URI has an unusable part {name!r}", hint=_HINT)
            named[name] = value
        if "token" not in named or "module-path" not in named:
            raise ConfigError("the PKCS#11 URI names no token or no module-path", hint=_HINT)
        source = unquote(named.get("pin-source", "")).removeprefix("file:")
        return cls(
            Path(unquote(named["module-path"])),
            unquote(named["token"]),
            unquote(named.get("object", _LABEL)),
            unquote_to_bytes(named.get("id", "")),
            Path(source) if source else None,
        )


_ATTRIBUTES: Final = ("token", "object", "id", "type", "module-path", "pin-source")
_HINT: Final = (
    "pkcs11:token=NAME;object=KEY?module-path=/usr/lib/softhsm/libsofthsm2.so"
    "&pin-source=file:/PATH; the PIN itself does not belong into it"
)


class Pkcs11RootKey(RootKey):
    """A root key in a device; also the source that finds or makes it."""

    def __init__(self, uri: Pkcs11Uri, *, pin: str | None = None) -> None:
        """Describe the key.

        Args:
            uri: Where it is.
            pin: The user's PIN, where the URI names no file.
        """
        self._uri = uri
        self._pin = pin

    def __str__(self) -> str:
        return f"{SCHEME}token={self._uri.token};object={self._uri.label}"

    async def load(self) -> RootKey | None:
        """Return the key, or None if the device has none of that name.

        Raises:
            ConfigError: the device, its token or the PIN is not right.
        """
        return self if await self._use(lambda session: self._find(session) is not None) else None

    async def create(self) -> RootKey:
        """Have the device make a key that it never shows, and return it.

        Raises:
            ConfigError: it does not.
        """

        def create(session: Any) -> None:
            session.generate_key(
                pkcs11.KeyType.AES,
                _KEY_BITS,
                id=self._uri.key_id or os.urandom(8),
                label=self._uri.label,
                store=True,
                capabilities=pkcs11.MechanismFlag.ENCRYPT | pkcs11.MechanismFlag.DECRYPT,
                template={pkcs11.Attribute.EXTRACTABLE: False, pkcs11.Attribute.SENSITIVE: True},
            )

        await self._use(create, writing=True)
        _log.info("storage.key-made", key=str(self))
        return self

    async def wrap(self, key: DataKey) -> bytes:
        """Return the secret of a data key, sealed for its id."""
        nonce = os.urandom(_NONCE_BYTES)
        return await self._use(
            lambda session: (
                nonce
                + self._key(session).encrypt(
                    key.secret,
                    mechanism=pkcs11.Mechanism.AES_GCM,
                    mechanism_param=pkcs11.GCMParams(nonce, _CONTEXT + key.id, _TAG_BITS),
                )
            )
        )

    async def unwrap(self, key_id: bytes, wrapped: bytes) -> DataKey:
        """Return a data key.

        Raises:
            IntegrityError: another key wrapped it, for another id, or it was changed.
        """
        nonce, rest = wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:]

        def decrypt(session: Any) -> bytes:
            key = self._key(session)
            try:
                secret: bytes = key.decrypt(
                    rest,
                    mechanism=pkcs11.Mechanism.AES_GCM,
                    mechanism_param=pkcs11.GCMParams(nonce, _CONTEXT + key_id, _TAG_BITS),
                )
            except PKCS11Error as error:
                # Devices have many names for a tag that does not fit.
                raise IntegrityError(f"{self} did not wrap the data key") from error
            return secret

        return DataKey(key_id, await self._use(decrypt))

    def _find(self, session: Any) -> Any:
        wanted: dict[Any, Any] = {
            pkcs11.Attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY,
            pkcs11.Attribute.LABEL: self._uri.label,
        }
        if self._uri.key_id:
            wanted[pkcs11.Attribute.ID] = self._uri.key_id
        found = list(session.get_objects(wanted))
        if len(found) > 1:
            raise ConfigError(f"there are {len(found)} keys {self}", hint="add id= to the URI")
        return found[0] if found else None

    def _key(self, session: Any) -> Any:
        found = self._find(session)
        if found is None:
            raise ConfigError(f"there is no key {self}")
        return found

    async def _use(self, work: Callable[[Any], T], *, writing: bool = False) -> T:
        """Do something with the device, in a thread and a session of its own."""

        def use() -> T:
            with self._session(writing=writing) as session:
                return work(session)

        return await asyncio.to_thread(use)

    @contextlib.contextmanager
    def _session(self, *, writing: bool) -> Iterator[Any]:
        pin = self._pin
        if self._uri.pin_file is not None:
            file = read_file(self._uri.pin_file, "the PIN of the PKCS#11 token", limit=1024)
            pin = file.decode("utf-8", "replace").strip()
        try:
            token = pkcs11.lib(str(self._uri.module)).get_token(token_label=self._uri.token)
            with token.open(rw=writing, user_pin=pin) as session:
                yield session
        except (PKCS11Error, RuntimeError, OSError) as error:
            # The library's errors have a name and seldom a text.
            problem = str(error) or type(error).__name__
            raise ConfigError(f"cannot use the key {self}: {problem}", hint=_HINT) from error
