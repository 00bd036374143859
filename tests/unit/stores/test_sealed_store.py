# SPDX-License-Identifier: Apache-2.0
"""Attacks of somebody who reads and writes the database, and keys that change."""

import asyncio
import contextlib
import datetime as dt
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cocos.crypto.envelope import LocalRootKey, RootKey
from cocos.errors import ConfigError, InternalError, StorageError
from cocos.host.root_keys.file import FileRootKey
from cocos.stores.base import Namespace, StaleKeyError
from cocos.stores.keyring import GRACE, Keyring
from cocos.stores.opening import Storage, open_storage
from cocos.stores.rekey import rekey
from cocos.stores.sealed import SealedStore
from cocos.stores.sql import DATABASE_FILE, SqlStore, storage_url

START = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
SECRET = b"the secret of somebody else"


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> dt.datetime:
        return self.now


class Root:
    """A source of a root key that is there."""

    def __init__(self, byte: bytes = b"k") -> None:
        self.key = LocalRootKey(byte * 32)

    async def load(self) -> RootKey:
        return self.key

    async def create(self) -> RootKey:
        raise AssertionError


ROOT = Root()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def opened(
    folder: Path, *roots: Root, clock: Clock
) -> contextlib.AbstractAsyncContextManager[Storage]:
    return open_storage(storage_url(str(folder)), roots or (ROOT,), clock=clock)


@pytest.fixture
async def storage(tmp_path: Path, clock: Clock) -> AsyncIterator[Storage]:
    async with opened(tmp_path, clock=clock) as found:
        yield found


