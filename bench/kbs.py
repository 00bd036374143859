# SPDX-License-Identifier: Apache-2.0
"""What a KBS serves, and where its processor time goes: ours against public-key cryptography.

Rates depend on the machine and on what else it does. Processor time of the KBS and of its
policy workers per call depends less on it; the share of cryptography hardly at all.
"""

import asyncio
import contextlib
import datetime as dt
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from databases import postgres, valkey
from demo_shell import BIN
from grpc import aio

from cocos._clock import system_clock
from cocos.clients.kbs import KbsAdmin
from cocos.crypto import admin_jwt, jwe, kek
from cocos.crypto.signing import SigningKey, verify
from cocos.crypto.tee_key import TeeKeyPair
from cocos.host import process
from cocos.host.root_keys.file import FileRootKey
from cocos.stores.base import Namespace
from cocos.stores.opening import open_storage
from cocos.stores.sql import storage_url
from cocos.wire import ocicrypt
from cocos.wire._generated import keyprovider_pb2 as pb
from cocos.wire._generated import keyprovider_pb2_grpc as pb_grpc
from cocos.wire.json import encode
from cocos.wire.kbs.protocol import ResourcePath, ResourceUri

KEY = ResourcePath.parse("default/key/bench")
KEK = bytes(range(32))
OPTIONS = encode(
    {"symkey": KEK, "digest": f"sha256:{'0' * 64}", "cipheroptions": {"nonce": bytes(16)}}
)
RESOURCES = 100_000
CLIENTS = (1, 16, 64)
SECONDS = 5.0
_TICK = os.sysconf("SC_CLK_TCK")
_ROUNDS = 300


