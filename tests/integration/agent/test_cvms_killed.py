# SPDX-License-Identifier: Apache-2.0
"""CVMS and agent as programs, killed at every point of a computation and started again.

Whoever was killed is started with the same command. The CVMS ends with what became of the
computation, the result is there, and the agent holds nothing any more.
"""

import asyncio
import contextlib
import io
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from _agent import Bed, bed
from _cvms import agent_program, cvms_test
from _images import algorithm
from _programs import Running, running
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cocos.crypto import sealed
from cocos.host.archive import unzip
from cocos.host.images.skopeo import Skopeo

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

BIN = Path(sys.executable).parent
SECONDS = 90
KEY = ec.generate_private_key(ec.SECP256R1())
PRIVATE = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
PUBLIC = KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)

Entry = dict[str, Any]
When = Callable[[Entry], bool]


@pytest.fixture
async def place(tool: Skopeo, tmp_path: Path) -> AsyncIterator[Bed]:
    async with bed(tmp_path, tool) as made:
        yield made


@pytest.fixture
async def attestation() -> AsyncIterator[Running]:
    async with running("attestation-agent", "-a", "127.0.0.1:0", "--insecure-sample") as program:
        yield program


class Order:
    """A computation as a command line, and the folder of its CVMS."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.port = "0"
        (folder / "public.pem").write_bytes(PUBLIC)
        self._words = ["-public-key-path", "public.pem", "-algo-source-url", url, "-once", "--json"]

    @contextlib.asynccontextmanager
    async def cvms(self, *more: str) -> AsyncIterator["Program"]:
        child = await cvms_test(self.folder, *self._words, *more, "-port", self.port)
        program = Program(child)
        try:
            listening = (await program.next())["listening"]
            self.port = listening.rpartition(":")[2]
            yield program
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()

    def result(self) -> dict[str, bytes]:
        package = sealed.open_sealed((self.folder / "1.zip.jwe").read_bytes(), PRIVATE)
        opened = self.folder / f"opened-{len(list(self.folder.glob('opened-*')))}"
        return {name: (opened / name).read_bytes() for name in unzip(io.BytesIO(package), opened)}


class Program:
    """A CVMS and what it has shown."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self.child = child
        self.shown: list[Entry] = []

    async def next(self) -> Entry:
        assert self.child.stdout is not None
        line = await asyncio.wait_for(self.child.stdout.readline(), SECONDS)
        assert line, (self.shown, await self.errors())
        self.shown.append(json.loads(line))
        return self.shown[-1]

    async def until(self, when: When) -> None:
        while not when(await self.next()):
            pass

    async def ended(self) -> int:
        output, errors = await asyncio.wait_for(self.child.communicate(), SECONDS)
        self.shown += [json.loads(line) for line in output.splitlines()]
        self.shown.append({"errors": errors.decode()})
        assert self.child.returncode is not None
        return self.child.returncode

    async def errors(self) -> str:
        assert self.child.stderr is not None
        return (await self.child.stderr.read()).decode()


def shows(**members: object) -> When:
    return lambda entry: members.items() <= entry.items()


WAY = {
    "connected": shows(connected=True),
    "accepted": shows(accepted=True),
    "receiving": shows(event="ReceivingAlgorithm"),
    "starting": shows(event="Running", status="Starting"),
    "running": shows(event="Running", status="InProgress"),
}
GOOD = WAY | {
    "ran": shows(event="Running", status="Completed"),
    "ready": shows(event="ConsumingResults", status="Ready"),
    "stored": lambda entry: "result" in entry,
    "complete": shows(event="Complete"),
}
BAD = WAY | {
    "run failed": shows(event="Running", status="Failed"),
    "failed": shows(event="Failed", status="Failed"),
}


async def test_a_cvms_killed_at_any_point_of_a_good_computation(
    place: Bed, attestation: Running, registry: str, tmp_path: Path
) -> None:
    url = await pushed(place, registry, "good", "echo 42")
    for point, when in GOOD.items():
        folder = tmp_path / f"cvms-{point}"
        folder.mkdir()
        order = Order(folder, url)
        shown = await killed_and_again(place, attestation, order, when, expected=0)
        assert order.result()["stdout.log"] == b"42\n", (point, shown)
        assert not (place.work / "kept").exists(), (point, shown)
        assert not [entry for entry in shown if "other" in entry], (point, shown)


async def test_a_cvms_killed_at_any_point_of_a_computation_that_fails(
    place: Bed, attestation: Running, registry: str, tmp_path: Path
) -> None:
    url = await pushed(place, registry, "bad", "exit 3")
    for point, when in BAD.items():
        folder = tmp_path / f"cvms-{point}"
        folder.mkdir()
        order = Order(folder, url)
        shown = await killed_and_again(place, attestation, order, when, expected=1)
        reasons = [entry.get("details", {}).get("reason", "") for entry in shown]
        assert any("failed with exit code 3" in reason for reason in reasons), (point, shown)
        assert not (folder / "1.zip.jwe").exists()


async def pushed(place: Bed, registry: str, name: str, script: str) -> str:
    algorithm(place.folder / name, script, env=("PATH=/bin",))
    url = f"docker://{registry}/{name}:v1"
    await place.skopeo.copy(f"oci:{place.folder}/{name}", url)
    return url


async def killed_and_again(
    place: Bed, attestation: Running, order: Order, when: When, *, expected: int
) -> list[Entry]:
    """Kill a CVMS when it shows something; return what the next one shows, which ends so."""
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(order.cvms())
        address = f"127.0.0.1:{order.port}"
        await stack.enter_async_context(agent_program(place, address, attestation.address))
        await first.until(when)
        with contextlib.suppress(ProcessLookupError):
            first.child.send_signal(signal.SIGKILL)
        status = await first.child.wait()
        if status != -signal.SIGKILL:  # it was quicker, and had done its work
            assert status == expected
            return first.shown
        second = await stack.enter_async_context(order.cvms())
        status = await second.ended()
        assert status == expected, (first.shown, second.shown)
        return first.shown + second.shown
