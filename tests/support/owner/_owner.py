# SPDX-License-Identifier: Apache-2.0
"""Who owns a program and data: images, keys, and a KBS of their own, all real."""

import contextlib
import json
import re
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from _agent import ALGO_KEY, DATA_KEY
from _images import algorithm, tar, write_layout
from _kbs import admin_pair
from _programs import Running, running
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cocos._clock import system_clock
from cocos._types import JsonObject
from cocos.clients.kbs import KbsAdmin
from cocos.crypto import admin_jwt, kek
from cocos.cvms.order import consumer_key
from cocos.host import process
from cocos.host.images.skopeo import Skopeo
from cocos.host.key_folder import KeyFolder
from cocos.keyprovider.server import service as provider_service
from cocos.keyprovider.service import KeyProvider
from cocos.transport.rpc import serve
from cocos.wire import ocicrypt
from cocos.wire.kbs.protocol import ResourcePath
from cocos.wire.manifest.computation import Computation
from cocos.wire.manifest.parts import Algorithm, Dataset, Source

BIN = Path(sys.executable).parent
PRIVATE = ec.generate_private_key(ec.SECP256R1())
PUBLIC = PRIVATE.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)
SCRIPT = 'busybox cat "$@" > /cocos/results/copy'
ENV = ("PATH=/bin",)


@dataclass
class Owner:
    """Who has images, keys, and a KBS."""

    folder: Path
    tool: Skopeo
    registry: str
    ek_cas: tuple[Path, ...]
    admin: bytes
    keys: KeyFolder

    @classmethod
    def make(cls, folder: Path, tool: Skopeo, registry: str, *ek_cas: Path) -> Self:
        keys = KeyFolder(folder / "keys")
        for key in (ALGO_KEY, DATA_KEY):
            keys.store(key, kek.generate())
        private, public = admin_pair()
        (folder / "admin.key").write_bytes(private)
        (folder / "admin.pub").write_bytes(public)
        return cls(folder, tool, registry, ek_cas, private, keys)

    @contextlib.asynccontextmanager
    async def kbs(self, socket: str = "127.0.0.1:0") -> AsyncIterator[Running]:
        """Have the KBS run; started again it has what it had."""
        flags: list[str | Path] = ["--insecure-http", "--socket", socket]
        flags += ["--storage", self.folder / "kbs", "--auth-public-key", self.folder / "admin.pub"]
        for file in self.ek_cas:
            flags += ["--tpm-ek-ca", file]
        async with running("kbs", *flags) as program:
            yield program

    def administer(self, url: str) -> KbsAdmin:
        return KbsAdmin(url, token=admin_jwt.mint(self.admin, now=system_clock()))

    async def set_up(self, url: str, values: JsonObject, policy: str | None = None) -> None:
        """Register the image, the keys, and a resource policy."""
        async with self.administer(url) as admin:
            await admin.register_reference_values(values)
            for key in (ALGO_KEY, DATA_KEY):
                await admin.set_resource(key, self.keys.read(key) or b"")
            if policy is not None:
                await admin.set_resource_policy(policy)

    async def push(self, layout: Path, key: ResourcePath, name: str) -> str:
        """Encrypt an image to a key and push it."""
        remote = f"docker://{self.registry}/{name}:v1"
        async with serve("127.0.0.1:0", [provider_service(KeyProvider(folder=self.keys))]) as at:
            config = self.folder / "owner.json"
            config.write_bytes(ocicrypt.grpc_config(at))
            await self.tool.copy(
                f"oci:{layout}",
                remote,
                encryption_key=f"cc_kbc::{key.uri}",
                keyprovider_config=config,
            )
        return remote

    async def explain(self, url: str, text: str) -> dict[str, Any]:
        """Ask for the cause of a denial, as the operator does, by the id in a message."""
        found = re.search(r"kbs-client explain ([0-9a-f]{16})", text)
        assert found, text
        words = ["--url", url, "explain", found[1], "--json"]
        key = self.folder / "admin.key"
        done = await process.run([BIN / "kbs-client", *words, "--auth-private-key", key])
        return {each["check"]: each for each in json.loads(done.stdout)["findings"]}


@dataclass(frozen=True)
class Images:
    """What the owner has pushed: name → reference and pin."""

    pushed: dict[str, tuple[str, bytes]]

    def computation(self, kbs: str, *, algo: str = "algo", data: str = "data") -> Computation:
        def source(name: str, key: ResourcePath) -> Source:
            url = self.pushed[name][0]
            return Source("oci-image", url, encrypted=True, key=str(key), kbs=kbs)

        return Computation(
            "c-1",
            Algorithm(source(algo, ALGO_KEY), self.pushed[algo][1]),
            datasets=(Dataset(source(data, DATA_KEY), self.pushed[data][1]),),
            result_consumers=(consumer_key(PUBLIC),),
        )


def pin(digest: str) -> bytes:
    return bytes.fromhex(digest.removeprefix("sha256:"))


async def push_images(owner: Owner) -> Images:
    folder = owner.folder / "plain"
    written = {
        "algo": algorithm(folder / "algo", SCRIPT, env=ENV),
        "other": algorithm(folder / "other", f"{SCRIPT}; echo stolen", env=ENV),
        "data": write_layout(folder / "data", [tar({"data/iris.csv": b"a,b\n1,2\n"})]),
        "more": write_layout(folder / "more", [tar({"data/iris.csv": b"a,b\n3,4\n"})]),
    }
    keys = {"data": DATA_KEY, "more": DATA_KEY}
    return Images(
        {
            name: (await owner.push(folder / name, keys.get(name, ALGO_KEY), name), pin(digest))
            for name, digest in written.items()
        }
    )
