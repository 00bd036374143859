# SPDX-License-Identifier: Apache-2.0
"""QEMU's control socket: commands, and what it says when a VM ends."""

import contextlib
import logging
import re
from pathlib import Path
from typing import Any, Self

from qemu.qmp import EventListener, ExecuteError, QMPClient, QMPError, Runstate

from cocos.errors import ProtocolError, UnreachableError
from cocos.host import unix_socket

_FORWARD = re.compile(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s")


class Monitor:
    """A connection to a running QEMU; an asynchronous context manager."""

    def __init__(self, path: Path) -> None:
        """Prepare a connection to QEMU's socket at ``path``."""
        self._path = path
        self._client = QMPClient("cocos")
        # What goes wrong reaches us as an exception; an ending VM is no error.
        self._client.logger.setLevel(logging.CRITICAL)
        # From the first moment: an event that nobody waits for must not be lost.
        self._ends = EventListener(names=("SHUTDOWN", "GUEST_PANICKED"))
        self._client.register_listener(self._ends)
        self._stops = EventListener(names="STOP")
        self._client.register_listener(self._stops)

    async def __aenter__(self) -> Self:
        try:
            await self._client.connect(unix_socket.connect(self._path))
        except (QMPError, OSError) as error:
            raise UnreachableError(f"QEMU does not answer on {self._path}") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        # It raises what broke the connection, QEMU's end for example, which others report.
        with contextlib.suppress(QMPError, OSError, EOFError):
            await self._client.disconnect()

    async def execute(self, command: str, **arguments: object) -> Any:
        """Run a command and return its answer.

        Raises:
            UnreachableError: QEMU has ended, or ends.
            ProtocolError: QEMU refuses the command.
        """
        try:
            return await self._client.execute(command, dict(arguments) or None)
        except ExecuteError as error:
            raise ProtocolError(f"QEMU refused {command}: {error}") from error
        except QMPError as error:
            raise UnreachableError(f"QEMU ended during {command}") from error

    async def forwarded_port(self) -> int:
        """Return the port of this host that leads into the VM, which QEMU itself chose.

        Raises:
            ProtocolError: QEMU forwards none.
        """
        # There is no command of QMP for it.
        text = await self.execute("human-monitor-command", **{"command-line": "info usernet"})
        found = _FORWARD.search(str(text))
        if found is None:
            raise ProtocolError("QEMU forwards no port into the VM")
        return int(found[1])

    async def until_stopped(self) -> str:
        """Return once QEMU runs the guest no further without ending; say why."""
        while True:
            await self._stops.get()
            status: Any = await self.execute("query-status")
            if status["status"] in _STOPS:
                return _STOPS[status["status"]]

    async def until_closed(self) -> None:
        """Return once QEMU has closed the connection, and everything it said has been read."""
        while self._client.runstate is Runstate.RUNNING:
            await self._client.runstate_changed()

    def ending(self) -> tuple[str, bool] | None:
        """Return how the guest ended, and whether that is a failure, if QEMU has told."""
        events = self._ends.clear()
        if not events:
            return None
        if any(event["event"] == "GUEST_PANICKED" for event in events):
            return _ENDS["guest-panic"]
        data: Any = events[0].get("data", {})
        return _ENDS.get(data.get("reason"), _ENDS["host-error"])


_STOPS = {
    "internal-error": "its processor did what the accelerator cannot run",
    "io-error": "a disk of it failed on the host, or the host's disk is full",
    "guest-panicked": "its kernel panicked",
}
_ENDS = {
    "guest-shutdown": ("it shut itself down", False),
    "guest-reset": ("it was reset: a reboot, a kernel panic or a triple fault", True),
    "guest-panic": ("its kernel panicked", True),
    "host-qmp-quit": ("QEMU was told to quit", True),
    "host-signal": ("QEMU was stopped by a signal", True),
    "host-error": ("QEMU had an error", True),
}
