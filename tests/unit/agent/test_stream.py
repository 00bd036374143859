# SPDX-License-Identifier: Apache-2.0
"""The agent's stream to the CVMS: answers, reconnection, what is sent again."""

import asyncio
import contextlib
import datetime as dt
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cocos.agent.kept import Keep, Kept
from cocos.agent.outbox import Outbox
from cocos.agent.report import Happening, Level, Status
from cocos.agent.states import State
from cocos.agent.stream import CvmsLoop, CvmsReporter, SealedOutlet
from cocos.crypto import sealed
from cocos.errors import FormatError, StateError, UnreachableError
from cocos.wire._generated import cvms_pb2 as pb
from cocos.wire.manifest.computation import Computation
from cocos.wire.manifest.identity import Identity
from cocos.wire.manifest.parts import Algorithm, Source

NOW = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
KEY = ec.generate_private_key(ec.SECP256R1())
CONSUMER = KEY.public_key().public_bytes(
    serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
)
COMPUTATION = Computation(
    "1", Algorithm(Source("oci-image", "docker://h:1/x")), result_consumers=(CONSUMER,)
)
IDENTITY = Identity.of(COMPUTATION)


class Agent:
    """The part of the service that the stream needs."""

    def __init__(self) -> None:
        self.accepted: list[Computation] = []
        self.stopped: list[str] = []
        self.present: Identity | None = None
        self.warnings = 0

    @property
    def state(self) -> State:
        return State.RECEIVING_MANIFEST

    def not_taken(self) -> None:
        self.warnings += 1

    def accept(self, computation: Computation) -> None:
        if self.accepted:
            raise StateError("busy", hint="stop it")
        self.accepted.append(computation)

    async def stop(self, identity: str) -> None:
        self.stopped.append(identity)
        if identity == "unknown":
            raise StateError("another one is here")


