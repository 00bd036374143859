# SPDX-License-Identifier: Apache-2.0
"""Every store does the same: random operations on all of them, compared with a dictionary."""

import asyncio
import contextlib
import datetime as dt
import itertools
import secrets
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from _databases import Postgres
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from cocos.crypto import envelope
from cocos.crypto.envelope import LocalRootKey, RootKey
from cocos.stores.base import Namespace, Store
from cocos.stores.opening import Storage, open_storage
from cocos.stores.redis import RedisStore
from cocos.stores.rekey import rekey
from cocos.stores.sql import SqlStore, storage_url

pytestmark = pytest.mark.integration

START = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
KEYS = ("a", "A", "b/x", "b/y", "b%", "b_", "x'; DROP TABLE resource; --", "ä\u2028*?[")
T = TypeVar("T")

keys = st.sampled_from(KEYS)
values = st.sampled_from((b"", b"\x00one", b"two", b"\xff" * 300))
namespaces = st.sampled_from((Namespace.SESSION, Namespace.RESOURCE))
lifetimes = st.none() | st.sampled_from((0, 5, 30)).map(lambda s: dt.timedelta(seconds=s))


class World:
    """The stores, their one clock, and the loop that they live in."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self.runner = runner
        self.now = START
        self.stores: dict[str, Store | Alternating] = {}
        self.sealed: list[Storage] = []

    def clock(self) -> dt.datetime:
        return self.now

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)


class Alternating:
    """Two programs on one storage, in turn."""

    def __init__(self, *stores: Store) -> None:
        self._stores = itertools.cycle(stores)

    def __getattr__(self, name: str) -> Any:
        return getattr(next(self._stores), name)


class Everywhere(RuleBasedStateMachine):
    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.model: dict[tuple[Namespace, str], tuple[bytes, dt.datetime | None]] = {}
        # Examples share the stores, and begin with names that nobody has used.
        self.prefix = ""

    @initialize()
    def begin(self) -> None:
        self.prefix = secrets.token_hex(8)

    def everywhere(self, method: str, *arguments: Any, **more: Any) -> Any:
        """Return what all stores answer, if that is one thing."""
        found = {
            name: self.world.run(getattr(store, method)(*arguments, **more))
            for name, store in self.world.stores.items()
        }
        first = next(iter(found.values()))
        assert all(answer == first for answer in found.values()), (method, found)
        return first

    def known(self, namespace: Namespace, key: str) -> bytes | None:
        value, expires = self.model.get((namespace, key), (None, None))
        return value if expires is None or expires > self.world.now else None

    def moment(self, lifetime: dt.timedelta | None) -> dt.datetime | None:
        return None if lifetime is None else self.world.now + lifetime

    @rule(seconds=st.sampled_from((0.000001, 4.999999, 5, 30)))
    def wait(self, seconds: float) -> None:
        self.world.now += dt.timedelta(seconds=seconds)

    @rule(namespace=namespaces, key=keys, value=values, lifetime=lifetimes)
    def put(
        self, namespace: Namespace, key: str, value: bytes, lifetime: dt.timedelta | None
    ) -> None:
        expires = self.moment(lifetime)
        self.everywhere("put", namespace, self.prefix + key, value, expires=expires)
        self.model[namespace, key] = (value, expires)

    @rule(namespace=namespaces, key=keys, value=values, lifetime=lifetimes)
    def put_new(
        self, namespace: Namespace, key: str, value: bytes, lifetime: dt.timedelta | None
    ) -> None:
        expires = self.moment(lifetime)
        name = self.prefix + key
        written = self.everywhere("put_new", namespace, name, value, expires=expires)
        assert written == (self.known(namespace, key) is None)
        if written:
            self.model[namespace, key] = (value, expires)

    @rule(namespace=namespaces, key=keys, old=values, new=values, right=st.booleans())
    def replace(
        self, namespace: Namespace, key: str, old: bytes, new: bytes, *, right: bool
    ) -> None:
        known = self.known(namespace, key)
        old = known if right and known is not None else old
        replaced = self.everywhere("replace", namespace, self.prefix + key, old, new)
        assert replaced == (known == old)
        if replaced:
            self.model[namespace, key] = (new, self.model[namespace, key][1])

    @rule(namespace=namespaces, key=keys)
    def delete(self, namespace: Namespace, key: str) -> None:
        deleted = self.everywhere("delete", namespace, self.prefix + key)
        assert deleted == (self.known(namespace, key) is not None)
        self.model.pop((namespace, key), None)

    @rule()
    def sweep(self) -> None:
        for store in self.world.stores.values():
            self.world.run(store.sweep())

    @rule(namespace=namespaces, beginning=st.sampled_from(("", "b", "b%", "B")))
    def list(self, namespace: Namespace, beginning: str) -> None:
        found = self.everywhere("keys", namespace, self.prefix + beginning)
        wanted = {
            self.prefix + key
            for key in KEYS
            if key.startswith(beginning) and self.known(namespace, key) is not None
        }
        assert found == sorted(wanted)

    def teardown(self) -> None:
        for namespace, key in self.model:
            self.everywhere("delete", namespace, self.prefix + key)

    @rule()
    def rekey(self) -> None:
        for storage in self.world.sealed:
            self.world.run(rekey(storage, lambda _done, _whole: None))

    @rule(namespace=namespaces, key=keys)
    def get(self, namespace: Namespace, key: str) -> None:
        assert self.everywhere("get", namespace, self.prefix + key) == self.known(namespace, key)


class Root:
    """A source of a root key that is there."""

    async def load(self) -> RootKey:
        return LocalRootKey(bytes(32))

    create = load


async def open_all(
    world: World, stack: contextlib.AsyncExitStack, folder: Path, postgres: Postgres, redis: str
) -> None:
    sqlite = storage_url(str(folder / "sealed"))
    for url, sessions in (
        (sqlite, None),
        (storage_url(str(folder / "split")), f"{redis}/1"),
        (await postgres.new_database(), None),
    ):
        opening = open_storage(url, [Root()], sessions_url=sessions, clock=world.clock)
        world.sealed.append(await stack.enter_async_context(opening))
    # The same storage by another process, which hears of new keys when it needs them.
    replica = await stack.enter_async_context(open_storage(sqlite, [Root()], clock=world.clock))
    in_clear = {
        "sqlite": await SqlStore.open(storage_url(str(folder)), clock=world.clock),
        "postgres": await SqlStore.open(await postgres.new_database(), clock=world.clock),
        "redis": await RedisStore.open(redis, clock=world.clock),
    }
    for store in in_clear.values():
        stack.push_async_callback(store.close)
    names = ("sealed sqlite", "sealed, sessions in redis", "sealed postgres")
    world.stores = {
        **in_clear,
        **{name: storage.store for name, storage in zip(names, world.sealed, strict=True)},
    }
    world.stores["sealed sqlite"] = Alternating(world.sealed[0].store, replica.store)


def test_every_store_does_the_same(tmp_path: Path, postgres: Postgres, valkey: str) -> None:
    with asyncio.Runner() as runner:
        world = World(runner)
        stack = contextlib.AsyncExitStack()
        try:
            runner.run(open_all(world, stack, tmp_path, postgres, valkey))
            run_state_machine_as_test(
                partial(Everywhere, world),  # type: ignore[arg-type]  # a factory will do
                settings=settings(
                    max_examples=12,
                    stateful_step_count=25,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(stack.aclose())


async def test_programs_that_start_at_once_share_a_new_postgres(postgres: Postgres) -> None:
    url = await postgres.new_database()
    async with contextlib.AsyncExitStack() as stack:
        opening = (stack.enter_async_context(open_storage(url, [Root()])) for _ in range(4))
        storages = await asyncio.gather(*opening)
        assert len({storage.keyring.current.id for storage in storages}) == 1
        await storages[0].store.put(Namespace.RESOURCE, "a", b"1")
        for storage in storages:
            assert await storage.store.get(Namespace.RESOURCE, "a") == b"1"


async def test_nobody_writes_with_an_old_key_while_keys_change(postgres: Postgres) -> None:
    """What is acknowledged during rotations can be read after them."""
    url = await postgres.new_database()
    written: dict[str, bytes] = {}
    done = asyncio.Event()

    async def write(storage: Storage, writer: int) -> None:
        number = 0
        while not done.is_set():
            key = f"{writer}/{number % 7}"
            await storage.store.put(Namespace.RESOURCE, key, b"%d" % number)
            written[key] = b"%d" % number
            number += 1

    async with (
        open_storage(url, [Root()]) as one,
        open_storage(url, [Root()]) as two,
        open_storage(url, [Root()]) as operator,
    ):
        writing = [
            asyncio.create_task(write(storage, number))
            for number, storage in enumerate((one, two) * 3)
        ]
        for _ in range(4):
            await rekey(operator, lambda _done, _whole: None)
        done.set()
        await asyncio.gather(*writing)
    async with open_storage(url, [Root()]) as after:
        current = after.keyring.current.id
        for key, value in written.items():
            assert await after.store.get(Namespace.RESOURCE, key) == value
            rows = await after.database.read("SELECT value FROM resource WHERE key = ?1", key)
            assert envelope.key_id(rows[0][0]) == current
