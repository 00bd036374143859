# SPDX-License-Identifier: Apache-2.0
"""What the test CVMS does: hand out one manifest, show what agents tell, keep the result.

It sees events, logs and a sealed result; it is trusted with none of the data.
"""

import contextlib
import datetime as dt
import enum
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from cocos._clock import Clock, system_clock
from cocos._types import JsonObject
from cocos.cvms.presence import Presence
from cocos.errors import ConfigError
from cocos.wire._generated import cvms_pb2 as pb
from cocos.wire.manifest.computation import Computation

CHUNK_BYTES = 2**20
MAX_RESULT_BYTES = 4 * 2**30
MAX_EVENTS = 10_000

_READY_FOR_MANIFEST = "ReceivingManifest"

_log = structlog.get_logger(__name__)

Show = Callable[[JsonObject], None]


class Verdict(enum.Enum):
    """How a computation ended, from here."""

    COMPLETE = enum.auto()
    FAILED = enum.auto()
    REFUSED = enum.auto()


@dataclass(frozen=True, slots=True)
class Ending:
    """How a computation ended, and why."""

    verdict: Verdict
    reason: str = ""


class CvmsService:
    """Hands one computation to every agent that asks.

    Args:
        computation: The computation.
        results: Folder for sealed results; made when absent.
        show: Gets everything that agents tell, as JSON objects.
        on_end: Is told when a computation has ended.
        clock: The time.
    """

    def __init__(
        self,
        computation: Computation,
        results: Path,
        show: Show,
        on_end: Callable[[Ending], None],
        clock: Clock = system_clock,
    ) -> None:
        self.computation = computation
        self.show = show
        self.on_end = on_end
        self._results = results
        self._digest = computation.digest().hex()
        self._seen: set[bytes] = set()
        self._started = clock()
        self._given: set[str] = set()
        self.presence = Presence()
        try:
            results.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot make {results}: {error.strerror}") from error

    @property
    def result_path(self) -> Path:
        """Where the sealed result is stored."""
        return self._results / f"{self.computation.id}.zip.jwe"

    def is_new(self, event: pb.AgentEvent) -> bool:
        """Whether an event was not heard before; agents repeat them over every new stream."""
        text = event.SerializeToString(deterministic=True)
        new = text not in self._seen
        if len(self._seen) < MAX_EVENTS:
            self._seen.add(text)
        return new

    def given_to(self, job: str) -> None:
        """Remember that a CVM has accepted our computation."""
        self._given.add(job)

    def is_ours(self, job: str, event: pb.AgentEvent, details: JsonObject) -> bool:
        """Whether an event is about our computation as we gave it out.

        An agent repeats what it did last to whoever answers at the CVMS's address: that
        may be another computation of the same id, or the same one, asked for yesterday.
        """
        present = job in self._given or event.timestamp.ToDatetime(dt.UTC) >= self._started
        return (
            present
            and event.computation_id == self.computation.id
            and details.get("manifest", self._digest) == self._digest
        )

    def manifest_chunks(self) -> Iterator[pb.ServerStreamMessage]:
        """Cut the manifest into messages; the last is empty and says so."""
        data, identity = self.computation.to_proto(), self.computation.id
        pieces = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
        for number, piece in enumerate([*pieces, b""]):
            last = number == len(pieces)
            yield pb.ServerStreamMessage(
                runReqChunks=pb.RunReqChunks(data=piece, id=identity, is_last=last)
            )