class Peer:
    """One stream, as the CVMS sees it; breaks after ``takes`` messages."""

    def __init__(
        self,
        *messages: pb.ServerStreamMessage,
        takes: int | None = None,
        stores: bool | None = None,
    ) -> None:
        self.stores_results = stores
        self.sent: list[pb.ClientStreamMessage] = []
        self.takes = takes
        self._queue: asyncio.Queue[pb.ServerStreamMessage | None] = asyncio.Queue()
        for message in messages:
            self._queue.put_nowait(message)
        self.changed = asyncio.Event()

    def end(self) -> None:
        self._queue.put_nowait(None)

    def say(self, message: pb.ServerStreamMessage) -> None:
        self._queue.put_nowait(message)

    async def send(self, message: pb.ClientStreamMessage) -> None:
        if self.takes is not None and len(self.sent) >= self.takes:
            raise UnreachableError("broken")
        self.sent.append(message)
        self.changed.set()

    async def receive(self) -> pb.ServerStreamMessage | None:
        return await self._queue.get()

    async def until(self, condition: Callable[[list[pb.ClientStreamMessage]], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition(self.sent):
                self.changed.clear()
                await self.changed.wait()

    def kinds(self) -> list[str]:
        return [str(message.WhichOneof("message")) for message in self.sent]


class Harness:
    def __init__(self, *peers: Peer | Exception) -> None:
        self.agent = Agent()
        self.outbox = Outbox()
        self.pauses: list[float] = []
        self.all_used = asyncio.Event()
        self._peers = iter(peers)
        self.loop = CvmsLoop(
            self.agent, self.outbox, self.connect, sleep=self.sleep, jitter=lambda: 1.0
        )

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[Peer]:
        peer = next(self._peers, None)
        if peer is None:
            self.all_used.set()
            await asyncio.Event().wait()
        if isinstance(peer, Exception):
            raise peer
        assert peer is not None
        yield peer

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.loop.run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def chunks(data: bytes, identity: str = "1") -> list[pb.ServerStreamMessage]:
    half = len(data) // 2
    pieces = [(data[:half], False), (data[half:], False), (b"", True)]
    return [
        pb.ServerStreamMessage(runReqChunks=pb.RunReqChunks(data=piece, id=identity, is_last=last))
        for piece, last in pieces
    ]


async def test_a_manifest_in_chunks_is_accepted_and_answered() -> None:
    peer = Peer(*chunks(COMPUTATION.to_proto()))
    harness = Harness(peer)
    async with harness.running():
        await peer.until(lambda sent: len(sent) == 2)
    assert peer.kinds() == ["vTPMattestationReport", "run_res"]
    assert peer.sent[1].run_res == pb.RunResponse(computation_id="1", error="")
    assert harness.agent.accepted == [COMPUTATION]


async def test_every_refusal_is_answered() -> None:
    direct = pb.ServerStreamMessage(runReq=pb.ComputationRunReq.FromString(COMPUTATION.to_proto()))
    peer = Peer(*chunks(b"\xff not protobuf", "x"), direct, direct)
    harness = Harness(peer)
    async with harness.running():
        await peer.until(lambda sent: len(sent) == 4)
    errors = [message.run_res.error for message in peer.sent[1:]]
    assert errors == ["the manifest is not a serialized ComputationRunReq", "", "busy (stop it)"]
    assert peer.sent[1].run_res.computation_id == "x"


async def test_an_endless_manifest_is_answered() -> None:
    piece = bytes(2**20)
    endless = pb.ServerStreamMessage(runReqChunks=pb.RunReqChunks(data=piece, id="1"))
    peer = Peer(*[endless] * 5)
    async with Harness(peer).running():
        await peer.until(lambda sent: len(sent) == 2)
    assert "larger than" in peer.sent[1].run_res.error


async def test_state_and_stop() -> None:
    peer = Peer(
        pb.ServerStreamMessage(agentStateReq=pb.AgentStateReq(id="q")),
        pb.ServerStreamMessage(),  # from a later version
        pb.ServerStreamMessage(stopComputation=pb.StopComputation(computation_id="1")),
        pb.ServerStreamMessage(stopComputation=pb.StopComputation(computation_id="unknown")),
    )
    harness = Harness(peer)
    async with harness.running():
        await peer.until(lambda sent: len(sent) == 4)
    assert peer.sent[1].agentStateRes == pb.AgentStateRes(id="q", state="ReceivingManifest")
    assert peer.sent[2].stopComputationRes.message == ""
    assert peer.sent[3].stopComputationRes.message == "another one is here"
    assert harness.agent.stopped == ["1", "unknown"]


async def test_a_broken_stream_loses_nothing() -> None:
    """What gRPC had taken of the first stream may never have arrived."""
    broken, whole = Peer(takes=3), Peer()
    harness = Harness(broken, whole)
    reporter = CvmsReporter(harness.outbox, lambda: NOW)
    for name in "abcd":
        reporter.event(Happening("1", name, Status.IN_PROGRESS, {"n": name}))
    async with harness.running():
        await whole.until(lambda sent: len(sent) == 5)
    assert [message.agent_event.event_type for message in broken.sent[1:]] == ["a", "b"]
    assert [message.agent_event.event_type for message in whole.sent[1:]] == ["a", "b", "c", "d"]
    event = whole.sent[3].agent_event
    assert (event.status, event.originator, event.timestamp.ToDatetime(dt.UTC)) == (
        "InProgress",
        "agent",
        NOW,
    )
    assert json.loads(event.details) == {"n": "c"}


async def test_a_result_cut_off_starts_again_from_its_first_chunk() -> None:
    broken, whole = Peer(takes=2), Peer()
    harness = Harness(broken, whole)
    data = bytes(2 * 2**20 + 1)
    harness.outbox.put_result(Kept(IDENTITY, data))
    async with harness.running():
        await whole.until(lambda sent: len(sent) == 4)
    assert broken.kinds() == ["vTPMattestationReport", "resultChunk"]
    received = [message.resultChunk for message in whole.sent[1:]]
    assert b"".join(chunk.data for chunk in received) == data
    assert received[-1].is_last
    assert {chunk.manifest.hex() for chunk in received} == {IDENTITY.manifest}


async def test_pauses_grow_and_a_cvms_that_speaks_resets_them() -> None:
    gone = [UnreachableError("gone") for _ in range(8)]
    state = pb.ServerStreamMessage(agentStateReq=pb.AgentStateReq(id="q"))
    speaking = Peer(state)
    speaking.end()
    harness = Harness(*gone, speaking, UnreachableError("gone"))
    async with harness.running():
        await harness.all_used.wait()
    assert harness.pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 0.5, 1]


async def test_asked_to_disconnect() -> None:
    first = Peer(pb.ServerStreamMessage(disconnectReq=pb.DisconnectReq(id="1")))
    second = Peer(pb.ServerStreamMessage(agentStateReq=pb.AgentStateReq(id="q")))
    async with Harness(first, second).running():
        await second.until(lambda sent: len(sent) == 2)


async def test_logs_are_cut_between_characters() -> None:
    outbox = Outbox()
    CvmsReporter(outbox, lambda: NOW).log("1", Level.WARN, "é" * 300)
    messages = []
    while len(outbox):
        parcel = await outbox.next()
        messages += [message.agent_log for message in parcel.messages()]
        outbox.done(parcel)
    assert [len(entry.message.encode()) for entry in messages] == [500, 100]
    assert {entry.level for entry in messages} == {"WARN"}


async def test_results_leave_sealed_to_their_consumers_only(tmp_path: Path) -> None:
    outlet = SealedOutlet(Outbox(), Keep(tmp_path / "kept"))
    path = tmp_path / "results.zip"
    path.write_bytes(b"the secret result")
    package = await outlet.pack(COMPUTATION, path)
    assert b"secret" not in package
    pem = KEY.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    assert sealed.open_sealed(package, pem) == b"the secret result"


def test_a_manifest_whose_result_nobody_could_open(tmp_path: Path) -> None:
    nobody = Computation("1", COMPUTATION.algorithm)
    with pytest.raises(FormatError, match="nobody could open"):
        SealedOutlet(Outbox(), Keep(tmp_path)).check(nobody)


# --- who has stored what -----------------------------------------------------------------


def receipt(
    identity: Identity = IDENTITY, result: bytes = b"", *, manifest: str = ""
) -> pb.ServerStreamMessage:
    digest = bytes.fromhex(manifest or identity.manifest)
    return pb.ServerStreamMessage(
        stored=pb.Stored(computation_id=identity.id, manifest=digest, result=result)
    )


async def test_a_result_is_kept_until_somebody_has_stored_it(tmp_path: Path) -> None:
    peer = Peer(stores=True)
    harness = Harness(peer)
    keep = Keep(tmp_path / "kept")
    outlet = SealedOutlet(harness.outbox, keep)
    (tmp_path / "results.zip").write_bytes(b"r")
    package = await outlet.pack(COMPUTATION, tmp_path / "results.zip")
    kept = Kept(IDENTITY, package)
    assert keep.get() == kept
    delivering = asyncio.create_task(outlet.deliver(IDENTITY, package))
    async with harness.running():
        await peer.until(lambda sent: len(sent) == 2)
        state = pb.ServerStreamMessage(agentStateReq=pb.AgentStateReq(id="q"))
        for foreign in (
            receipt(result=bytes(32)),
            receipt(result=kept.digest()[:-1]),
            receipt(IDENTITY._replace(id="2"), kept.digest()),
            receipt(IDENTITY._replace(manifest="00" * 32), kept.digest()),
            receipt(),
        ):
            peer.say(foreign)
        peer.say(state)
        await peer.until(lambda sent: len(sent) == 3)
        assert not delivering.done()
        assert keep.get() == kept
        peer.say(receipt(result=kept.digest()))
        await asyncio.wait_for(delivering, 10)
    assert keep.get() is None
    assert not (tmp_path / "kept").exists()
    assert harness.agent.warnings == 0


async def test_an_ending_is_told_until_somebody_has_stored_it() -> None:
    first, second, third = Peer(), Peer(), Peer()
    harness = Harness(first, second, third)
    reporter = CvmsReporter(harness.outbox, lambda: NOW)
    which = {"manifest": IDENTITY.manifest}
    reporter.event(Happening("1", "Running", Status.IN_PROGRESS, which))
    async with harness.running():
        await first.until(lambda sent: len(sent) == 2)
        first.say(receipt())  # of an end that was not told yet
        first.end()
        await second.until(lambda sent: len(sent) == 2)
        reporter.event(Happening("1", "Failed", Status.FAILED, which))
        await second.until(lambda sent: len(sent) == 3)
        second.say(receipt(manifest="00" * 32))
        second.say(receipt())
        second.end()
        third.say(pb.ServerStreamMessage(agentStateReq=pb.AgentStateReq(id="q")))
        await third.until(lambda sent: len(sent) == 2)
    assert third.kinds() == ["vTPMattestationReport", "agentStateRes"]


@pytest.mark.parametrize(("stores", "warnings"), [(False, 1), (True, 0), (None, 0)])
@pytest.mark.parametrize("speaks_first", [True, False])
async def test_a_cvms_that_does_not_say_what_it_has_stored(
    stores: bool | None, warnings: int, speaks_first: bool
) -> None:
    """Those of the original read a result as an empty message."""
    state = pb.ServerStreamMessage(agentStateReq=pb.AgentStateReq(id="q"))
    peer = Peer(*([state] if speaks_first else []), stores=stores)
    harness = Harness(peer)
    parcel = harness.outbox.put_result(Kept(IDENTITY, b"r"))
    async with harness.running():
        await peer.until(lambda _: "resultChunk" in peer.kinds())
        peer.say(state)
        await peer.until(lambda _: peer.kinds().count("agentStateRes") == 1 + speaks_first)
    assert harness.agent.warnings == warnings
    assert not parcel.stored.is_set()


async def test_whose_state_it_is() -> None:
    peer = Peer(pb.ServerStreamMessage(agentStateReq=pb.AgentStateReq(id="q")))
    harness = Harness(peer)
    harness.agent.present = IDENTITY
    async with harness.running():
        await peer.until(lambda sent: len(sent) == 2)
    answer = peer.sent[1].agentStateRes
    assert (answer.computation_id, answer.manifest.hex()) == IDENTITY


async def test_whatever_a_stream_raises_the_next_one_is_opened() -> None:
    class Broken(Peer):
        async def send(self, _message: pb.ClientStreamMessage) -> None:
            raise asyncio.InvalidStateError("RPC already finished.")

    whole = Peer()
    harness = Harness(Broken(), RuntimeError("a fault of ours"), whole)
    harness.outbox.put_result(Kept(IDENTITY, b"r"))
    async with harness.running():
        await whole.until(lambda sent: len(sent) == 2)