@dataclass(frozen=True)
class Program:
    """One of our programs that answers."""

    url: str
    pid: int
    start_seconds: float

    def family(self) -> Iterator[Path]:
        """Yield /proc's folders of it and its children."""
        parents: dict[int, int] = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                stat = (folder / "stat").read_text().rpartition(")")[2].split()
                parents[int(folder.name)] = int(stat[1])
        for pid, parent in parents.items():
            if self.pid in {pid, parent}:
                yield Path(f"/proc/{pid}")

    def cpu(self) -> float:
        """Return processor seconds so far."""
        total = 0
        for folder in self.family():
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            total += int(stat[11]) + int(stat[12])
        return total / _TICK

    def memory(self) -> float:
        """Return MiB that it holds, shared pages by their share."""
        total = 0
        for folder in self.family():
            for line in (folder / "smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        return total / 1024


@contextlib.asynccontextmanager
async def program(name: str, *arguments: str | Path, log: Path) -> AsyncIterator[Program]:
    """Have one of our programs run, its log in a file as on a real machine."""
    begin = time.perf_counter()
    with log.open("ab") as file:
        spawned = process.spawn(
            [BIN / name, *arguments, "--json"], stdout=asyncio.subprocess.PIPE, stderr=file.fileno()
        )
        async with spawned as child:
            assert child.stdout is not None
            line = await child.stdout.readline()
            if not line:
                raise SystemExit(f"{name} did not start: {log}")
            seconds = time.perf_counter() - begin
            yield Program(json.loads(line)["listening"], child.pid, seconds)


class Bench:
    """A folder with an administrator's key, and how long to measure."""

    def __init__(self, folder: Path, *, quick: bool) -> None:
        self.folder = folder
        self.quick = quick
        self.seconds = SECONDS / 5 if quick else SECONDS
        admin = ed25519.Ed25519PrivateKey.generate()
        self._pem = admin.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        public = admin.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (folder / "admin.pub").write_bytes(public)

    @property
    def token(self) -> str:
        """A new administrator's token."""
        return admin_jwt.mint(self._pem, now=system_clock())

    @contextlib.asynccontextmanager
    async def kbs(self, storage: str, *more: str) -> AsyncIterator[Program]:
        """Have a KBS run that counts sample evidence and has the key."""
        flags = ["--insecure-http", "--insecure-allow-sample", "--socket", "127.0.0.1:0"]
        flags += ["--auth-public-key", str(self.folder / "admin.pub"), "--storage", storage]
        flags += ["--storage-key", f"file:{self.folder / 'storage.key'}", *more]
        async with program("kbs", *flags, log=self.folder / "kbs.log") as found:
            async with KbsAdmin(found.url, token=self.token) as admin:
                await admin.set_resource(KEY, KEK)
            yield found

    async def load(self, servers: list[Program], what: str, clients: int) -> "Measured":
        """Have clients work, and see what it costs the servers."""
        argv = [
            sys.executable,
            str(Path(__file__).with_name("load.py")),
            what,
            "--token",
            self.token,
        ]
        argv += ["--urls", ",".join(server.url for server in servers)]
        argv += ["--clients", str(clients), "--seconds", str(self.seconds)]
        async with process.spawn(argv, stdout=asyncio.subprocess.PIPE, limit=2**26) as child:
            assert child.stdout is not None
            if await child.stdout.readline() != b"ready\n":
                raise SystemExit(f"{what}: the clients failed")
            before = sum(server.cpu() for server in servers)
            line = await child.stdout.readline()
            after = sum(server.cpu() for server in servers)
        found = json.loads(line)
        return Measured(sorted(found["times"]), found["seconds"], after - before)


@dataclass(frozen=True)
class Measured:
    """Calls of one kind: how long each took, all of them, and the servers' processor time."""

    times: list[float]
    seconds: float
    cpu: float

    def show(self, name: str, crypto: float) -> None:
        """Print a line; ``crypto`` is the processor time of its public-key operations, seconds."""
        count = len(self.times)
        middle, late = statistics.median(self.times), self.times[int(0.99 * (count - 1))]
        each = self.cpu / count
        print(
            f"  {name:<30}{middle * 1e3:9.1f}{late * 1e3:9.1f}{count / self.seconds:9.0f}"
            f"{each * 1e3:9.2f}{crypto / each:9.0%}"
        )


def crypto_seconds() -> dict[str, float]:
    """Return processor time of the public-key operations of each kind of call."""
    signer, guest = SigningKey.generate(), TeeKeyPair.generate()
    public, key = signer.public_jwk(), guest.public_jwk()
    exp = (system_clock() + dt.timedelta(minutes=5)).timestamp()
    token, sealed = signer.sign({"alg": "ES256"}, {"exp": exp}), jwe.encrypt(KEK, key)
    admin, message = ed25519.Ed25519PrivateKey.generate(), bytes(200)
    signature, verifier = admin.sign(message), admin.public_key()

    def spent(*what: Callable[[], object]) -> float:
        begin = time.process_time()
        for _ in range(_ROUNDS):
            for each in what:
                each()
        return (time.process_time() - begin) / _ROUNDS

    release = (lambda: verify(token, public), lambda: jwe.encrypt(KEK, key))
    attest = (lambda: signer.sign({"alg": "ES256"}, {}), lambda: jwe.check_public_jwk(key))
    return {
        "handshake": spent(*attest, *release),
        "get": spent(*release),
        "write": spent(lambda: verifier.verify(signature, message)),
        "unwrap": spent(*release, lambda: guest.decrypt(sealed)),
        "unwrap, first": spent(
            TeeKeyPair.generate, *attest, *release, lambda: guest.decrypt(sealed)
        ),
    }


async def rates(bench: Bench, name: str, servers: list[Program], crypto: dict[str, float]) -> None:
    """Measure one kind of storage."""
    print(f"\n  {name:<30}{'p50 ms':>9}{'p99 ms':>9}{'per s':>9}{'CPU ms':>9}{'crypto':>9}")
    for what, label in (
        ("handshake", "handshake + key"),
        ("get", "key, live session"),
        ("write", "admin stores a key"),
    ):
        for clients in CLIENTS[:2] if bench.quick else CLIENTS:
            measured = await bench.load(servers, what, clients)
            measured.show(f"{label}, {clients} client{'s' * (clients > 1)}", crypto[what])


async def unwrap(bench: Bench, kbs: Program, crypto: dict[str, float]) -> None:
    """Measure the key provider: the first layer of an image, and the others."""
    packet = ocicrypt.Packet(ResourceUri.parse(KEY.uri), kek.wrap(KEK, OPTIONS))
    document = ocicrypt.unwrap_input(packet.encode(), ["cc_kbc::null"])
    cold: list[float] = []
    warm: list[float] = []
    flags = ["--socket", "127.0.0.1:0", "--insecure-sample", "--kbs", kbs.url]
    for _ in range(3):
        async with (
            program("coco-keyprovider", *flags, log=bench.folder / "provider.log") as provider,
            aio.insecure_channel(provider.url) as channel,
        ):
            stub: pb_grpc.KeyProviderServiceAsyncStub = pb_grpc.KeyProviderServiceStub(channel)
            await channel.channel_ready()
            for times in [cold, *[warm] * 50]:
                begin = time.perf_counter()
                ask = pb.KeyProviderKeyWrapProtocolInput(KeyProviderKeyWrapProtocolInput=document)
                await stub.UnWrapKey(ask)
                times.append(time.perf_counter() - begin)
    print(f"\n  {'UnWrapKey':<30}{'p50 ms':>9}{'p99 ms':>9}{'crypto':>27}")
    for name, times in (("unwrap, first", sorted(cold)), ("unwrap", sorted(warm))):
        middle, late = statistics.median(times), times[int(0.99 * (len(times) - 1))]
        label = "first: attests" if "first" in name else "warm"
        print(f"  {label:<30}{middle * 1e3:9.1f}{late * 1e3:9.1f}{crypto[name] / middle:27.0%}")


async def starts(bench: Bench, storage: str) -> None:
    """Compare the start of a KBS with that of a bare interpreter."""
    bare, whole = [], []
    for _ in range(3 if bench.quick else 5):
        begin = time.perf_counter()
        await process.run([sys.executable, "-c", "pass"])
        bare.append(time.perf_counter() - begin)
        async with bench.kbs(storage) as kbs:
            whole.append(kbs.start_seconds)
    base, middle = statistics.median(bare), statistics.median(whole)
    print(f"\n  start until it answers        {middle * 1e3:9.0f} ms{middle / base:8.1f} x python")


async def memory(bench: Bench) -> None:
    """Measure a KBS with many resources."""
    count = RESOURCES // 10 if bench.quick else RESOURCES
    place = str(bench.folder / "many")
    async with bench.kbs(place) as kbs:
        before = kbs.memory()
    source = FileRootKey(bench.folder / "storage.key")
    async with open_storage(storage_url(place), [source]) as storage:
        for first in range(0, count, 1000):
            names = (f"default/key/{number}" for number in range(first, first + 1000))
            puts = (storage.store.put(Namespace.RESOURCE, name, KEK) for name in names)
            await asyncio.gather(*puts)
    async with bench.kbs(place) as kbs:
        after = kbs.memory()
        begin = time.perf_counter()
        async with KbsAdmin(kbs.url, token=bench.token) as admin:
            await admin.list_resources()
        listed = time.perf_counter() - begin
        end = kbs.memory()
    print(f"  memory, empty storage         {before:9.0f} MiB, policy workers included")
    print(f"  memory, {count} resources      {after:9.0f} MiB; {end:.0f} MiB after their names")
    print(f"    were listed once, which took {listed:.2f} s")


async def kbs(folder: Path, *, quick: bool = False) -> None:
    """Measure everything about the KBS."""
    bench, crypto = Bench(folder, quick=quick), crypto_seconds()
    print("\nKBS over loopback, sample evidence, default policies. CPU: of the KBS per call;")
    costs = ", ".join(f"{what} {seconds * 1e3:.2f}" for what, seconds in crypto.items())
    print(f"crypto: share of public-key operations (in ms: {costs})")
    async with bench.kbs(str(folder / "sqlite")) as server:
        await rates(bench, "SQLite", [server], crypto)
        await unwrap(bench, server, crypto)
    await starts(bench, str(folder / "sqlite"))
    await memory(bench)
    for name in ("pg", "redis"):
        (folder / name).mkdir()
    async with postgres(folder / "pg") as database, valkey(folder / "redis") as redis:
        async with bench.kbs(database.url) as server:
            await rates(bench, "PostgreSQL", [server], crypto)
        shared = ["--session-storage", redis.url]
        async with (
            bench.kbs(database.url, *shared) as one,
            bench.kbs(database.url, *shared) as two,
        ):
            await rates(bench, "2 replicas, PostgreSQL, Redis", [one, two], crypto)