class Session:
    """One stream of an agent.

    Args:
        service: The CVMS.
        job: The CVM's id, or empty.
        log_only: A stream that brings logs and events and takes nothing.
    """

    def __init__(self, service: CvmsService, job: str, *, log_only: bool = False) -> None:
        self._service = service
        self._job = job
        self._log_only = log_only
        self._counts = False
        self._result = _ResultFile(service.result_path)

    def begin(self) -> Iterator[pb.ServerStreamMessage]:
        """Yield the first messages: an agent that is busy is not given work."""
        self._counts = not self._log_only
        if self._counts:
            self._service.presence.came()
        self._service.show({"agent": self._job, "connected": True})
        if not self._log_only:
            request = pb.AgentStateReq(id=self._service.computation.id)
            yield pb.ServerStreamMessage(agentStateReq=request)

    def receive(self, message: pb.ClientStreamMessage) -> Iterator[pb.ServerStreamMessage]:
        """Take a message and yield the answers."""
        match message.WhichOneof("message"):
            case "agent_log":
                self._service.show(_shown_log(message.agent_log))
            case "agent_event":
                self._event(message.agent_event)
            case "agentStateRes":
                self._service.show({"state": message.agentStateRes.state})
                if message.agentStateRes.state == _READY_FOR_MANIFEST and not self._log_only:
                    yield from self._service.manifest_chunks()
            case "run_res":
                self._answer(message.run_res)
            case "stopComputationRes":
                answer = message.stopComputationRes
                self._service.show({"stopped": answer.computation_id, "error": answer.message})
            case "resultChunk":
                self._chunk(message.resultChunk)
            case _:  # the attestation report of the first message, or of a later version
                pass

    def end(self) -> None:
        """Drop what is half here."""
        self._result.drop()
        if self._counts:
            self._service.presence.went()
            self._counts = False
        self._service.show({"agent": self._job, "connected": False})

    def _event(self, event: pb.AgentEvent) -> None:
        shown = _shown_event(event)
        details = shown.get("details", {})
        ours = self._service.is_ours(self._job, event, details)
        if self._service.is_new(event):
            self._service.show(shown if ours else {**shown, "other": True})
        if event.event_type not in {"Failed", "Complete"}:
            return
        if not ours:
            self._result.drop()
        elif event.event_type == "Failed":
            reason = str(details.get("reason", "the agent names no reason"))
            self._service.on_end(Ending(Verdict.FAILED, reason))
        elif self._result.store():
            self._service.show({"result": str(self._service.result_path)})
            self._service.on_end(Ending(Verdict.COMPLETE))
        else:
            missing = "the computation is complete but no result arrived"
            self._service.on_end(Ending(Verdict.FAILED, missing))

    def _answer(self, answer: pb.RunResponse) -> None:
        accepted = not answer.error
        self._service.show({"accepted": accepted, "error": answer.error})
        if answer.computation_id != self._service.computation.id:
            return
        if accepted:
            self._service.given_to(self._job)
        else:
            self._service.on_end(Ending(Verdict.REFUSED, answer.error))

    def _chunk(self, chunk: pb.ResultChunk) -> None:
        if chunk.computation_id != self._service.computation.id:
            _log.warning("result.foreign", id=chunk.computation_id)
            return
        self._result.add(chunk.data, last=chunk.is_last)


class _ResultFile:
    """A result as it arrives; it gets its name when it is whole and known to be ours."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.{os.getpid()}-{id(self):x}")
        self._size = 0
        self._whole = False

    def add(self, data: bytes, *, last: bool) -> None:
        """Append a piece; one that comes after the last begins a new result."""
        if self._whole:
            self.drop()
        self._size += len(data)
        if self._size > MAX_RESULT_BYTES:
            self.drop()
            raise ConfigError(f"the result is larger than {MAX_RESULT_BYTES} bytes")
        try:
            with self._part.open("ab") as file:
                file.write(data)
                if last:
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise ConfigError(f"cannot write {self._part}: {error.strerror}") from error
        self._whole = last

    def store(self) -> bool:
        """Give it its name; return whether there was a whole one."""
        if not self._whole:
            return False
        try:
            self._part.replace(self._path)
        except OSError as error:
            raise ConfigError(f"cannot write {self._path}: {error.strerror}") from error
        self._size, self._whole = 0, False
        return True

    def drop(self) -> None:
        """Remove what is here of it."""
        self._size, self._whole = 0, False
        with contextlib.suppress(OSError):
            self._part.unlink()


def _shown_event(event: pb.AgentEvent) -> JsonObject:
    shown: JsonObject = {
        "time": event.timestamp.ToDatetime().isoformat(),
        "event": event.event_type,
        "status": event.status,
        "computation": event.computation_id,
        "originator": event.originator,
    }
    try:
        details = json.loads(event.details or b"{}")
    except (ValueError, RecursionError):
        details = None
    if isinstance(details, dict) and details:
        shown["details"] = details
    return shown


def _shown_log(entry: pb.AgentLog) -> JsonObject:
    return {
        "time": entry.timestamp.ToDatetime().isoformat(),
        "log": entry.message,
        "level": entry.level,
        "computation": entry.computation_id,
    }
