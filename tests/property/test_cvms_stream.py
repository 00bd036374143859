# SPDX-License-Identifier: Apache-2.0
"""CVMS and agent, cut off from each other and killed at any message and any write to the disk.

Both are the real ones but for gRPC, which is a queue here, and for what the agent works on. Each
message meets with the next of a list of mishaps. Whatever these were: the CVMS ends with what
became of the computation, and its result is there and nowhere lost meanwhile.
"""

import asyncio
import collections
import contextlib
import enum
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings

from cocos._clock import system_clock
from cocos.agent.config import AgentSettings
from cocos.agent.kept import Keep, Kept
from cocos.agent.outbox import Outbox
from cocos.agent.report import Status
from cocos.agent.service import AgentService
from cocos.agent.states import Event, State
from cocos.agent.stream import CvmsLoop, CvmsReporter, SealedOutlet
from cocos.cvms import record, result_file
from cocos.cvms.record import Verdict
from cocos.cvms.service import CvmsService, Ending, Session
from cocos.errors import ComputationError, UnreachableError
from cocos.host import files
from cocos.wire._generated import cvms_pb2 as pb
from cocos.wire.manifest.computation import Computation
from cocos.wire.manifest.identity import Identity
from cocos.wire.manifest.parts import Algorithm, Source

SECONDS = 60
CONSUMER = (
    ec.generate_private_key(ec.SECP256R1())
    .public_key()
    .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
)
COMPUTATION = Computation(
    "1", Algorithm(Source("oci-image", "docker://h:1/x")), result_consumers=(CONSUMER,)
)
IDENTITY = Identity.of(COMPUTATION)


class Mishap(enum.Enum):
    """What happens to a message."""

    NONE = enum.auto()
    LOST = enum.auto()
    """The stream breaks before it arrives."""
    LAST = enum.auto()
    """It arrives, and the stream breaks."""
    TWICE = enum.auto()
    """It comes again over another stream."""
    CVMS_BEFORE = enum.auto()
    CVMS_AT_FIRST_WRITE = enum.auto()
    CVMS_AFTER_FIRST_WRITE = enum.auto()
    CVMS_AT_SECOND_WRITE = enum.auto()
    CVMS_AFTER = enum.auto()
    AGENT_BEFORE = enum.auto()
    AGENT_AFTER = enum.auto()
    STRANGER = enum.auto()
    """Another agent tells of another computation of the same id."""


WRITES = {
    Mishap.CVMS_AT_FIRST_WRITE: 0.0,
    Mishap.CVMS_AFTER_FIRST_WRITE: 0.5,
    Mishap.CVMS_AT_SECOND_WRITE: 1.0,
}


class Killed(BaseException):
    """The CVMS is no more."""


class Disk:
    """Counts durable writes of a CVMS; kills it before or after one of them."""

    def __init__(self) -> None:
        self.kill_at: float | None = None

    def wrap(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*words: Any, **options: Any) -> Any:
            self._pass()
            done = write(*words, **options)
            self._pass()
            return done

        return wrapped

    def _pass(self) -> None:
        if self.kill_at is not None:
            if self.kill_at <= 0:
                raise Killed
            self.kill_at -= 0.5


class Idle:
    """Runs nothing."""

    async def sweep(self) -> None:
        pass


class Worker(AgentService):
    """An agent whose work is a file, or fails."""

    fails = False

    async def _run(self, computation: Computation, narrator: Any) -> None:  # noqa: ARG002
        identity = Identity.of(computation)
        self._tell(identity, State.RECEIVING_ALGORITHM, Status.IN_PROGRESS)
        self._machine.fire(Event.ALGORITHM_RECEIVED, datasets=False)
        self._tell(identity, State.RUNNING, Status.IN_PROGRESS)
        await asyncio.sleep(0)
        if self.fails:
            raise ComputationError("it fails", exit_status=3)
        package = await self._outlet.pack(computation, self._work / "results.zip")
        self._move(identity, Event.RUN_COMPLETE, Status.READY)
        await self._hand_over(identity, package)


