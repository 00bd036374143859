# SPDX-License-Identifier: Apache-2.0
"""The agent's use cases: take a manifest, work on it, stop it, say where it is.

One computation at a time. However it ends, its folder, its container and its plaintext
are gone before the next one can begin.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import structlog

from cocos._patience import Patience, Wait
from cocos._types import JsonObject
from cocos.agent.binding import Register, measure, resolve
from cocos.agent.config import AgentSettings
from cocos.agent.fetch import Fetcher
from cocos.agent.kept import Kept
from cocos.agent.report import INTERRUPTED, Happening, Level, Place, Reporter, Status, failure
from cocos.agent.states import Event, Machine, State
from cocos.agent.steps import Bench, interrupted, make_bench
from cocos.errors import CocosError, InternalError, StateError
from cocos.host import trees
from cocos.host.containers.runtime import Runtime
from cocos.host.disk import translated
from cocos.wire.manifest.computation import Computation
from cocos.wire.manifest.identity import Identity

STOPPED = "Stopped"

_KILLED = "the agent was killed, or it crashed, while it worked on this computation; "
_GONE = "nothing of it is left"
_LEFT = "some of its files could not be removed; they were put aside, unreadable to programs"
_NOT_TAKEN = (
    "the result has been sent to a CVMS that does not say whether it has stored it, as those of "
    "the original; it is kept in the VM"
)
_TAKES_IT = "start cvms-test with the same manifest at the CVMS's address; it takes the result"
_AGAIN = "start it again, in a new VM where a policy wants it to be the only one of its VM"

_log = structlog.get_logger(__name__)


class Outlet(Protocol):
    """Where results go."""

    def check(self, computation: Computation, /) -> None:
        """Refuse a computation whose result could not be handed over.

        Raises:
            CallerError: it could not.
        """

    def consumers(self, computation: Computation, /) -> Sequence[bytes]:
        """Return the keys that alone can open the result; none: it stays in clear."""

    async def pack(self, computation: Computation, archive: Path, /) -> bytes:
        """Make the zip of the results ready to leave the machine."""

    async def deliver(self, identity: Identity, package: bytes, /) -> None:
        """Hand it over; returns when whoever has it has stored it."""

    def kept(self) -> Kept | None:
        """Return the result that an agent before us could not hand over."""

    def forget(self) -> None:
        """Drop what has not been handed over: whoever might take it says so."""


class AgentService:
    """Works on computations.

    Args:
        settings: The agent's settings.
        work: Work folder.
        fetcher: Gets images.
        runtime: Runs containers.
        register: Where computations are measured; None, insecurely, nowhere.
        reporter: Is told everything that happens.
        outlet: Gets the results.
    """

    def __init__(
        self,
        settings: AgentSettings,
        *,
        work: Path,
        fetcher: Fetcher,
        runtime: Runtime,
        register: Register | None,
        reporter: Reporter,
        outlet: Outlet,
    ) -> None:
        self._settings = settings
        self._work = work
        self._fetcher = fetcher
        self._runtime = runtime
        self._register = register
        self._reporter = reporter
        self._outlet = outlet
        self._machine = Machine()
        self._present: Identity | None = None
        self._task: asyncio.Task[None] | None = None
        self._warned: Identity | None = None
        self._stopping = asyncio.Lock()

    @property
    def state(self) -> State:
        """Where the agent is."""
        return self._machine.state

    @property
    def present(self) -> Identity | None:
        """The computation that it is about, if there is one."""
        return self._present

    async def start(self) -> None:
        """Remove what an agent before us left, say so, and wait for a manifest.

        A result that nobody has taken is handed over first.
        """
        await self._runtime.sweep()
        kept = await asyncio.to_thread(self._outlet.kept)
        notes = await asyncio.to_thread(interrupted, self._work)
        left = await asyncio.to_thread(self._clear)
        killed = StateError(_KILLED + (_LEFT if left else _GONE), hint=_AGAIN)
        for note in notes:
            if kept is not None and kept.identity == note.identity:
                continue  # killed after its work was done
            details = {"manifest": note.manifest} | failure(Place("restart"), killed)
            _log.warning("computation.interrupted", id=note.id)
            self._reporter.event(Happening(note.id, INTERRUPTED, Status.FAILED, details))
        self._machine.fire(Event.START)
        if kept is not None:
            self._present = kept.identity
            self._move(kept.identity, Event.RESULT_FOUND, Status.READY)
            self._task = asyncio.create_task(self._hand_over(kept.identity, kept.package))

    async def _hand_over(self, identity: Identity, package: bytes) -> None:
        await self._outlet.deliver(identity, package)
        self._move(identity, Event.RESULTS_CONSUMED, Status.COMPLETED)

    def not_taken(self) -> None:
        """Say that nobody knows whether somebody has stored the result, which is kept."""
        present = self._present
        if present is None or self.state is not State.CONSUMING_RESULTS:
            return
        _log.warning("result.not-taken", id=present.id, reason=_NOT_TAKEN, hint=_TAKES_IT)
        if present == self._warned:
            return
        self._warned = present
        details = {"reason": _NOT_TAKEN, "hint": _TAKES_IT}
        self._tell(present, State.CONSUMING_RESULTS, Status.WARNING, details)
        self._reporter.log(present.id, Level.WARN, f"{_NOT_TAKEN}; {_TAKES_IT}")

    def _clear(self) -> bool:
        """Remove what agents before us left; tell whether something stays, put aside."""
        old = [self._work / "computations", *trees.left_in(self._work)]
        stays = [trees.discard(each) for each in old]
        return any(stays)

    def accept(self, computation: Computation) -> None:
        """Begin to work on a computation, unless that is being done; returns at once.

        Raises:
            StateError: another one is here.
            CallerError: its result could not be handed over.
        """
        identity = Identity.of(computation)
        if identity == self._present and self.state not in {State.COMPLETE, State.FAILED}:
            return  # asked for again, by who does not know that it is here
        if self.state is not State.RECEIVING_MANIFEST:
            other = f" (computation {self._present.id})" if self._present else ""
            raise StateError(
                f"the agent is in state {self.state}{other} and takes no manifest",
                hint="stop that computation first, or start another VM",
            )
        self._outlet.check(computation)
        self._machine.fire(Event.MANIFEST_RECEIVED)
        self._present = identity
        self._task = asyncio.create_task(self._work_on(computation))

    async def wait(self) -> None:
        """Return when the present computation has ended, one way or the other."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def stop(self, computation_id: str = "") -> None:
        """Stop whatever runs, clean up, and wait for the next manifest.

        Args:
            computation_id: Which one is meant; empty: any.

        Raises:
            StateError: another computation is here.
        """
        async with self._stopping:
            present = self._present
            if present is not None and computation_id not in {"", present.id}:
                raise StateError(f"computation {present.id} is here, not {computation_id}")
            if present is None:
                return
            self._reporter.event(Happening(present.id, STOPPED, Status.STOPPED))
            await self._cancel()
            self._outlet.forget()
            self._present = None
            self._machine.fire(Event.STOPPED)
            self._machine.fire(Event.START)

    async def close(self) -> None:
        """Stop whatever runs and clean up, for good."""
        async with self._stopping:
            await self._cancel()

    async def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _work_on(self, computation: Computation) -> None:
        narrator = _Narrator(computation, self._reporter)
        try:
            await self._run(computation, narrator)
        except CocosError as error:
            self._fail(computation, narrator.place, error)
        except asyncio.CancelledError:
            _log.info("computation.stopped", id=computation.id)
            raise
        except Exception as error:  # noqa: BLE001 - the agent must survive any computation
            fault = translated(error)
            if fault is None:
                _log.error("computation.crashed", id=computation.id, exc_info=error)
                fault = InternalError(f"internal error of the agent: {type(error).__name__}")
            self._fail(computation, narrator.place, fault)

    async def _run(self, computation: Computation, narrator: "_Narrator") -> None:
        identity = Identity.of(computation)
        self._tell(identity, State.RECEIVING_ALGORITHM, Status.IN_PROGRESS)
        patience = Patience(
            self._settings.retry_seconds,
            tell=lambda wait: self._waits(computation, narrator, wait),
        )
        images = await resolve(computation, self._fetcher, narrator, patience)
        narrator.at(Place("measure"))
        await measure(self._register, computation, images, self._outlet.consumers(computation))
        narrator.at(Place("prepare"))
        bench = make_bench(
            computation,
            images,
            work=self._work,
            fetcher=self._fetcher,
            runtime=self._runtime,
            settings=self._settings,
            narrator=narrator,
            patience=patience,
        )
        try:
            package = await self._produce(computation, bench)
        finally:
            # Plaintext does not outlive the work, not even a cancelled one.
            left = await asyncio.shield(asyncio.to_thread(trees.discard, bench.folder))
            if left is not None:
                narrator.say(Level.ERROR, _LEFT)
        self._move(identity, Event.RUN_COMPLETE, Status.READY)
        narrator.at(Place("deliver"))
        await self._hand_over(identity, package)

    async def _produce(self, computation: Computation, bench: Bench) -> bytes:
        identity = Identity.of(computation)
        image = await bench.fetch_algorithm()
        sets = bool(computation.datasets)
        self._machine.fire(Event.ALGORITHM_RECEIVED, datasets=sets)
        if sets:
            self._tell(identity, State.RECEIVING_DATA, Status.IN_PROGRESS)
            await bench.fetch_datasets()
            self._machine.fire(Event.DATA_RECEIVED)
        self._tell(identity, State.RUNNING, Status.STARTING)
        container = await bench.unpack(image)
        self._tell(identity, State.RUNNING, Status.IN_PROGRESS)
        await bench.run(container)
        results = await bench.collect()
        package = await self._outlet.pack(computation, results)
        self._tell(identity, State.RUNNING, Status.COMPLETED)
        return package

    def _waits(self, computation: Computation, narrator: "_Narrator", wait: Wait) -> None:
        """Say that a registry or KBS does not answer now: once as an event, each time as a log."""
        details = failure(narrator.place, wait.error)
        _log.info("computation.waiting", id=computation.id, wait=str(wait), **details)
        narrator.say(Level.WARN, f"{wait.error.message}; {wait}")
        if wait.first:
            more = {"retry_for_seconds": round(wait.left)}
            self._tell(Identity.of(computation), self.state, Status.WARNING, details | more)

    def _fail(self, computation: Computation, place: Place, error: CocosError) -> None:
        identity = Identity.of(computation)
        details = failure(place, error)
        # Whoever watches is told by the event; the traceback is for those who look for faults.
        _log.info("computation.failed", id=computation.id, **_loggable(details))
        if error.__cause__ is not None:
            _log.debug("computation.failed", id=computation.id, exc_info=error.__cause__)
        if self.state is State.RUNNING:
            self._tell(identity, State.RUNNING, Status.FAILED, details)
        with contextlib.suppress(StateError):  # results that nobody took are no failed run
            self._machine.fire(Event.RUN_FAILED)
        self._tell(identity, State.FAILED, Status.FAILED, details)

    def _move(self, identity: Identity, event: Event, status: Status) -> None:
        self._tell(identity, self._machine.fire(event), status)

    def _tell(
        self,
        identity: Identity,
        state: State,
        status: Status,
        details: JsonObject | None = None,
    ) -> None:
        _log.info("computation.state", id=identity.id, state=state, status=status)
        # An id can be used twice; whoever hears this late can tell which one is meant.
        which = {"manifest": identity.manifest}
        self._reporter.event(Happening(identity.id, state, status, which | (details or {})))


class _Narrator:
    """Remembers where the work is; drops what is below the manifest's log level."""

    def __init__(self, computation: Computation, reporter: Reporter) -> None:
        self.place = Place("start")
        self._id = computation.id
        self._threshold = Level.parse(computation.agent_config.log_level)
        self._reporter = reporter

    def at(self, place: Place) -> None:
        self.place = place

    def say(self, level: Level, message: str) -> None:
        if level >= self._threshold:
            self._reporter.log(self._id, level, message)


def _loggable(details: JsonObject) -> JsonObject:
    # What the algorithm printed is data: it goes where the manifest sends it, not to our log.
    return {name: value for name, value in details.items() if name != "tail"}
