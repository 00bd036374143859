# SPDX-License-Identifier: Apache-2.0
"""The store on an SQL database: one table per namespace, one statement per call.

Each method is one statement, so each is atomic by itself. Migrations are the only thing
that makes tables.
"""

import datetime as dt
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from cocos._clock import Clock, system_clock
from cocos.crypto import envelope
from cocos.errors import ConfigError
from cocos.stores import postgres
from cocos.stores.base import Namespace, StaleKeyError, Store, microseconds
from cocos.stores.database import Database
from cocos.stores.migrate import migrate_postgres, migrate_sqlite
from cocos.stores.postgres import PostgresDatabase
from cocos.stores.sqlite import SqliteDatabase

DATABASE_FILE: Final = "cocos.sqlite3"

_SQLITE: Final = "sqlite:///"
_HINT: Final = "a folder, sqlite:////folder/file or postgresql://user@host/database"


def storage_url(text: str) -> str:
    """Return the database URL for what a user wrote: a URL, or the path of a folder."""
    if "://" in text:
        return text
    return f"{_SQLITE}{Path(text).expanduser().absolute() / DATABASE_FILE}"


def describe(url: str) -> str:
    """Return a URL as it may be shown: without a password."""
    return url if url.startswith(_SQLITE) else postgres.describe(url)


def has_password(url: str) -> bool:
    """Tell whether the URL of a database or of Redis holds a password."""
    parts = urlsplit(url)
    words = {name for name, _ in parse_qsl(parts.query)}
    return ":" in parts.netloc.rpartition("@")[0] or any("password" in word for word in words)


def sqlite_file(url: str) -> Path | None:
    """Return the file that a URL names, or None where it names none."""
    path = url.removeprefix(_SQLITE) if url.startswith(_SQLITE) else ""
    return Path(path) if path and path != ":memory:" and "?" not in path else None


async def open_database(url: str) -> Database:
    """Open a database, make it if it is an absent SQLite file, and migrate it.

    Args:
        url: ``sqlite:///PATH`` (four slashes for an absolute path) or ``postgresql://…``.

    Raises:
        ConfigError: not a URL, an unsupported database, or it cannot be opened.
    """
    scheme, separator, _ = url.partition("://")
    if not separator or not scheme:
        raise ConfigError("this is not a storage URL", hint=_HINT)
    if scheme in postgres.SCHEMES:
        return await PostgresDatabase.open(url, migrate_postgres)
    if scheme != "sqlite":
        raise ConfigError(f"storage of kind {scheme!r} is not supported", hint=_HINT)
    file = sqlite_file(url)
    if file is None:
        raise ConfigError(f"the storage {url} names no file", hint=_HINT)
    return await SqliteDatabase.open(file, migrate_sqlite)


def _each(sql: str) -> dict[Namespace, str]:
    return {namespace: sql.format(table=namespace.value) for namespace in Namespace}


_GET: Final = _each("SELECT value FROM {table} WHERE key = ?1 AND coalesce(expires > ?2, true)")
_DELETE: Final = _each("DELETE FROM {table} WHERE key = ?1 AND coalesce(expires > ?2, true)")
# Not LIKE: SQLite's ignores the case of ASCII letters.
_KEYS: Final = _each(
    "SELECT key FROM {table} WHERE substr(key, 1, ?2) = ?1 AND coalesce(expires > ?3, true)"
)
_SWEEP: Final = _each("DELETE FROM {table} WHERE expires <= ?1")
_OVERWRITE: Final = (
    " ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires = excluded.expires"
)
_IF_OLD: Final = " WHERE {table}.expires <= ?4"
_REPLACE: Final = (
    "UPDATE {table} SET value = ?3 WHERE key = ?1 AND value = ?2 AND coalesce(expires > ?4, true)"
)
_IS_CURRENT: Final = "SELECT 1 FROM sealing_key WHERE id = ?1 AND state = 'current'"
_VALUE_IS_CURRENT: Final = (
    "EXISTS (SELECT 1 FROM sealing_key WHERE state = 'current' "
    "AND id = substr(CAST(?{number} AS BLOB), 2, 8))"
)


