# SPDX-License-Identifier: Apache-2.0
"""A CVMS for tests of agents."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
from _agent import Bed

from cocos.cvms.server import HEALTH_NAME, grpc_service
from cocos.cvms.service import CvmsService, Ending
from cocos.host import process
from cocos.transport.rpc import serve
from cocos.wire.manifest.computation import Computation

BIN = Path(sys.executable).parent


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


@contextlib.asynccontextmanager
async def agent_process(
    place: Bed, address: str, attestation: str, *, stderr: int | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Have an agent run that may be killed."""
    env = {
        "AGENT_CVM_ID": "vm-1",
        "AGENT_CVM_GRPC_URL": address,
        "AGENT_LOG_LEVEL": "info",
        "COCOS_AA_ADDRESS": attestation,
        "COCOS_WORK_FOLDER": str(place.work),
        "COCOS_INSECURE_WITHOUT_CGROUPS": "1",
        "OCICRYPT_KEYPROVIDER_CONFIG": str(place.config),
    }
    async with process.spawn([BIN / "cocos-agent"], env=env, stderr=stderr) as child:
        yield child


@contextlib.asynccontextmanager
async def agent_program(place: Bed, address: str, attestation: str) -> AsyncIterator[list[str]]:
    """Have an agent run; yields its log, which grows."""
    log: list[str] = []
    async with agent_process(place, address, attestation, stderr=asyncio.subprocess.PIPE) as child:
        assert child.stderr is not None

        async def read(stream: asyncio.StreamReader) -> None:
            while line := await stream.readline():
                log.append(line.decode())

        reading = asyncio.create_task(read(child.stderr))
        try:
            yield log
        finally:
            child.terminate()
            assert await asyncio.wait_for(child.wait(), 20) == 0, log
            await reading


async def cvms_test(
    folder: Path, *arguments: str, before: Sequence[str] = ()
) -> asyncio.subprocess.Process:
    """Start a CVMS on a free port of 127.0.0.1, in that folder."""
    return await asyncio.create_subprocess_exec(
        *before,
        BIN / "cvms-test",
        *arguments,
        cwd=folder,
        env=process.environment({"HOST": "127.0.0.1", "PORT": "0"}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
