# SPDX-License-Identifier: Apache-2.0
"""A QEMU and its TPM while they run: attach to them, notice their end, end them.

Both outlive the manager, so that all one needs to know of them is in the VM's folder.
"""

import asyncio
import contextlib
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from cocos.errors import PeerError, UnreachableError
from cocos.host import process, unix_socket
from cocos.host.daemon import Daemon
from cocos.host.machines import swtpm
from cocos.host.machines.qmp import Monitor
from cocos.manager.backends._base import Ending, Vm
from cocos.manager.console import Console, pump

CONSOLE = "guest"
"""What the VM's console calls the guest's own lines."""

MONITOR_SOCKET = "monitor.sock"
CONSOLE_SOCKET = "console.sock"
PID_FILE = "qemu.pid"
LOG = "qemu.log"
TPM_FOLDER = "tpm"

ANSWER_SECONDS = 60.0  # of a QEMU that has just been started on a busy machine
QUIT_SECONDS = 5.0
TOGETHER_SECONDS = 3.0  # between the ends of a TPM and of its QEMU when that ends in order
# Colours and cursor movements, which firmware and systemd print.
_CONTROL = re.compile(
    r"\x1b(\][^\x07\x1b]*(\x07|\x1b\\)?|\[[0-?]*[ -/]*[@-~]|[0-9@-Z\\-_=>]|[()][A-B0-2])|\r"
)


class QemuVm(Vm):
    """A VM that we control."""

    def __init__(
        self, folder: Path, qemu: Daemon, tpm: Daemon | None, monitor: Monitor, console: Console
    ) -> None:
        self.monitor = monitor
        self._folder = folder
        self._qemu = qemu
        self._tpm = tpm
        self._console = console
        self.printing: asyncio.Task[None] | None = None

    async def wait(self) -> Ending:
        """See the base."""
        qemu = asyncio.create_task(self._qemu.wait())
        stopped = asyncio.create_task(self.monitor.until_stopped())
        tasks: set[asyncio.Task[Any]] = {qemu, stopped}
        if self._tpm is not None:
            tasks.add(asyncio.create_task(self._tpm.wait()))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not qemu.done():
                # A QEMU that ends in order takes leave of its TPM and of us first.
                await asyncio.wait({qemu}, timeout=TOGETHER_SECONDS)
            if qemu.done():
                return await self._ended()
            if stopped.done() and stopped.exception() is None:
                return Ending(self._with_last_lines(stopped.result()), failed=True)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        # What the guest does from here on would be neither measured nor controlled.
        await self._qemu.kill()
        if self._tpm is None or self._tpm.alive:
            return Ending("QEMU closed the socket that controls it", failed=True)
        words = swtpm.last_words(self._folder / TPM_FOLDER) or "it said nothing"
        return Ending(f"its TPM (swtpm) ended{self._tpm.ending}: {words}", failed=True)

    async def _ended(self) -> Ending:
        await self.monitor.until_closed()
        if self.printing is not None:
            await asyncio.wait({self.printing})  # its last words
        told = self.monitor.ending()
        if told is None:
            reason = f"QEMU ended{self._qemu.ending}: {_last(self._folder / LOG)}"
            return Ending(self._with_last_lines(reason), failed=True)
        reason, failed = told
        return Ending(self._with_last_lines(reason) if failed else reason, failed=failed)

    def _with_last_lines(self, reason: str) -> str:
        lines = " | ".join(self._console.tail(CONSOLE, 3))
        return f"{reason}; last on its console: {lines}" if lines else reason

    async def power_down(self, grace: float) -> None:
        """Have the guest shut down, and QEMU quit if it does not within ``grace`` seconds."""
        for command, seconds in (("system_powerdown", grace), ("quit", QUIT_SECONDS)):
            if not self._qemu.alive:
                return
            with contextlib.suppress(PeerError, TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.monitor.execute(command)
                    await self._qemu.wait()


@contextlib.asynccontextmanager
async def attached(
    folder: Path, qemu: Daemon, tpm: Daemon | None, console: Console, *, grace: float
) -> AsyncIterator[QemuVm]:
    """Control a QEMU while the block runs; shut it down at the end, unless it is to be left.

    Raises:
        UnreachableError: it does not answer.
    """
    async with contextlib.AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                monitor = await stack.enter_async_context(Monitor(folder / MONITOR_SOCKET))
        except (UnreachableError, TimeoutError) as error:
            raise UnreachableError(f"QEMU does not answer: {_last(folder / LOG)}") from error
        vm = QemuVm(folder, qemu, tpm, monitor, console)
        vm.printing = asyncio.create_task(_print(folder / CONSOLE_SOCKET, console))
        stack.push_async_callback(_stopped, vm.printing)
        vm.forwarded_port = str(await monitor.forwarded_port())
        try:
            yield vm
        finally:
            if not vm.left:
                await vm.power_down(grace)


async def _stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


async def _print(path: Path, console: Console) -> None:
    """Copy what the guest prints to the console, as lines that can be read."""

    def sink(line: str) -> None:
        if text := readable(line):
            console.write(CONSOLE, text)

    reader, writer = await asyncio.open_unix_connection(sock=unix_socket.connect(path))
    try:
        with contextlib.suppress(ConnectionError):
            await pump(reader, sink)
    finally:
        writer.close()


def readable(line: str) -> str:
    """Return a line of a terminal as text: without colours, titles and cursor movements."""
    return _CONTROL.sub("", line).strip()


def _last(log: Path) -> str:
    try:
        words = process.tail(log.read_bytes()[-process.TAIL_BYTES :])
    except OSError:
        words = ""
    return words or "it said nothing"


class Parts:
    """The processes of a VM, and the VM once it is controlled."""

    def __init__(self, qemu: Daemon | None = None, tpm: Daemon | None = None) -> None:
        self.qemu = qemu
        self.tpm = tpm
        self.vm: QemuVm | None = None

    async def end(self) -> None:
        """End what still runs; a TPM may write its state first."""
        if self.qemu is not None:
            self.qemu.signal(signal.SIGKILL)
            await self.qemu.wait()
        if self.tpm is not None:
            await self.tpm.stop(grace=QUIT_SECONDS)

    def close(self) -> None:
        """Let go of them, whether they run or not."""
        for daemon in (self.qemu, self.tpm):
            if daemon is not None:
                daemon.close()
