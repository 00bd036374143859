# SPDX-License-Identifier: Apache-2.0
"""An SQLite file in WAL mode: reads at once, writes in a thread, many to a commit.

A commit costs a flush of the disk, a statement microseconds. The thread that writes takes
whatever waits, puts it into one transaction and tells everybody after the one commit. Reads
see what is committed and wait for nobody; they take microseconds and run where they are
asked for, because a way to another thread and back costs ten times as much. So do writes to
a file that is never flushed.
"""

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from cocos.errors import ConfigError, StorageError
from cocos.host.disk import disk_error
from cocos.stores import database
from cocos.stores.database import Database, Parameter, Result, Row, Statement, Steps

BUSY_SECONDS: Final = 10
MAX_BATCH: Final = 1000

_CLOSED = "the storage has been closed"

T = TypeVar("T")
_Work = Callable[[sqlite3.Connection], Any]


@dataclass(frozen=True, slots=True)
class _Job:
    work: _Work
    done: "asyncio.Future[Any]"


@dataclass(frozen=True, slots=True)
class _Outcome:
    job: _Job
    result: Any = None
    error: Exception | None = None

    def tell(self) -> None:
        if self.job.done.cancelled():
            return
        if self.error is None:
            self.job.done.set_result(self.result)
        else:
            self.job.done.set_exception(self.error)


class SqliteDatabase(Database):
    """An SQLite file; make one with :meth:`open`."""

    lock_rows = ""  # there is one writer

    def __init__(self, file: Path, *, durable: bool) -> None:
        self._durable = durable
        self._writing = _connect(file, durable=durable)
        self._here = _connect(file, durable=durable, busy_seconds=0)
        self._scanning = _connect(file, durable=durable)
        self._scan_lock = threading.Lock()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="sqlite-writer", daemon=True)

    @classmethod
    async def open(
        cls,
        file: Path,
        prepare: Callable[[sqlite3.Connection], None],
        *,
        durable: bool = True,
    ) -> "SqliteDatabase":
        """Open a file, and make it with mode 0600 (its folder 0700) if there is none.

        Args:
            file: The database.
            prepare: Sees to the tables, before anything else.
            durable: Whether a write that returned must survive the machine's crash; it
                survives the program's in either case.

        Raises:
            ConfigError: it cannot be opened.
        """
        _make_private(file)
        try:
            opened = cls(file, durable=durable)
            await asyncio.to_thread(prepare, opened._writing)
        except sqlite3.Error as error:
            raise ConfigError(f"cannot open the storage {file}: {error}") from error
        opened._thread.start()
        return opened

    async def read(self, sql: str, *parameters: Parameter) -> Sequence[Row]:
        """Return the rows of a query that is quick."""
        try:
            return self._here.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            if not _is_busy(error):
                raise _translated(error) from error
        # Seldom: somebody recovers the log. Nobody else must wait for that.
        return await self.scan(sql, *parameters)

    async def scan(self, sql: str, *parameters: Parameter) -> Sequence[Row]:
        """Return the rows of a query that may look at a whole table."""

        def scan() -> Sequence[Row]:
            with self._scan_lock:
                return self._scanning.execute(sql, parameters).fetchall()

        try:
            return await asyncio.to_thread(scan)
        except sqlite3.Error as error:
            raise _translated(error) from error

    async def write(self, sql: str, *parameters: Parameter) -> int:
        """Execute a statement; return how many rows it changed, once that is durable."""
        if not self._durable and not self._closed:
            try:
                return _execute(self._here, sql, parameters)
            except sqlite3.Error as error:
                if not _is_busy(error):
                    raise _translated(error) from error
        changed: int = await self._do(lambda connection: _execute(connection, sql, parameters))
        return changed

    async def transact(self, steps: Callable[[], Steps[T]]) -> T:
        """Execute a transaction, all of it or nothing, and return what it returns."""
        result: T = await self._do(lambda connection: _drive(connection, steps()))
        return result

    def lock_table(self, table: str) -> Steps[None]:  # noqa: ARG002 - part of the interface
        """Do nothing: there is one writer."""
        yield from ()

    async def settle(self, tables: Sequence[str]) -> None:
        """Do nothing: writes come one after the other."""

    async def flush(self) -> None:
        """Leave nothing in the log that the tables no longer hold."""
        await self.scan("PRAGMA wal_checkpoint(TRUNCATE)")

    async def close(self) -> None:
        """Release connections, after what was asked for is done."""
        if self._closed:
            return
        self._closed = True
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)
        for connection in (self._here, self._scanning, self._writing):
            connection.close()

    async def _do(self, work: _Work) -> Any:
        if self._closed:
            raise StorageError(_CLOSED)
        job = _Job(work, self._loop.create_future())
        self._jobs.put(job)
        try:
            return await job.done
        except sqlite3.Error as error:
            raise _translated(error) from error

    def _run(self) -> None:
        while jobs := self._take():
            outcomes = _commit(self._writing, jobs)
            with contextlib.suppress(RuntimeError):  # the loop has gone, and who waited with it
                self._loop.call_soon_threadsafe(_tell, outcomes)

    def _take(self) -> list[_Job]:
        """Return everything that waits, at least one; nothing at the end."""
        jobs: list[_Job] = []
        with contextlib.suppress(queue.Empty):
            job = self._jobs.get()
            while job is not None:
                jobs.append(job)
                if len(jobs) == MAX_BATCH:
                    return jobs
                job = self._jobs.get_nowait()
            if jobs:
                self._jobs.put(None)  # the end, for the next time
        return jobs


