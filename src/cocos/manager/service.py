# SPDX-License-Identifier: Apache-2.0
"""Use cases of the manager: create, remove, list, follow. Knows no transport.

Every VM lives in one task that owns it: whatever ends the VM (itself, its time to live,
a removal, the manager's end) ends the task's blocks, and those leave nothing running.
"""

import asyncio
import datetime as dt
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import msgspec
import structlog

from cocos._clock import Clock, system_clock
from cocos.errors import CocosError, NotFoundError, StateError
from cocos.manager.backends import Backend, Hardware, Vm
from cocos.manager.console import Console
from cocos.manager.plan import CreateRequest, VmPlan, make_plan
from cocos.manager.records import VmRecord, VmState
from cocos.manager.state import StateFolder
from cocos.wire.manifest.agent_status import AgentStatus

KEPT_ENDED = 100  # records of VMs that ended; older ones are forgotten
_LONGEST_SLEEP = 30.0  # seconds: the clock may be set, or the machine may have slept

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Entry:
    record: VmRecord
    console: Console
    started: asyncio.Future[None]
    task: asyncio.Task[None] | None = None
    vm: Vm | None = None
    ending: bool = False
    status: AgentStatus = field(default_factory=AgentStatus)
    stop_reason: str = ""
    failure: CocosError | None = None


