# SPDX-License-Identifier: Apache-2.0
"""A manager with the backend ``local`` as a program, and the processes of its VMs."""

import asyncio
import contextlib
import json
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from _programs import Running, running

from cocos.host import process
from cocos.host.containers import cgroups

CLI = Path(sys.executable).parent / "cocos-cli"


@dataclass
class Host:
    """A manager, and ``cocos-cli agent`` against it."""

    manager: Running
    state: Path

    async def agent(self, *words: str, check: bool = True) -> process.Completed:
        return await process.run(
            [CLI, "agent", *words, "--manager-url", f"http://{self.manager.address}"],
            check=check,
            timeout=120,
        )

    async def create(self, *words: str, cvms: str = "") -> str:
        url = f"http://{cvms or f'127.0.0.1:{unused_port()}'}"
        done = await self.agent("create", "--cvms-url", url, "--json", *words)
        vm_id = json.loads(done.stdout)["id"]
        assert isinstance(vm_id, str)
        return vm_id

    async def states(self) -> dict[str, dict[str, object]]:
        done = await self.agent("list", "--json")
        return {vm["id"]: vm for vm in json.loads(done.stdout)}

    async def until(self, vm_id: str, state: str) -> dict[str, object]:
        async with asyncio.timeout(60):
            while True:
                vm = (await self.states())[vm_id]
                if vm["state"] == state:
                    return vm


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert isinstance(port, int)
    return port


@contextlib.asynccontextmanager
async def managing(state: Path, *more: str) -> AsyncIterator[Host]:
    words = ["--backend", "local", "--grpc-host", "127.0.0.1", *more]
    words += ["--grpc-port", "0", "--http-port", "0", "--state-folder", str(state)]
    async with running("cocos-manager", *words) as manager:
        yield Host(manager, state)


def fences(vm_id: str) -> set[int]:
    """Processes of bubblewrap for a VM: its folder is in their arguments."""
    return {pid for pid, words in command_lines() if vm_id.encode() in words and b"bwrap" in words}


def guest(vm_id: str, program: str) -> int:
    """Process id, as the host sees it, of one program of a VM."""
    inside = {pid for pid, _ in command_lines() if parent(pid) in fences(vm_id)} - fences(vm_id)
    (found,) = (
        pid for pid, words in command_lines() if pid in inside and program.encode() in words
    )
    return found


def command_lines() -> list[tuple[int, bytes]]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has just ended
            found.append((int(path.parent.name), path.read_bytes()))
    return found


def parent(pid: int) -> int:
    try:
        stat_line = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(stat_line.rpartition(")")[2].split()[1])


def groups(vm_id: str) -> list[Path]:
    return [path for root in cgroups.hierarchies() for path in root.glob(f"cocos-{vm_id}")]
