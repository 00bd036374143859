# SPDX-License-Identifier: Apache-2.0
"""Storages that are killed, vanish, hang or are full: what was acknowledged stays, and 503 says so."""

import asyncio
import contextlib
import os
import random
import resource
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import databases
import pytest
from _databases import Postgres
from _kbs import kbs_in_process
from _programs import Running, started
from _replicas import POLICY, Brokers, Guest, healthy

from cocos.clients.kbs import KbsAdmin
from cocos.crypto.envelope import LocalRootKey, RootKey
from cocos.errors import CocosError, StorageError, UnreachableError
from cocos.host import process
from cocos.stores import postgres as postgres_module
from cocos.stores import redis as redis_module
from cocos.stores.base import Namespace
from cocos.stores.opening import open_storage
from cocos.stores.redis import RedisStore
from cocos.stores.sql import SqlStore
from cocos.stores.sqlite import SqliteDatabase
from cocos.wire.kbs.protocol import ResourcePath, ResourceUri

pytestmark = pytest.mark.integration

SEED = 20261123
WRITERS = 4
PATHS = 6
KILLS = 2
KBS = Path(sys.executable).with_name("kbs")
BWRAP: tuple[str | Path, ...] = ("bwrap", "--dev-bind", "/", "/")


class Model:
    """What must be there: per name the acknowledged value, and those that nobody knows of."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - to be had again
        self.known: dict[ResourcePath, bytes | None] = {}
        self.unsure: dict[ResourcePath, set[bytes | None]] = {}
        self.acknowledged = 0

    async def write(self, admin: KbsAdmin, path: ResourcePath) -> None:
        """Set or delete something, and note what came of it."""
        delete = self.known.get(path) is not None and self.random.random() < 0.2
        # Some fit into a page of the database, some need several.
        size = self.random.choice((10, 5_000, 50_000))
        value = None if delete else self.random.randbytes(size)
        self.unsure.setdefault(path, set()).add(value)
        if value is None:
            await admin.delete_resource(path)
        else:
            await admin.set_resource(path, value)
        self.known[path] = value
        self.unsure[path] = set()
        self.acknowledged += 1

    async def check(self, at: str) -> None:
        """Read everything as a guest."""
        async with Guest() as guest:
            await guest.handshake(at)
            for path, maybe in self.unsure.items():
                found = await guest.read(at, str(path))
                allowed = {self.known.get(path)} | maybe
                assert found in allowed, f"{path}: {len(found or b'')} bytes"
                self.known[path] = found
                self.unsure[path] = set()


@contextlib.asynccontextmanager
async def load(model: Model, brokers: Brokers, program: Running) -> AsyncIterator[None]:
    """Have writers at work, each on names of its own, until one after the other fails."""

    async def work(admin: KbsAdmin, writer: int) -> None:
        with contextlib.suppress(CocosError):
            while True:
                number = model.random.randrange(PATHS)
                await model.write(admin, ResourcePath("w", str(writer), str(number)))

    async with brokers.admin(program) as admin:
        tasks = [asyncio.create_task(work(admin, writer)) for writer in range(WRITERS)]
        try:
            yield
            await asyncio.wait(tasks)
        finally:
            for task in tasks:
                task.cancel()


async def some_writes(model: Model) -> None:
    """Return at a random moment, after some writes have been acknowledged."""
    wanted = model.acknowledged + model.random.randrange(3, 25)

    async def enough() -> bool:
        return model.acknowledged >= wanted

    await until(enough)
    for _ in range(model.random.randrange(200)):
        await asyncio.sleep(0)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_kill_9_of_the_kbs(tmp_path: Path, postgres: Postgres, kind: str) -> None:
    storage = str(tmp_path / "kbs") if kind == "sqlite" else await postgres.new_database()
    brokers, model = Brokers(tmp_path, storage), Model(SEED)
    for _ in range(KILLS):
        async with brokers.start() as program:
            await allow(brokers, program)
            await model.check(program.address)
            async with load(model, brokers, program):
                await some_writes(model)
                program.kill()
    async with brokers.start() as program:
        await model.check(program.address)
        await the_log_holds(brokers, program)


async def allow(brokers: Brokers, program: Running) -> None:
    async with brokers.admin(program) as admin:
        await admin.set_resource_policy(POLICY)


async def the_log_holds(brokers: Brokers, program: Running) -> None:
    key = brokers.folder / "admin.key"
    key.write_bytes(brokers.private)
    client = Path(sys.executable).with_name("kbs-client")
    words: list[str | Path] = ["audit", "--auth-private-key", key, "verify"]
    await process.run([client, "--url", program.address, *words], timeout=120)


@pytest.mark.database
async def test_kill_9_of_postgres(tmp_path: Path) -> None:
    """The KBS stays, and goes on when PostgreSQL is there again."""
    data, model, port = tmp_path / "postgres", Model(SEED + 1), None
    data.mkdir()
    async with contextlib.AsyncExitStack() as stack:
        program: Running | None = None
        for _ in range(KILLS):
            async with databases.postgres(data, port=port) as server:
                port = server.port
                if program is None:
                    brokers = Brokers(tmp_path, server.url)
                    program = await stack.enter_async_context(brokers.start())
                    await allow(brokers, program)
                assert (await healthy(program)).status_code == 200
                await model.check(program.address)
                async with load(model, brokers, program):
                    await some_writes(model)
                    server.signal(signal.SIGKILL)
            await refuses(brokers, program)
        async with databases.postgres(data, port=port):
            assert program is not None
            await model.check(program.address)
            await the_log_holds(brokers, program)


async def refuses(brokers: Brokers, program: Running) -> None:
    """Every request that needs the storage is answered with 503 and a sentence."""
    async with Guest() as guest:
        guest.cookie = "0" * 32
        for answer in (
            await healthy(program),
            await guest.auth(program.address),
            await guest.attest(program.address),
            await guest.get(program.address, "a/b/c"),
        ):
            assert answer.status_code == 503, answer.text
            assert answer.headers["content-type"] == "application/problem+json"
            assert "storage" in answer.json()["detail"]
    async with brokers.admin(program) as admin:
        with pytest.raises(CocosError, match="storage"):
            await admin.set_resource(ResourcePath("a", "b", "c"), b"1")


async def test_redis_gone_and_back(tmp_path: Path, postgres: Postgres) -> None:
    """Sessions of before are gone for good, even where Redis has kept them."""
    data, port = tmp_path / "valkey", None
    data.mkdir()
    keeping = ("--appendonly", "yes", "--appendfsync", "always")
    async with contextlib.AsyncExitStack() as stack:
        async with databases.valkey(data, *keeping) as server:
            port = server.port
            brokers = Brokers(tmp_path, await postgres.new_database(), server.url)
            program = await stack.enter_async_context(brokers.start())
            guest = await stack.enter_async_context(Guest())
            assert (await guest.auth(program.address)).status_code == 200
            server.signal(signal.SIGKILL)
        for answer in (await healthy(program), await guest.auth(program.address)):
            assert answer.status_code == 503, answer.text
            assert "session storage" in answer.json()["detail"]
        async with databases.valkey(data, *keeping, port=port) as server:
            assert "DB loaded from append only file" in "\n".join(server.log)
            assert (await guest.attest(program.address)).status_code == 401
            assert (await healthy(program)).status_code == 200
            await guest.handshake(program.address)


@contextlib.asynccontextmanager
async def hung(server: databases.Server) -> AsyncIterator[None]:
    """Stop every process of a server, which then neither answers nor ends connections."""
    pids = await processes(server.pid)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


async def processes(pid: int) -> list[int]:
    done = await process.run(["ps", "-e", "-o", "pid=,ppid="])
    parents: dict[int, int] = {}
    for line in done.stdout.decode().splitlines():
        child, parent = map(int, line.split())
        parents[child] = parent
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]  # not bubblewrap itself


@pytest.mark.database
async def test_servers_that_hang_are_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in (
        (postgres_module, "CONNECT_SECONDS"),
        (postgres_module, "STATEMENT_SECONDS"),
        (redis_module, "SECONDS"),
    ):
        monkeypatch.setattr(module, name, 0.5)
    for name in ("postgres", "valkey"):
        (tmp_path / name).mkdir()
    async with (
        databases.postgres(tmp_path / "postgres") as sql,
        databases.valkey(tmp_path / "valkey") as valkey,
    ):
        stores = await SqlStore.open(sql.url), await RedisStore.open(valkey.url)
        for store in stores:
            await store.put(Namespace.SESSION, "a", b"1")
        async with hung(sql), hung(valkey):
            for store in stores:
                asking = [store.get(Namespace.SESSION, "a") for _ in range(30)]
                for outcome in await asyncio.gather(*asking, return_exceptions=True):
                    assert isinstance(outcome, StorageError)
                with pytest.raises(StorageError, match="does not answer"):
                    await store.put(Namespace.SESSION, "a", b"2")
        for store in stores:
            await eventually(store)
            await store.close()


async def eventually(store: SqlStore | RedisStore) -> None:
    """Wait until a store works again; a machine that was stopped takes a moment."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(StorageError):
                assert await store.get(Namespace.SESSION, "a") in {b"1", b"2"}
                return