def _commit(connection: sqlite3.Connection, jobs: Sequence[_Job]) -> list[_Outcome]:
    """Do all jobs in one transaction; one that fails by itself does not harm the others."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        outcomes = [_attempt(connection, job) for job in jobs]
        connection.execute("COMMIT")
    except Exception as error:  # noqa: BLE001 - it goes to all who wait
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        return [_Outcome(job, error=error) for job in jobs]
    return outcomes


def _attempt(connection: sqlite3.Connection, job: _Job) -> _Outcome:
    try:
        return _Outcome(job, job.work(connection))
    except Exception as error:
        # Some take the whole transaction back: a full disk does.
        if not connection.in_transaction:
            raise
        return _Outcome(job, error=error)


def _tell(outcomes: Sequence[_Outcome]) -> None:
    for outcome in outcomes:
        outcome.tell()


def _execute(connection: sqlite3.Connection, sql: str, parameters: Sequence[Parameter]) -> int:
    return connection.execute(sql, parameters).rowcount


def _drive(connection: sqlite3.Connection, steps: Steps[T]) -> T:
    connection.execute("SAVEPOINT steps")
    try:
        statement = next(steps)
        while True:
            statement = steps.send(_result(connection, statement))
    except StopIteration as stop:
        connection.execute("RELEASE steps")
        result: T = stop.value
        return result
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK TO steps")
            connection.execute("RELEASE steps")
        raise


def _result(connection: sqlite3.Connection, statement: Statement) -> Result:
    if statement.rows is not None:
        return Result((), connection.executemany(statement.sql, statement.rows).rowcount)
    cursor = connection.execute(statement.sql, statement.parameters)
    return Result(cursor.fetchall(), cursor.rowcount)


def _connect(
    file: Path, *, durable: bool, busy_seconds: float = BUSY_SECONDS
) -> sqlite3.Connection:
    connection = sqlite3.connect(
        file, timeout=busy_seconds, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'OFF'}")
    # Overwrites what is deleted.
    connection.execute("PRAGMA secure_delete=ON")
    return connection


def _make_private(file: Path) -> None:
    """Make folder and file before SQLite does, which would follow the umask.

    The write-ahead log gets the permissions of the file.
    """
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        file.chmod(0o600)
    except OSError as error:
        raise disk_error(error, f"cannot make the storage {file}") from error


_PROBLEMS: Final = {
    sqlite3.SQLITE_BUSY: "another program keeps the storage busy",
    sqlite3.SQLITE_FULL: database.FULL,
    sqlite3.SQLITE_IOERR: "the disk of the storage fails, or is full",
    sqlite3.SQLITE_READONLY: database.READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: "the storage cannot be opened",
}


def _is_busy(error: sqlite3.Error) -> bool:
    """Tell whether another connection writes at the moment."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def _translated(error: sqlite3.Error) -> StorageError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return StorageError(_PROBLEMS.get(code, database.FAILED))
