# SPDX-License-Identifier: Apache-2.0
"""The data keys of a storage, wrapped by a root key that is not in it.

One key is *current*: everything is sealed with it. During a rotation the key before it is
*retiring*: it still opens what has not been sealed anew. Then it is *retired*: for a short
time it opens sessions that another replica, which does not know yet, has sealed with it,
and then it is deleted.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from cocos._clock import Clock
from cocos.crypto import envelope
from cocos.crypto.envelope import DataKey, RootKey
from cocos.errors import ConfigError, IntegrityError, InternalError
from cocos.stores.base import Namespace, microseconds
from cocos.stores.database import Database, Statement, Steps

CURRENT: Final = "current"
RETIRING: Final = "retiring"
RETIRED: Final = "retired"
GRACE: Final = dt.timedelta(minutes=3)
"""For how long a retired key opens sessions; replicas look for new keys more often."""

_LIST: Final = "SELECT id, wrapped, state, changed FROM sealing_key"
_INSERT: Final = "INSERT INTO sealing_key (id, wrapped, state, changed) VALUES (?1, ?2, ?3, ?4)"
_MOVE: Final = "UPDATE sealing_key SET state = ?2, changed = ?3 WHERE state = ?1"
_FORGET: Final = "DELETE FROM sealing_key WHERE state = ?1 AND changed <= ?2"


class RootKeySource(Protocol):
    """Where a root key is: a file, a variable, a device."""

    async def load(self) -> RootKey | None:
        """Return the key, or None if there is none yet.

        Raises:
            ConfigError: it cannot be had.
        """
        ...

    async def create(self) -> RootKey:
        """Make the key and return it.

        Raises:
            ConfigError: it cannot be made.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Held:
    key: DataKey
    state: str
    changed: int


class Keyring:
    """The data keys; make one with :meth:`open`."""

    def __init__(self, database: Database, roots: Sequence[RootKey], *, clock: Clock) -> None:
        self._database = database
        self._roots = roots
        self._clock = clock
        self._held: dict[bytes, _Held] = {}

    @classmethod
    async def open(
        cls, database: Database, sources: Sequence[RootKeySource], *, clock: Clock
    ) -> "Keyring":
        """Load the keys; make the first one, and seal what is there, if there is none.

        Args:
            database: With our tables.
            sources: Of root keys: the first wraps, every one may unwrap. It is made if
                the storage has no keys yet.
            clock: Present time.

        Raises:
            ConfigError: no root key, or none that opens this storage.
        """
        is_new = await cls.is_new(database)
        roots: list[RootKey] = []
        for source in sources:
            root = await source.load()
            if root is None and is_new and not roots:
                root = await source.create()
            if root is None:
                raise ConfigError(
                    f"the storage is sealed, and there is no key at {source}",
                    hint="--storage-key names the key; a copy of the storage needs a copy of it",
                )
            roots.append(root)
        ring = cls(database, roots, clock=clock)
        if is_new:
            await ring._begin()
        await ring.load()
        return ring

    @staticmethod
    async def is_new(database: Database) -> bool:
        """Tell whether a database with our tables has no keys yet."""
        return not await database.read(_LIST)

    @property
    def current(self) -> DataKey:
        """The key that seals."""
        for held in self._held.values():
            if held.state == CURRENT:
                return held.key
        raise InternalError("the storage has no current key")

    def find(self, key_id: bytes, namespace: Namespace) -> DataKey | None:
        """Return a key that may open records of a namespace, or None."""
        held = self._held.get(key_id)
        if held is None:
            return None
        if held.state == RETIRED:
            too_old = microseconds(self._clock() - GRACE) >= held.changed
            if too_old or namespace is not Namespace.SESSION:
                return None
        return held.key

    async def load(self) -> None:
        """Learn of keys that another program has made or retired.

        Raises:
            ConfigError: a root key that does not open this storage.
        """
        held = {}
        for key_id, wrapped, state, changed in await self._database.read(_LIST):
            known = self._held.get(key_id)
            key = known.key if known else await self._unwrap(key_id, wrapped)
            held[key_id] = _Held(key, state, changed)
        self._held = held

    async def begin_rotation(self) -> None:
        """Make a new key the current one, unless a rotation is under way already."""
        key = DataKey.generate()
        wrapped = await self._roots[0].wrap(key)
        now = microseconds(self._clock())

        def begin() -> Steps[None]:
            yield from self._database.lock_table("sealing_key")
            found = yield Statement(_LIST)
            if any(row[2] == RETIRING for row in found.rows):
                return
            yield Statement(_MOVE, (CURRENT, RETIRING, now))
            yield Statement(_INSERT, (key.id, wrapped, CURRENT, now))

        await self._database.transact(begin)
        # Whoever writes from now on knows that the key before is no longer current.
        await self._database.settle([namespace.value for namespace in Namespace])
        await self.load()

    async def end_rotation(self) -> None:
        """Retire every key but the current one."""
        now = microseconds(self._clock())
        await self._database.write(_MOVE, RETIRING, RETIRED, now)
        await self.load()

    async def sweep(self) -> None:
        """Learn what is new; forget keys that were retired long ago."""
        await self._database.write(_FORGET, RETIRED, microseconds(self._clock() - GRACE))
        await self.load()

    async def _unwrap(self, key_id: bytes, wrapped: bytes) -> DataKey:
        failure: IntegrityError | None = None
        for root in self._roots:
            try:
                return await root.unwrap(key_id, wrapped)
            except IntegrityError as error:
                failure = error
        raise ConfigError(
            "the storage is sealed with another key than the one given",
            hint="--storage-key names the key; after a change of keys name the one before as well",
        ) from failure

    async def _begin(self) -> None:
        """Make the first key and seal every record of a storage that had none."""
        key = DataKey.generate()
        wrapped = await self._roots[0].wrap(key)
        now = microseconds(self._clock())

        def begin() -> Steps[None]:
            yield from self._database.lock_table("sealing_key")
            found = yield Statement(_LIST)
            if found.rows:
                return  # another program was quicker
            yield Statement("DELETE FROM session")
            for namespace in Namespace:
                names = yield Statement(f"SELECT key FROM {namespace}")  # noqa: S608
                for (name,) in names.rows:
                    yield from _seal_in_place(key, namespace, name)
            yield Statement(_INSERT, (key.id, wrapped, CURRENT, now))

        await self._database.transact(begin)
        await self._database.flush()


def _seal_in_place(key: DataKey, namespace: Namespace, name: str) -> Steps[None]:
    found = yield Statement(f"SELECT value FROM {namespace} WHERE key = ?1", (name,))  # noqa: S608
    record = envelope.seal(key, namespace, name, found.rows[0][0])
    yield Statement(f"UPDATE {namespace} SET value = ?2 WHERE key = ?1", (name, record))  # noqa: S608
