# SPDX-License-Identifier: Apache-2.0
"""A KBS or registry that is killed and comes back, at every moment at which one is needed.

All are programs: KBS, registry, attestation agent, key provider, Skopeo. The evidence is
sample evidence; what is measured goes to a register of the test, which counts.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from _agent import DATA_KEY, Bed, RegisterTpm, bed
from _gate import Gate
from _manager import eventually
from _owner import Owner, push_images
from _programs import Running, docker_registry, running

from cocos.agent.service import AgentService
from cocos.clients.data_hub import DataHub
from cocos.host.images import skopeo
from cocos.host.images.skopeo import Skopeo
from cocos.wire import ocicrypt
from cocos.wire.manifest.computation import Computation

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

SECONDS = 120
WAITING = "Warning"
POLICY = (
    'package policy\nimport rego.v1\ndefault allow := false\nallow if data.plugin == "resource"\n'
)


@dataclass
class Place:
    """An owner with a KBS that can be killed, and a guest.

    Attributes:
        url: Of the KBS, or of the gate before it.
        socket: Where the KBS itself listens.
    """

    owner: Owner
    bed: Bed
    gate: Gate
    url: str
    socket: str
    registry: str

    @contextlib.asynccontextmanager
    async def kbs(self) -> AsyncIterator[Running]:
        async with kbs(self.owner, self.socket) as program:
            yield program

    async def computation(self) -> Computation:
        return (await push_images(self.owner)).computation(self.url)

    async def until_it_waits(self, service: AgentService) -> dict[str, Any]:
        """Return the details of the event that says so."""
        async with asyncio.timeout(SECONDS):
            while True:
                for each in self.bed.memory.events:
                    if each.status == WAITING:
                        return each.details
                assert service.state.value not in {"Failed", "Complete"}, self.bed.memory.events
                self.bed.memory.changed.clear()
                await self.bed.memory.changed.wait()

    async def completes(self, service: AgentService) -> None:
        async with asyncio.timeout(SECONDS):
            await service.wait()
        assert self.bed.memory.told()[-1] == ("Complete", "Completed"), self.bed.memory.events[-1]
        assert len(self.bed.memory.results) == 1
        measured = [each for each in self.bed.order if each.startswith("measured")]
        assert len(measured) == 1, "what is measured is measured once"
        assert not list((self.bed.work / "computations").glob("*"))


@contextlib.asynccontextmanager
async def kbs(owner: Owner, socket: str) -> AsyncIterator[Running]:
    """Have a KBS run that knows no session of the one before it, as if they were in its memory."""
    for file in (owner.folder / "kbs").glob("sessions-*"):
        file.unlink()
    flags: list[str | Path] = ["--insecure-http", "--socket", socket, "--insecure-allow-sample"]
    flags += ["--storage", owner.folder / "kbs", "--auth-public-key", owner.folder / "admin.pub"]
    async with running("kbs", *flags) as program:
        yield program


@pytest.fixture
async def place(tool: Skopeo, tmp_path: Path) -> AsyncIterator[Place]:
    (tmp_path / "registry").mkdir()
    (tmp_path / "guest").mkdir()
    gate = Gate(b"")
    async with contextlib.AsyncExitStack() as stack:
        argv = await skopeo.find_registry()
        registry = await stack.enter_async_context(docker_registry(argv, tmp_path / "registry"))
        owner = Owner.make(tmp_path, tool, registry)
        async with kbs(owner, "127.0.0.1:0") as program:
            socket = program.address.removeprefix("http://")
            await owner.set_up(program.address, {}, POLICY)
        address = await stack.enter_async_context(gate.before(socket))
        aa = await stack.enter_async_context(
            running("attestation-agent", "--attestation_sock", "127.0.0.1:0", "--insecure-sample")
        )
        provider = await stack.enter_async_context(
            running("coco-keyprovider", "--socket", "127.0.0.1:0", "--aa", aa.address)
        )
        order: list[str] = []
        made = await stack.enter_async_context(
            bed(tmp_path / "guest", tool, attester=RegisterTpm(order))
        )
        made.order = order
        made.config.write_bytes(ocicrypt.grpc_config(provider.address))
        yield Place(owner, made, gate, f"http://{address}", socket, registry)


async def test_a_kbs_that_comes_a_little_late(place: Place) -> None:
    computation = await place.computation()
    async with place.bed.agent(retry_seconds=60) as service:
        service.accept(computation)
        said = await place.until_it_waits(service)
        assert said["code"] == "unreachable"
        assert said["step"] == "fetch"
        assert place.url in said["reason"]
        assert 0 < said["retry_for_seconds"] <= 60
        async with place.kbs():
            await place.completes(service)
    assert any("trying again in" in text for _, text in place.bed.memory.logs)
    assert sum(status == WAITING for _, status in place.bed.memory.told()) == 1


@pytest.mark.parametrize(
    "moment", ["POST /kbs/v0/auth", "POST /kbs/v0/attest", "GET /kbs/v0/resource/"]
)
async def test_a_kbs_that_is_killed_over_a_request(place: Place, moment: str) -> None:
    """Its answer is lost; the next KBS knows nothing of the session."""
    computation = await place.computation()
    place.gate.mark = moment.encode()
    place.gate.armed = True
    async with place.bed.agent(retry_seconds=60) as service:
        async with place.kbs() as first:
            service.accept(computation)
            async with asyncio.timeout(SECONDS):
                await place.gate.reached.wait()
            first.kill()
        place.gate.open()
        await place.until_it_waits(service)
        async with place.kbs():
            await place.completes(service)


async def test_a_kbs_that_is_another_one_between_two_keys(place: Place) -> None:
    """It knows no session, and the guest opens one; that is no wait."""
    gate = Gate(b"")
    async with gate.before(place.registry) as place.owner.registry:
        computation = await place.computation()
        data = await place.owner.tool.resolve(computation.datasets[0].source.url)
        gate.mark = data.manifest.layers[0].digest.encode()
        async with place.bed.agent(retry_seconds=0) as service:
            async with place.kbs() as first:
                gate.armed = True
                service.accept(computation)
                async with asyncio.timeout(SECONDS):
                    await gate.reached.wait()
                first.kill()
            async with place.kbs():
                gate.open()
                await place.completes(service)


async def test_a_program_that_asks_the_data_hub(place: Place) -> None:
    async with (
        running("attestation-agent", "-a", "127.0.0.1:0", "--insecure-sample") as aa,
        running(
            "confidential-data-hub",
            *("--socket", "127.0.0.1:0", "--aa", aa.address),
            env={"AA_KBC_PARAMS": f"cc_kbc::{place.url}"},
        ) as program,
        DataHub(program.address) as hub,
    ):
        asking = asyncio.create_task(hub.resource(DATA_KEY.uri))
        await eventually(lambda: "kbs.waiting" in program.text)
        async with place.kbs():
            assert await asking == place.owner.keys.read(DATA_KEY)


async def test_a_registry_that_comes_a_little_late(place: Place, tmp_path: Path) -> None:
    """From the first question on; the name of a program is looked up before it is measured."""
    folder = tmp_path / "other"
    folder.mkdir()
    argv = await skopeo.find_registry()
    async with docker_registry(argv, folder) as place.owner.registry:
        computation = await place.computation()
    port = place.owner.registry.rpartition(":")[2]
    async with place.kbs(), place.bed.agent(retry_seconds=60) as service:
        service.accept(computation)
        said = await place.until_it_waits(service)
        assert (said["step"], said["code"]) == ("resolve", "unreachable")
        assert place.owner.registry in said["reason"]
        assert place.bed.order == [], "nothing was measured yet"
        async with docker_registry(argv, folder, port):
            await place.completes(service)


async def test_a_registry_that_is_killed_over_a_layer(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    argv = await skopeo.find_registry()
    gate = Gate(b"")
    async with contextlib.AsyncExitStack() as life:
        registry = await life.enter_async_context(docker_registry(argv, folder))
        async with gate.before(registry) as place.owner.registry:
            computation = await place.computation()
            found = await place.owner.tool.resolve(computation.algorithm.source.url)
            gate.mark = found.manifest.layers[0].digest.encode()
            async with place.kbs(), place.bed.agent(retry_seconds=60) as service:
                gate.armed = True
                service.accept(computation)
                async with asyncio.timeout(SECONDS):
                    await gate.reached.wait()
                await life.aclose()
                gate.open()
                said = await place.until_it_waits(service)
                assert said["step"] == "fetch"
                # What the gate had of the layer's answer goes on; it may have been all.
                assert said["resource"] in {"algorithm", "datasets[0]"}
                async with docker_registry(argv, folder, registry.rpartition(":")[2]):
                    await place.completes(service)


@contextlib.asynccontextmanager
async def always(answer: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Have a server that gives one answer to whatever it is asked; its URL, and what came."""
    asked: list[bytes] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            asked.append((await reader.readuntil(b"\r\n")).strip())
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


