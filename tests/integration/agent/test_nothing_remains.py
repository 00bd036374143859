# SPDX-License-Identifier: Apache-2.0
"""Whatever ends a computation, and at whatever moment: nothing of it runs or can be read."""

import asyncio
import contextlib
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from _agent import ALGO_KEY, Bed, bed
from _images import algorithm, busybox_layer, write_layout
from _manager import eventually

from cocos.host import process
from cocos.host.containers import cgroups
from cocos.host.images.skopeo import Skopeo
from cocos.wire import oci
from cocos.wire.json import encode
from cocos.wire.manifest.computation import Computation

pytestmark = pytest.mark.integration

SECRET = b"the program, decrypted"
MARK = f"9876{secrets.randbelow(10**6):06}"  # of our own: tests run beside others
ENDLESS = f"busybox setsid busybox sleep {MARK} & trap '' TERM; echo up; busybox sleep {MARK}"


@pytest.fixture
async def place(tool: Skopeo, tmp_path: Path) -> AsyncIterator[Bed]:
    async with bed(tmp_path, tool) as made:
        yield made


async def order(place: Bed, script: str) -> Computation:
    """A computation with an encrypted image that takes a while to fetch and to unpack."""
    layer = busybox_layer(script, {"secret": SECRET, "large": os.urandom(2**20) * 48})
    settings = oci.ContainerConfig(entrypoint=("/bin/busybox", "sh", "/run.sh"), env=("PATH=/bin",))
    write_layout(place.folder / "plain", [layer], settings)
    url = f"oci:{place.folder}/encrypted"
    await place.encrypt(f"oci:{place.folder}/plain", ALGO_KEY, url)
    source = {"uri": url, "encrypted": True, "kbs_resource_path": str(ALGO_KEY)}
    manifest = {"computation_id": "c-1", "algorithm": source, "kbs_url": "http://127.0.0.1:8080"}
    return Computation.from_json(encode(manifest))


def processes() -> dict[int, list[str]]:
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has just ended
            found[int(path.parent.name)] = path.read_text(errors="replace").split("\0")
    return found


def kill(work: Path, *words: str) -> bool:
    """Kill the agent's programs with these words in their command line; whether there were any."""
    ours = [
        pid
        for pid, line in processes().items()
        if all(any(part.endswith(word) for part in line) for word in words)
        and any(str(work) in part for part in line)
    ]
    for pid in ours:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(ours)


def remains(work: Path) -> list[str]:
    """What can be found of a computation."""
    found = [" ".join(line) for line in processes().values() if MARK in line]
    found += [" ".join(line) for line in processes().values() if any(str(work) in p for p in line)]
    found += [str(path) for root in cgroups.hierarchies() for path in root.glob("cocos/c-1-*")]
    found += [line for line in Path("/proc/mounts").read_text().split("\n") if str(work) in line]
    return found + [
        str(path)
        for path in work.rglob("*")
        if path.is_file() or path.parent.name in {"runc", "bundles", "computations"}
    ]


@pytest.mark.parametrize(
    "words",
    [("skopeo", "copy"), ("umoci", "unpack"), ("runc", "run")],
    ids=["skopeo", "umoci", "runc"],
)
async def test_a_tool_that_is_killed(place: Bed, words: tuple[str, ...]) -> None:
    computation = await order(place, ENDLESS)
    async with place.agent() as service:
        service.accept(computation)
        if "runc" in words:
            await place.memory.until("Running", "InProgress")
        ending = asyncio.create_task(service.wait())
        killed = False
        async with asyncio.timeout(60):
            while not ending.done():
                killed = kill(place.work, *words) or killed
                await asyncio.sleep(0.001)
        assert killed, place.memory.told()
        assert place.memory.failure["step"] in {"fetch", "unpack", "run"}
        assert remains(place.work) == []


async def test_a_computation_that_is_stopped(place: Bed) -> None:
    async with place.agent() as service:
        service.accept(await order(place, ENDLESS))
        async with asyncio.timeout(60):
            while not any(MARK in line for line in processes().values()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await service.stop("c-1")
        assert remains(place.work) == []


async def test_an_agent_that_is_killed_and_has_a_folder_of_its_own(tmp_path: Path) -> None:
    """A rehearsal on an owner's machine: there is no next start that would clean up."""
    algorithm(tmp_path / "algo", ENDLESS, env=("PATH=/bin",))
    manifest = {"computation_id": "c-1", "algorithm": {"uri": f"oci:{tmp_path}/algo"}}
    (tmp_path / "m.json").write_bytes(encode(manifest))
    (tmp_path / "tmp").mkdir()
    words = ["run", "-m", "m.json", "-r", "out", "--insecure-unmeasured"]
    async with process.spawn(
        [Path(sys.executable).parent / "cocos-agent", *words],
        env={"TMPDIR": str(tmp_path / "tmp"), "COCOS_INSECURE_WITHOUT_CGROUPS": "1"},
        cwd=tmp_path,
    ) as agent:
        await eventually(lambda: any(MARK in line for line in processes().values()))
        assert list((tmp_path / "tmp").iterdir())
        agent.kill()
        # os.walk: what is removed under its hands is none of its business.
        await eventually(lambda: not any(files for _, _, files in os.walk(tmp_path / "tmp")))
        await eventually(lambda: not any(MARK in line for line in processes().values()))


async def test_a_computation_that_is_complete(place: Bed) -> None:
    """What its program has left running ends with it."""
    async with place.agent() as service:
        service.accept(await order(place, f"busybox setsid busybox sleep {MARK} & echo done"))
        async with asyncio.timeout(60):
            await service.wait()
        assert place.memory.told()[-1] == ("Complete", "Completed"), place.memory.events[-1]
        assert remains(place.work) == []
