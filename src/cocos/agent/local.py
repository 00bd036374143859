# SPDX-License-Identifier: Apache-2.0
"""Runs without a CVMS: events to a callback, the result to a folder of the user's."""

import asyncio
import io
from collections.abc import Callable, Sequence
from pathlib import Path

from cocos._clock import Clock
from cocos._types import JsonObject
from cocos.agent.report import Happening, Level, Status
from cocos.agent.states import State
from cocos.errors import StateError
from cocos.host import archive
from cocos.wire.manifest.computation import Computation
from cocos.wire.manifest.identity import Identity

Show = Callable[[JsonObject], None]


class LocalReporter:
    """Hands everything to ``show`` as JSON objects, and remembers why a run failed.

    Attributes:
        failure: Details of the failure, or None.
    """

    def __init__(self, show: Show, clock: Clock) -> None:
        self._show = show
        self._clock = clock
        self.failure: JsonObject | None = None

    def event(self, happening: Happening) -> None:
        """See :class:`cocos.agent.report.Reporter`."""
        if happening.type == State.FAILED and happening.status is Status.FAILED:
            self.failure = happening.details
        self._show(
            {
                "time": self._clock().isoformat(),
                "event": str(happening.type),
                "status": str(happening.status),
                "computation": happening.computation,
                **({"details": happening.details} if happening.details else {}),
            }
        )

    def log(self, computation: str, level: Level, message: str) -> None:
        """See :class:`cocos.agent.report.Reporter`."""
        self._show(
            {
                "time": self._clock().isoformat(),
                "log": message,
                "level": level.name,
                "computation": computation,
            }
        )


class FolderOutlet:
    """Results go to a folder; who runs the agent is their consumer.

    Args:
        folder: New, or empty.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def check(self, _computation: Computation) -> None:
        """See :class:`cocos.agent.service.Outlet`."""
        if self._folder.exists() and (not self._folder.is_dir() or any(self._folder.iterdir())):
            raise StateError(f"{self._folder} is there already", hint="name a new or empty folder")

    def consumers(self, _computation: Computation) -> Sequence[bytes]:
        """Nobody needs a key, whoever the manifest names."""
        return ()

    async def pack(self, _computation: Computation, path: Path) -> bytes:
        """See :class:`cocos.agent.service.Outlet`."""
        return await asyncio.to_thread(path.read_bytes)

    def kept(self) -> None:
        """Nothing is: who runs the agent has the folder."""

    async def deliver(self, _identity: Identity, package: bytes) -> None:
        """See :class:`cocos.agent.service.Outlet`."""
        await asyncio.to_thread(archive.unzip, io.BytesIO(package), self._folder)

    def forget(self) -> None:
        """See :class:`cocos.agent.service.Outlet`."""
