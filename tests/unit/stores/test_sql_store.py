# SPDX-License-Identifier: Apache-2.0
import asyncio
import datetime as dt
import sqlite3
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from cocos.errors import ConfigError, StorageError
from cocos.stores import migrate, sql
from cocos.stores.base import Namespace
from cocos.stores.sql import (
    SqlStore,
    describe,
    has_password,
    open_database,
    sqlite_file,
    storage_url,
)

START = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> dt.datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += dt.timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(tmp_path: Path, clock: Clock) -> AsyncIterator[SqlStore]:
    opened = await SqlStore.open(storage_url(str(tmp_path / "kbs")), clock=clock)
    yield opened
    await opened.close()


async def test_values_come_back(store: SqlStore) -> None:
    assert await store.get(Namespace.RESOURCE, "a/b/c") is None
    await store.put(Namespace.RESOURCE, "a/b/c", b"\x00one")
    await store.put(Namespace.RESOURCE, "a/b/c", b"two")
    assert await store.get(Namespace.RESOURCE, "a/b/c") == b"two"
    assert await store.get(Namespace.KEY, "a/b/c") is None
    assert await store.delete(Namespace.RESOURCE, "a/b/c")
    assert not await store.delete(Namespace.RESOURCE, "a/b/c")


async def test_put_new_writes_once(store: SqlStore) -> None:
    assert await store.put_new(Namespace.KEY, "k", b"first")
    assert not await store.put_new(Namespace.KEY, "k", b"second")
    assert await store.get(Namespace.KEY, "k") == b"first"


async def test_replace_needs_the_old_value(store: SqlStore) -> None:
    assert not await store.replace(Namespace.SESSION, "s", b"1", b"2")
    await store.put(Namespace.SESSION, "s", b"1")
    assert await store.replace(Namespace.SESSION, "s", b"1", b"2")
    assert not await store.replace(Namespace.SESSION, "s", b"1", b"3")
    assert await store.get(Namespace.SESSION, "s") == b"2"


async def test_one_of_many_at_once_wins(store: SqlStore) -> None:
    await store.put(Namespace.SESSION, "s", b"0")
    won = await asyncio.gather(
        *(store.replace(Namespace.SESSION, "s", b"0", b"%d" % (n + 1)) for n in range(16))
    )
    assert sum(won) == 1
    assert await store.get(Namespace.SESSION, "s") == b"%d" % (won.index(True) + 1)


async def test_the_expired_is_absent_for_every_method(store: SqlStore, clock: Clock) -> None:
    ends = START + dt.timedelta(seconds=10)
    for key in ("a", "b"):
        await store.put(Namespace.SESSION, key, b"old", expires=ends)
    clock.advance(9.999999)
    assert await store.get(Namespace.SESSION, "a") == b"old"
    clock.advance(0.000001)
    assert await store.get(Namespace.SESSION, "a") is None
    assert await store.keys(Namespace.SESSION) == []
    assert not await store.replace(Namespace.SESSION, "a", b"old", b"new")
    assert not await store.delete(Namespace.SESSION, "a")
    assert await store.put_new(Namespace.SESSION, "a", b"new")
    assert await store.get(Namespace.SESSION, "a") == b"new"


async def test_replace_keeps_when_it_expires(store: SqlStore, clock: Clock) -> None:
    await store.put(Namespace.SESSION, "a", b"1", expires=START + dt.timedelta(seconds=10))
    assert await store.replace(Namespace.SESSION, "a", b"1", b"2")
    clock.advance(10)
    assert await store.get(Namespace.SESSION, "a") is None


async def test_sweep_deletes_the_expired_only(store: SqlStore, clock: Clock) -> None:
    await store.put(Namespace.SESSION, "a", b"1", expires=START + dt.timedelta(seconds=10))
    await store.put(Namespace.DENIAL, "b", b"1", expires=START + dt.timedelta(seconds=20))
    await store.put(Namespace.RESOURCE, "c", b"1")
    clock.advance(15)
    assert await store.sweep() == 1
    assert await store.sweep() == 0
    assert await store.get(Namespace.DENIAL, "b") == b"1"
    assert await store.get(Namespace.RESOURCE, "c") == b"1"


async def test_keys_by_prefix_are_exact(store: SqlStore) -> None:
    for key in ("B/x", "b/x", "b/y", "b_z", "b%z"):
        await store.put(Namespace.RESOURCE, key, b"")
    assert await store.keys(Namespace.RESOURCE) == ["B/x", "b%z", "b/x", "b/y", "b_z"]
    assert await store.keys(Namespace.RESOURCE, "b/") == ["b/x", "b/y"]
    assert await store.keys(Namespace.RESOURCE, "b_") == ["b_z"]
    assert await store.keys(Namespace.RESOURCE, "b%") == ["b%z"]


