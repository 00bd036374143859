# SPDX-License-Identifier: Apache-2.0
"""Sessions in Redis or Valkey, for key brokers behind one load balancer.

A session may be lost, but must never come back as it was: a nonce would serve twice. A
server that restarts may have loaded an old state, and one that takes over may never have
seen the last writes. Each run of a server has an id of its own, which is part of every key
of ours: what an earlier run, or another server, has left is not found.

A value is stored behind the time at which it expires, 16 digits. Redis's own expiry only
tidies up: its clock is not ours.
"""

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit
from weakref import WeakKeyDictionary

import structlog
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from cocos._clock import Clock, system_clock
from cocos.errors import ConfigError, StorageError
from cocos.stores.base import Namespace, Store, microseconds
from cocos.stores.local import is_local

SCHEMES: Final = ("redis", "rediss", "unix")
CONNECTIONS: Final = 32
SECONDS: Final = 5.0
_SLACK: Final = 60_000  # milliseconds that Redis keeps what has expired
_DIGITS: Final = 16
_NEVER: Final = "9" * _DIGITS

_LIVE: Final = f"""
local old = redis.call('GET', KEYS[1])
local live = old and tonumber(string.sub(old, 1, {_DIGITS})) > tonumber(ARGV[1])
"""
_PUT_NEW: Final = f"""{_LIVE}
if live then return 0 end
redis.call('SET', KEYS[1], ARGV[2], unpack(ARGV, 3))
return 1
"""
_REPLACE: Final = f"""{_LIVE}
if not live or string.sub(old, {_DIGITS + 1}) ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[1], string.sub(old, 1, {_DIGITS}) .. ARGV[3], 'KEEPTTL')
return 1
"""
_DELETE: Final = f"""{_LIVE}
redis.call('DEL', KEYS[1])
return live and 1 or 0
"""

_log = structlog.get_logger(__name__)


