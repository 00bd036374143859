# SPDX-License-Identifier: Apache-2.0
"""This machine: its attester and the log of what was measured on it, one use at a time.

Evidence made while an event is on its way from the register to the log would contradict
itself, and two bindings of init data at once would both extend.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from cocos._types import JsonObject
from cocos.attestation_agent.event_log import EventLog
from cocos.attesters import Attester
from cocos.wire.kbs.protocol import Tee

T = TypeVar("T")


class Machine:
    """Speaks for this machine; an ``EvidenceSource``.

    Args:
        attester: Makes evidence.
        log: Has been opened; None keeps runtime measurements switched off.
    """

    def __init__(self, attester: Attester, log: EventLog | None = None) -> None:
        self._attester = attester
        self._log = log
        self._generation = 0
        self._lock = asyncio.Lock()
        self._running: set[asyncio.Task[Any]] = set()

    @property
    def log(self) -> EventLog | None:
        """The log; None: switched off."""
        return self._log

    @property
    def generation(self) -> int:
        """A number that grows whenever evidence may say something new.

        A token from before does not know of it and must not be used any more: keys of one
        computation would open to the next.
        """
        return self._generation

    async def tee(self) -> Tee:
        """Return the primary TEE."""
        return await self._attester.tee()

    async def additional_tees(self) -> tuple[Tee, ...]:
        """Return the devices that can be attested beside the CPU."""
        return await self._attester.additional_tees()

    async def auth_params(self) -> JsonObject:
        """Return what the KBS must know before it challenges us."""
        return await self._attester.auth_params()

    async def evidence(self, report_data: bytes, challenge: JsonObject | None = None) -> Any:
        """Return evidence, as JSON, that carries ``report_data`` and answers the challenge."""
        async with self._lock:
            events = b"" if self._log is None else await self._log.read()
            return await self._attester.evidence(report_data, challenge, events=events)

    async def additional_evidence(self, report_data: bytes) -> str:
        """Return JSON text, TEE → evidence of each device; empty without devices."""
        return await self._attester.additional_evidence(report_data)

    async def measure(self, log: EventLog, event: bytes, register: int | None) -> None:
        """Measure an event; see :meth:`EventLog.append`."""
        await self._to_the_end(lambda: log.append(event, register))

    async def bind_init_data(self, digest: bytes) -> None:
        """Bind what the host passed in; see :meth:`Attester.bind_init_data`."""
        await self._to_the_end(lambda: self._attester.bind_init_data(digest))

    async def _to_the_end(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do ``work`` alone and whole, even if the caller is cancelled meanwhile."""

        async def alone() -> T:
            async with self._lock:
                try:
                    return await work()
                finally:
                    self._generation += 1

        task = asyncio.create_task(alone())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)
