# SPDX-License-Identifier: Apache-2.0
"""A CVMS for tests of agents."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

from cocos.cvms.server import HEALTH_NAME, grpc_service
from cocos.cvms.service import CvmsService, Ending
from cocos.transport.rpc import serve
from cocos.wire.manifest.computation import Computation


class Cvms:
    """A CVMS in this process that can go away and come back on its address."""

    def __init__(self, order: Computation, results: Path) -> None:
        self.shown: list[dict[str, Any]] = []
        self.endings: asyncio.Queue[Ending] = asyncio.Queue()
        self.changed = asyncio.Event()
        self.service = CvmsService(order, results, self.show, self.endings.put_nowait)

    def show(self, entry: dict[str, Any]) -> None:
        self.shown.append(entry)
        self.changed.set()

    async def until(self, **members: object) -> None:
        async with asyncio.timeout(60):
            while not any(members.items() <= entry.items() for entry in self.shown):
                self.changed.clear()
                await self.changed.wait()

    @contextlib.asynccontextmanager
    async def serving(
        self, address: str = "127.0.0.1:0", credentials: grpc.ServerCredentials | None = None
    ) -> AsyncIterator[str]:
        closing = asyncio.Event()
        services = [grpc_service(self.service, closing)]
        async with serve(
            address, services, credentials=credentials, health_names=[HEALTH_NAME]
        ) as bound:
            try:
                yield bound
            finally:
                closing.set()
