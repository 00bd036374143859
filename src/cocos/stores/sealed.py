# SPDX-License-Identifier: Apache-2.0
"""A store whose values whoever reads the disk cannot read, and cannot change unseen.

Names and times of expiry are in clear. Whole records can be deleted or replaced by older
ones of the same name; docs/operate/kbs.md says what that means.
"""

import datetime as dt
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog

from cocos._recent import Recent
from cocos.crypto import envelope
from cocos.crypto.envelope import DataKey
from cocos.errors import FormatError, IntegrityError, InternalError, StorageError
from cocos.stores.base import Namespace, StaleKeyError, Store
from cocos.stores.keyring import Keyring

REMEMBERED: Final = 512
"""Sessions whose last record is remembered, so that a step need not read it again."""

_ATTEMPTS: Final = 5

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class SealedStore(Store):
    """Seals what goes into another store, and opens what comes out."""

    def __init__(self, inner: Store, keyring: Keyring) -> None:
        self._inner = inner
        self._keyring = keyring
        self._sessions: Recent[tuple[Namespace, str], tuple[bytes, bytes]] = Recent(REMEMBERED)

    async def get(self, namespace: Namespace, key: str) -> bytes | None:
        """Return the value, or None when there is none.

        Raises:
            InternalError: somebody has changed it in the storage.
        """
        record = await self._inner.get(namespace, key)
        if record is None:
            return None
        value = await self._open(namespace, key, record)
        if value is not None:
            self._remember(namespace, key, value, record)
        return value

    async def put(
        self, namespace: Namespace, key: str, value: bytes, *, expires: dt.datetime | None = None
    ) -> None:
        """Write the value, over an old one if there is one."""
        await self._current(lambda: self._put(namespace, key, value, expires))

    async def put_new(
        self, namespace: Namespace, key: str, value: bytes, *, expires: dt.datetime | None = None
    ) -> bool:
        """Write the value unless there is one; return whether it was written."""
        return await self._current(
            lambda: self._inner.put_new(
                namespace, key, self._seal(namespace, key, value), expires=expires
            )
        )

    async def replace(self, namespace: Namespace, key: str, old: bytes, new: bytes) -> bool:
        """Write ``new`` if the value is still ``old``; return whether it was."""
        return await self._current(lambda: self._replace(namespace, key, old, new))

    async def delete(self, namespace: Namespace, key: str) -> bool:
        """Delete the value; return whether there was one."""
        return await self._inner.delete(namespace, key)

    async def keys(self, namespace: Namespace, prefix: str = "") -> list[str]:
        """Return the keys that start with ``prefix``, sorted."""
        return await self._inner.keys(namespace, prefix)

    async def sweep(self) -> int:
        """Delete what has expired; return how many values that were."""
        await self._keyring.sweep()
        return await self._inner.sweep()

    async def close(self) -> None:
        """Release connections."""
        await self._inner.close()

    async def reseal(self, namespace: Namespace, key: str) -> bool:
        """Seal a value with the current key; return whether it was sealed with another one.

        Raises:
            InternalError: somebody has changed it in the storage.
        """
        record = await self._inner.get(namespace, key)
        if record is None or record[1:].startswith(self._keyring.current.id):
            return False
        value = await self._open(namespace, key, record)
        if value is None:
            return False
        sealed = self._seal(namespace, key, value)
        return await self._inner.replace(namespace, key, record, sealed)

    def _seal(self, namespace: Namespace, key: str, value: bytes) -> bytes:
        return envelope.seal(self._keyring.current, namespace, key, value)

    async def _open(self, namespace: Namespace, key: str, record: bytes) -> bytes | None:
        try:
            data_key = await self._find_key(namespace, record)
            return envelope.unseal(data_key, namespace, key, record)
        except (FormatError, IntegrityError) as error:
            if namespace is Namespace.SESSION:
                # Whose session it was attests again.
                _log.warning("storage.session-unreadable", problem=error.message)
                return None
            raise InternalError(
                f"what the storage holds as {namespace} {key!r} was not sealed for it: somebody "
                "has changed the storage"
            ) from error

    async def _find_key(self, namespace: Namespace, record: bytes) -> DataKey:
        key_id = envelope.key_id(record)
        found = self._keyring.find(key_id, namespace)
        if found is None:
            await self._keyring.load()
            found = self._keyring.find(key_id, namespace)
        if found is None:
            raise IntegrityError("the key of the record has been retired, or never was ours")
        return found

    async def _replace(self, namespace: Namespace, key: str, old: bytes, new: bytes) -> bool:
        value, record = self._sessions.get((namespace, key)) or (None, None)
        for _ in range(_ATTEMPTS):
            if record is None or value != old:
                record = await self._inner.get(namespace, key)
                value = record and await self._open(namespace, key, record)
                if record is None or value != old:
                    return False
            sealed = self._seal(namespace, key, new)
            if await self._inner.replace(namespace, key, record, sealed):
                self._remember(namespace, key, new, sealed)
                return True
            record = None  # another value, or the same one sealed anew
        return False

    async def _put(
        self, namespace: Namespace, key: str, value: bytes, expires: dt.datetime | None
    ) -> None:
        record = self._seal(namespace, key, value)
        await self._inner.put(namespace, key, record, expires=expires)
        self._remember(namespace, key, value, record)

    def _remember(self, namespace: Namespace, key: str, value: bytes, record: bytes) -> None:
        """Keep a session as it was last seen: the step after this one compares with it."""
        if namespace is Namespace.SESSION:
            self._sessions.put((namespace, key), (value, record))

    async def _current(self, write: Callable[[], Awaitable[T]]) -> T:
        """Write with the key that is current when it is written."""
        for _ in range(_ATTEMPTS):
            try:
                return await write()
            except StaleKeyError:
                await self._keyring.load()
        raise StorageError("the keys of the storage change too quickly")