# --- disks -----------------------------------------------------------------------------


async def test_a_full_disk(tmp_path: Path) -> None:
    """Writes are refused, reads go on, and it ends when there is room again."""
    small = tmp_path / "small"
    small.mkdir()
    brokers = Brokers(tmp_path, str(small / "kbs"))
    # A balloon fills the disk when asked to, and is let off when asked again.
    script = (
        f"exec 3<&0; (while read word; do case $word in "
        f"fill) head -c 30M /dev/zero >{small}/balloon;; free) rm -f {small}/balloon;; "
        'esac; done) <&3 2>/dev/null & exec "$@" 3<&-'
    )
    words = [*BWRAP, "--size", str(24 * 2**20), "--tmpfs", small, "sh", "-c", script, "sh"]
    async with (
        on_a_small_disk(brokers, words) as (program, shell),
        brokers.admin(program) as admin,
        Guest() as guest,
    ):
        await allow(brokers, program)
        await admin.set_resource(ResourcePath("a", "b", "c"), b"before")
        await guest.handshake(program.address)
        await shell(b"fill\n")
        await until(partial(answers, admin, "full"))
        await until(partial(is_healthy, program, 503))
        answer = await healthy(program)
        assert (answer.status_code, answer.json()["title"]) == (503, "storage")
        assert "full" in answer.json()["detail"]
        # Nothing is released that cannot be noted.
        assert (await guest.get(program.address, "a/b/c")).status_code == 503
        await shell(b"free\n")
        await until(partial(answers, admin, ""))
        await until(partial(is_healthy, program))
        assert await guest.read(program.address, "a/b/c") == b"before"


