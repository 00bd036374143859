# SPDX-License-Identifier: Apache-2.0
"""CVMS and agent as programs, killed at every point of a computation and started again.

Whoever was killed is started with the same command. The CVMS ends with what became of the
computation, the result is there, and the agent holds nothing any more.
"""

import asyncio
import contextlib
import io
import json
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from _agent import Bed, bed
from _cvms import agent_process, agent_program, cvms_test
from _images import algorithm
from _manager import eventually
from _programs import Running, running
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from grpc import aio

from cocos.crypto import sealed
from cocos.cvms.order import Order as Flags
from cocos.cvms.order import consumer_key, from_flags
from cocos.host import process
from cocos.host.archive import unzip
from cocos.host.images.skopeo import Skopeo
from cocos.wire._generated import cvms_pb2 as pb
from cocos.wire._generated import cvms_pb2_grpc as pb_grpc
from cocos.wire.manifest.computation import Computation

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

BIN = Path(sys.executable).parent
SECONDS = 90
KEY = ec.generate_private_key(ec.SECP256R1())
PRIVATE = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
PUBLIC = KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)

FLAGS = Flags()

Entry = dict[str, Any]
When = Callable[[Entry], bool]


@pytest.fixture
async def place(tool: Skopeo, tmp_path: Path) -> AsyncIterator[Bed]:
    async with bed(tmp_path, tool) as made:
        yield made


@pytest.fixture
async def attestation() -> AsyncIterator[Running]:
    async with running("attestation-agent", "-a", "127.0.0.1:0", "--insecure-sample") as program:
        yield program


class Order:
    """A computation as a command line, and the folder of its CVMS."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.port = "0"
        (folder / "public.pem").write_bytes(PUBLIC)
        self._words = ["-public-key-path", "public.pem", "-algo-source-url", url, "-once", "--json"]

    @contextlib.asynccontextmanager
    async def cvms(self, *more: str, before: Sequence[str] = ()) -> AsyncIterator["Program"]:
        words = [*self._words, *more, "-port", self.port]
        child = await cvms_test(self.folder, *words, before=before)
        program = Program(child)
        try:
            listening = (await program.next())["listening"]
            self.port = listening.rpartition(":")[2]
            yield program
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()

    def result(self) -> dict[str, bytes]:
        package = sealed.open_sealed((self.folder / "1.zip.jwe").read_bytes(), PRIVATE)
        opened = self.folder / f"opened-{len(list(self.folder.glob('opened-*')))}"
        return {name: (opened / name).read_bytes() for name in unzip(io.BytesIO(package), opened)}


class Program:
    """A CVMS and what it has shown."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self.child = child
        self.shown: list[Entry] = []

    async def next(self) -> Entry:
        assert self.child.stdout is not None
        line = await asyncio.wait_for(self.child.stdout.readline(), SECONDS)
        assert line, (self.shown, await self.errors())
        self.shown.append(json.loads(line))
        return self.shown[-1]

    async def until(self, when: When) -> None:
        while not when(await self.next()):
            pass

    async def ended(self) -> int:
        output, errors = await asyncio.wait_for(self.child.communicate(), SECONDS)
        self.shown += [json.loads(line) for line in output.splitlines()]
        self.shown.append({"errors": errors.decode()})
        assert self.child.returncode is not None
        return self.child.returncode

    async def errors(self) -> str:
        assert self.child.stderr is not None
        return (await self.child.stderr.read()).decode()


def shows(**members: object) -> When:
    return lambda entry: members.items() <= entry.items()


WAY = {
    "connected": shows(connected=True),
    "accepted": shows(accepted=True),
    "receiving": shows(event="ReceivingAlgorithm"),
    "starting": shows(event="Running", status="Starting"),
    "running": shows(event="Running", status="InProgress"),
}
GOOD = WAY | {
    "ran": shows(event="Running", status="Completed"),
    "ready": shows(event="ConsumingResults", status="Ready"),
    "stored": lambda entry: "result" in entry,
    "complete": shows(event="Complete"),
}
BAD = WAY | {
    "run failed": shows(event="Running", status="Failed"),
    "failed": shows(event="Failed", status="Failed"),
}


