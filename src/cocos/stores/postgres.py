# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL database, for key brokers that share one.

URLs, environment variables and password files are those of PostgreSQL's own tools. What
the driver prefers is not always safe: over the network the server's certificate is checked
unless the URL says another ``sslmode``.
"""

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import lru_cache
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs, urlsplit

import asyncpg
import structlog

from cocos.errors import ConfigError, StorageError
from cocos.stores import database
from cocos.stores.database import Database, Parameter, Result, Row, Statement, Steps
from cocos.stores.local import is_local

SCHEMES: Final = ("postgresql", "postgres")
CONNECTIONS: Final = 10
CONNECT_SECONDS: Final = 5.0
STATEMENT_SECONDS: Final = 10.0
SCAN_SECONDS: Final = 60.0
_WEAK_TLS: Final = ("disable", "allow", "prefer", "require")

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class PostgresDatabase(Database):
    """A PostgreSQL database; make one with :meth:`open`."""

    lock_rows = " FOR UPDATE"

    def __init__(self, pool: "asyncpg.Pool[Any]") -> None:
        self._pool = pool

    @classmethod
    async def open(cls, url: str, prepare: Callable[..., Awaitable[None]]) -> "PostgresDatabase":
        """Connect.

        Args:
            url: ``postgresql://USER@HOST:PORT/DATABASE?sslmode=…``, as ``psql`` takes it.
            prepare: Sees to the tables, before anything else; is given the driver's arguments.

        Raises:
            ConfigError: no such URL, or it cannot be opened.
        """
        shown = describe(url)
        try:
            arguments = _arguments(url)
            await prepare(url, **arguments)
            pool = await asyncpg.create_pool(
                url,
                **arguments,
                min_size=0,
                max_size=CONNECTIONS,
                init=_set_up,
                reset=_nothing,
                connection_class=_Connection,
            )
        except (OSError, ValueError, *_FAILURES) as error:
            raise ConfigError(
                f"cannot open the storage {shown}: {_problem(error)}",
                hint="try the same URL with psql; a password belongs in the URL of KBS_STORAGE, "
                "in PGPASSWORD or in ~/.pgpass",
            ) from error
        return cls(pool)

    async def read(self, sql: str, *parameters: Parameter) -> Sequence[Row]:
        """Return the rows of a query that is quick."""
        async with self._connection() as connection:
            rows: Sequence[Row] = await connection.fetch(_numbered(sql), *parameters)
        return rows

    async def scan(self, sql: str, *parameters: Parameter) -> Sequence[Row]:
        """Return the rows of a query that may look at a whole table."""
        limit = f"SET LOCAL statement_timeout = {SCAN_SECONDS * 1000:.0f}"
        async with self._connection() as connection, connection.transaction():
            await connection.execute(limit)
            rows: Sequence[Row] = await connection.fetch(
                _numbered(sql), *parameters, timeout=SCAN_SECONDS
            )
        return rows

    async def write(self, sql: str, *parameters: Parameter) -> int:
        """Execute a statement; return how many rows it changed."""
        async with self._connection() as connection:
            return await _execute(connection, Statement(sql, parameters))

    async def transact(self, steps: Callable[[], Steps[T]]) -> T:
        """Execute a transaction, all of it or nothing, and return what it returns."""
        async with self._connection() as connection, connection.transaction():
            return await _drive(connection, steps())

    def lock_table(self, table: str) -> Steps[None]:
        """Keep others from writing a table until the transaction ends, which it begins."""
        yield Statement(f"LOCK TABLE {table} IN EXCLUSIVE MODE")

    async def settle(self, tables: Sequence[str]) -> None:
        """Return when every write to the tables that began before has ended."""
        # This lock and a write's exclude each other.
        sql = f"LOCK TABLE {', '.join(tables)} IN SHARE MODE"
        async with self._connection() as connection, connection.transaction():
            await connection.execute(sql)

    async def flush(self) -> None:
        """Do nothing: its log is its administrator's."""

    async def close(self) -> None:
        """Release connections."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._pool.close()

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        try:
            async with self._pool.acquire(timeout=CONNECT_SECONDS) as connection:
                yield connection
        except (OSError, *_FAILURES) as error:
            if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
                # Another server may lead by now; a new connection finds it.
                await self._pool.expire_connections()
            raise StorageError(_problem(error)) from error


class _Connection(asyncpg.Connection):  # type: ignore[misc]  # the driver is not typed
    """Leaves nothing behind that a reset between two uses would have to clear."""

    def get_reset_query(self) -> str:
        return ""


async def _nothing(_connection: object) -> None:
    """Take the place of a reset that costs a round trip per use."""


async def _set_up(connection: Any) -> None:
    # What returned must be durable, whatever the server's default.
    if await connection.fetchval("SHOW synchronous_commit") == "off":
        await connection.execute("SET synchronous_commit = on")


async def _drive(connection: Any, steps: Steps[T]) -> T:
    try:
        statement = next(steps)
        while True:
            statement = steps.send(await _result(connection, statement))
    except StopIteration as stop:
        result: T = stop.value
        return result


async def _result(connection: Any, statement: Statement) -> Result:
    if statement.rows is not None:
        await connection.executemany(_numbered(statement.sql), statement.rows)
        return Result((), len(statement.rows))
    if statement.sql.startswith("SELECT"):
        return Result(await connection.fetch(_numbered(statement.sql), *statement.parameters), 0)
    return Result((), await _execute(connection, statement))


async def _execute(connection: Any, statement: Statement) -> int:
    # The command tag: "INSERT 0 1", "UPDATE 1", "LOCK TABLE".
    tag: str = await connection.execute(_numbered(statement.sql), *statement.parameters)
    count = tag.rpartition(" ")[2]
    return int(count) if count.isdecimal() else 0


@lru_cache(maxsize=256)
def _numbered(sql: str) -> str:
    return re.sub(r"\?(\d)", r"$\1", sql).replace(" AS BLOB)", " AS BYTEA)")


def _arguments(url: str) -> dict[str, Any]:
    """Return what the driver is told beside the URL."""
    found: dict[str, Any] = {
        "timeout": CONNECT_SECONDS,
        "command_timeout": STATEMENT_SECONDS + 1,
        "server_settings": {
            "application_name": "kbs",
            "statement_timeout": f"{STATEMENT_SECONDS * 1000:.0f}",
            "idle_in_transaction_session_timeout": f"{STATEMENT_SECONDS * 1000:.0f}",
        },
    }
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    named = parts.netloc.split("@", 1)[-1]  # as the driver does
    if "service" in query or (named and "host" in query):
        # The driver must not go where we did not look.
        raise ConfigError(
            "the storage's URL names its server in more than one place",
            hint="postgresql://USER@HOST/DATABASE, or ?host=/PATH with no HOST before, no service",
        )
    named = query.get("host", [named])[-1]
    hosts = (named or os.environ.get("PGHOST", "/")).split(",")
    if all(map(is_local, hosts)):
        return found
    mode = query.get("sslmode", [os.environ.get("PGSSLMODE", "")])[-1]
    if not mode:
        # True: against the system's authorities.
        has_roots = "sslrootcert" in query or "PGSSLROOTCERT" in os.environ
        found["ssl"] = "verify-full" if has_roots else True
    elif mode in _WEAK_TLS:
        _log.warning(
            "storage.insecure-tls",
            sslmode=mode,
            meaning="whoever is on the way to the database can read and change what is stored",
        )
    return found


def describe(url: str) -> str:
    """Return a URL without password and parameters."""
    parts = urlsplit(url)
    login, at, hosts = parts.netloc.rpartition("@")
    return f"{parts.scheme}://{login.partition(':')[0]}{at}{hosts}{parts.path}"


_FAILURES: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.exceptions.InternalClientError,  # a connection that its server has just ended
    TimeoutError,
)


def _problem(error: Exception) -> str:
    match error:
        case asyncpg.DiskFullError():
            return database.FULL
        case asyncpg.ReadOnlySQLTransactionError():
            return database.READ_ONLY
        case (
            asyncpg.InvalidAuthorizationSpecificationError()
            | asyncpg.InvalidCatalogNameError()
            | asyncpg.InsufficientPrivilegeError()
            | asyncpg.ClientConfigurationError()
        ):
            # Of the server's own, they name users, databases and tables, and no values.
            return str(error)
        case (
            OSError()
            | asyncpg.InterfaceError()
            | asyncpg.exceptions.InternalClientError()
            | asyncpg.PostgresConnectionError()
            | asyncpg.OperatorInterventionError()
            | asyncpg.InsufficientResourcesError()
        ):
            return database.DOES_NOT_ANSWER
        case _:
            return database.FAILED