class RedisStore(Store):
    """Keeps bytes in Redis; make one with :meth:`open`."""

    def __init__(self, url: str, *, clock: Clock) -> None:
        self._clock = clock
        self._runs: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        # Not the library's pool that waits: whoever comes last may get a connection first.
        self._free = asyncio.Semaphore(CONNECTIONS)
        self._pool: ConnectionPool = ConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            socket_timeout=SECONDS,
            socket_connect_timeout=SECONDS,
            retry=Retry(NoBackoff(), 0),
            redis_connect_func=self._greet,
        )

    @classmethod
    async def open(cls, url: str, *, clock: Clock = system_clock) -> "RedisStore":
        """Connect.

        Args:
            url: ``redis://USER:PASSWORD@HOST:PORT/DATABASE``, ``rediss://`` with TLS,
                ``unix:///PATH``.
            clock: What decides whether a value has expired.

        Raises:
            ConfigError: no such URL, or nobody answers there.
        """
        parts = urlsplit(url)
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        if parts.scheme not in SCHEMES:
            raise ConfigError(
                f"session storage of kind {parts.scheme!r} is not supported",
                hint="redis://HOST:PORT, or rediss://HOST:PORT with TLS",
            )
        _warn(url)
        try:
            store = cls(url, clock=clock)
            await store.get(Namespace.SESSION, "")
        except (ValueError, OSError, RedisError, StorageError) as error:
            raise ConfigError(f"cannot open the session storage {shown}: {error}") from error
        return store

    async def get(self, namespace: Namespace, key: str) -> bytes | None:
        """Return the value, or None when there is none."""
        return self._live(await self._call("GET", namespace, key))

    async def put(
        self, namespace: Namespace, key: str, value: bytes, *, expires: dt.datetime | None = None
    ) -> None:
        """Write the value, over an old one if there is one."""
        await self._call("SET", namespace, key, *self._stored(value, expires))

    async def put_new(
        self, namespace: Namespace, key: str, value: bytes, *, expires: dt.datetime | None = None
    ) -> bool:
        """Write the value unless there is one; return whether it was written."""
        return await self._run(_PUT_NEW, namespace, key, *self._stored(value, expires))

    async def replace(self, namespace: Namespace, key: str, old: bytes, new: bytes) -> bool:
        """Write ``new`` if the value is still ``old``; return whether it was."""
        return await self._run(_REPLACE, namespace, key, old, new)

    async def delete(self, namespace: Namespace, key: str) -> bool:
        """Delete the value; return whether there was one."""
        return await self._run(_DELETE, namespace, key)

    async def keys(self, namespace: Namespace, prefix: str = "") -> list[str]:
        """Return the keys that start with ``prefix``, sorted."""
        found = []
        async with self._connection() as (connection, base):
            start = f"{base}{namespace}:".encode()
            cursor = b"0"
            while True:
                words = ("SCAN", cursor, "MATCH", start + b"*", "COUNT", 1000)
                cursor, names = await _ask(connection, *words)
                if names:
                    values = await _ask(connection, "MGET", *names)
                    found += [
                        name.removeprefix(start).decode()
                        for name, value in zip(names, values, strict=True)
                        if self._live(value) is not None
                    ]
                if cursor == b"0":
                    break
        return sorted({key for key in found if key.startswith(prefix)})

    async def sweep(self) -> int:
        """Return 0: Redis deletes what has expired by itself."""
        return 0

    async def close(self) -> None:
        """Release connections."""
        await self._pool.disconnect()

    def _stored(self, value: bytes, expires: dt.datetime | None) -> tuple[Any, ...]:
        """Return the value as it is stored, and how long Redis is to keep it."""
        if expires is None:
            return (_NEVER.encode() + value,)
        left = (expires - self._clock()) // dt.timedelta(milliseconds=1)
        moment = max(microseconds(expires), 0)
        return f"{moment:0{_DIGITS}}".encode() + value, "PX", max(left, 0) + _SLACK

    def _live(self, stored: bytes | None) -> bytes | None:
        if stored is None:
            return None
        moment, value = stored[:_DIGITS], stored[_DIGITS:]
        is_live = moment.isdigit() and int(moment) > microseconds(self._clock())
        return value if is_live else None

    async def _run(self, script: str, namespace: Namespace, key: str, *words: Any) -> bool:
        now = microseconds(self._clock())
        async with self._connection() as (connection, base):
            name = f"{base}{namespace}:{key}"
            return bool(await _ask(connection, "EVAL", script, 1, name, now, *words))

    async def _call(self, command: str, namespace: Namespace, key: str, *words: Any) -> Any:
        async with self._connection() as (connection, base):
            return await _ask(connection, command, f"{base}{namespace}:{key}", *words)

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[tuple[Any, str]]:
        """Have a connection, and the beginning of every key of the run it leads to."""
        try:
            async with asyncio.timeout(SECONDS):
                await self._free.acquire()
        except TimeoutError as error:
            raise StorageError("the session storage does not answer") from error
        try:
            async with self._taken() as connection:
                run = self._runs[connection]
                yield connection, f"cocos:{run}:"
                # If it was opened anew, what was asked may have gone to another run.
                _require_same(run, self._runs[connection])
        except (OSError, TimeoutError, RedisError) as error:
            raise StorageError(_problem(error)) from error
        finally:
            self._free.release()

    @contextlib.asynccontextmanager
    async def _taken(self) -> AsyncIterator[Any]:
        connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            yield connection
        except BaseException:
            # An answer may still be under way.
            await connection.disconnect(nowait=True)
            raise
        finally:
            await self._pool.release(connection)

    async def _greet(self, connection: Any) -> None:
        await connection.on_connect()
        info: bytes = await _ask(connection, "INFO", "server")
        run = info.partition(b"run_id:")[2].partition(b"\r")[0].decode("ascii")
        if not run:
            raise StorageError("the session storage does not tell the id of its run")
        self._runs[connection] = run


def _require_same(run: str, now: str) -> None:
    if run != now:
        raise StorageError("the session storage has been restarted")


async def _ask(connection: Any, *words: Any) -> Any:
    await connection.send_command(*words)
    return await connection.read_response()


def _warn(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "unix" or is_local(parts.netloc.rpartition("@")[2]):
        return
    unchecked = parse_qs(parts.query).get("ssl_cert_reqs", ["required"])[-1] != "required"
    if parts.scheme == "redis" or unchecked:
        _log.warning(
            "storage.insecure-tls",
            storage="sessions",
            meaning="whoever is on the way to Redis can bring back old sessions; use rediss://",
        )


def _problem(error: Exception) -> str:
    match error:
        case AuthenticationError() | NoPermissionError():
            return "the session storage refuses us: wrong user, password or rights"
        case OutOfMemoryError():
            return "the session storage is full"
        case ReadOnlyError():
            return "the session storage is read-only"
        case ResponseError():
            return "the session storage failed; the server's log has the cause"
        case _:
            return "the session storage does not answer"
