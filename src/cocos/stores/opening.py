# SPDX-License-Identifier: Apache-2.0
"""Opens the storage of a key broker: everything in a database, sessions where they are quick.

A session may be lost by a crash of the machine, since its client attests again, but it must
not come back as it was: its nonce would serve twice. So sessions are where a crash leaves
nothing of them: a file of this boot that is never flushed, PostgreSQL's unlogged table, or
keys of this run of Redis.
"""

import contextlib
import datetime as dt
import secrets
import sqlite3
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cocos._clock import Clock, system_clock
from cocos.errors import ConfigError
from cocos.stores.audit import AuditLog
from cocos.stores.base import Namespace, Store
from cocos.stores.database import Database
from cocos.stores.keyring import Keyring, RootKeySource
from cocos.stores.sealed import SealedStore
from cocos.stores.sql import SqlStore, describe, open_database, sqlite_file
from cocos.stores.sqlite import SqliteDatabase

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_LAYOUT: Final = "sessions-1-"


class SplitStore(Store):
    """One store for sessions, another for everything else."""

    def __init__(self, main: Store, sessions: Store) -> None:
        self._main = main
        self._sessions = sessions

    async def get(self, namespace: Namespace, key: str) -> bytes | None:
        """Return the value, or None when there is none."""
        return await self._of(namespace).get(namespace, key)

    async def put(
        self, namespace: Namespace, key: str, value: bytes, *, expires: dt.datetime | None = None
    ) -> None:
        """Write the value, over an old one if there is one."""
        await self._of(namespace).put(namespace, key, value, expires=expires)

    async def put_new(
        self, namespace: Namespace, key: str, value: bytes, *, expires: dt.datetime | None = None
    ) -> bool:
        """Write the value unless there is one; return whether it was written."""
        return await self._of(namespace).put_new(namespace, key, value, expires=expires)

    async def replace(self, namespace: Namespace, key: str, old: bytes, new: bytes) -> bool:
        """Write ``new`` if the value is still ``old``; return whether it was."""
        return await self._of(namespace).replace(namespace, key, old, new)

    async def delete(self, namespace: Namespace, key: str) -> bool:
        """Delete the value; return whether there was one."""
        return await self._of(namespace).delete(namespace, key)

    async def keys(self, namespace: Namespace, prefix: str = "") -> list[str]:
        """Return the keys that start with ``prefix``, sorted."""
        return await self._of(namespace).keys(namespace, prefix)

    async def sweep(self) -> int:
        """Delete what has expired; return how many values that were."""
        return await self._main.sweep() + await self._sessions.sweep()

    async def close(self) -> None:
        """Release connections."""
        await self._sessions.close()
        await self._main.close()

    def _of(self, namespace: Namespace) -> Store:
        return self._sessions if namespace is Namespace.SESSION else self._main


@dataclass(frozen=True, slots=True)
class Storage:
    """An open storage.

    Attributes:
        store: Everything, sealed.
        keyring: What it is sealed with.
        database: What it is in.
        audit: Its audit log.
    """

    store: SealedStore
    keyring: Keyring
    database: Database
    audit: AuditLog


@contextlib.asynccontextmanager
async def open_storage(
    url: str,
    root_keys: Sequence[RootKeySource],
    *,
    sessions_url: str | None = None,
    clock: Clock = system_clock,
    create: bool = True,
) -> AsyncIterator[Storage]:
    """Have the storage open while the block runs.

    Args:
        url: Database, as :func:`open_database` takes it.
        root_keys: Where the keys are that wrap the keys of the storage; the first is made
            if the storage is new.
        sessions_url: Redis, as ``stores.redis.RedisStore`` takes it; None keeps sessions with
            the database, which is enough for one machine or for replicas on one PostgreSQL.
        clock: What decides whether a value has expired.
        create: Begin a storage where there is none.

    Raises:
        ConfigError: one of them cannot be opened, or there is no storage.
    """
    async with contextlib.AsyncExitStack() as stack:
        file = sqlite_file(url)
        if not create and file is not None and not file.exists():
            raise _absent(url)
        database = await open_database(url)
        stack.push_async_callback(database.close)
        if not create and await Keyring.is_new(database):
            raise _absent(url)
        keyring = await Keyring.open(database, root_keys, clock=clock)
        store: Store = SqlStore(database, clock=clock, sealed=True)
        if sessions_url is not None:
            # Its library takes long to load, and loads OpenTelemetry.
            from cocos.stores.redis import RedisStore  # noqa: PLC0415

            sessions: Store = await RedisStore.open(sessions_url, clock=clock)
        elif file is not None:
            sessions = await _of_this_boot(file, clock)
        else:
            sessions = store
        if sessions is not store:
            stack.push_async_callback(sessions.close)
            store = SplitStore(store, sessions)
        sealed = SealedStore(store, keyring)
        audit = await AuditLog.open(database, sealed, clock=clock)
        yield Storage(sealed, keyring, database, audit)


def _absent(url: str) -> ConfigError:
    return ConfigError(
        f"there is no storage at {describe(url)}",
        hint="--storage before the command, as the KBS was started with",
    )


async def _of_this_boot(file: Path, clock: Clock) -> Store:
    """Return sessions in a file beside ``file``, without those of an earlier boot."""
    try:
        boot = _BOOT_ID.read_text().strip()
    except OSError:
        boot = secrets.token_hex(8)  # then sessions end with the program
    name = f"{_LAYOUT}{boot}.sqlite3"
    try:
        for old in file.parent.glob("sessions-*.sqlite3*"):
            if not old.name.startswith(name):
                old.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot delete old sessions in {file.parent}: {error}") from error
    database = await SqliteDatabase.open(file.with_name(name), _make_table, durable=False)
    return SqlStore(database, clock=clock, namespaces=(Namespace.SESSION,))


def _make_table(connection: sqlite3.Connection) -> None:
    """Make what migration 0001 makes; the file does not live long enough for another."""
    connection.execute(
        "CREATE TABLE IF NOT EXISTS session "
        "(key TEXT PRIMARY KEY, value BLOB NOT NULL, expires BIGINT)"
    )
    connection.execute("CREATE INDEX IF NOT EXISTS ix_session_expires ON session (expires)")