def answer(status: str, *headers: str, body: str = "") -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "Connection: close"]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def problem(variant: str) -> str:
    kind = f"https://github.com/confidential-containers/kbs/errors/{variant}"
    return f'{{"type": "{kind}", "detail": "no"}}'


@pytest.mark.parametrize("status", ["502 Bad Gateway", "503 Busy", "504 Late", "429 Slower"])
async def test_a_kbs_that_never_can_is_given_up(place: Place, status: str) -> None:
    async with always(answer(status)) as (place.url, asked):
        computation = await place.computation()
        async with place.bed.agent(retry_seconds=3) as service:
            service.accept(computation)
            await place.until_it_waits(service)
            async with asyncio.timeout(SECONDS):
                await service.wait()
    failed = place.bed.memory.failure
    assert failed["code"] == ("too-many-requests" if "429" in status else "unreachable"), failed
    assert 2 <= len(asked) < 12, "it waits longer each time"


@pytest.mark.parametrize(
    ("told", "code"),
    [
        (answer("401 No", body=problem("AttestationFailed")), "unauthenticated"),
        (answer("403 No", body=problem("PolicyDeny")), "denied"),
        (answer("404 No", body=problem("PluginNotFound")), "not-found"),
        (answer("200 OK", body="no challenge"), "peer"),
        (answer("500 Fault"), "peer"),
        (answer("429 Later", "Retry-After: 3600"), "too-many-requests"),
        (b"what is HTTP?\r\n\r\n", "peer"),
    ],
)
async def test_what_no_waiting_helps_is_not_asked_again(
    place: Place, told: bytes, code: str
) -> None:
    async with always(told) as (place.url, asked):
        computation = await place.computation()
        async with place.bed.agent(retry_seconds=SECONDS / 2) as service:
            service.accept(computation)
            async with asyncio.timeout(SECONDS):
                await service.wait()
    assert place.bed.memory.failure["code"] == code, place.bed.memory.failure
    assert WAITING not in {status for _, status in place.bed.memory.told()}
    assert len(asked) == 1