async def test_a_cvms_killed_at_any_point_of_a_good_computation(
    place: Bed, attestation: Running, registry: str, tmp_path: Path
) -> None:
    url = await pushed(place, registry, "good", "echo 42")
    for point, when in GOOD.items():
        folder = tmp_path / f"cvms-{point}"
        folder.mkdir()
        order = Order(folder, url)
        shown = await killed_and_again(place, attestation, order, when, expected=0)
        assert order.result()["stdout.log"] == b"42\n", (point, shown)
        assert not (place.work / "kept").exists(), (point, shown)
        assert not [entry for entry in shown if "other" in entry], (point, shown)


async def test_a_cvms_killed_at_any_point_of_a_computation_that_fails(
    place: Bed, attestation: Running, registry: str, tmp_path: Path
) -> None:
    url = await pushed(place, registry, "bad", "exit 3")
    for point, when in BAD.items():
        folder = tmp_path / f"cvms-{point}"
        folder.mkdir()
        order = Order(folder, url)
        shown = await killed_and_again(place, attestation, order, when, expected=1)
        reasons = [entry.get("details", {}).get("reason", "") for entry in shown]
        assert any("failed with exit code 3" in reason for reason in reasons), (point, shown)
        assert not (folder / "1.zip.jwe").exists()


async def pushed(place: Bed, registry: str, name: str, script: str) -> str:
    algorithm(place.folder / name, script, env=("PATH=/bin",))
    url = f"docker://{registry}/{name}:v1"
    await place.skopeo.copy(f"oci:{place.folder}/{name}", url)
    return url


async def killed_and_again(
    place: Bed, attestation: Running, order: Order, when: When, *, expected: int
) -> list[Entry]:
    """Kill a CVMS when it shows something; return what the next one shows, which ends so."""
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(order.cvms())
        address = f"127.0.0.1:{order.port}"
        await stack.enter_async_context(agent_program(place, address, attestation.address))
        await first.until(when)
        with contextlib.suppress(ProcessLookupError):
            first.child.send_signal(signal.SIGKILL)
        status = await first.child.wait()
        if status != -signal.SIGKILL:  # it was quicker, and had done its work
            assert status == expected
            return first.shown
        second = await stack.enter_async_context(order.cvms())
        status = await second.ended()
        assert status == expected, (first.shown, second.shown)
        return first.shown + second.shown


@pytest.mark.parametrize(
    "case",
    [("echo 42", GOOD["stored"], 0), ("exit 3", BAD["failed"], 1)],
    ids=["good", "fails"],
)
async def test_a_cvms_started_again_waits_for_an_agent_that_is_slow_to_hear(
    place: Bed,
    attestation: Running,
    registry: str,
    tmp_path: Path,
    case: tuple[str, When, int],
) -> None:
    """It knows the outcome before the agent is there, which waits to hear that it is kept."""
    script, when, expected = case
    order = Order(tmp_path, await pushed(place, registry, "slow", script))
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(order.cvms())
        address = f"127.0.0.1:{order.port}"
        agent = await stack.enter_async_context(agent_process(place, address, attestation.address))
        await first.until(when)
        agent.send_signal(signal.SIGSTOP)
        first.child.kill()
        await first.child.wait()
        second = await stack.enter_async_context(order.cvms())
        await second.until(lambda entry: "result" in entry or entry.get("event") == "Failed")
        agent.send_signal(signal.SIGCONT)
        assert await second.ended() == expected, second.shown
    assert not (place.work / "kept").exists()


