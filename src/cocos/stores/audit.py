# SPDX-License-Identifier: Apache-2.0
"""The audit log in the database of the storage: appended to, never changed.

Whatever waits is appended in one transaction, so that a hundred requests at once cost one
flush of the disk and one signature. The row with the log's end is held meanwhile: several
key brokers on one database write one chain, one batch after the other.
"""

import asyncio
import secrets
from typing import Final

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from cocos._clock import Clock
from cocos.errors import CocosError, ConfigError, InternalError
from cocos.stores.base import Namespace, Store
from cocos.stores.database import Database, Statement, Steps
from cocos.wire import audit
from cocos.wire.audit import Checkpoint, Entry, Head, Page, Record

SIGNING_KEY: Final = "audit-checkpoint"
MAX_BATCH: Final = 500

_HEAD: Final = "SELECT log, seq, hash FROM audit_head"
_BEGIN: Final = "INSERT INTO audit_head (log, seq, hash) VALUES (?1, 0, ?2)"
_MOVE: Final = "UPDATE audit_head SET seq = ?2, hash = ?3 WHERE log = ?1"
_APPEND: Final = "INSERT INTO audit (seq, entry, hash, checkpoint) VALUES (?1, ?2, ?3, ?4)"
_PAGE: Final = "SELECT seq, entry, hash, checkpoint FROM audit WHERE seq > ?1 ORDER BY seq LIMIT ?2"
_SIGNED: Final = "SELECT checkpoint FROM audit WHERE seq = ?1"


class AuditLog:
    """Appends entries and reads them; make one with :meth:`open`."""

    def __init__(
        self, database: Database, key: ed25519.Ed25519PrivateKey, log: str, *, clock: Clock
    ) -> None:
        self._database = database
        self._key = key
        self._log = log
        self._clock = clock
        self._waiting: list[tuple[Entry, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, database: Database, store: Store, *, clock: Clock) -> "AuditLog":
        """Return the log of a storage; begin it if there is none.

        Args:
            database: With our tables.
            store: Keeps the key that signs checkpoints, which is made at the first start.
            clock: Present time.
        """
        key = await _signing_key(store)
        made = secrets.token_hex(8)

        def begin() -> Steps[str]:
            yield from database.lock_table("audit_head")
            found = yield Statement(_HEAD)
            if found.rows:
                log: str = found.rows[0][0]
                return log
            yield Statement(_BEGIN, (made, audit.first_hash(made)))
            return made

        return cls(database, key, await database.transact(begin), clock=clock)

    async def append(self, entry: Entry) -> None:
        """Append an entry; its number and time are set here. Returns once it is durable.

        Raises:
            StorageError: nobody knows whether it was.
        """
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, done))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        await done

    async def read(self, after: int, limit: int) -> Page:
        """Return the records behind the one of a number, in order."""
        rows = await self._database.read(_PAGE, after, limit)
        records = (
            Record(seq, entry, digest.hex(), signed or "") for seq, entry, digest, signed in rows
        )
        return Page(self._log, tuple(records))

    async def head(self) -> Head:
        """Return the newest checkpoint and the public key.

        The beginning of a log is signed when it is asked for.
        """
        rows = await self._database.read(_HEAD)
        _, seq, digest = rows[0]
        signed = await self._database.read(_SIGNED, seq)
        # Nothing but the beginning is signed later than it was written.
        checkpoint = self._sign(seq, digest) if seq == 0 else ""
        if signed and signed[0][0] is not None:
            checkpoint = signed[0][0]
        public = self._key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return Head(self._log, checkpoint, public.decode("ascii"))

    async def _write(self) -> None:
        try:
            while batch := self._waiting[:MAX_BATCH]:
                del self._waiting[: len(batch)]
                await self._write_batch(batch)
        finally:
            self._writing = None

    async def _write_batch(self, batch: list[tuple[Entry, "asyncio.Future[None]"]]) -> None:
        entries = [entry for entry, _ in batch]
        error: CocosError | None = None
        try:
            await self._database.transact(lambda: self._append(entries))
        except CocosError as problem:
            error = problem
        except Exception as problem:  # noqa: BLE001 - whoever waits must be told
            error = InternalError("the audit log cannot be written")
            error.__cause__ = problem
        for _, done in batch:
            if done.done():
                continue  # whoever waited has gone
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

    def _append(self, entries: list[Entry]) -> Steps[None]:
        found = yield Statement(_HEAD + self._database.lock_rows)
        _, seq, digest = found.rows[0]
        now = self._clock()
        rows = []
        for entry in entries:
            seq += 1
            text = audit.encode(msgspec.structs.replace(entry, seq=seq, time=now))
            digest = audit.next_hash(digest, text)
            rows.append([seq, text.decode(), digest, None])
        rows[-1][-1] = self._sign(seq, digest)
        yield Statement(_APPEND, rows=rows)
        yield Statement(_MOVE, (self._log, seq, digest))

    def _sign(self, seq: int, digest: bytes) -> str:
        return audit.sign(Checkpoint(self._log, seq, digest.hex()), self._key, self._clock())


async def _signing_key(store: Store) -> ed25519.Ed25519PrivateKey:
    made = ed25519.Ed25519PrivateKey.generate().private_bytes_raw()
    await store.put_new(Namespace.KEY, SIGNING_KEY, made)
    kept = await store.get(Namespace.KEY, SIGNING_KEY)
    if kept is None:
        raise ConfigError("the key that signs audit checkpoints vanished from the store")
    return ed25519.Ed25519PrivateKey.from_private_bytes(kept)
