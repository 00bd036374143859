# SPDX-License-Identifier: Apache-2.0
"""Policies evaluated in processes of their own.

The policy engine is native code without limits: some texts crash it, keep it busy for
ever or eat all memory, and what an attester says is its input. Here that ends one worker,
which is replaced, and the evaluation fails; a server goes on. A worker knows no secret.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import structlog

from cocos._recent import Recent
from cocos._types import JsonObject
from cocos.errors import CocosError, ConfigError, Finding, FormatError, InternalError
from cocos.host import process
from cocos.host.policies._worker import (
    COMPILE_SECONDS,
    EVALUATE_SECONDS,
    LENGTH,
    MEMORY_BYTES,
)
from cocos.policy.documents import NOTHING, BaseDocuments, Kind

MAX_WORKERS: Final = 4
STUCK_SECONDS: Final = 60.0
"""How long an evaluation may take on the clock, which a busy machine makes long."""

MAX_DELAYED: Final = 4
"""Evaluations that may wait for a policy that has broken a worker before."""

REMEMBERED: Final = 512
MAX_REMEMBERED_BYTES: Final = 16 * 1024
REMEMBERED_SECONDS: Final = 5.0
"""Answers to the same question: policies see their documents and nothing else."""

RESTART_SECONDS: Final = 1.0
_WORKER: Final = "cocos.host.policies._worker"

_log = structlog.get_logger(__name__)


class _WorkerEnded(Exception):  # noqa: N818 - what became of a child, no error of ours
    """A worker ended before it answered; ``reason`` says why, None if it was due."""

    def __init__(self, reason: str | None, *, started: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.started = started


@dataclass(frozen=True, slots=True)
class _Job:
    """One evaluation that waits for a worker.

    Attributes:
        policy: Digest of ``text``.
        text: The policy.
        base: Its base documents.
        rest: The request's other members, as JSON.
        done: Gets the answer.
        complete: Whether the worker will not know what the digests stand for.
    """

    policy: str
    text: str
    base: BaseDocuments
    rest: bytes
    done: asyncio.Future[JsonObject]
    complete: bool = False

    def frame(self, *, complete: bool) -> bytes:
        """Return the request, with what the digests stand for if ``complete``."""
        text, data = (self.text, self.base.text) if complete else (None, None)
        head = {"policy": self.policy, "text": text, "base": self.base.digest, "data": data}
        return json.dumps(head).encode("ascii")[:-1] + b", " + self.rest[1:]


@dataclass(frozen=True, slots=True)
class _Remembered:
    """An answer, and until when it is good on the loop's clock."""

    answer: JsonObject
    until: float


class _Wire(asyncio.Protocol):
    """One request, one answer, on a worker's socket; streams would cost as much as a policy."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._answer: asyncio.Future[bytes] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        start = LENGTH.size
        if len(self._received) < start:
            return
        end = start + LENGTH.unpack_from(self._received)[0]
        if len(self._received) < end or self._answer is None or self._answer.done():
            return
        self._answer.set_result(bytes(self._received[start:end]))
        self._received.clear()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError())

    async def exchange(self, frame: bytes) -> JsonObject:
        """Send a request and return its answer.

        Raises:
            ConnectionError: the worker is gone.
            TimeoutError: it was given up.
        """
        if self._transport is None:
            raise ConnectionResetError
        loop = asyncio.get_running_loop()
        self._answer = loop.create_future()
        patience = loop.call_later(STUCK_SECONDS, self._give_up)
        try:
            self._transport.write(LENGTH.pack(len(frame)) + frame)
            answer: JsonObject = json.loads(await self._answer)
            return answer
        finally:
            patience.cancel()

    def _give_up(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(TimeoutError())


class _Child:
    """A worker's process."""

    def __init__(self, child: Process, wire: _Wire) -> None:
        self._child = child
        self._wire = wire
        self._answers = 0

    @property
    def ended(self) -> bool:
        """Whether it has ended, as far as we know."""
        return self._child.returncode is not None

    async def ask(self, job: _Job) -> JsonObject:
        """Return the answer to a job.

        Raises:
            _WorkerEnded: there will be none.
        """
        try:
            answer = await self._wire.exchange(job.frame(complete=job.complete))
            if "unknown" in answer:
                answer = await self._wire.exchange(job.frame(complete=True))
        except ValueError as error:
            raise _WorkerEnded("its worker answers nonsense") from error
        except TimeoutError as error:
            raise _WorkerEnded(f"it does not finish within {STUCK_SECONDS:g} s") from error
        except ConnectionError as error:
            raise self._ended(await self._child.wait()) from error
        self._answers += 1
        return answer

    def _ended(self, status: int) -> _WorkerEnded:
        if status == 0:
            return _WorkerEnded(None)
        if status == -signal.SIGPROF:
            return _WorkerEnded(
                f"it needs more than {EVALUATE_SECONDS:g} s of processor time, "
                f"or {COMPILE_SECONDS:g} s to be compiled"
            )
        return _WorkerEnded(
            f"the engine crashes on it, or needs more than {MEMORY_BYTES // 2**20} MiB",
            started=status < 0 or self._answers > 0,
        )