async def answers(admin: KbsAdmin, words: str) -> bool:
    """Write something large; tell whether the answer has these words, or that it was written."""
    try:
        await admin.set_resource(ResourcePath("a", "b", "large"), bytes(100_000))
    except CocosError as error:
        return bool(words) and words in error.message
    return not words


async def is_healthy(program: Running, status: int = 200) -> bool:
    return (await healthy(program)).status_code == status


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what other processes do."""
    async with asyncio.timeout(120):
        while not await holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def on_a_small_disk(
    brokers: Brokers, before: Sequence[str | Path]
) -> AsyncIterator[tuple[Running, Any]]:
    reader, writer = os.pipe()
    words = ["--insecure-http", "--insecure-allow-sample", "--socket", "127.0.0.1:0", "--json"]
    words += ["--auth-public-key", f"{brokers.folder}/admin.pub", *brokers.storage_flags]
    try:
        async with started("kbs", [*before, KBS, *words], stdin=reader) as program:

            async def shell(line: bytes) -> None:
                await asyncio.to_thread(os.write, writer, line)

            yield program, shell
    finally:
        os.close(reader)
        os.close(writer)


async def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    """Another kind of no room: RLIMIT_FSIZE, which needs no disk of one's own."""
    brokers = Brokers(tmp_path, str(tmp_path / "kbs"))
    async with brokers.start() as program, brokers.admin(program) as admin:
        await admin.set_resource(ResourcePath("a", "b", "c"), b"before")
        _, hard = resource.prlimit(program.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(program.pid, resource.RLIMIT_FSIZE, (1, hard))
        with pytest.raises(CocosError, match="storage fails, or is full"):
            await admin.set_resource(ResourcePath("a", "b", "c"), b"after")
        await until(partial(is_healthy, program, 503))
        assert await admin.list_resources() == ["a/b/c"]
        resource.prlimit(program.pid, resource.RLIMIT_FSIZE, (hard, hard))
        await admin.set_resource(ResourcePath("a", "b", "c"), b"after")


async def test_a_read_only_disk_stops_the_start(tmp_path: Path) -> None:
    brokers = Brokers(tmp_path, str(tmp_path / "kbs"))
    async with brokers.start():
        pass
    words = [*BWRAP, "--ro-bind", tmp_path / "kbs", tmp_path / "kbs", KBS]
    argv = [*words, "--insecure-http", "--insecure-api", *brokers.storage_flags]
    done = await process.run(argv, check=False, timeout=60)
    assert done.exit_status == 74
    assert "Read-only file system" in done.stderr.decode()


class Root:
    """A source of a root key that is there."""

    async def load(self) -> RootKey:
        return LocalRootKey(bytes(32))

    create = load


async def test_an_sqlite_storage_that_becomes_read_only(tmp_path: Path) -> None:
    """A disk cannot be made so while it is written to; the engine can be told."""
    path = ResourcePath("a", "b", "c")
    async with kbs_in_process(tmp_path) as kbs, kbs.admin() as admin, kbs.guest() as guest:
        assert kbs.storage is not None
        await admin.set_resource(path, b"before")
        assert await guest.get_resource(ResourceUri.parse(path.uri)) == b"before"
        database = kbs.storage.database
        assert isinstance(database, SqliteDatabase)
        database._writing.execute("PRAGMA query_only = on")
        for change in (
            admin.set_resource(path, b"after"),
            admin.delete_resource(path),
            admin.set_resource_policy(POLICY),
            guest.get_resource(ResourceUri.parse(path.uri)),  # it could not be noted
        ):
            with pytest.raises(UnreachableError, match="the storage is read-only"):
                await change
        assert await admin.list_resources() == [str(path)]
        assert "package policy" in await admin.get_resource_policy("resource-policy")
        database._writing.execute("PRAGMA query_only = off")
        assert await guest.get_resource(ResourceUri.parse(path.uri)) == b"before"
        await admin.set_resource(path, b"after")
        assert await guest.get_resource(ResourceUri.parse(path.uri)) == b"after"


async def test_a_storage_that_becomes_read_only(tmp_path: Path, postgres: Postgres) -> None:
    url = await postgres.new_database()
    async with open_storage(url, [Root()]) as storage:
        await storage.store.put(Namespace.RESOURCE, "a", b"1")
        connection = await asyncpg.connect(url)
        name = url.rpartition("/")[2]
        await connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = $1 AND pid <> pg_backend_pid()",
            name,
        )

        async def is_back() -> bool:
            with contextlib.suppress(StorageError):
                return await storage.store.get(Namespace.RESOURCE, "a") == b"1"
            return False

        await until(is_back)
        with pytest.raises(StorageError, match="read-only"):
            await storage.store.put(Namespace.RESOURCE, "a", b"2")
        assert await storage.store.get(Namespace.RESOURCE, "a") == b"1"
        await connection.execute("SET default_transaction_read_only = off")
        await connection.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        await connection.close()

        async def is_written() -> bool:
            with contextlib.suppress(StorageError):
                await storage.store.put(Namespace.RESOURCE, "a", b"2")
                return True
            return False

        await until(is_written)


async def test_rekey_survives_kill_9(tmp_path: Path) -> None:
    """At whatever moment, with a KBS at work beside it."""
    brokers, model = Brokers(tmp_path, str(tmp_path / "kbs")), Model(SEED + 2)
    async with brokers.start() as program, brokers.admin(program) as admin:
        await allow(brokers, program)
        for number in range(40):
            await model.write(admin, ResourcePath("w", "w", str(number)))
        for _ in range(KILLS):
            async with process.spawn([KBS, *brokers.storage_flags, "rekey"]) as child:
                database = tmp_path / "kbs" / "cocos.sqlite3-wal"
                size = database.stat().st_size

                async def begun(
                    file: Path = database, size: int = size, child: Any = child
                ) -> bool:
                    written = os.stat(file).st_size != size  # noqa: PTH116 - quick
                    return written or child.returncode is not None

                await until(begun)
                for _ in range(model.random.randrange(2000)):
                    await asyncio.sleep(0)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
            for number in range(0, 40, 7):
                await model.write(admin, ResourcePath("w", "w", str(number)))
            await model.check(program.address)
        await process.run([KBS, *brokers.storage_flags, "rekey"], timeout=120)
        await model.check(program.address)
    async with brokers.start() as program:
        await model.check(program.address)
