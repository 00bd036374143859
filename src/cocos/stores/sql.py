# SPDX-License-Identifier: Apache-2.0
"""The store on an SQL database: SQLite in WAL mode.

One table per namespace; migrations are the only thing that makes tables. Every method is
one SQL statement in a transaction of its own, so each is atomic by itself and PostgreSQL
needs nothing but its driver. ``synchronous=FULL`` makes a commit durable before it
returns; ``secure_delete`` overwrites deleted keys.
"""

import contextlib
import datetime as dt
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import structlog
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from cocos._clock import Clock, system_clock
from cocos.errors import ConfigError, InternalError
from cocos.stores.base import Namespace, Store

DATABASE_FILE = "cocos.sqlite3"
BUSY_SECONDS = 10

_MIGRATIONS = Path(__file__).with_name("migrations")
_DRIVERS = {"sqlite": "sqlite+aiosqlite"}

_log = structlog.get_logger(__name__)

metadata = sa.MetaData()
TABLES = {
    namespace: sa.Table(
        namespace.value,
        metadata,
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.Column("expires", sa.BigInteger, index=True, comment="microseconds since 1970, UTC"),
    )
    for namespace in Namespace
}


def storage_url(text: str) -> str:
    """Return the database URL for what a user wrote: a URL, or the path of a folder."""
    if "://" in text:
        return text
    return f"sqlite:///{Path(text).expanduser().absolute() / DATABASE_FILE}"