@contextlib.asynccontextmanager
async def _child() -> AsyncIterator[_Child]:
    # Without -P modules would come from the folder that the service happens to run in.
    argv = [sys.executable, "-P", "-m", _WORKER]
    ours, theirs = socket.socketpair()
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(ours)
        with theirs:
            end = theirs.fileno()
            # Policies are code: of our environment, such as a proxy's password, they get nothing.
            spawned = process.spawn(argv, inherit=False, stdin=end, stdout=end, stderr=DEVNULL)
            child = await stack.enter_async_context(spawned)
        connected = asyncio.get_running_loop().create_unix_connection(_Wire, sock=ours)
        transport, wire = await connected
        stack.callback(transport.abort)
        yield _Child(child, wire)


class PolicyWorkers:
    """A :class:`cocos.policy.engine.PolicyEngine`; an async context manager.

    A policy that has broken a worker is evaluated by one certain worker until it succeeds
    again, so that others do not wait for it.
    """

    def __init__(self, count: int | None = None) -> None:
        """Make workers.

        Args:
            count: How many; by default one per processor, at most :data:`MAX_WORKERS`.
        """
        self._count = count or min(os.cpu_count() or 1, MAX_WORKERS)
        self._jobs: asyncio.Queue[_Job] = asyncio.Queue()
        self._delayed: asyncio.Queue[_Job] = asyncio.Queue(MAX_DELAYED)
        self._breakers: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._remembered: Recent[tuple[str, str, bytes], _Remembered] = Recent(REMEMBERED)

    async def __aenter__(self) -> Self:
        self._tasks = {asyncio.create_task(self._work(self._jobs)) for _ in range(self._count)}
        self._tasks.add(asyncio.create_task(self._work(self._delayed, lazy=True)))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    async def evaluate(
        self,
        text: str,
        rules: Sequence[str],
        document: Mapping[str, Any],
        *,
        base: BaseDocuments = NOTHING,
        request: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Evaluate rules of a policy."""
        job = _job(text, rules, document, base, request)
        # A machine asks for a resource again; evidence never comes twice.
        key = None
        if request is not None and len(job.rest) <= MAX_REMEMBERED_BYTES:
            key = (job.policy, base.digest, job.rest)
        now = asyncio.get_running_loop().time
        known = None if key is None else self._remembered.get(key)
        if key is not None and known is not None and now() < known.until:
            return _values(known.answer)
        answer = await self._queued(job)
        if key is not None and len(json.dumps(answer)) <= MAX_REMEMBERED_BYTES:
            self._remembered.put(key, _Remembered(answer, now() + REMEMBERED_SECONDS))
        return _values(answer)

    async def _queued(self, job: _Job) -> JsonObject:
        queue = self._delayed if job.policy in self._breakers else self._jobs
        try:
            queue.put_nowait(job)
        except asyncio.QueueFull as error:
            raise ConfigError(
                "the policy has not finished before, and too many evaluations wait for it"
            ) from error
        return await job.done

    async def explain(
        self,
        text: str,
        rules: Sequence[str],
        document: Mapping[str, Any],
        *,
        base: BaseDocuments = NOTHING,
        request: Mapping[str, Any] | None = None,
    ) -> tuple[Finding, ...]:
        """Say which statements of rules do not hold."""
        job = _job(text, rules, document, base, request, explain=True)
        answer = await self._queued(job)
        _check_answer(answer)
        return tuple(Finding(**finding) for finding in answer["findings"])

    async def check(self, text: str, kind: Kind) -> tuple[str, ...]:
        """Try a policy on empty documents, and look for what its author cannot have meant."""
        try:
            async with _child() as child:
                answer = await child.ask(_job(text, (), {}, NOTHING, None, kind=kind))
        except _WorkerEnded as end:
            if not end.started or end.reason is None:
                raise InternalError("cannot try the policy in a process of its own") from end
            raise FormatError(f"the policy is refused: {end.reason}") from end
        _check_answer(answer)
        return tuple(answer["warnings"])

    async def _work(self, jobs: asyncio.Queue[_Job], *, lazy: bool = False) -> None:
        """Have one worker after the other, for the jobs of one queue."""
        job = await jobs.get() if lazy else None
        while True:
            try:
                async with _child() as child:
                    while not child.ended:
                        job = job or await jobs.get()
                        if not child.ended:
                            await self._answer(child, job)
                            job = None
            except _WorkerEnded as end:
                if end.reason is None:
                    continue  # it was due; the next one has the job
                job = None
                if not end.started:
                    await asyncio.sleep(RESTART_SECONDS)
            except (CocosError, OSError) as error:
                _log.error("policy.no-worker", exc_info=error)
                if job is not None:
                    _set(job.done, InternalError("policies cannot be evaluated"))
                    job = None
                await asyncio.sleep(RESTART_SECONDS)

    async def _answer(self, child: _Child, job: _Job) -> None:
        if job.done.done():
            return  # nobody waits for it any more
        try:
            answer = await child.ask(job)
        except _WorkerEnded as end:
            if end.reason is not None:
                _log.warning("policy.worker-ended", policy=job.policy, reason=end.reason)
                self._breakers.add(job.policy)
                error = ConfigError(f"the policy fails: {end.reason}")
                _set(job.done, error if end.started else InternalError("no policy worker starts"))
            raise
        self._breakers.discard(job.policy)
        if not job.done.done():
            job.done.set_result(answer)


def _job(
    text: str,
    rules: Sequence[str],
    document: Mapping[str, Any],
    base: BaseDocuments,
    request: Mapping[str, Any] | None,
    *,
    explain: bool = False,
    kind: Kind | None = None,
) -> _Job:
    rest = {
        "rules": list(rules),
        "request": request,
        "document": document,
        "explain": explain,
        "kind": kind,
    }
    try:
        encoded = json.dumps(rest, allow_nan=False).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise FormatError(f"the policy's input is not plain JSON: {error}") from error
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    done = asyncio.get_running_loop().create_future()
    return _Job(digest, text, base, encoded, done, complete=kind is not None)


def _set(done: asyncio.Future[JsonObject], error: CocosError) -> None:
    if not done.done():
        done.set_exception(error)


def _values(answer: JsonObject) -> dict[str, Any]:
    _check_answer(answer)
    values: dict[str, Any] = answer["values"]
    return values


def _check_answer(answer: JsonObject) -> None:
    if "error" in answer:
        kind = FormatError if answer["error"] == "format" else ConfigError
        raise kind(answer["message"], hint=answer["hint"])
