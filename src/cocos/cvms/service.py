# SPDX-License-Identifier: Apache-2.0
"""What the test CVMS does: hand out one manifest, show what agents tell, keep the result.

It sees events, logs and a sealed result; it is trusted with none of the data. Whose an event
or a result is follows from id and manifest (:mod:`cocos.cvms.record`), never from when it comes.
"""

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from cocos._types import JsonObject
from cocos.cvms.presence import Presence
from cocos.cvms.record import Ledger, Verdict
from cocos.cvms.result_file import SUFFIX, ResultFile, sweep
from cocos.errors import CocosError, StorageError
from cocos.host.files import storing
from cocos.wire._generated import cvms_pb2 as pb
from cocos.wire.manifest.computation import Computation
from cocos.wire.manifest.identity import Identity

CHUNK_BYTES = 2**20
MAX_EVENTS = 10_000
MAX_REASON = 10_000
MAX_SHOWN = 128
"""Characters of what a stranger says to be his computation."""

_READY_FOR_MANIFEST = "ReceivingManifest"
_ENDED = {"Complete", "Failed"}
_DONE = "this VM has done its computation{}; start another one (cocos-cli agent create)"
_NO_RESULT = (
    "the computation is complete, but its result has not come here: an agent of the original "
    "keeps it, or it is stored where another CVMS puts its results"
)

_log = structlog.get_logger(__name__)

