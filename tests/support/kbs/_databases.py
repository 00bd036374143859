# SPDX-License-Identifier: Apache-2.0
"""Database servers that many tests share, in a thread of their own."""

import asyncio
import contextlib
import secrets
import threading
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TypeVar

import asyncpg
from databases import Server

T = TypeVar("T")


@contextlib.contextmanager
def in_a_thread(server: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Have a server run, whatever event loops the tests make and close meanwhile."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result()
    finally:
        ending = server.__aexit__(None, None, None)
        asyncio.run_coroutine_threadsafe(ending, loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@dataclass(frozen=True)
class Postgres:
    """A running PostgreSQL."""

    server: Server

    async def new_database(self) -> str:
        """Return the URL of an empty database."""
        name = f"test_{secrets.token_hex(6)}"
        connection = await asyncpg.connect(self.server.url)
        try:
            await connection.execute(f"CREATE DATABASE {name}")
        finally:
            await connection.close()
        return self.server.url.removesuffix("/postgres") + f"/{name}"
