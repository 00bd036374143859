# SPDX-License-Identifier: Apache-2.0
"""A backend whose VM is one shell script in a real sandbox, for tests of the manager itself."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import ClassVar

from cocos.errors import ProcessError
from cocos.host.containers import cgroups, sandbox
from cocos.manager.backends import Backend, Ending, Hardware, Vm
from cocos.manager.console import Console, pump
from cocos.manager.plan import VmPlan

FOREVER = "echo up; exec sleep 1000"


async def eventually(true: Callable[[], object], *, seconds: float = 30) -> None:
    """Wait until ``true`` returns something true; fail after ``seconds``."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - another process makes it true
            await asyncio.sleep(0.01)


class ScriptVm(Vm):
    forwarded_port = "6100"

    def __init__(self, child: sandbox.Sandboxed) -> None:
        self._child = child

    async def wait(self) -> Ending:
        status = await self._child.wait()
        return Ending(f"the script ended with exit code {status}", failed=status != 0)


class ScriptBackend(Backend):
    """Runs ``script``; one that does not print within its first line has failed to start."""

    name: ClassVar[str] = "script"

    def __init__(self, script: str = FOREVER) -> None:
        self.script = script

    @contextlib.asynccontextmanager
    async def start(
        self,
        vm_id: str,
        plan: VmPlan,  # noqa: ARG002 - the interface's
        folder: Path,
        console: Console,
    ) -> AsyncIterator[Vm]:
        (folder / "left").write_bytes(b"over")
        up = asyncio.Event()

        def sink(line: str) -> None:
            console.write("script", line)
            up.set()

        view = sandbox.View(writable={Path("/vm"): folder}, cgroup=f"cocos-{vm_id}")
        async with sandbox.run(view, ["/bin/sh", "-c", self.script], env={"ID": vm_id}) as child:
            pumping = asyncio.create_task(pump(child.output, sink))
            first = asyncio.create_task(up.wait())
            ended = asyncio.create_task(child.wait())
            await asyncio.wait({first, ended}, return_when=asyncio.FIRST_COMPLETED)
            first.cancel()
            if not up.is_set():
                raise ProcessError("the script said nothing", exit_status=ended.result())
            ended.cancel()
            yield ScriptVm(child)
        await pumping

    def clean(self, vm_id: str, folder: Path) -> None:  # noqa: ARG002 - the interface's
        cgroups.remove(f"cocos-{vm_id}")

    async def check(self) -> None:
        await sandbox.check()

    def hardware(self) -> Hardware:
        return Hardware(3, "script")