class _Writes:
    """The statements that write values."""

    def __init__(self, insert: str, replace: str) -> None:
        self.put = _each(insert + _OVERWRITE)
        self.put_new = _each(insert + _OVERWRITE + _IF_OLD)
        self.replace = _each(replace)


_PLAIN: Final = _Writes(
    "INSERT INTO {table} (key, value, expires) VALUES (?1, ?2, ?3)",
    _REPLACE,
)
_SEALED: Final = _Writes(
    "INSERT INTO {table} (key, value, expires) "
    "SELECT CAST(?1 AS TEXT), CAST(?2 AS BLOB), CAST(?3 AS BIGINT) WHERE "
    + _VALUE_IS_CURRENT.replace("{number}", "2"),
    f"{_REPLACE} AND {_VALUE_IS_CURRENT.replace('{number}', '3')}",
)


class SqlStore(Store):
    """Keeps bytes in an SQL database."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Clock = system_clock,
        namespaces: Iterable[Namespace] = Namespace,
        sealed: bool = False,
    ) -> None:
        """Make the store.

        Args:
            database: With the tables of ``namespaces``.
            clock: What decides whether a value has expired.
            namespaces: What may be kept in it.
            sealed: Values are records of :mod:`cocos.crypto.envelope`; one that is not
                sealed with the current key is refused with a StaleKeyError, within the
                statement that would have written it.
        """
        self.database = database
        self._namespaces = tuple(namespaces)
        self._sealed = sealed
        self._sql = _SEALED if sealed else _PLAIN
        self._clock = clock

    @classmethod
    async def open(cls, url: str, *, clock: Clock = system_clock) -> "SqlStore":
        """Open a database as :func:`open_database` does, and make the store."""
        return cls(await open_database(url), clock=clock)

    async def get(self, namespace: Namespace, key: str) -> bytes | None:
        """Return the value, or None when there is none."""
        rows = await self.database.read(_GET[namespace], key, self._now())
        return rows[0][0] if rows else None

    async def put(
        self, namespace: Namespace, key: str, value: bytes, *, expires: dt.datetime | None = None
    ) -> None:
        """Write the value, over an old one if there is one."""
        row = (key, value, microseconds(expires))
        if not await self.database.write(self._sql.put[namespace], *row):
            raise StaleKeyError

    async def put_new(
        self, namespace: Namespace, key: str, value: bytes, *, expires: dt.datetime | None = None
    ) -> bool:
        """Write the value unless there is one; return whether it was written."""
        row = (key, value, microseconds(expires))
        if await self.database.write(self._sql.put_new[namespace], *row, self._now()):
            return True
        await self._check_key(value)
        return False

    async def replace(self, namespace: Namespace, key: str, old: bytes, new: bytes) -> bool:
        """Write ``new`` if the value is still ``old``; return whether it was.

        When it expires stays as it is.
        """
        row = (key, old, new, self._now())
        if await self.database.write(self._sql.replace[namespace], *row):
            return True
        await self._check_key(new)
        return False

    async def delete(self, namespace: Namespace, key: str) -> bool:
        """Delete the value; return whether there was one."""
        return bool(await self.database.write(_DELETE[namespace], key, self._now()))

    async def keys(self, namespace: Namespace, prefix: str = "") -> list[str]:
        """Return the keys that start with ``prefix``, sorted."""
        rows = await self.database.scan(_KEYS[namespace], prefix, len(prefix), self._now())
        return sorted(row[0] for row in rows)

    async def sweep(self) -> int:
        """Delete what has expired; return how many values that were."""
        swept = 0
        for namespace in self._namespaces:
            swept += await self.database.write(_SWEEP[namespace], self._now())
        return swept

    async def close(self) -> None:
        """Release connections."""
        await self.database.close()

    async def _check_key(self, value: bytes) -> None:
        """Raise StaleKeyError if that is why nothing was written."""
        if self._sealed and not await self.database.read(_IS_CURRENT, envelope.key_id(value)):
            raise StaleKeyError

    def _now(self) -> int:
        return microseconds(self._clock())
