# SPDX-License-Identifier: Apache-2.0
"""A CVMS whose agent dies, sleeps or never comes: it says so, and with -once it ends."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from _cvms import Cvms
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cocos.cvms.server import grpc_service
from cocos.host import process
from cocos.transport.rpc import serve
from cocos.wire.manifest.computation import Computation
from cocos.wire.manifest.parts import Algorithm, Source

pytestmark = pytest.mark.integration

BIN = Path(sys.executable).parent
SECONDS = 60

AGENT = """
import asyncio, sys
from cocos.clients.cvms import Endpoint, connect
async def main():
    async with connect(Endpoint.parse(sys.argv[1], cvm_id="vm-1")) as stream:
        while await stream.receive() is not None:
            pass
asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def agent(address: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that has connected and waits."""
    async with process.spawn([sys.executable, "-c", AGENT, address]) as child:
        try:
            yield child
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGCONT)


@contextlib.asynccontextmanager
async def cvms_test(
    folder: Path, *arguments: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    (folder / "key.pem").write_bytes(key.public_bytes(serialization.Encoding.PEM, form))
    words = ["-public-key-path", str(folder / "key.pem"), "-algo-source-url", "docker://h:1/x"]
    pipe = asyncio.subprocess.PIPE
    async with process.spawn(
        [str(BIN / "cvms-test"), *words, "-port", "0", "-host", "127.0.0.1", "--json", *arguments],
        cwd=folder,
        stdout=pipe,
        stderr=pipe,
    ) as child:
        yield child, (await line(child))["listening"]


async def line(child: asyncio.subprocess.Process) -> dict[str, Any]:
    assert child.stdout is not None
    async with asyncio.timeout(SECONDS):
        text = await child.stdout.readline()
    if not text:
        assert child.stderr is not None
        raise AssertionError((await child.stderr.read()).decode())
    entry: dict[str, Any] = json.loads(text)
    return entry


async def until(child: asyncio.subprocess.Process, **members: object) -> dict[str, Any]:
    while not members.items() <= (entry := await line(child)).items():
        pass
    return entry


async def test_the_agent_was_killed(tmp_path: Path) -> None:
    async with cvms_test(tmp_path, "-once", "-agent-timeout", "200ms") as (child, address):
        # Before the first one there is no limit: people start VMs by hand.
        assert await line(child) == {"waiting": f"for an agent to connect to {address}"}
        async with agent(address) as one:
            await until(child, agent="vm-1", connected=True)
            os.killpg(one.pid, signal.SIGKILL)
            await until(child, agent="vm-1", connected=False)
        _, errors = await asyncio.wait_for(child.communicate(), SECONDS)
        assert child.returncode == 69
    told = json.loads(errors.splitlines()[-1])
    assert told["error"] == "unreachable"
    assert "none has connected within 0.2 s" in told["message"]
    assert "agent list" in told["hint"]


async def test_an_agent_that_comes_back_is_waited_for(tmp_path: Path) -> None:
    async with cvms_test(tmp_path, "-once") as (child, address):
        for _ in range(2):
            async with agent(address):
                await until(child, agent="vm-1", connected=True)
            await until(child, agent="vm-1", connected=False)
            assert await line(child) == {"waiting": "for an agent to connect again within 120 s"}
        assert child.returncode is None


async def test_without_once_it_serves_on(tmp_path: Path) -> None:
    async with cvms_test(tmp_path, "-agent-timeout", "1ms") as (child, address):
        async with agent(address):
            await until(child, agent="vm-1", connected=True)
        assert (await until(child, waiting="for an agent to connect again"))["waiting"]
        async with agent(address):
            await until(child, agent="vm-1", connected=True)


@pytest.mark.parametrize("wrong", ["soon", "-1s", "2", ""])
async def test_a_time_that_is_none(tmp_path: Path, wrong: str) -> None:
    done = await process.run(
        [BIN / "cvms-test", "-algo-source-url", "docker://h:1/x", "-once", "-agent-timeout", wrong],
        cwd=tmp_path,
        check=False,
    )
    assert b"-agent-timeout" in done.stderr
    assert done.exit_status == 2


async def test_an_agent_that_sleeps_is_no_agent(tmp_path: Path) -> None:
    """A machine that was paused, or has vanished without a word: no connection is closed."""
    cvms = Cvms(Computation("c-1", Algorithm(Source("oci-image", "docker://h:1/x"))), tmp_path)
    services = [grpc_service(cvms.service, asyncio.Event())]
    async with (
        serve("127.0.0.1:0", services, lost_after=0.2) as address,
        agent(address) as one,
    ):
        await cvms.until(agent="vm-1", connected=True)
        os.killpg(one.pid, signal.SIGSTOP)
        await cvms.until(agent="vm-1", connected=False)