class SqlStore(Store):
    """Keeps bytes in an SQL database; make one with :meth:`open`."""

    def __init__(self, engine: AsyncEngine, *, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        dialect: Any = {"sqlite": sqlite, "postgresql": postgresql}[engine.dialect.name]
        self._insert = dialect.insert

    @classmethod
    async def open(cls, url: str, *, clock: Clock = system_clock) -> "SqlStore":
        """Open a database, make it if it is an absent SQLite file, and migrate it.

        Args:
            url: ``sqlite:///PATH`` (four slashes for an absolute path). The folder is made
                with mode 0700, the file with 0600.
            clock: What decides whether a value has expired.

        Raises:
            ConfigError: not a URL, an unsupported database, or it cannot be opened.
        """
        parsed = _parse(url)
        if parsed.get_backend_name() == "sqlite":
            _make_private(Path(parsed.database or ""))
        engine = create_async_engine(
            parsed.set(drivername=_DRIVERS[parsed.get_backend_name()]),
            isolation_level="AUTOCOMMIT",
            # Parameters are secrets; without this they stand in every exception.
            hide_parameters=True,
        )
        sa.event.listen(engine.sync_engine, "connect", _set_pragmas)
        try:
            async with engine.connect() as connection:
                await connection.run_sync(_migrate)
        except CommandError as error:
            await engine.dispose()
            raise ConfigError(
                f"the storage {_shown(parsed)} was written by another version of this program: "
                f"{error}"
            ) from error
        except (SQLAlchemyError, OSError) as error:
            await engine.dispose()
            raise ConfigError(
                f"cannot open the storage {_shown(parsed)}: {getattr(error, 'orig', error)}"
            ) from error
        return cls(engine, clock=clock)

    async def get(self, namespace: Namespace, key: str) -> bytes | None:
        """Return the value, or None when there is none."""
        table = TABLES[namespace]
        query = sa.select(table.c.value).where(table.c.key == key, self._live(table))
        with _mapped():
            async with self._engine.connect() as connection:
                value: bytes | None = (await connection.execute(query)).scalar_one_or_none()
        return value

    async def put(
        self, namespace: Namespace, key: str, value: bytes, *, expires: dt.datetime | None = None
    ) -> None:
        """Write the value, over an old one if there is one."""
        row = {"value": value, "expires": _microseconds(expires)}
        statement = self._insert(TABLES[namespace]).values(key=key, **row)
        await self._write(statement.on_conflict_do_update(index_elements=["key"], set_=row))

    async def put_new(
        self, namespace: Namespace, key: str, value: bytes, *, expires: dt.datetime | None = None
    ) -> bool:
        """Write the value unless there is one; return whether it was written."""
        table = TABLES[namespace]
        row = {"value": value, "expires": _microseconds(expires)}
        statement = self._insert(table).values(key=key, **row)
        return await self._write(
            statement.on_conflict_do_update(
                index_elements=["key"], set_=row, where=sa.not_(self._live(table))
            )
        )

    async def replace(self, namespace: Namespace, key: str, old: bytes, new: bytes) -> bool:
        """Write ``new`` if the value is still ``old``; return whether it was.

        When it expires stays as it is.
        """
        table = TABLES[namespace]
        return await self._write(
            sa.update(table)
            .where(table.c.key == key, table.c.value == old, self._live(table))
            .values(value=new)
        )

    async def delete(self, namespace: Namespace, key: str) -> bool:
        """Delete the value; return whether there was one."""
        table = TABLES[namespace]
        return await self._write(sa.delete(table).where(table.c.key == key, self._live(table)))

    async def keys(self, namespace: Namespace, prefix: str = "") -> list[str]:
        """Return the keys that start with ``prefix``, sorted."""
        table = TABLES[namespace]
        # Not LIKE: SQLite's ignores the case of ASCII letters.
        starts = sa.func.substr(table.c.key, 1, len(prefix)) == prefix
        with _mapped():
            async with self._engine.connect() as connection:
                found = await connection.execute(
                    sa.select(table.c.key).where(starts, self._live(table))
                )
                return sorted(found.scalars())

    async def sweep(self) -> int:
        """Delete what has expired; return how many values that were."""
        swept = 0
        with _mapped():
            async with self._engine.connect() as connection:
                for table in TABLES.values():
                    gone = await connection.execute(
                        sa.delete(table).where(sa.not_(self._live(table)))
                    )
                    swept += gone.rowcount
        return swept

    async def close(self) -> None:
        """Release connections."""
        await self._engine.dispose()

    def _live(self, table: sa.Table) -> sa.ColumnElement[bool]:
        now = _microseconds(self._clock())
        return sa.func.coalesce(table.c.expires > now, sa.true())

    async def _write(self, statement: sa.Executable) -> bool:
        with _mapped():
            async with self._engine.connect() as connection:
                result: Any = await connection.execute(statement)
                return bool(result.rowcount)


def _microseconds(moment: dt.datetime | None) -> int | None:
    if moment is None:
        return None
    since = moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return since // dt.timedelta(microseconds=1)


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigError(f"{url!r} is not a storage URL", hint="sqlite:////folder/file") from error
    if parsed.get_backend_name() not in _DRIVERS:
        raise ConfigError(
            f"storage of kind {parsed.get_backend_name()!r} is not supported",
            hint=f"supported: {', '.join(_DRIVERS)}",
        )
    if not parsed.database or parsed.database == ":memory:" or parsed.query:
        raise ConfigError(
            f"the storage {_shown(parsed)} names no file", hint="sqlite:////folder/file"
        )
    return parsed


def _shown(url: URL) -> str:
    return url.render_as_string(hide_password=True)


def _make_private(file: Path) -> None:
    """Make folder and file before SQLite does, which would follow the umask.

    The write-ahead log gets the permissions of the file.
    """
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        file.chmod(0o600)
    except OSError as error:
        raise ConfigError(f"cannot make the storage {file}: {error.strerror}") from error


def _set_pragmas(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA secure_delete=ON")
    cursor.close()


def _migrate(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    # Two programs that start at once must not both make the tables.
    connection.exec_driver_sql("BEGIN EXCLUSIVE")
    try:
        command.upgrade(config, "head")
    except BaseException:
        connection.exec_driver_sql("ROLLBACK")
        raise
    connection.exec_driver_sql("COMMIT")


@contextlib.contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise InternalError("the storage failed; the server's log has the cause") from error