class Noted(Keep):
    """Remembers what was kept."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.made: list[bytes] = []

    def put(self, kept: Kept) -> None:
        super().put(kept)
        self.made.append(kept.package)


class World:
    """One CVMS with -once, one agent, and what comes between."""

    def __init__(self, folder: Path, mishaps: list[Mishap], *, fails: bool, disk: Disk) -> None:
        self.folder = folder
        self.fails = fails
        self.disk = disk
        self.keep = Noted(folder / "agent" / "kept")
        self.ending: Ending | None = None
        self.ended = asyncio.Event()
        self._mishaps = collections.deque(mishaps)
        self._endings: list[Ending] = []
        self._cvms: CvmsService | None = None
        self._agent_dies = asyncio.Event()
        (folder / "agent").mkdir()
        (folder / "agent" / "results.zip").write_bytes(b"result")

    def next(self) -> Mishap:
        return self._mishaps.popleft() if self._mishaps else Mishap.NONE

    # --- the CVMS

    def cvms(self) -> CvmsService:
        """Return the CVMS that runs, or start it with the same command."""
        if self._cvms is None:
            self._endings = []
            self._cvms = CvmsService(
                COMPUTATION, self.folder / "cvms", lambda _: None, self._endings.append
            )
            self._cvms.resume()
        return self._cvms

    def kill_cvms(self) -> None:
        self._cvms = None

    def look_for_an_end(self) -> None:
        """With -once it ends when it knows how; it may be killed in the last moment."""
        if self._endings and self._cvms is not None and self.ending is None:
            if self.next() in {Mishap.CVMS_BEFORE, Mishap.CVMS_AFTER}:
                self.kill_cvms()
                self.cvms()
                assert self._endings, "an outcome was forgotten"
            self.ending = self._endings[0]
            self.ended.set()

    # --- the agent

    async def live(self) -> None:
        """Have an agent run, and a new one whenever it was killed."""
        while True:
            self._agent_dies = asyncio.Event()
            async with self._agent():
                await self._agent_dies.wait()

    @contextlib.asynccontextmanager
    async def _agent(self) -> AsyncIterator[None]:
        outbox = Outbox()
        anything: Any = Idle()
        service = Worker(
            AgentSettings(),
            work=self.folder / "agent",
            fetcher=anything,
            runtime=anything,
            register=None,
            reporter=CvmsReporter(outbox, system_clock),
            outlet=SealedOutlet(outbox, self.keep),
        )
        service.fails = self.fails
        await service.start()
        loop = CvmsLoop(service, outbox, self._connect, sleep=lambda _: asyncio.sleep(0))
        running = asyncio.create_task(loop.run())
        try:
            yield
        finally:  # nothing is put in order: it was killed
            for task in (running, service._task):
                if task is not None:
                    task.cancel()
                    await asyncio.wait([task])

    def kill_agent(self) -> None:
        self._agent_dies.set()

    @contextlib.asynccontextmanager
    async def _connect(self) -> AsyncIterator["Link"]:
        link = Link(self, self.cvms())
        self.look_for_an_end()
        try:
            yield link
        finally:
            link.end()

    def check(self) -> None:
        """What was computed is never nowhere."""
        if self.keep.made:
            stored = self.folder / "cvms" / "1.zip.jwe"
            assert self.keep.get() is not None or stored.exists(), "a result was lost"


class Link:
    """One stream."""

    def __init__(self, world: World, cvms: CvmsService) -> None:
        self.stores_results: bool | None = None
        self._world = world
        self._cvms = cvms
        self._session = Session(cvms, "vm")
        self._answers: asyncio.Queue[pb.ServerStreamMessage | None] = asyncio.Queue()
        self._broken = False
        self._put(self._session.begin())

    def _put(self, messages: Any) -> None:
        for message in messages:
            self._answers.put_nowait(message)

    def _alive(self) -> bool:
        return not self._broken and self._world._cvms is self._cvms

    def _break(self) -> None:
        self._broken = True
        self._answers.put_nowait(None)

    def end(self) -> None:
        if self._world._cvms is self._cvms:
            self._session.end()
            self._world.look_for_an_end()

    async def send(self, message: pb.ClientStreamMessage) -> None:
        await asyncio.sleep(0)
        world = self._world
        mishap = world.next()
        world.check()
        if not self._alive() or mishap in {Mishap.LOST, Mishap.CVMS_BEFORE}:
            if mishap is Mishap.CVMS_BEFORE:
                world.kill_cvms()
            self._break()
            raise UnreachableError("the stream is broken")
        if mishap is Mishap.AGENT_BEFORE:
            world.kill_agent()
            await asyncio.Event().wait()
        world.disk.kill_at = WRITES.get(mishap)
        try:
            self._arrive(message, mishap)
        except Killed:
            world.kill_cvms()
            self._break()
            raise UnreachableError("the CVMS is gone") from None
        finally:
            world.disk.kill_at = None
        world.check()
        world.look_for_an_end()
        if mishap is Mishap.CVMS_AFTER:
            world.kill_cvms()
        if mishap in {Mishap.CVMS_AFTER, Mishap.LAST}:
            self._break()
        if mishap is Mishap.AGENT_AFTER:
            world.kill_agent()

    def _arrive(self, message: pb.ClientStreamMessage, mishap: Mishap) -> None:
        if mishap is Mishap.STRANGER:
            self._stranger()
        self._put(self._session.receive(message))
        if mishap is Mishap.TWICE and message.WhichOneof("message") == "agent_event":
            again = Session(self._cvms, "vm")
            list(again.receive(message))
            again.end()

    def _stranger(self) -> None:
        session = Session(self._cvms, "stranger")
        chunk = pb.ResultChunk(computation_id="1", data=b"x", is_last=True, manifest=bytes(32))
        answers = list(session.receive(pb.ClientStreamMessage(resultChunk=chunk)))
        for kind in ("Failed", "Complete"):
            for details in (b"", b'{"manifest": "00"}'):
                told = pb.AgentEvent(event_type=kind, computation_id="1", details=details)
                answers += session.receive(pb.ClientStreamMessage(agent_event=told))
        refused = pb.RunResponse(computation_id="1", error="no")
        answers += session.receive(pb.ClientStreamMessage(run_res=refused))
        session.end()
        assert answers == []

    async def receive(self) -> pb.ServerStreamMessage | None:
        message = await self._answers.get()
        if message is None or not self._alive():
            return None
        self.stores_results = True
        return message


async def lived(folder: Path, mishaps: list[Mishap], *, fails: bool, disk: Disk) -> World:
    world = World(folder, mishaps, fails=fails, disk=disk)
    living = asyncio.create_task(world.live())
    ended = asyncio.create_task(world.ended.wait())
    try:
        async with asyncio.timeout(SECONDS):
            await asyncio.wait({living, ended}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (living, ended):
            task.cancel()
        await asyncio.gather(living, ended, return_exceptions=True)
    assert world.ending is not None
    return world


@pytest.fixture(scope="module")
def disk() -> Any:
    made = Disk()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record, "write_atomic", made.wrap(files.write_atomic))
        patch.setattr(result_file, "sync_folder", made.wrap(files.sync_folder))
        yield made


schedules = st.lists(st.sampled_from(Mishap), max_size=60)


@settings(deadline=None, max_examples=150)
@given(schedules)
def test_a_result_is_never_lost_and_its_end_is_known(disk: Disk, mishaps: list[Mishap]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        world = asyncio.run(lived(folder, mishaps, fails=False, disk=disk))
        assert world.ending == Ending(Verdict.COMPLETE)
        assert (folder / "cvms/1.zip.jwe").read_bytes() in world.keep.made


@settings(deadline=None, max_examples=75)
@given(schedules)
def test_a_failure_is_never_lost(disk: Disk, mishaps: list[Mishap]) -> None:
    with tempfile.TemporaryDirectory() as name:
        world = asyncio.run(lived(Path(name), mishaps, fails=True, disk=disk))
        assert world.ending == Ending(Verdict.FAILED, "it fails")


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("mishap", Mishap)
@pytest.mark.parametrize("at", range(12))
def test_one_mishap_at_each_message(
    disk: Disk, tmp_path: Path, mishap: Mishap, at: int, *, fails: bool
) -> None:
    mishaps = [*[Mishap.NONE] * at, mishap]
    world = asyncio.run(lived(tmp_path, mishaps, fails=fails, disk=disk))
    assert world.ending is not None
    assert world.ending.verdict is (Verdict.FAILED if fails else Verdict.COMPLETE)