class ManagerService:
    """Starts, watches and ends VMs; an asynchronous context manager.

    At its end every VM of it has ended, or is left to the next manager with ``keep_vms``.
    """

    def __init__(
        self,
        state: StateFolder,
        backend: Backend,
        *,
        max_vms: int,
        keep_vms: bool = False,
        others: Mapping[str, Backend] | None = None,
        clock: Clock = system_clock,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._state = state
        self._backend = backend
        self._max_vms = max_vms
        self._keep_vms = keep_vms and backend.survives
        self._cleaners = {**(others or {}), backend.name: backend}
        self._clock = clock
        self._sleep = sleep
        self._entries: dict[str, _Entry] = {}
        self.ended: Counter[VmState] = Counter()  # for metrics

    async def __aenter__(self) -> Self:
        self._state.open()
        records = await asyncio.to_thread(self._state.records, self._drop)
        resumed = [entry for record in records if (entry := await self._recall(record))]
        # The API answers only when every VM is known to run or to have ended.
        await asyncio.gather(*(entry.started for entry in resumed))
        if self._backend.warning:
            _log.warning("backend.insecure", backend=self._backend.name, what=self._backend.warning)
        return self

    async def __aexit__(self, *_: object) -> None:
        for entry in self._entries.values():
            if self._keep_vms and entry.vm is not None and not entry.ending:
                entry.vm.left = True
        await asyncio.gather(
            *(self._end(entry, "the manager was stopped") for entry in self._entries.values())
        )
        self._state.close()

    async def _recall(self, record: VmRecord) -> _Entry | None:
        """Put one VM of the time before us on the list; return its entry if it may still run."""
        entry = self._make_entry(record)
        self._entries[record.id] = entry
        ours = record.backend == self._backend.name and self._backend.survives
        if ours and record.state in {VmState.RUNNING, VmState.DONE}:
            entry.task = asyncio.create_task(self._live(entry, None), name=f"vm {record.id}")
            return entry
        if record.state.live:
            lost = "the manager ended without stopping it, and it ended with it"
            entry.record = record.to(VmState.LOST, lost)
            _log.warning("vm.lost", vm=record.id)
            await asyncio.to_thread(self._clean, record)
            self._state.save(entry.record)
        await asyncio.to_thread(self._state.clean, record.id)
        entry.started.set_result(None)
        return None

    def _drop(self, vm_id: str, folder: Path) -> None:
        for backend in self._cleaners.values():
            backend.clean(vm_id, folder)

    def _clean(self, record: VmRecord) -> None:
        backend = self._cleaners.get(record.backend)
        if backend is not None:
            backend.clean(record.id, self._state.folder(record.id))

    async def create(self, request: CreateRequest) -> VmRecord:
        """Start a VM; returns when its programs run.

        Raises:
            FormatError: the request is wrong; nothing has been started.
            StateError: as many VMs run as may, or the VM did not start.
        """
        plan = make_plan(request)
        live = sum(entry.record.state.live for entry in self._entries.values())
        if 0 < self._max_vms <= live:
            raise StateError(
                f"{live} VMs run, which is the most this manager may have",
                hint="remove one, or raise MANAGER_MAX_VMS",
            )
        now = self._clock()
        record = VmRecord(
            id=str(uuid.uuid4()),
            backend=self._backend.name,
            state=VmState.STARTING,
            created=now,
            cvms=plan.cvms,
            expires=None if plan.ttl is None else now + plan.ttl,
        )
        entry = self._make_entry(record)
        self._entries[record.id] = entry
        entry.task = asyncio.create_task(self._live(entry, plan), name=f"vm {record.id}")
        try:
            await asyncio.shield(entry.started)
        except asyncio.CancelledError:
            # The caller has gone and nobody would know of this VM.
            await asyncio.shield(self._end(entry, "its creator left while it started"))
            raise
        return entry.record

    async def remove(self, vm_id: str) -> None:
        """End a VM if it runs, and forget it.

        Raises:
            NotFoundError: there is no such VM.
        """
        entry = self._entry(vm_id)
        await self._end(entry, "removed")
        if self._entries.pop(vm_id, None) is not None:
            await asyncio.to_thread(self._state.forget, vm_id)

    def get(self, vm_id: str) -> VmRecord:
        """Return one VM's record.

        Raises:
            NotFoundError: there is no such VM.
        """
        return self._entry(vm_id).record

    def vms(self) -> list[VmRecord]:
        """Return every VM that runs or ended by itself, oldest first."""
        return [entry.record for entry in self._entries.values()]

    def problem(self, vm_id: str) -> str:
        """Return what keeps a VM's agent from working now, as that says, or an empty text.

        Raises:
            NotFoundError: there is no such VM.
        """
        entry = self._entry(vm_id)
        return entry.status.problem if entry.record.state.live else ""

    def reference_values(self) -> bytes | None:
        """Return what the VMs of this manager measure, as JSON, if they are measured."""
        return self._backend.reference_values()

    def hardware(self) -> Hardware:
        """Return what the VMs of this manager are made of."""
        return self._backend.hardware()

    def logs(self, vm_id: str, *, follow: bool = False) -> AsyncIterator[bytes]:
        """Return a VM's console; with ``follow`` also what comes until it ends.

        Raises:
            NotFoundError: there is no such VM.
        """
        return self._entry(vm_id).console.read(follow=follow)

    def _make_entry(self, record: VmRecord) -> _Entry:
        started = asyncio.get_running_loop().create_future()
        path = self._state.console(record.id)
        console = Console(path, on_status=lambda status: self._told(entry, status))
        entry = _Entry(record, console, started)
        return entry

    def _told(self, entry: _Entry, status: AgentStatus) -> None:
        """Take what a VM's agent says of itself; it has no other effect than in our lists."""
        entry.status = status
        if not status.outcome:
            return
        record = msgspec.structs.replace(entry.record, outcome=status.outcome)
        if record.state is VmState.RUNNING:
            _log.info("vm.done", vm=record.id, outcome=status.outcome)
            self._keep(entry, record.to(VmState.DONE))
        else:
            entry.record = record  # kept at the next change: a guest cannot keep our disk busy

    def _entry(self, vm_id: str) -> _Entry:
        entry = self._entries.get(vm_id)
        if entry is None:
            raise NotFoundError(
                f"there is no VM {vm_id[:64]}", hint="cocos-cli agent list shows those there are"
            )
        return entry

    async def _end(self, entry: _Entry, reason: str) -> None:
        """Have a VM end, and wait until nothing of it is left; cancels its task at most once."""
        if entry.task is None:
            return
        if not entry.ending:
            entry.ending = True
            entry.stop_reason = reason
            entry.task.cancel()
        await asyncio.wait({entry.task})

    async def _live(self, entry: _Entry, plan: VmPlan | None) -> None:
        """One VM from its start, or without a plan from its recall, to its end."""
        vm_id = entry.record.id
        state, reason = VmState.STOPPED, ""
        try:
            async with self._begin(entry, plan) as vm:
                running = entry.record if plan is None else entry.record.to(VmState.RUNNING)
                self._keep(
                    entry, msgspec.structs.replace(running, forwarded_port=vm.forwarded_port)
                )
                entry.vm = vm
                self._told(entry, entry.status)  # what it has said already
                entry.started.set_result(None)
                state, reason = await self._until_end(entry, vm)
                entry.ending = True
                self._keep(entry, entry.record.to(VmState.STOPPING, reason))
            if state is VmState.STOPPED and entry.record.outcome:
                # Only now: its last words may have come after its end.
                state, reason = VmState.ENDED, _outcome(entry.status)
        except asyncio.CancelledError:
            reason = entry.stop_reason
            if entry.vm is not None and entry.vm.left:
                _log.info("vm.left", vm=vm_id)
                entry.console.close()
                return
        except CocosError as error:
            state, reason = (VmState.FAILED if plan else VmState.LOST), error.message
            entry.failure = error
        except Exception as error:  # noqa: BLE001 - a task has nobody above it who would see it
            state, reason = VmState.FAILED, "internal error; the manager's log has the cause"
            _log.error("vm.crashed", vm=vm_id, exc_info=error)
        if plan is None:
            await asyncio.to_thread(self._clean, entry.record)
        await self._finish(entry, state, reason, had_started=plan is None or entry.started.done())

    def _begin(self, entry: _Entry, plan: VmPlan | None) -> AbstractAsyncContextManager[Vm]:
        vm_id = entry.record.id
        if plan is None:
            _log.info("vm.resuming", vm=vm_id, backend=self._backend.name)
            entry.console.open()
            return self._backend.resume(vm_id, self._state.folder(vm_id), entry.console)
        _log.info("vm.starting", vm=vm_id, backend=self._backend.name, cvms=plan.cvms)
        folder = self._state.make(entry.record)
        entry.console.open()
        return self._backend.start(vm_id, plan, folder, entry.console)

    async def _finish(
        self, entry: _Entry, state: VmState, reason: str, *, had_started: bool
    ) -> None:
        vm_id = entry.record.id
        entry.ending = True
        await asyncio.to_thread(self._state.clean, vm_id)
        _log.info("vm.ended", vm=vm_id, state=str(state), reason=reason)
        self.ended[state] += 1
        if had_started:
            self._keep(entry, entry.record.to(state, reason))
            if not entry.started.done():
                entry.started.set_result(None)
            # Last: who followed the console to its end looks at the state next.
            entry.console.close()
            await self._forget_old()
            return
        entry.console.close()
        del self._entries[vm_id]
        await asyncio.to_thread(self._state.forget, vm_id)
        hint = entry.failure.hint if entry.failure else None
        failure = StateError(f"the VM did not start: {reason}", hint=hint)
        failure.__cause__ = entry.failure
        entry.started.set_exception(failure)
        entry.started.exception()  # its creator may have gone

    async def _until_end(self, entry: _Entry, vm: Vm) -> tuple[VmState, str]:
        ending = asyncio.create_task(vm.wait())
        waits: list[asyncio.Task[Any]] = [ending]
        if entry.record.expires is not None:
            waits.append(asyncio.create_task(self._expire(entry.record.expires)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()
        if not ending.done():
            return VmState.EXPIRED, "its time to live was over"
        ended = ending.result()
        return (VmState.FAILED if ended.failed else VmState.STOPPED), ended.reason

    async def _expire(self, expires: dt.datetime) -> None:
        while (left := (expires - self._clock()).total_seconds()) > 0:
            await self._sleep(min(left, _LONGEST_SLEEP))

    async def _forget_old(self) -> None:
        ended = [key for key, entry in self._entries.items() if not entry.record.state.live]
        for vm_id in ended[:-KEPT_ENDED]:
            del self._entries[vm_id]
            await asyncio.to_thread(self._state.forget, vm_id)

    def _keep(self, entry: _Entry, record: VmRecord) -> None:
        entry.record = record
        self._state.save(record)


def _outcome(status: AgentStatus) -> str:
    why = f": {status.reason}" if status.reason else ""
    return f"its computation {status.computation} {status.outcome}{why}"