async def test_hostile_keys_are_only_text(store: SqlStore) -> None:
    key = "x'; DROP TABLE resource; -- \u2028 ä"
    await store.put(Namespace.RESOURCE, key, b"1")
    assert await store.keys(Namespace.RESOURCE, "x'") == [key]


async def test_values_survive_reopening(tmp_path: Path) -> None:
    url = storage_url(str(tmp_path))
    first = await SqlStore.open(url)
    await first.put(Namespace.RESOURCE, "a", b"1")
    second = await SqlStore.open(url)
    assert await second.get(Namespace.RESOURCE, "a") == b"1"
    await first.close()
    await second.close()


async def test_two_that_start_at_once_share_one_database(tmp_path: Path) -> None:
    url = storage_url(str(tmp_path / "new"))
    stores = await asyncio.gather(*(SqlStore.open(url) for _ in range(4)))
    written = await asyncio.gather(
        *(store.put_new(Namespace.KEY, "k", b"%d" % n) for n, store in enumerate(stores))
    )
    assert sum(written) == 1
    for store in stores:
        await store.close()


async def test_only_the_owner_can_read_the_files(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "kbs"
    store = await SqlStore.open(storage_url(str(folder)))
    await store.put(Namespace.RESOURCE, "a", b"secret")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = list(folder.iterdir())
    assert folder / sql.DATABASE_FILE in files
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    await store.close()


async def test_the_database_is_durable_and_forgets_what_is_deleted(store: SqlStore) -> None:
    for pragma, value in (("journal_mode", "wal"), ("synchronous", 2), ("secure_delete", 1)):
        assert await store.database.read(f"PRAGMA {pragma}") == [(value,)]


async def test_every_namespace_has_its_table(store: SqlStore) -> None:
    for namespace in Namespace:
        columns = await store.database.read(
            "SELECT name, type, pk FROM pragma_table_info(?1)", namespace
        )
        assert columns == [("key", "TEXT", 1), ("value", "BLOB", 0), ("expires", "BIGINT", 0)]


def test_the_newest_migration_is_known() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).with_name("migrations")))
    assert ScriptDirectory.from_config(config).get_heads() == [migrate.HEAD]


async def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    url = storage_url(str(tmp_path))
    await (await SqlStore.open(url)).close()
    with sqlite3.connect(tmp_path / sql.DATABASE_FILE) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    with pytest.raises(ConfigError, match="another version"):
        await SqlStore.open(url)


async def test_a_failure_names_no_secret(store: SqlStore) -> None:
    await store.database.write("DROP TABLE resource")
    with pytest.raises(StorageError) as caught:
        await store.put(Namespace.RESOURCE, "a", b"topsecret")
    assert "topsecret" not in f"{caught.value!r} {caught.value.__cause__!s}"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("mysql://user:hunter2@host/db", "not supported"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:////proc/nowhere/x", "cannot make"),
        ("://", "not a storage URL"),
    ],
)
async def test_bad_urls_are_named(url: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        await SqlStore.open(url)
    assert "hunter2" not in caught.value.message


async def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / sql.DATABASE_FILE).write_bytes(b"not a database" * 100)
    with pytest.raises(ConfigError, match="cannot open the storage"):
        await SqlStore.open(storage_url(str(tmp_path)))


@pytest.mark.parametrize(
    ("url", "shown", "password"),
    [
        ("sqlite:////var/a?b@c:d", "sqlite:////var/a?b@c:d", False),
        ("postgresql://user:hush@h:1/db", "postgresql://user@h:1/db", True),
        ("postgresql://user@h:1/db", "postgresql://user@h:1/db", False),
        ("postgresql://h:1/db", "postgresql://h:1/db", False),
        ("postgresql://user@h/db?a=1&password=hush", "postgresql://user@h/db", True),
        ("postgresql://user@h/db?sslpassword=hush&a=1", "postgresql://user@h/db", True),
        ("postgresql://user@h/db?a=1", "postgresql://user@h/db", False),
        ("redis://:hush@h:1/0", "redis://@h:1/0", True),
    ],
)
def test_a_password_in_a_url_is_seen_and_not_shown(url: str, shown: str, password: bool) -> None:
    assert describe(url) == shown
    assert has_password(url) == password


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("plain", "not a storage URL"),
        ("://x", "not a storage URL"),
        ("mysql://h/db", "'mysql' is not supported"),
        ("sqlite://", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:////var/a?mode=memory", "names no file"),
        ("postgresql://", "postgresql"),
    ],
)
async def test_what_is_no_storage(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        await open_database(url)


def test_a_folder_is_a_storage(tmp_path: Path) -> None:
    assert storage_url("postgresql://h/db") == "postgresql://h/db"
    assert sqlite_file(storage_url(str(tmp_path))) == tmp_path / sql.DATABASE_FILE


async def test_a_store_is_closed_with_its_database(store: SqlStore) -> None:
    await store.close()
    with pytest.raises(StorageError):
        await store.get(Namespace.RESOURCE, "a")
