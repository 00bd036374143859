# SPDX-License-Identifier: Apache-2.0
"""Programs that outlive us: started in a session of their own, found again by a later us.

A process is known by its id and its start time, kept in a file, so that an id which the
kernel has given to another process is not mistaken for ours. All that is done to it goes
through a pidfd, which never names another process. Beside that every daemon carries a
mark in its environment, by which :func:`kill_marked` finds those that no file tells of:
of a starter that was killed at the wrong moment.
"""

import asyncio
import contextlib
import os
import select
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from cocos.errors import FormatError, ToolMissingError
from cocos.host import process
from cocos.host.files import write_atomic
from cocos.wire import json

MARK = "COCOS_DAEMON"
KILL_SECONDS = 10.0  # for the kernel to end a process, be it in the middle of a write
_STDERR = 2
# Python ignores these, which a program would inherit.
_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ)


class _File(msgspec.Struct, forbid_unknown_fields=True):
    pid: int
    start_time: int


class Daemon:
    """A running program; close it when done with, which does not end the program."""

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self._pidfd = pidfd
        self._status: int | None = None

    @classmethod
    def start(
        cls,
        argv: Sequence[str | os.PathLike[str]],
        *,
        mark: str,
        pid_file: Path,
        log: Path,
        inherited: Sequence[int] = (),
    ) -> "Daemon":
        """Start a program.

        Args:
            argv: Program, by its path, and arguments.
            mark: Value of :data:`MARK` in its environment.
            pid_file: Is told who it is.
            log: Gets its standard output and error.
            inherited: Descriptors that it gets, under the same numbers.

        Raises:
            ToolMissingError: it cannot be started.
        """
        words = [os.fspath(word) for word in argv]
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            actions: list[tuple[Any, ...]] = [
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, output, 1),
                (os.POSIX_SPAWN_DUP2, output, 2),
                # Onto itself: that takes close-on-exec away, in the child alone.
                *((os.POSIX_SPAWN_DUP2, number, number) for number in inherited),
                # What we got from who started us is no affair of the program.
                *((os.POSIX_SPAWN_CLOSE, number) for number in _strays(inherited)),
            ]
            pid = os.posix_spawn(
                words[0],
                words,
                process.environment(environment(mark)),
                file_actions=actions,
                setsid=True,
                setsigdef=_SIGNALS,
            )
        except OSError as error:
            raise ToolMissingError(f"cannot start {words[0]}: {error.strerror}") from error
        finally:
            os.close(output)
        daemon = cls(pid, os.pidfd_open(pid))
        try:
            write_atomic(pid_file, json.encode(_File(pid, _start_time(pid) or 0)))
        except BaseException:
            daemon.signal(signal.SIGKILL)
            os.waitpid(pid, 0)
            daemon.close()
            raise
        return daemon

    @classmethod
    def find(cls, pid_file: Path) -> "Daemon | None":
        """Return the program that a file tells of, or None if it has ended."""
        try:
            about: _File = json.decode(pid_file.read_bytes(), _File, "a process file")
            pidfd = os.pidfd_open(about.pid)
        except (OSError, FormatError, OverflowError):
            return None
        # Only now: the pidfd holds whatever process has this id, and we look which it is.
        daemon = cls(about.pid, pidfd)
        if _start_time(about.pid) != about.start_time or not daemon.alive:
            daemon.close()
            return None
        return daemon

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return not self._poll(0)

    @property
    def ending(self) -> str:
        """How it ended, in words, if we are its parent."""
        return "" if self._status is None else f" with {process.describe_status(self._status)}"

    async def wait(self) -> None:
        """Return once it has ended."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        # A duplicate: the loop knows readers by number, and several may wait.
        own = os.dup(self._pidfd)
        loop.add_reader(own, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(own)
            os.close(own)
        self._reap()

    async def stop(self, *, grace: float) -> None:
        """End it: SIGTERM, and SIGKILL if it still runs after ``grace`` seconds."""
        self.signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.wait(), grace)
        await self.kill()

    async def kill(self) -> None:
        """End it at once."""
        self.signal(signal.SIGKILL)
        await self.wait()

    def kill_and_wait(self, seconds: float) -> None:
        """End it at once, for callers without an event loop."""
        self.signal(signal.SIGKILL)
        self._poll(seconds)
        self._reap()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._pidfd)

    def _poll(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def _reap(self) -> None:
        # Not our child if an earlier manager started it: then its reaper is somebody else.
        with contextlib.suppress(ChildProcessError):
            info = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
            if info is not None:
                killed = info.si_code != os.CLD_EXITED
                self._status = -info.si_status if killed else info.si_status


def environment(mark: str) -> dict[str, str]:
    """Return what marks a process as one of ours."""
    return {MARK: mark}


def kill_marked(mark: str, pid_files: Iterable[Path] = ()) -> None:
    """Kill every process that carries a mark or that a file tells of; return when all ended.

    A process can change what it shows as its environment, so that the files count, too.
    """
    marked = f"{MARK}={mark}".encode()
    ours = [found for file in pid_files if (found := Daemon.find(file))]
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        try:
            candidate = Daemon(pid, os.pidfd_open(pid))
        except OSError:  # gone
            continue
        if marked in _environ(pid):
            ours.append(candidate)
        else:
            candidate.close()
    for each in ours:
        each.kill_and_wait(KILL_SECONDS)
        each.close()


def _strays(wanted: Sequence[int]) -> list[int]:
    """Return descriptors that a child of ours would get unasked."""
    numbers = [int(name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208 - names suffice
    found = []
    for number in numbers:
        if number > _STDERR and number not in wanted:
            with contextlib.suppress(OSError):  # the listing's own is closed by now
                if os.get_inheritable(number):
                    found.append(number)
    return found


def _environ(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # another user's, or gone
        return []


def _start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot (proc(5), field 22)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The name in parentheses may hold anything.
    return int(stat.rpartition(b")")[2].split()[19])
