# SPDX-License-Identifier: Apache-2.0
"""The agent as the CVMS sees it: one stream, opened again whenever it breaks."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import structlog

from cocos._clock import Clock
from cocos._patience import back_off
from cocos.agent.kept import Keep, Kept
from cocos.agent.outbox import Outbox, Parcel
from cocos.agent.pieces import Pieces
from cocos.agent.report import ENDINGS, ORIGINATOR, Happening, Level, pieces
from cocos.agent.states import State
from cocos.crypto import sealed
from cocos.errors import CocosError, FormatError
from cocos.wire._generated import cvms_pb2 as pb
from cocos.wire.json import encode
from cocos.wire.manifest.computation import Computation
from cocos.wire.manifest.identity import Identity

LONGEST_PAUSE_SECONDS = 30.0

_ENDS = frozenset({State.COMPLETE, State.FAILED})  # after an interruption a manifest may come

_log = structlog.get_logger(__name__)


class Stream(Protocol):
    """An open stream.

    Attributes:
        stores_results: Whether the CVMS says what it has stored; None until it has spoken.
    """

    @property
    def stores_results(self) -> bool | None: ...

    async def send(self, message: pb.ClientStreamMessage, /) -> None: ...

    async def receive(self) -> pb.ServerStreamMessage | None: ...


class Service(Protocol):
    """What the CVMS may ask of the agent; :class:`cocos.agent.service.AgentService`."""

    @property
    def state(self) -> State: ...

    @property
    def present(self) -> Identity | None: ...

    def not_taken(self) -> None: ...

    def accept(self, computation: Computation, /) -> None: ...

    async def stop(self, computation_id: str, /) -> None: ...


Connect = Callable[[], AbstractAsyncContextManager[Stream]]


class CvmsReporter:
    """Turns what happens into messages for the CVMS."""

    def __init__(self, outbox: Outbox, clock: Clock) -> None:
        self._outbox = outbox
        self._clock = clock

    def event(self, happening: Happening) -> None:
        """See :class:`cocos.agent.report.Reporter`."""
        event = pb.AgentEvent(
            event_type=happening.type,
            computation_id=happening.computation,
            details=encode(happening.details),
            originator=ORIGINATOR,
            status=happening.status,
        )
        event.timestamp.FromDatetime(self._clock())
        of = Identity(happening.computation, happening.details.get("manifest", ""))
        message = pb.ClientStreamMessage(agent_event=event)
        self._outbox.put(message, of=of, is_ending=happening.type in ENDINGS)

    def log(self, computation: str, level: Level, message: str) -> None:
        """See :class:`cocos.agent.report.Reporter`."""
        for piece in pieces(message):
            entry = pb.AgentLog(message=piece, computation_id=computation, level=level.name)
            entry.timestamp.FromDatetime(self._clock())
            self._outbox.put(pb.ClientStreamMessage(agent_log=entry), droppable=True)


class SealedOutlet:
    """Results go to the CVMS, which is not trusted, sealed to their consumers.

    Args:
        outbox: The way to the CVMS.
        keep: Where a result is until a CVMS has stored it.
    """

    def __init__(self, outbox: Outbox, keep: Keep) -> None:
        self._outbox = outbox
        self._keep = keep

    def check(self, computation: Computation) -> None:
        """See :class:`cocos.agent.service.Outlet`."""
        if not computation.result_consumers:
            raise FormatError(
                "the manifest is refused: result_consumers: without one nobody could open the "
                "result",
                hint="cvms-test -public-key FILE names one",
            )

    def consumers(self, computation: Computation) -> Sequence[bytes]:
        """See :class:`cocos.agent.service.Outlet`."""
        return computation.result_consumers

    async def pack(self, computation: Computation, archive: Path) -> bytes:
        """See :class:`cocos.agent.service.Outlet`."""
        consumers = self.consumers(computation)

        def work() -> bytes:
            package = sealed.seal(archive.read_bytes(), consumers)
            try:
                self._keep.put(Kept(Identity.of(computation), package))
            except CocosError as error:  # it is still here, as long as we are
                _log.error("result.only-in-memory", id=computation.id, error=error.message)
            return package

        working = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            return await asyncio.shield(working)
        finally:
            await asyncio.wait([working])  # what is stopped keeps nothing afterwards

    def kept(self) -> Kept | None:
        """See :class:`cocos.agent.service.Outlet`."""
        return self._keep.get()

    async def deliver(self, identity: Identity, package: bytes) -> None:
        """See :class:`cocos.agent.service.Outlet`."""
        await self._outbox.put_result(Kept(identity, package)).stored.wait()
        await asyncio.to_thread(self._keep.drop)

    def forget(self) -> None:
        """See :class:`cocos.agent.service.Outlet`."""
        self._outbox.forget()
        self._keep.drop()


class CvmsLoop:
    """Keeps a stream to the CVMS and does what it asks.

    Args:
        service: The agent.
        outbox: What is to be sent.
        connect: Opens a stream.
        on_cvms: Gets why the CVMS cannot be reached, or an empty text when it is.
        sleep: Waits that many seconds.
        jitter: Returns a number from 0 to 1.
    """

    def __init__(
        self,
        service: Service,
        outbox: Outbox,
        connect: Connect,
        *,
        on_cvms: Callable[[str], object] = lambda _: None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._service = service
        self._outbox = outbox
        self._connect = connect
        self._on_cvms = on_cvms
        self._sleep = sleep
        self._jitter = jitter
        self._failures = 0
        self._sent_result: Parcel | None = None
        self.over = asyncio.Event()
        """Set when the computation has ended and a CVMS has stored how, and its result."""

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            try:
                async with self._connect() as stream:
                    _log.info("cvms.connected")
                    self._on_cvms("")
                    await self._serve(stream)
            except CocosError as error:
                _log.warning("cvms.lost", error=error.message, pending=len(self._outbox))
                self._on_cvms(error.message)
            except Exception as error:  # noqa: BLE001 - what it holds must outlive any stream
                _log.error("cvms.crashed", exc_info=error)
            else:
                _log.info("cvms.ended", pending=len(self._outbox))
            await self._sleep(back_off(self._failures, LONGEST_PAUSE_SECONDS, self._jitter))
            self._failures += 1

    async def _serve(self, stream: Stream) -> None:
        """Send and receive until the stream ends or breaks."""
        self._sent_result = None
        sender = asyncio.create_task(self._send(stream))
        receiver = asyncio.create_task(self._receive(stream))
        try:
            done, _ = await asyncio.wait({sender, receiver}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sender.cancel()
            receiver.cancel()
            await asyncio.gather(sender, receiver, return_exceptions=True)
        for task in done:
            task.result()

    async def _send(self, stream: Stream) -> None:
        # The original's first word; there is no client certificate that it would vouch for.
        await stream.send(pb.ClientStreamMessage(vTPMattestationReport=pb.AttestationResponse()))
        self._outbox.reopen()
        while True:
            parcel = await self._outbox.next()
            for message in parcel.messages():
                await stream.send(message)
            if parcel is self._outbox.result:
                self._sent_result = parcel
                self._look_for_a_taker(stream)
            self._outbox.done(parcel)

    def _look_for_a_taker(self, stream: Stream) -> None:
        """Say so if a result has gone to a CVMS that will never say that it is stored."""
        waiting = self._sent_result is not None and self._sent_result is self._outbox.result
        if waiting and stream.stores_results is False:
            self._sent_result = None
            self._service.not_taken()

    async def _receive(self, stream: Stream) -> None:
        collected = Pieces()
        while (message := await stream.receive()) is not None:
            self._failures = 0  # only one that speaks is a CVMS
            self._look_for_a_taker(stream)
            kind = message.WhichOneof("message")
            match kind:
                case "runReqChunks":
                    self._chunk(message.runReqChunks, collected)
                case "runReq":
                    self._manifest(message.runReq.id, message.runReq.SerializeToString())
                case "stopComputation":
                    await self._stop(message.stopComputation.computation_id)
                case "agentStateReq":
                    self._state(message.agentStateReq.id)
                case "stored":
                    self._stored(message.stored)
                case "disconnectReq":
                    _log.info("cvms.disconnect-asked")
                    return
                case _:
                    _log.warning("cvms.unknown-message", kind=kind)

    def _stored(self, receipt: pb.Stored) -> None:
        identity = Identity.received(receipt.computation_id, receipt.manifest)
        if receipt.result:
            counts = self._outbox.result_stored(identity, receipt.result)
        else:
            counts = self._outbox.ending_stored(identity)
            if counts and identity == self._service.present and self._service.state in _ENDS:
                self.over.set()
        what = "result" if receipt.result else "ending"
        _log.info(f"{what}.stored" if counts else "receipt.foreign", id=identity.id)

    def _state(self, identity: str) -> None:
        answer = pb.AgentStateRes(id=identity, state=self._service.state)
        if (present := self._service.present) is not None:
            answer.computation_id = present.id
            answer.manifest = present.digest
        self._answer(pb.ClientStreamMessage(agentStateRes=answer))

    def _chunk(self, chunk: pb.RunReqChunks, collected: Pieces) -> None:
        try:
            whole = collected.add(chunk.id, chunk.data, last=chunk.is_last)
        except CocosError as error:
            self._answer_run(chunk.id, error)
        else:
            if whole is not None:
                self._manifest(chunk.id, whole)

    def _manifest(self, identity: str, data: bytes) -> None:
        try:
            computation = Computation.from_proto(data)
            self._service.accept(computation)
        except CocosError as error:
            _log.warning("manifest.refused", id=identity, error=error.message)
            self._answer_run(identity, error)
        else:
            self._answer_run(computation.id, None)

    def _answer_run(self, identity: str, error: CocosError | None) -> None:
        response = pb.RunResponse(computation_id=identity, error=_sentence(error))
        self._answer(pb.ClientStreamMessage(run_res=response))

    async def _stop(self, identity: str) -> None:
        try:
            await self._service.stop(identity)
        except CocosError as error:
            answer = pb.StopComputationResponse(computation_id=identity, message=_sentence(error))
        else:
            answer = pb.StopComputationResponse(computation_id=identity)
        self._answer(pb.ClientStreamMessage(stopComputationRes=answer))

    def _answer(self, message: pb.ClientStreamMessage) -> None:
        # Whoever asks without end and reads nothing shall not push events out.
        self._outbox.put(message, droppable=True)


def _sentence(error: CocosError | None) -> str:
    if error is None:
        return ""
    return f"{error.message} ({error.hint})" if error.hint else error.message
