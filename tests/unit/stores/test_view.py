# SPDX-License-Identifier: Apache-2.0
"""A namespace in memory: what one replica acknowledged holds on the other at once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cocos.errors import InternalError
from cocos.stores import view as views
from cocos.stores.base import Namespace, Store
from cocos.stores.sql import SqlStore
from cocos.stores.view import REVISION, View

SPACE = Namespace.REFERENCE_VALUE


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await SqlStore.open(f"sqlite:///{tmp_path}/store.sqlite3")
    yield opened
    await opened.close()


async def test_two_replicas(store: Store) -> None:
    here, there = View(store, SPACE), View(store, SPACE)
    assert await here.read() == await there.read() == {}
    await here.put({"a": b"1", "b": b"2"})
    assert await there.read() == {"a": b"1", "b": b"2"}
    assert await there.delete("a")
    assert not await there.delete("a")
    assert await here.read() == {"b": b"2"}
    await there.put({"b": b"3"})
    assert await here.read() == {"b": b"3"}


async def test_what_one_replica_deletes_is_gone_on_the_other(store: Store) -> None:
    """A key's policy would else go on letting people in there."""
    here, there = View(store, SPACE), View(store, SPACE)
    await here.put({"a": b"1"})
    assert await there.read() == {"a": b"1"}
    assert await here.delete("a")
    assert await there.read() == {}


async def test_of_two_who_replace_a_value_one_does(store: Store) -> None:
    here, there = View(store, SPACE), View(store, SPACE)
    await here.put({"a": b"1"})
    assert await there.read() == {"a": b"1"}
    assert await here.replace("a", b"1", b"2")
    assert await there.read() == {"a": b"2"}
    assert not await there.replace("a", b"1", b"3")
    assert await here.read() == await there.read() == {"a": b"2"}


async def test_what_is_new_is_seen_on_the_other(store: Store) -> None:
    here, there = View(store, SPACE), View(store, SPACE)
    assert await there.read() == {}
    assert await here.put_new("a", b"1")
    assert await there.read() == {"a": b"1"}
    revision = await store.get(SPACE, REVISION)
    assert not await there.put_new("a", b"2")
    assert await here.read() == await there.read() == {"a": b"1"}
    assert await store.get(SPACE, REVISION) == revision, "nothing has changed"


async def test_nothing_changed_is_the_same_object(store: Store) -> None:
    view = View(store, SPACE)
    await view.put({"a": b"1"})
    first = await view.read()
    assert await view.read() is first
    await view.put({"a": b"1"})
    assert await view.read() is first


async def test_reading_costs_one_look(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    view = View(store, SPACE)
    await view.put({"a": b"1"})
    await view.read()
    looks: list[str] = []
    get = store.get

    async def counted(namespace: Namespace, key: str) -> bytes | None:
        looks.append(key)
        return await get(namespace, key)

    monkeypatch.setattr(store, "get", counted)
    await view.read()
    assert looks == [REVISION]
    await View(store, SPACE).put({"a": b"2"})
    looks.clear()
    await asyncio.gather(*(view.read() for _ in range(20)))
    assert looks.count("a") == 1


async def test_change_that_broke_off_is_seen_in_the_end(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = View(store, SPACE), View(store, SPACE)
    await there.read()
    put = store.put

    async def broken(namespace: Namespace, key: str, value: bytes, **more: object) -> None:
        if key == REVISION:
            raise InternalError("power is gone")
        await put(namespace, key, value)

    with monkeypatch.context() as patched:
        patched.setattr(store, "put", broken)
        with pytest.raises(InternalError):
            await here.put({"a": b"1"})
    monkeypatch.setattr(views, "MAX_AGE_SECONDS", 0.0)
    assert await there.read() == {"a": b"1"}


async def test_revision_is_no_value(store: Store) -> None:
    view = View(store, SPACE)
    await view.put({"a": b"1"})
    assert not await view.delete(REVISION)
    assert list(await view.read()) == ["a"]
    with pytest.raises(TypeError):
        (await view.read())["b"] = b""  # type: ignore[index]