async def test_an_agent_killed_at_any_point_of_a_good_computation(
    place: Bed, attestation: Running, registry: str, tmp_path: Path
) -> None:
    url = await pushed(place, registry, "good", "echo 42")
    points = {name: GOOD[name] for name in ("accepted", "running", "ran", "ready", "stored")}
    for point, when in points.items():
        folder = tmp_path / f"agent-{point}"
        folder.mkdir()
        order = Order(folder, url)
        async with order.cvms() as cvms:
            address = f"127.0.0.1:{order.port}"
            async with agent_process(place, address, attestation.address) as agent:
                await cvms.until(when)
                agent.kill()
                await agent.wait()
            async with agent_process(place, address, attestation.address):
                assert await cvms.ended() == 0, (point, cvms.shown)
        assert order.result()["stdout.log"] == b"42\n", point
        # Where the CVMS had the result already, it did not wait for an agent to hear of it.
        if point in {"ready", "stored"}:
            shutil.rmtree(place.work / "kept", ignore_errors=True)
        assert not (place.work / "kept").exists(), point
        assert not list((place.work / "computations").glob("*")), point


async def test_a_result_that_an_agent_left_is_handed_over_by_the_next(
    place: Bed, attestation: Running, registry: str, tmp_path: Path
) -> None:
    """Nobody is there when the computation ends, and the agent is killed before anybody comes."""
    url = await pushed(place, registry, "slow", "busybox sleep 3; busybox date +%N")
    order = Order(tmp_path, url)
    async with order.cvms() as first:
        address = f"127.0.0.1:{order.port}"
        async with agent_process(place, address, attestation.address) as agent:
            await first.until(shows(event="Running", status="InProgress"))
            first.child.kill()
            kept = place.work / "kept" / "computation.json"
            await eventually(kept.exists, seconds=SECONDS)
            agent.kill()
            await agent.wait()
    package = (place.work / "kept" / "result.zip.jwe").read_bytes()
    async with (
        agent_program(place, address, attestation.address) as log,
        order.cvms() as second,
    ):
        assert await second.ended() == 0, second.shown
    assert (tmp_path / "1.zip.jwe").read_bytes() == package
    assert not kept.exists()
    told = [entry["event"] for entry in second.shown if "event" in entry]
    assert "Interrupted" not in told, log


@pytest.mark.parametrize("disk", ["limit", "tmpfs"])
async def test_a_full_disk_is_the_exit_code_and_costs_no_result(
    place: Bed, attestation: Running, registry: str, tmp_path: Path, disk: str
) -> None:
    """Through more than one of the agent's tries, each of which ends with the stream."""
    url = await pushed(
        place, registry, "big", "busybox head -c 300000 /dev/urandom >/cocos/results/x"
    )
    order = Order(tmp_path, url)
    async with order.cvms() as free:  # a port
        free.child.kill()
    (tmp_path / "small").mkdir()
    mount = 'mount -t tmpfs -o size=128k none small && exec "$@"'
    full = {
        "limit": ["prlimit", "--fsize=131072"],
        "tmpfs": ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"],
    }[disk]
    if disk == "tmpfs":
        await process.run([*full, "true"], cwd=tmp_path)
    address = f"127.0.0.1:{order.port}"
    async with agent_program(place, address, attestation.address) as log:
        for _ in range(3):
            async with order.cvms("-results-dir", "small", before=full) as cvms:
                assert await cvms.ended() == 74, (cvms.shown, log)
            told = json.loads(cvms.shown[-1]["errors"].splitlines()[-1])
            assert told["error"] == "storage"
            assert told["message"].startswith("cannot write small/"), told
            assert not [*(tmp_path / "small").glob("*zip*")]
        async with order.cvms("-results-dir", "small") as cvms:
            assert await cvms.ended() == 0, (cvms.shown, log)
    package = sealed.open_sealed((tmp_path / "small/1.zip.jwe").read_bytes(), PRIVATE)
    assert len(package) > 300_000


