# SPDX-License-Identifier: Apache-2.0
"""The audit log in its database: one chain, whoever writes it and however many at once."""

import asyncio
import contextlib
import datetime as dt
from pathlib import Path

import pytest

from cocos.crypto.admin_jwt import load_public_key
from cocos.errors import StorageError
from cocos.host.root_keys.file import FileRootKey
from cocos.stores.audit import AuditLog
from cocos.stores.opening import Storage, open_storage
from cocos.stores.sql import storage_url
from cocos.wire import audit
from cocos.wire.audit import Entry, Verification

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)


def clock() -> dt.datetime:
    return NOW


def opened(folder: Path) -> contextlib.AbstractAsyncContextManager[Storage]:
    key = FileRootKey(folder / "storage.key")
    return open_storage(storage_url(str(folder)), [key], clock=clock)


async def verified(log: AuditLog) -> Verification:
    head = await log.head()
    key = load_public_key(head.public_key.encode())
    done = Verification(head.log, key, [audit.open_checkpoint(head.checkpoint, key)])
    while page := (await log.read(done.seq, 100)).records:
        for record in page:
            done.add(record)
    done.end()
    return done


async def test_an_empty_log_has_a_checkpoint(tmp_path: Path) -> None:
    async with opened(tmp_path) as storage:
        assert not (await storage.audit.read(0, 10)).records
        head = await storage.audit.head()
        said = audit.open_checkpoint(head.checkpoint, load_public_key(head.public_key.encode()))
        assert (said.log, said.seq) == (head.log, 0)
        assert said.hash == audit.first_hash(head.log).hex()


async def test_many_at_once_are_one_batch(tmp_path: Path) -> None:
    async with opened(tmp_path) as storage:
        await asyncio.gather(
            *(storage.audit.append(Entry("released", resource=str(n))) for n in range(100))
        )
        page = (await storage.audit.read(0, 1000)).records
        assert [audit.decode(record)["resource"] for record in page] == [str(n) for n in range(100)]
        assert len([record for record in page if record.checkpoint]) <= 2
        assert page[-1].checkpoint
        assert not (await verified(storage.audit)).findings


async def test_two_programs_write_one_chain(tmp_path: Path) -> None:
    async with opened(tmp_path) as one, opened(tmp_path) as two:
        for _ in range(5):
            await asyncio.gather(
                *(
                    storage.audit.append(Entry("released", resource=f"{number}"))
                    for number in range(20)
                    for storage in (one, two)
                )
            )
        done = await verified(two.audit)
        assert (done.seq, done.findings) == (200, [])
        assert (await one.audit.head()) == (await two.audit.head())
    async with opened(tmp_path) as again:
        await again.audit.append(Entry("released"))
        assert (await verified(again.audit)).seq == 201


async def test_who_gives_up_waiting_harms_nobody(tmp_path: Path) -> None:
    async with opened(tmp_path) as storage:
        waiting = [asyncio.create_task(storage.audit.append(Entry("released"))) for _ in range(10)]
        await asyncio.sleep(0)
        for task in waiting[::2]:
            task.cancel()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [isinstance(each, asyncio.CancelledError) for each in outcomes] == [True, False] * 5
        assert (await verified(storage.audit)).seq == 10


async def test_a_failure_reaches_everybody_and_passes(tmp_path: Path) -> None:
    async with opened(tmp_path) as storage:
        await storage.audit.append(Entry("released"))
        await storage.database.write("UPDATE audit_head SET seq = 0")
        outcomes = await asyncio.gather(
            *(storage.audit.append(Entry("released")) for _ in range(5)), return_exceptions=True
        )
        assert all(isinstance(outcome, StorageError) for outcome in outcomes)
        await storage.database.write("UPDATE audit_head SET seq = 1")
        await storage.audit.append(Entry("released"))
        assert (await verified(storage.audit)).seq == 2
        with pytest.raises(StorageError):
            await storage.database.write("INSERT INTO audit (seq, entry, hash) VALUES (1, '', '')")
