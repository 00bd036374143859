# SPDX-License-Identifier: Apache-2.0
"""Storages of older revisions, with what was in them: opened, migrated, read back."""

import datetime as dt
from pathlib import Path

import pytest
from _databases import Postgres

from cocos.crypto.envelope import LocalRootKey, RootKey
from cocos.stores import migrate
from cocos.stores.base import Namespace, Store
from cocos.stores.keyring import Keyring
from cocos.stores.opening import open_storage
from cocos.stores.sealed import SealedStore
from cocos.stores.sql import SqlStore, open_database, storage_url
from cocos.wire.audit import Entry

pytestmark = pytest.mark.integration

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
LATER, BEFORE = NOW + dt.timedelta(days=1), NOW - dt.timedelta(days=1)
KEPT = {
    (Namespace.RESOURCE, "default/key/1"): b"\x00secret\xff" * 999,
    (Namespace.RESOURCE, "a/b/empty"): b"",
    (Namespace.RESOURCE_POLICY, "resource/default"): "package policy # ä".encode(),
    (Namespace.KEY, "token"): b"key",
}


def clock() -> dt.datetime:
    return NOW


class Root:
    """A source of a root key that is there."""

    async def load(self) -> RootKey:
        return LocalRootKey(bytes(32))

    create = load


async def fill(url: str, *, sealed: bool) -> None:
    database = await open_database(url)
    store: Store = SqlStore(database, clock=clock, sealed=sealed)
    if sealed:
        store = SealedStore(store, await Keyring.open(database, [Root()], clock=clock))
    for place, value in KEPT.items():
        await store.put(*place, value)
    await store.put(Namespace.REFERENCE_VALUE, "svn", b"1", expires=LATER)
    await store.put(Namespace.DENIAL, "gone", b"x", expires=BEFORE)
    await store.put(Namespace.SESSION, "s", b"x", expires=LATER)
    await store.close()


@pytest.mark.parametrize("revision", ["0001", "0002", "0003"])
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_what_was_kept_is_still_there(
    tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch, kind: str, revision: str
) -> None:
    url = storage_url(str(tmp_path)) if kind == "sqlite" else await postgres.new_database()
    with monkeypatch.context() as past:
        past.setattr(migrate, "HEAD", revision)
        await fill(url, sealed=revision == "0003")
    for _ in range(2):  # the second time there is nothing to migrate
        async with open_storage(url, [Root()], clock=clock) as storage:
            [(version,)] = await storage.database.read("SELECT version_num FROM alembic_version")
            assert version == migrate.HEAD
            for place, value in KEPT.items():
                assert await storage.store.get(*place) == value
            assert await storage.store.get(Namespace.REFERENCE_VALUE, "svn") == b"1"
            assert await storage.store.keys(Namespace.DENIAL) == []
            rows = await storage.database.read("SELECT value FROM resource")
            assert len(rows) == 2
            assert not [row for row in rows if b"secret" in row[0]]
            [(expires,)] = await storage.database.read("SELECT expires FROM reference_value")
            assert expires == 1_795_521_600_000_000
            await storage.store.get(Namespace.SESSION, "s")  # its guest can attest again
            await storage.audit.append(Entry("rekeyed", key="k"))