async def test_a_second_computation_for_a_vm_that_is_done(
    place: Bed, attestation: Running, registry: str, tmp_path: Path
) -> None:
    url = await pushed(place, registry, "good", "echo 42")
    order = Order(tmp_path, url)
    async with contextlib.AsyncExitStack() as stack:
        async with order.cvms() as first:
            address = f"127.0.0.1:{order.port}"
            await stack.enter_async_context(agent_program(place, address, attestation.address))
            assert await first.ended() == 0
        for identity in ("2", "1"):  # another one, and the same again
            async with order.cvms("-id", identity) as second:
                assert await second.ended() == 1
            errors = [entry["error"] for entry in second.shown if entry.get("accepted") is False]
            assert errors == [
                "this VM has done its computation (1); start another one (cocos-cli agent create)"
            ]
            assert not [entry for entry in second.shown if "event" in entry], "no flood"
        assert order.result()["stdout.log"] == b"42\n"


async def test_a_cvms_of_the_original_takes_no_result(
    place: Bed, attestation: Running, registry: str, tmp_path: Path
) -> None:
    """It reads ours as an empty message. The agent says so, and the result goes to who takes it."""
    url = await pushed(place, registry, "good", "echo 42")
    order = Order(tmp_path, url)
    manifest = from_flags(replace(FLAGS, algo_source_url=url), consumer_key(PUBLIC))
    original = Original(manifest)
    async with contextlib.AsyncExitStack() as stack:
        async with original.serving() as address:
            order.port = address.rpartition(":")[2]
            await stack.enter_async_context(agent_program(place, address, attestation.address))
            warning = await original.until("ConsumingResults", "Warning")
            await original.until_log("does not say whether it has stored it")
            assert await original.state() == "ConsumingResults"
            assert original.statuses[-1] == ("ConsumingResults", "Warning")
        assert "it is kept in the VM" in json.loads(warning.details)["reason"]
        assert (place.work / "kept" / "computation.json").exists()
        async with order.cvms() as ours:
            assert await ours.ended() == 0, ours.shown
    assert order.result()["stdout.log"] == b"42\n"
    assert not (place.work / "kept").exists()


class Original(pb_grpc.ServiceServicer):
    """As the public test server is: the manifest to everybody at once, without what is ours."""

    def __init__(self, manifest: Computation) -> None:
        self.manifest = manifest
        self.events: list[Any] = []
        self.logs: list[str] = []
        self.states: asyncio.Queue[str] = asyncio.Queue()
        self._asked = asyncio.Event()
        self._changed = asyncio.Event()

    @property
    def statuses(self) -> list[tuple[str, str]]:
        return [(event.event_type, event.status) for event in self.events]

    async def Process(  # type: ignore[override]  # noqa: N802 - wire name; it writes itself
        self, request_iterator: Any, context: Any
    ) -> None:
        request = pb.ServerStreamMessage(
            runReqChunks=pb.RunReqChunks(data=self.manifest.to_proto(), id="1", is_last=True)
        )
        await context.write(request)
        asking = asyncio.create_task(self._ask(context))
        try:
            async for message in request_iterator:
                match message.WhichOneof("message"):
                    case "agent_event":
                        self.events.append(message.agent_event)
                    case "agent_log":
                        self.logs.append(message.agent_log.message)
                    case "agentStateRes":
                        self.states.put_nowait(message.agentStateRes.state)
                self._changed.set()
        finally:
            asking.cancel()

    async def _ask(self, context: Any) -> None:
        await self._asked.wait()
        await context.write(pb.ServerStreamMessage(agentStateReq=pb.AgentStateReq(id="1")))

    async def state(self) -> str:
        self._asked.set()
        return await asyncio.wait_for(self.states.get(), SECONDS)

    async def until(self, kind: str, status: str) -> Any:
        await self._until(lambda: (kind, status) in self.statuses)
        return self.events[self.statuses.index((kind, status))]

    async def until_log(self, words: str) -> None:
        await self._until(lambda: any(words in line for line in self.logs))

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(SECONDS):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        server = aio.server()
        pb_grpc.add_ServiceServicer_to_server(self, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await server.stop(0)
