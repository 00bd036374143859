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

from cocos.agent.outbox import Outbox
from cocos.agent.report import Happening, Level, Status
from cocos.agent.states import State
from cocos.agent.stream import CvmsLoop, CvmsReporter, SealedOutlet
from cocos.crypto import sealed
from cocos.errors import FormatError, StateError, UnreachableError
from cocos.wire._generated import cvms_pb2 as pb
from cocos.wire.manifest.computation import Computation
from cocos.wire.manifest.parts import Algorithm, Source

NOW = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
KEY = ec.generate_private_key(ec.SECP256R1())
CONSUMER = KEY.public_key().public_bytes(
    serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
)
COMPUTATION = Computation(
    "1", Algorithm(Source("oci-image", "docker://h:1/x")), result_consumers=(CONSUMER,)
)


class Agent:
    """The part of the service that the stream needs."""

    def __init__(self) -> None:
        self.accepted: list[Computation] = []
        self.stopped: list[str] = []

    @property
    def state(self) -> State:
        return State.RECEIVING_MANIFEST

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

    def __init__(self, *messages: pb.ServerStreamMessage, takes: int | None = None) -> None:
        self.sent: list[pb.ClientStreamMessage] = []
        self.takes = takes
        self._queue: asyncio.Queue[pb.ServerStreamMessage | None] = asyncio.Queue()
        for message in messages:
            self._queue.put_nowait(message)
        self.changed = asyncio.Event()

    def end(self) -> None:
        self._queue.put_nowait(None)

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
    harness.outbox.put_result("1", data)
    async with harness.running():
        await whole.until(lambda sent: len(sent) == 4)
    assert broken.kinds() == ["vTPMattestationReport", "resultChunk"]
    received = [message.resultChunk for message in whole.sent[1:]]
    assert b"".join(chunk.data for chunk in received) == data
    assert received[-1].is_last


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
    outlet = SealedOutlet(Outbox())
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


def test_a_manifest_whose_result_nobody_could_open() -> None:
    nobody = Computation("1", COMPUTATION.algorithm)
    with pytest.raises(FormatError, match="nobody could open"):
        SealedOutlet(Outbox()).check(nobody)