def on_disk(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


def session_file(folder: Path) -> Path:
    """Return the one file with sessions."""
    (found,) = folder.glob("sessions-*.sqlite3")
    return found


def ignore(_done: int, _whole: int) -> None: ...


async def test_nothing_stands_in_clear_on_the_disk(storage: Storage, tmp_path: Path) -> None:
    for namespace in Namespace:
        await storage.store.put(namespace, "name", SECRET)
        assert await storage.store.get(namespace, "name") == SECRET
    await storage.store.replace(Namespace.SESSION, "name", SECRET, SECRET + b"2")
    assert await storage.store.get(Namespace.SESSION, "name") == SECRET + b"2"
    written = on_disk(tmp_path)
    assert b"name" in written
    assert SECRET not in written
    assert b"k" * 32 not in written


async def test_one_of_many_at_once_wins(storage: Storage) -> None:
    await storage.store.put(Namespace.SESSION, "s", b"0")
    won = await asyncio.gather(
        *(storage.store.replace(Namespace.SESSION, "s", b"0", b"%d" % n) for n in range(1, 17))
    )
    assert sum(won) == 1
    assert await storage.store.get(Namespace.SESSION, "s") == b"%d" % (won.index(True) + 1)


@pytest.mark.parametrize("namespace", [Namespace.SESSION, Namespace.RESOURCE])
async def test_who_replaces_something_else_is_told_so(
    storage: Storage, namespace: Namespace
) -> None:
    """Or a nonce would count twice, and a key's revocation as done."""
    store = storage.store
    assert not await store.replace(namespace, "x", b"0", b"1")
    assert await store.get(namespace, "x") is None
    await store.put(namespace, "x", b"0")
    assert not await store.replace(namespace, "x", b"1", b"2")
    assert await store.replace(namespace, "x", b"0", b"1")
    assert not await store.replace(namespace, "x", b"0", b"2")
    assert await store.get(namespace, "x") == b"1"


async def test_what_never_succeeds_is_not_done(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody seals the same value anew all the time, or changes the storage's keys."""
    store = storage.store
    await store.put(Namespace.RESOURCE, "x", b"0")

    async def never(*_: object, **__: object) -> bool:
        return False

    async def stale(*_: object, **__: object) -> bool:
        raise StaleKeyError

    with monkeypatch.context() as patched:
        patched.setattr(store._inner, "replace", never)
        assert not await store.replace(Namespace.RESOURCE, "x", b"0", b"1")
        patched.setattr(store._inner, "replace", stale)
        with pytest.raises(StorageError, match="change too quickly"):
            await store.replace(Namespace.RESOURCE, "x", b"0", b"1")
        patched.setattr(store._inner, "put", stale)
        with pytest.raises(StorageError, match="change too quickly"):
            await store.put(Namespace.RESOURCE, "x", b"1")
    assert await store.get(Namespace.RESOURCE, "x") == b"0"


@pytest.mark.parametrize(
    "attack",
    [
        "(SELECT value FROM resource WHERE key = 'a/a/b')",
        "(SELECT value FROM resource_policy)",
        "X'706c61696e'",
        "zeroblob(100)",
        f"X'01{'ab' * 100}'",  # sealed with a key that never was ours
        "X''",
    ],
)
async def test_what_was_moved_or_made_up_does_not_open(storage: Storage, attack: str) -> None:
    await storage.store.put(Namespace.RESOURCE, "a/a/a", b"mine")
    await storage.store.put(Namespace.RESOURCE, "a/a/b", b"the attacker's")
    await storage.store.put(Namespace.RESOURCE_POLICY, "resource-policy", b"package policy")
    update = f"UPDATE resource SET value = {attack} WHERE key = 'a/a/a'"  # noqa: S608 - ours
    await storage.database.write(update)
    with pytest.raises(InternalError, match=r"resource 'a/a/a' was not sealed for it"):
        await storage.store.get(Namespace.RESOURCE, "a/a/a")
    assert await storage.store.get(Namespace.RESOURCE, "a/a/b") == b"the attacker's"


async def test_a_database_in_clear_is_sealed_as_a_whole(tmp_path: Path, clock: Clock) -> None:
    before = await SqlStore.open(storage_url(str(tmp_path)), clock=clock)
    for namespace in Namespace:
        await before.put(namespace, "a/b/c", SECRET, expires=START + dt.timedelta(hours=1))
    # An old value may look like anything.
    await before.put(Namespace.RESOURCE, "odd", b"\x01" + bytes(60))
    await before.close()
    assert SECRET in on_disk(tmp_path)
    async with opened(tmp_path, clock=clock) as storage:
        for namespace in Namespace:
            expected = None if namespace is Namespace.SESSION else SECRET
            assert await storage.store.get(namespace, "a/b/c") == expected
        assert await storage.store.get(Namespace.RESOURCE, "odd") == b"\x01" + bytes(60)
        assert SECRET not in on_disk(tmp_path)
        clock.now += dt.timedelta(hours=1)
        assert await storage.store.get(Namespace.RESOURCE, "a/b/c") is None


async def test_several_that_start_at_once_have_one_key(tmp_path: Path, clock: Clock) -> None:
    before = await SqlStore.open(storage_url(str(tmp_path)), clock=clock)
    await before.put(Namespace.RESOURCE, "a", SECRET)
    await before.close()
    url = storage_url(str(tmp_path))
    stores = await asyncio.gather(*(SqlStore.open(url, clock=clock) for _ in range(4)))
    rings = await asyncio.gather(
        *(Keyring.open(store.database, (ROOT,), clock=clock) for store in stores)
    )
    assert len({ring.current.id for ring in rings}) == 1
    for store, ring in zip(stores, rings, strict=True):
        assert await SealedStore(store, ring).get(Namespace.RESOURCE, "a") == SECRET
        await store.close()


async def test_the_wrong_key_is_refused(tmp_path: Path, clock: Clock) -> None:
    async with opened(tmp_path, clock=clock) as storage:
        await storage.store.put(Namespace.RESOURCE, "a", SECRET)
    with pytest.raises(ConfigError, match="sealed with another key"):
        async with opened(tmp_path, Root(b"x"), clock=clock):
            pass
    async with opened(tmp_path, clock=clock) as storage:
        assert await storage.store.get(Namespace.RESOURCE, "a") == SECRET


async def test_a_lost_key_file_is_not_made_anew(tmp_path: Path, clock: Clock) -> None:
    url = storage_url(str(tmp_path / "db"))
    source = FileRootKey(tmp_path / "storage.key")
    async with open_storage(url, [source], clock=clock) as storage:
        await storage.store.put(Namespace.RESOURCE, "a", SECRET)
    key = (tmp_path / "storage.key").read_bytes()
    (tmp_path / "storage.key").unlink()
    with pytest.raises(ConfigError, match=r"no key at .*storage\.key"):
        async with open_storage(url, [source], clock=clock):
            pass
    assert not (tmp_path / "storage.key").exists()
    (tmp_path / "storage.key").write_bytes(key)
    async with open_storage(url, [source], clock=clock) as storage:
        assert await storage.store.get(Namespace.RESOURCE, "a") == SECRET


async def test_rekey_seals_everything_anew(tmp_path: Path, clock: Clock) -> None:
    async with opened(tmp_path, clock=clock) as storage:
        for number in range(100):
            await storage.store.put(Namespace.RESOURCE, f"a/b/{number}", SECRET)
        await storage.store.put(Namespace.SESSION, "s", b"session")
        old = storage.keyring.current
        seen: list[tuple[int, int]] = []
        done = await rekey(storage, lambda *numbers: seen.append(numbers))
        assert done.records == 102  # the key of checkpoints, too
        assert seen[-1] == (102, 102)
        assert storage.keyring.current.id.hex() == done.key_id != old.id.hex()
        assert await storage.store.get(Namespace.SESSION, "s") == b"session"
        assert (await rekey(storage, ignore)).records == 102
        clock.now += GRACE
        await storage.store.sweep()
    async with opened(tmp_path, clock=clock) as storage:
        assert await storage.database.read("SELECT count(*) FROM sealing_key") == [(1,)]
        for number in range(100):
            assert await storage.store.get(Namespace.RESOURCE, f"a/b/{number}") == SECRET


async def test_another_root_key_takes_over(tmp_path: Path, clock: Clock) -> None:
    new, old = Root(b"n"), Root(b"o")
    async with opened(tmp_path, old, clock=clock) as storage:
        await storage.store.put(Namespace.RESOURCE, "a", SECRET)
    async with opened(tmp_path, new, old, clock=clock) as storage:
        await rekey(storage, ignore)
        clock.now += GRACE
        await storage.store.sweep()
    async with opened(tmp_path, new, clock=clock) as storage:
        assert await storage.store.get(Namespace.RESOURCE, "a") == SECRET
    with pytest.raises(ConfigError, match="another key"):
        async with opened(tmp_path, old, clock=clock):
            pass


async def test_nobody_writes_with_a_key_that_is_not_current(
    storage: Storage, tmp_path: Path, clock: Clock
) -> None:
    """A replica that has not heard of a rotation must not lose what it acknowledges."""
    async with opened(tmp_path, clock=clock) as other:
        await other.store.put(Namespace.RESOURCE, "a", b"1")
        stale = other.keyring.current
        await rekey(storage, ignore)
        raw = SqlStore(other.database, clock=clock, sealed=True)
        record = b"\x01" + stale.id + bytes(40)
        with pytest.raises(StaleKeyError):
            await raw.put(Namespace.RESOURCE, "a", record)
        with pytest.raises(StaleKeyError):
            await raw.put_new(Namespace.RESOURCE, "new", record)
        kept = await raw.get(Namespace.RESOURCE, "a")
        assert kept is not None
        with pytest.raises(StaleKeyError):
            await raw.replace(Namespace.RESOURCE, "a", kept, record)
        # The store above it learns and writes with the new key.
        assert other.keyring.current == stale
        assert await other.store.replace(Namespace.RESOURCE, "a", b"1", b"2")
        assert other.keyring.current == storage.keyring.current != stale
        await rekey(storage, ignore)
        await other.store.put(Namespace.RESOURCE, "b", b"1")
        assert await storage.store.get(Namespace.RESOURCE, "b") == b"1"
        assert await storage.store.get(Namespace.RESOURCE, "a") == b"2"


async def test_a_reader_that_has_not_heard_learns_the_new_key(
    storage: Storage, tmp_path: Path, clock: Clock
) -> None:
    async with opened(tmp_path, clock=clock) as other:
        await storage.store.put(Namespace.RESOURCE, "a", b"1")
        assert await other.store.get(Namespace.RESOURCE, "a") == b"1"
        await rekey(storage, ignore)
        assert await other.store.get(Namespace.RESOURCE, "a") == b"1"


async def test_an_interrupted_rotation_goes_on(tmp_path: Path, clock: Clock) -> None:
    async with opened(tmp_path, clock=clock) as storage:
        for number in range(50):
            await storage.store.put(Namespace.RESOURCE, f"a/b/{number}", SECRET)
        old = storage.keyring.current.id

        def break_off(done: int, whole: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            await rekey(storage, break_off)
    async with opened(tmp_path, clock=clock) as storage:
        half_way = storage.keyring.current.id
        assert half_way != old
        for number in range(50):
            assert await storage.store.get(Namespace.RESOURCE, f"a/b/{number}") == SECRET
        done = await rekey(storage, ignore)
        assert done.key_id == half_way.hex()
        assert 0 < done.records < 50
        assert storage.keyring.find(old, Namespace.RESOURCE) is None


async def test_a_retired_key_opens_sessions_for_a_while(storage: Storage, clock: Clock) -> None:
    old = storage.keyring.current.id
    await rekey(storage, ignore)
    assert storage.keyring.find(old, Namespace.RESOURCE) is None
    assert storage.keyring.find(old, Namespace.SESSION) is not None
    clock.now += GRACE
    assert storage.keyring.find(old, Namespace.SESSION) is None


async def test_an_unreadable_session_is_absent(storage: Storage, tmp_path: Path) -> None:
    await storage.store.put(Namespace.SESSION, "s", b"1")
    file = session_file(tmp_path)
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as raw:
        raw.execute("UPDATE session SET value = zeroblob(60)")
    assert await storage.store.get(Namespace.SESSION, "s") is None
    assert not await storage.store.replace(Namespace.SESSION, "s", b"1", b"2")
    assert not await storage.store.reseal(Namespace.SESSION, "s")
    assert not await storage.store.reseal(Namespace.SESSION, "absent")


class Counted(SqlStore):
    """Counts what it is asked for."""

    reads = 0

    async def get(self, namespace: Namespace, key: str) -> bytes | None:
        self.reads += 1
        return await super().get(namespace, key)


@pytest.fixture
async def counted(tmp_path: Path, clock: Clock) -> AsyncIterator[tuple[Counted, SealedStore]]:
    inner = await Counted.open(storage_url(str(tmp_path)), clock=clock)
    assert isinstance(inner, Counted)
    yield inner, SealedStore(inner, await Keyring.open(inner.database, (ROOT,), clock=clock))
    await inner.close()


async def test_a_session_is_read_once(counted: tuple[Counted, SealedStore]) -> None:
    """By every step after the first, it would be one more query in each handshake."""
    inner, store = counted
    await store.put(Namespace.SESSION, "s", b"0")
    for old, new in ((b"0", b"1"), (b"1", b"2")):
        assert await store.replace(Namespace.SESSION, "s", old, new)
    assert inner.reads == 0
    other = SealedStore(inner, store._keyring)
    assert await other.get(Namespace.SESSION, "s") == b"2"
    assert await other.replace(Namespace.SESSION, "s", b"2", b"3")
    assert inner.reads == 1
    # Keys of owners are nobody's to remember.
    await store.put(Namespace.RESOURCE, "r", b"0")
    assert await store.replace(Namespace.RESOURCE, "r", b"0", b"1")
    assert inner.reads == 2


async def test_what_is_remembered_is_not_believed(counted: tuple[Counted, SealedStore]) -> None:
    inner, store = counted
    other = SealedStore(inner, store._keyring)
    await store.put(Namespace.SESSION, "s", b"0")
    assert await other.replace(Namespace.SESSION, "s", b"0", b"1")
    assert not await store.replace(Namespace.SESSION, "s", b"0", b"2")
    # The same value, sealed anew by somebody else.
    await store.put(Namespace.SESSION, "s", b"0")
    await other.put(Namespace.SESSION, "s", b"0")
    assert await store.replace(Namespace.SESSION, "s", b"0", b"1")
    assert await other.get(Namespace.SESSION, "s") == b"1"


async def test_a_store_is_closed_with_what_it_seals_for(
    counted: tuple[Counted, SealedStore],
) -> None:
    inner, store = counted
    await store.close()
    with pytest.raises(StorageError):
        await inner.get(Namespace.RESOURCE, "r")


async def test_a_changed_record_stops_a_rotation_and_loses_nothing(
    storage: Storage, clock: Clock
) -> None:
    await storage.store.put(Namespace.RESOURCE, "bad", b"1")
    await storage.store.put(Namespace.RESOURCE, "good", b"1")
    kept = await storage.database.read("SELECT value FROM resource WHERE key = 'bad'")
    await storage.database.write("UPDATE resource SET value = zeroblob(90) WHERE key = 'bad'")
    with pytest.raises(InternalError, match="'bad'"):
        await rekey(storage, ignore)
    assert await storage.store.get(Namespace.RESOURCE, "good") == b"1"
    await storage.database.write("UPDATE resource SET value = ?1 WHERE key = 'bad'", kept[0][0])
    await rekey(storage, ignore)
    assert await storage.store.get(Namespace.RESOURCE, "bad") == b"1"


async def test_sessions_of_an_earlier_boot_are_deleted(tmp_path: Path, clock: Clock) -> None:
    old = tmp_path / "sessions-1-another-boot.sqlite3"
    for name in (old, old.with_name(old.name + "-wal")):
        name.write_bytes(b"old sessions")
    async with opened(tmp_path, clock=clock) as storage:
        await storage.store.put(Namespace.SESSION, "s", b"1")
    assert "another-boot" not in session_file(tmp_path).name
    async with opened(tmp_path, clock=clock) as storage:
        assert await storage.store.get(Namespace.SESSION, "s") == b"1"
    assert (tmp_path / DATABASE_FILE).exists()