Show = Callable[[JsonObject], None]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a computation ended, and why.

    Attributes:
        error: Why this CVMS cannot go on, or None.
    """

    verdict: Verdict
    reason: str = ""
    error: CocosError | None = None


class CvmsService:
    """Hands one computation to every agent that asks.

    Args:
        computation: The computation.
        results: Folder for sealed results; made when absent.
        show: Gets everything that agents tell, as JSON objects.
        on_end: Is told when a computation has ended.

    Raises:
        StorageError: the disk with the folder is full, read-only or broken.
        ConfigError: the folder is not ours to write to.
    """

    def __init__(
        self,
        computation: Computation,
        results: Path,
        show: Show,
        on_end: Callable[[Ending], None],
    ) -> None:
        self.computation = computation
        self.identity = Identity.of(computation)
        self.show = show
        self.on_end = on_end
        self._results = results
        self._seen: set[bytes] = set()
        self.presence = Presence()
        self._others: set[bytes] = set()
        with storing(results):
            results.mkdir(parents=True, exist_ok=True)
        sweep(self.result_path)
        self.ledger = Ledger(results, self.identity)
        if self.ledger.record.result and not self.result_path.exists():
            self.ledger.forget_result()
        # An agent that has it, and is not there any more, is missed from the beginning.
        self.presence.seen = bool(self.ledger.record.given)
        self.heard = asyncio.Event()
        """Set when an agent has been told that the end of the computation is stored."""
        self.is_over = False
        """All that is left is that an agent hears so: nobody gets the manifest."""

    @property
    def result_path(self) -> Path:
        """Where the sealed result is stored."""
        return self._results / f"{self.computation.id}{SUFFIX}"

    def resume(self) -> None:
        """Tell how the computation ended, if it did before we were started again."""
        record = self.ledger.record
        if record.result:
            self.show({"result": str(self.result_path)})
            self.conclude()
        elif record.verdict is Verdict.FAILED:
            told = {"event": "Failed", "status": "Failed", "computation": record.id}
            self.show({**told, "details": {"reason": record.reason}})
            self.on_end(Ending(Verdict.FAILED, record.reason))

    def close(self) -> None:
        """End the run: how the computation ended has been told."""
        try:
            self.ledger.close()
        except StorageError as error:
            _log.warning("record.not-closed", error=error.message)

    def conclude(self, ending: str = "") -> None:
        """End well: the result is stored."""
        self.ledger.ended(Verdict.COMPLETE, ending=ending)
        self.on_end(Ending(Verdict.COMPLETE))

    def is_new(self, event: pb.AgentEvent) -> bool:
        """Whether an event was not heard before; agents repeat them over every new stream."""
        return _add(self._seen, event.SerializeToString(deterministic=True))

    def is_first(self, *other: str) -> bool:
        """Whether this was not said yet of a computation that is not ours."""
        return _add(self._others, json.dumps(other).encode())

    def is_ours(self, job: str, identity: Identity) -> bool:
        """Whether a computation is the one that we give out.

        Agents of the original name no manifest: theirs is ours if they have accepted it.
        """
        if not identity.manifest:
            return identity.id == self.identity.id and job in self.ledger.record.given
        return identity == self.identity

    def manifest_chunks(self) -> Iterator[pb.ServerStreamMessage]:
        """Cut the manifest into messages; the last is empty and says so."""
        data, identity = self.computation.to_proto(), self.computation.id
        pieces = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
        for number, piece in enumerate([*pieces, b""]):
            last = number == len(pieces)
            yield pb.ServerStreamMessage(
                runReqChunks=pb.RunReqChunks(data=piece, id=identity, is_last=last)
            )


def _add(known: set[bytes], text: bytes) -> bool:
    """Remember a text of whatever length, as long as there is room; tell whether it is new."""
    digest = hashlib.sha256(text).digest()
    new = digest not in known
    if len(known) < MAX_EVENTS:
        known.add(digest)
    return new


class Session:
    """One stream of an agent.

    Args:
        service: The CVMS.
        job: The CVM's id, or empty.
        log_only: A stream that brings logs and events and takes nothing.
    """

    def __init__(self, service: CvmsService, job: str, *, log_only: bool = False) -> None:
        self._service = service
        self._ledger = service.ledger
        self._job = job
        self._log_only = log_only
        self._counts = False
        self._gave = False
        self._result = ResultFile(service.result_path)
        self._has_stored = False
        self._is_over = False  # what it tells is the end of an earlier run

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
        """Take a message and yield the answers.

        Raises:
            StorageError: the disk cannot take it; everybody has been told.
        """
        try:
            for answer in self._receive(message):
                yield answer
                if answer.HasField("stored") and not answer.stored.result:
                    self._service.heard.set()
        except StorageError as error:
            self._service.on_end(Ending(Verdict.FAILED, error.message, error))
            raise

    def _receive(self, message: pb.ClientStreamMessage) -> Iterator[pb.ServerStreamMessage]:
        match message.WhichOneof("message"):
            case "agent_log":
                self._service.show(_shown_log(message.agent_log))
            case "agent_event":
                yield from self._event(message.agent_event)
            case "agentStateRes":
                yield from self._state(message.agentStateRes)
            case "run_res":
                self._answer(message.run_res)
            case "stopComputationRes":
                answer = message.stopComputationRes
                self._service.show({"stopped": answer.computation_id, "error": answer.message})
            case "resultChunk":
                yield from self._chunk(message.resultChunk)
            case _:  # the attestation report of the first message, or of a later version
                pass

    def end(self) -> None:
        """Drop what is half here; an agent that goes with its result stored has done its work."""
        self._result.drop()
        if self._counts:
            self._service.presence.went()
            self._counts = False
        self._service.show({"agent": self._job, "connected": False})
        if self._has_stored and self._ledger.record.verdict is None:
            try:
                self._service.conclude()
            except StorageError as error:
                self._service.on_end(Ending(Verdict.FAILED, error.message, error))

    def _state(self, answer: pb.AgentStateRes) -> Iterator[pb.ServerStreamMessage]:
        """Give the manifest to an agent that waits for one.

        Its events and its result came before: if they had told how ours ended, we knew.
        """
        identity = Identity.received(answer.computation_id or answer.id, answer.manifest)
        shown: JsonObject = {"state": answer.state}
        ours = self._service.is_ours(self._job, identity)
        if answer.computation_id and not ours:
            shown["computation"] = answer.computation_id
        self._service.show(shown)
        if self._log_only:
            return
        if answer.state == _READY_FOR_MANIFEST and self._service.is_over:
            if self._job in self._ledger.record.given:  # started again, and keeps nothing
                self._service.heard.set()
        elif answer.state == _READY_FOR_MANIFEST:
            self._gave = True
            yield from self._service.manifest_chunks()
        elif ours and answer.state not in _ENDED:
            self._ledger.given_to(self._job)
        elif answer.state in _ENDED and not (ours and self._ledger.record.verdict):
            self._done(answer.computation_id)
        elif answer.state in _ENDED:  # and it has nothing to say any more
            self._service.heard.set()

    def _done(self, computation: str) -> None:
        """This VM takes no computation any more; unless another one has ours, nobody does."""
        reason = _DONE.format(f" ({computation})" if computation else "")
        self._service.show({"accepted": False, "error": reason})
        if not set(self._ledger.record.given) - {self._job}:
            self._service.on_end(Ending(Verdict.REFUSED, reason))

    def _event(self, event: pb.AgentEvent) -> Iterator[pb.ServerStreamMessage]:
        shown = _shown_event(event)
        details = shown.get("details", {})
        manifest = details.get("manifest", "")
        identity = Identity(event.computation_id, manifest if isinstance(manifest, str) else "?")
        if not self._service.is_ours(self._job, identity):
            if self._service.is_first("event", self._job, *identity):
                self._service.show({**shown, "other": True})
            return
        name = hashlib.sha256(event.SerializeToString(deterministic=True)).hexdigest()
        stored = _stored(self._service.identity) if identity.manifest else []
        if name in self._ledger.record.told or (self._is_over and event.event_type in _ENDED):
            yield from stored
            return
        new = self._service.is_new(event)
        if event.event_type == "Failed":
            reason = _text(details.get("reason", "the agent names no reason"))
            self._end(shown, new, Ending(Verdict.FAILED, reason), name)
        elif event.event_type == "Complete" and self._ledger.record.result:
            self._end(shown, new, Ending(Verdict.COMPLETE), name)
        elif event.event_type == "Complete":
            self._end(shown, new, Ending(Verdict.FAILED, _NO_RESULT), name)
            return
        else:
            if new:
                self._service.show(shown)
            if event.event_type != "Interrupted":  # of which all that is left is this event
                return
        yield from stored

    def _end(self, shown: JsonObject, new: bool, ending: Ending, name: str) -> None:
        self._ledger.ended(ending.verdict, ending.reason, name)
        if new:
            self._service.show(shown)
            self._service.on_end(ending)

    def _answer(self, answer: pb.RunResponse) -> None:
        if answer.computation_id != self._service.computation.id or not self._gave:
            return  # to somebody else's manifest
        if answer.error:
            self._service.show({"accepted": False, "error": answer.error})
            self._service.on_end(Ending(Verdict.REFUSED, answer.error))
        else:
            self._ledger.given_to(self._job)
            self._service.show({"accepted": True, "error": ""})

    def _chunk(self, chunk: pb.ResultChunk) -> Iterator[pb.ServerStreamMessage]:
        identity = Identity.received(chunk.computation_id, chunk.manifest)
        if identity != self._service.identity:
            if self._service.is_first("result", self._job, *identity):
                shown = {name: value[:MAX_SHOWN] for name, value in identity._asdict().items()}
                _log.warning("result.foreign", **shown)
            return
        digest = self._result.add(chunk.data, last=chunk.is_last)
        if digest is None:
            return
        record = self._ledger.record
        if digest in record.told:
            self._result.drop()
            self._is_over = True
        elif digest != record.result or not self._service.result_path.exists():
            earlier = self._result.store()
            self._ledger.stored(digest)
            self._has_stored = True
            moved = {} if earlier is None else {"earlier": str(earlier)}
            self._service.show({"result": str(self._service.result_path), **moved})
        else:
            self._result.drop()
            self._has_stored = True
        yield from _stored(identity, bytes.fromhex(digest))


def _stored(identity: Identity, result: bytes = b"") -> list[pb.ServerStreamMessage]:
    told = pb.Stored(computation_id=identity.id, manifest=identity.digest, result=result)
    return [pb.ServerStreamMessage(stored=told)]


def _text(value: object) -> str:
    return str(value)[:MAX_REASON].encode(errors="backslashreplace").decode()


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
