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

from cocos._types import JsonObject
from cocos.agent.config import AgentSettings
from cocos.agent.fetch import Fetcher
from cocos.agent.report import Happening, Level, Place, Reporter, Status, failure
from cocos.agent.states import Event, Machine, State
from cocos.agent.steps import Bench, Register, interrupted, make_bench, measure, resolve
from cocos.errors import CocosError, InternalError, StateError
from cocos.host import trees
from cocos.host.containers.runtime import Runtime
from cocos.wire.manifest.computation import Computation

STOPPED = "Stopped"
INTERRUPTED = "Interrupted"

_KILLED = "the agent was killed, or it crashed, while it worked on this computation; "
_GONE = "nothing of it is left"
_LEFT = "some of its files could not be removed; they were put aside, unreadable to programs"
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

    async def deliver(self, computation: Computation, package: bytes, /) -> None:
        """Hand it over; returns when that is done."""

    def forget(self) -> None:
        """Drop what has not been handed over."""


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
        self._computation: Computation | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Lock()

    @property
    def state(self) -> State:
        """Where the agent is."""
        return self._machine.state

    async def start(self) -> None:
        """Remove what an agent before us left, say so, and wait for a manifest."""
        await self._runtime.sweep()
        notes = await asyncio.to_thread(interrupted, self._work)
        left = await asyncio.to_thread(self._clear)
        killed = StateError(_KILLED + (_LEFT if left else _GONE), hint=_AGAIN)
        for note in notes:
            details = {"manifest": note.manifest} | failure(Place("restart"), killed)
            _log.warning("computation.interrupted", id=note.id)
            self._reporter.event(Happening(note.id, INTERRUPTED, Status.FAILED, details))
        self._machine.fire(Event.START)

    def _clear(self) -> bool:
        """Remove what agents before us left; tell whether something stays, put aside."""
        old = [self._work / "computations", *trees.left_in(self._work)]
        stays = [trees.discard(each) for each in old]
        return any(stays)

    def accept(self, computation: Computation) -> None:
        """Begin to work on a computation; returns at once.

        Raises:
            StateError: another one is here.
            CallerError: its result could not be handed over.
        """
        if self.state is not State.RECEIVING_MANIFEST:
            other = f" (computation {self._computation.id})" if self._computation else ""
            raise StateError(
                f"the agent is in state {self.state}{other} and takes no manifest",
                hint="stop that computation first",
            )
        self._outlet.check(computation)
        self._machine.fire(Event.MANIFEST_RECEIVED)
        self._computation = computation
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
            present = self._computation
            if present is not None and computation_id not in {"", present.id}:
                raise StateError(f"computation {present.id} is here, not {computation_id}")
            if present is None:
                return
            self._reporter.event(Happening(present.id, STOPPED, Status.STOPPED))
            await self._cancel()
            self._outlet.forget()
            self._computation = None
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
            _log.error("computation.crashed", id=computation.id, exc_info=error)
            fault = InternalError(f"internal error of the agent: {type(error).__name__}")
            self._fail(computation, narrator.place, fault)

    async def _run(self, computation: Computation, narrator: "_Narrator") -> None:
        self._tell(computation, State.RECEIVING_ALGORITHM, Status.IN_PROGRESS)
        images = await resolve(computation, self._fetcher, narrator)
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
        )
        try:
            package = await self._produce(computation, bench)
        finally:
            # Plaintext does not outlive the work, not even a cancelled one.
            left = await asyncio.shield(asyncio.to_thread(trees.discard, bench.folder))
            if left is not None:
                narrator.say(Level.ERROR, _LEFT)
        self._move(computation, Event.RUN_COMPLETE, Status.READY)
        narrator.at(Place("deliver"))
        await self._outlet.deliver(computation, package)
        self._move(computation, Event.RESULTS_CONSUMED, Status.COMPLETED)

    async def _produce(self, computation: Computation, bench: Bench) -> bytes:
        image = await bench.fetch_algorithm()
        sets = bool(computation.datasets)
        self._machine.fire(Event.ALGORITHM_RECEIVED, datasets=sets)
        if sets:
            self._tell(computation, State.RECEIVING_DATA, Status.IN_PROGRESS)
            await bench.fetch_datasets()
            self._machine.fire(Event.DATA_RECEIVED)
        self._tell(computation, State.RUNNING, Status.STARTING)
        container = await bench.unpack(image)
        self._tell(computation, State.RUNNING, Status.IN_PROGRESS)
        await bench.run(container)
        results = await bench.collect()
        package = await self._outlet.pack(computation, results)
        self._tell(computation, State.RUNNING, Status.COMPLETED)
        return package

    def _fail(self, computation: Computation, place: Place, error: CocosError) -> None:
        details = failure(place, error)
        _log.warning(
            "computation.failed", id=computation.id, exc_info=error.__cause__, **_loggable(details)
        )
        if self.state is State.RUNNING:
            self._tell(computation, State.RUNNING, Status.FAILED, details)
        with contextlib.suppress(StateError):  # results that nobody took are no failed run
            self._machine.fire(Event.RUN_FAILED)
        self._tell(computation, State.FAILED, Status.FAILED, details)

    def _move(self, computation: Computation, event: Event, status: Status) -> None:
        self._tell(computation, self._machine.fire(event), status)

    def _tell(
        self,
        computation: Computation,
        state: State,
        status: Status,
        details: JsonObject | None = None,
    ) -> None:
        _log.info("computation.state", id=computation.id, state=state, status=status)
        # An id can be used twice; whoever hears this late can tell which one is meant.
        which = {"manifest": computation.digest().hex()}
        self._reporter.event(Happening(computation.id, state, status, which | (details or {})))


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
