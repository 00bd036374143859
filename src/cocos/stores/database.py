# SPDX-License-Identifier: Apache-2.0
"""What the stores ask of an SQL database, and nothing of how it is reached.

One SQL text serves every database: parameters are ``?1``, ``?2`` and so on, bytes are BLOB.
A transaction is a generator that yields statements and is sent their results, so that the
same steps run in SQLite's thread and on PostgreSQL's event loop.
"""

import abc
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

Row: TypeAlias = Sequence[Any]
Parameter: TypeAlias = bytes | str | int | None
T = TypeVar("T")

DOES_NOT_ANSWER = "the storage does not answer"
FULL = "the disk of the storage is full"
READ_ONLY = "the storage is read-only"
FAILED = "the storage failed; the server's log has the cause"


@dataclass(frozen=True, slots=True)
class Statement:
    """One step of a transaction.

    Attributes:
        sql: Its text.
        parameters: Of one execution.
        rows: Parameters of many executions instead, whose results nobody wants.
    """

    sql: str
    parameters: Sequence[Parameter] = ()
    rows: Sequence[Sequence[Parameter]] | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """Rows that a statement returned, and how many it changed."""

    rows: Sequence[Row]
    changed: int


Steps: TypeAlias = Generator[Statement, Result, T]


class Database(abc.ABC):
    """An SQL database with our tables. Every failure is a StorageError."""

    lock_rows: str
    """What ends a SELECT whose rows nobody else may change until the transaction ends."""

    @abc.abstractmethod
    async def read(self, sql: str, *parameters: Parameter) -> Sequence[Row]:
        """Return the rows of a query that is quick."""

    @abc.abstractmethod
    async def scan(self, sql: str, *parameters: Parameter) -> Sequence[Row]:
        """Return the rows of a query that may look at a whole table."""

    @abc.abstractmethod
    async def write(self, sql: str, *parameters: Parameter) -> int:
        """Execute a statement in a transaction of its own; return how many rows it changed."""

    @abc.abstractmethod
    async def transact(self, steps: Callable[[], Steps[T]]) -> T:
        """Execute a transaction, all of it or nothing, and return what it returns."""

    @abc.abstractmethod
    def lock_table(self, table: str) -> Steps[None]:
        """Keep others from writing a table until the transaction ends, which it begins."""

    @abc.abstractmethod
    async def settle(self, tables: Sequence[str]) -> None:
        """Return when every write to the tables that began before has ended."""

    @abc.abstractmethod
    async def flush(self) -> None:
        """Leave nothing in the log that the tables no longer hold, as far as we can."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Release connections."""
