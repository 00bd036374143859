# SPDX-License-Identifier: Apache-2.0
"""Brings the tables up to date: Alembic's migrations, one program at a time.

SQLAlchemy and Alembic take half a second to load. They are loaded only where there is
something to migrate, which a look at the version's table tells.
"""

import sqlite3
from pathlib import Path
from typing import Any, Final

import asyncpg

from cocos.errors import ConfigError

HEAD: Final = "0004"
"""Newest revision in ``migrations/versions``."""

MIGRATION_SECONDS: Final = 600.0

_MIGRATIONS: Final = Path(__file__).with_name("migrations")
_QUERY: Final = "SELECT version_num FROM alembic_version"
_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtext('cocos.migrate'))"


def migrate_sqlite(connection: sqlite3.Connection) -> None:
    """Migrate an SQLite database.

    Raises:
        ConfigError: it was written by a newer version of this program.
    """
    try:
        if connection.execute(_QUERY).fetchall() == [(HEAD,)]:
            return
    except sqlite3.OperationalError:
        pass  # there is no such table yet
    from sqlalchemy import StaticPool, create_engine  # noqa: PLC0415 - slow to load

    engine = create_engine(
        "sqlite://", creator=lambda: connection, poolclass=StaticPool, isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as opened:
        # Two programs that start at once must not both make the tables.
        opened.exec_driver_sql("BEGIN EXCLUSIVE")
        try:
            _upgrade(opened)
        except BaseException:
            opened.exec_driver_sql("ROLLBACK")
            raise
        opened.exec_driver_sql("COMMIT")


async def migrate_postgres(url: str, **arguments: Any) -> None:
    """Migrate a PostgreSQL database.

    Args:
        url: As the driver takes it.
        arguments: Of the driver.

    Raises:
        ConfigError: it was written by a newer version of this program.
    """
    connection = await asyncpg.connect(url, **arguments)
    try:
        if [row[0] for row in await connection.fetch(_QUERY)] == [HEAD]:
            return
    except asyncpg.UndefinedTableError:
        pass
    finally:
        connection.terminate()
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415 - slow to load

    patient = {**arguments, "command_timeout": MIGRATION_SECONDS}
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(url, **patient)
    )
    try:
        async with engine.begin() as opened:
            await opened.exec_driver_sql("SET LOCAL statement_timeout = 0")
            await opened.exec_driver_sql(_LOCK)
            await opened.run_sync(_upgrade)
    finally:
        await engine.dispose()


def _upgrade(connection: Any) -> None:
    from alembic import command  # noqa: PLC0415 - slow to load
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, HEAD)
    except CommandError as error:
        raise ConfigError(
            f"the storage was written by another version of this program: {error}"
        ) from error
