# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: ARG002, ARG003 - a register does not need all that attesters get
"""An agent with everything around it that is not a network: tools, key provider, register."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from cocos._types import JsonObject
from cocos.agent.config import AgentSettings
from cocos.agent.fetch import Fetcher
from cocos.agent.report import Happening, Level
from cocos.agent.service import AgentService, Outlet
from cocos.attestation_agent.event_log import EventLog
from cocos.attestation_agent.machine import Machine
from cocos.attestation_agent.server import service as attestation_service
from cocos.attestation_agent.service import AttestationAgent as AttestationAgentService
from cocos.attestation_agent.tokens import KbsTokens
from cocos.attesters import Attester, Devices, InsecureSampleAttester
from cocos.clients.attestation_agent import AttestationAgent
from cocos.clients.kbs import KbsClient
from cocos.crypto import kek
from cocos.host.containers.runtime import Runtime
from cocos.host.images.skopeo import Skopeo
from cocos.host.key_folder import KeyFolder
from cocos.keyprovider.server import service as provider_service
from cocos.keyprovider.service import KeyProvider
from cocos.transport.rpc import serve
from cocos.wire import ocicrypt
from cocos.wire.kbs.protocol import ResourcePath, Tee
from cocos.wire.manifest.computation import Computation
from cocos.wire.manifest.identity import Identity

ALGO_KEY = ResourcePath.parse("default/key/algo-key")
DATA_KEY = ResourcePath.parse("default/key/dataset-key")


class Blind(Attester):
    """A machine without a runtime register."""

    kind = Tee.TPM

    @classmethod
    async def detect(cls, devices: Devices) -> Self | None:
        return None

    async def evidence(
        self, report_data: bytes, challenge: JsonObject | None = None, *, events: bytes = b""
    ) -> Any:
        return {"report_data": report_data.hex()}


class RegisterTpm(Blind):
    """A machine with one runtime register; ``order`` gets what happens to it.

    Attributes:
        and_then: Called when something has been measured.
    """

    register_hash = "sha256"
    default_register = 14

    def __init__(self, order: list[str]) -> None:
        self._order = order
        self._value = bytes(32)
        self.and_then: Callable[[], object] = lambda: None

    async def read_register(self, index: int) -> bytes:
        return self._value

    async def extend_register(self, index: int, digest: bytes) -> None:
        self._value = hashlib.sha256(self._value + digest).digest()
        self._order.append(f"measured {digest.hex()}")
        self.and_then()


class OrderedProvider(KeyProvider):
    """A real key provider that notes when it is asked."""

    def __init__(self, folder: KeyFolder, order: list[str]) -> None:
        super().__init__(folder=folder)
        self._order = order

    async def unwrap(self, document: bytes) -> bytes:
        parameters = ocicrypt.parse_unwrap(document).parameters
        self._order.append(f"unwrap {parameters[0]}")
        return await super().unwrap(document)


class Memory:
    """A reporter and an outlet that remember."""

    def __init__(self) -> None:
        self.events: list[Happening] = []
        self.logs: list[tuple[Level, str]] = []
        self.results: list[bytes] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.changed = asyncio.Event()

    def event(self, happening: Happening) -> None:
        self.events.append(happening)
        self.changed.set()

    def log(self, _computation: str, level: Level, message: str) -> None:
        self.logs.append((level, message))
        self.changed.set()

    def check(self, computation: Computation) -> None:
        pass

    def consumers(self, computation: Computation) -> tuple[bytes, ...]:
        return computation.result_consumers

    async def pack(self, _computation: Computation, archive: Path) -> bytes:
        return await asyncio.to_thread(archive.read_bytes)

    def kept(self) -> None:
        pass

    async def deliver(self, _identity: Identity, package: bytes) -> None:
        await self.hold.wait()
        self.results.append(package)

    def forget(self) -> None:
        pass

    def told(self) -> list[tuple[str, str]]:
        return [(happening.type, happening.status) for happening in self.events]

    @property
    def failure(self) -> dict[str, Any]:
        assert self.told()[-1] == ("Failed", "Failed"), self.told()
        return self.events[-1].details

    async def until(self, kind: str, status: str) -> None:
        await self._until(lambda: (kind, status) in self.told())

    async def until_log(self, text: str) -> None:
        await self._until(lambda: text in {message for _, message in self.logs})

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@dataclass
class Bed:
    """Where an agent is tested.

    Attributes:
        order: Events measured and keys asked for, in order.
        machine: Its evidence.
    """

    folder: Path
    skopeo: Skopeo
    config: Path
    register: AttestationAgent
    order: list[str]
    keys: KeyFolder
    machine: Attester | None = None
    memory: Memory = field(default_factory=Memory)

    @property
    def work(self) -> Path:
        return self.folder / "work"

    async def encrypt(self, source: str, key: ResourcePath, target: str) -> str:
        await self.skopeo.copy(
            source, target, encryption_key=f"cc_kbc::{key.uri}", keyprovider_config=self.config
        )
        return target

    @contextlib.asynccontextmanager
    async def agent(
        self,
        *,
        local_sources: bool = True,
        outlet: Outlet | None = None,
        **settings: Any,
    ) -> AsyncIterator[AgentService]:
        settings = {"retry_seconds": 0, **settings}
        configured = AgentSettings(insecure_without_cgroups=True, **settings)
        service = AgentService(
            configured,
            work=self.work,
            fetcher=Fetcher(self.skopeo, self.config, local_sources=local_sources),
            runtime=Runtime.find(self.work / "containers", insecure_without_cgroups=True),
            register=self.register,
            reporter=self.memory,
            outlet=outlet or self.memory,
        )
        await service.start()
        try:
            yield service
        finally:
            await service.close()

    async def run(self, document: bytes, **options: Any) -> Memory:
        """Run one computation to its end."""
        async with self.agent(**options) as service:
            service.accept(Computation.from_json(document))
            async with asyncio.timeout(60):
                await service.wait()
        assert not list((self.work / "computations").glob("*")), "plaintext was left behind"
        return self.memory


@contextlib.asynccontextmanager
async def bed(
    folder: Path, skopeo: Skopeo, *, attester: Attester | None = None, measure: bool = True
) -> AsyncIterator[Bed]:
    """Have a key provider and an attestation agent run, each on its own socket."""
    order: list[str] = []
    keys = KeyFolder(folder / "keys")
    for key in (ALGO_KEY, DATA_KEY):
        keys.store(key, kek.generate())
    attester = attester or RegisterTpm(order)
    log = EventLog(folder / "aael" / "eventlog", attester, 14)
    await log.open()
    machine = Machine(attester, log if measure else None)
    async with contextlib.AsyncExitStack() as stack:
        tokens = await stack.enter_async_context(KbsTokens(lambda url: KbsClient(url, machine)))
        agent = AttestationAgentService(machine, tokens)
        provider = await stack.enter_async_context(
            serve("127.0.0.1:0", [provider_service(OrderedProvider(keys, order))])
        )
        config = folder / "ocicrypt.json"
        config.write_bytes(ocicrypt.grpc_config(provider))
        address = await stack.enter_async_context(
            serve("127.0.0.1:0", [attestation_service(agent)])
        )
        register = await stack.enter_async_context(AttestationAgent(address))
        yield Bed(folder, skopeo, config, register, order, keys, attester)


def sample() -> InsecureSampleAttester:
    return InsecureSampleAttester()
