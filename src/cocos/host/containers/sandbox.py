# SPDX-License-Identifier: Apache-2.0
"""Programs that see little of this machine and leave nothing of themselves behind.

bubblewrap builds the view: an empty root, the system's programs and this Python
read-only, private ``/tmp`` and ``/run``, and the folders that the caller names. The
program gets a process namespace of its own and dies with the process that started it,
SIGKILL included, together with everything it ever forked.

A sandbox that may start containers keeps the capabilities that runc needs (as root). It
keeps accidents and left-overs inside, it does not hold an attacker who is root in it.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from cocos.errors import InternalError, ProcessError
from cocos.host import process
from cocos.host.containers import cgroups

INSTALL_HINT = "sudo apt-get install bubblewrap"
GRACE_SECONDS = 5.0

_SYSTEM_FOLDERS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
# What name resolution, TLS, time zones and the dynamic loader need; nothing else of /etc.
_SYSTEM_FILES = (
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/containers/policy.json",
    "/etc/group",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/pki",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl",
)
# Never needed to run a container, and each of them reaches the whole machine.
_DROPPED = (
    "CAP_AUDIT_CONTROL",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_SYSLOG",
    "CAP_SYS_BOOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_PACCT",
    "CAP_SYS_RAWIO",
    "CAP_SYS_TIME",
    "CAP_WAKE_ALARM",
)


@dataclass(frozen=True, slots=True)
class View:
    """What a program in a sandbox sees beyond the system's programs and this Python.

    Attributes:
        readable: Folder or file inside → outside, read-only; absent ones are left out.
        writable: The same, to read and write.
        workdir: Where it starts; a path inside.
        cgroup: Whether it may start containers, and the name of the control group they go to
            (as root); None for a program that may not.
        hostname: The machine's name inside.
    """

    readable: Mapping[Path, Path] = field(default_factory=dict)
    writable: Mapping[Path, Path] = field(default_factory=dict)
    workdir: Path = Path("/")
    cgroup: str | None = None
    hostname: str = "cvm"


class _Info(msgspec.Struct):
    child_pid: int = msgspec.field(name="child-pid")


class Sandboxed:
    """A program that runs in a sandbox."""

    def __init__(self, child: asyncio.subprocess.Process, init: int | None) -> None:
        self._child = child
        self._init = init

    @property
    def output(self) -> asyncio.StreamReader:
        """Its standard output and error, in one stream."""
        if self._child.stdout is None:
            raise InternalError("the program's output is not piped")
        return self._child.stdout

    async def wait(self) -> int:
        """Return its exit code once it has ended; 128 + the signal that ended it."""
        status = await self._child.wait()
        return 128 - status if status < 0 else status

    async def stop(self) -> None:
        """Ask it to end (SIGTERM) and give it :data:`GRACE_SECONDS`."""
        for pid in _children(self._init):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGTERM)
        if self._init is not None and self._child.returncode is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._child.wait(), GRACE_SECONDS)


def command(view: View, argv: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Return the command line that runs ``argv`` with that view.

    Raises:
        ToolMissingError: bubblewrap is not installed.
    """
    words = [str(process.find_tool("bwrap", hint=INSTALL_HINT))]
    words += ["--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
    words += ["--hostname", view.hostname]
    words += _system()
    words += ["--proc", "/proc", "--dev", "/dev"]
    words += ["--tmpfs", "/tmp", "--tmpfs", "/run", "--tmpfs", "/var/tmp"]  # noqa: S108 - private ones
    words += _privileges(view.cgroup)
    for folder in python_folders():
        words += ["--ro-bind", str(folder), str(folder)]
    for inside, outside in view.readable.items():
        words += ["--ro-bind-try", str(outside), str(inside)]
    for inside, outside in view.writable.items():
        words += ["--bind", str(outside), str(inside)]
    words += ["--chdir", str(view.workdir), "--"]
    return [*words, *(os.fspath(word) for word in argv)]


@contextlib.asynccontextmanager
async def run(
    view: View, argv: Sequence[str | os.PathLike[str]], *, env: Mapping[str, str] | None = None
) -> AsyncIterator[Sandboxed]:
    """Have a program run in a sandbox while the block runs.

    At the end it is asked to stop, and killed with all its descendants if it does not.

    Args:
        view: What it sees.
        argv: Program and arguments, with paths as they are inside.
        env: Added to the environment of every child; may hold secrets.

    Raises:
        ToolMissingError: bubblewrap is not installed.
    """
    if view.cgroup is not None:
        cgroups.make(view.cgroup)
    try:
        async with _run(view, argv, env or {}) as sandboxed:
            yield sandboxed
    finally:
        if view.cgroup is not None:
            await asyncio.to_thread(cgroups.remove, view.cgroup)


@contextlib.asynccontextmanager
async def _run(
    view: View, argv: Sequence[str | os.PathLike[str]], env: Mapping[str, str]
) -> AsyncIterator[Sandboxed]:
    ours, theirs = os.pipe()
    with contextlib.ExitStack() as pipes:
        pipes.callback(os.close, ours)
        to_close = pipes.enter_context(contextlib.ExitStack())
        to_close.callback(os.close, theirs)
        line = command(view, argv)
        line[1:1] = ["--info-fd", str(theirs)]
        inside = {"HOME": "/tmp", "TMPDIR": "/tmp", "XDG_RUNTIME_DIR": "/run"}  # noqa: S108 - private ones
        async with process.spawn(
            line,
            env={**inside, **env},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            pass_fds=(theirs,),
        ) as child:
            to_close.close()
            sandboxed = Sandboxed(child, await asyncio.to_thread(_read_init, ours))
            try:
                yield sandboxed
            finally:
                await asyncio.shield(sandboxed.stop())


async def check() -> None:
    """Make sure that a sandbox can be made here.

    Raises:
        ToolMissingError: bubblewrap is not installed.
        ProcessError: the kernel's settings forbid it; the hint says what allows it.
    """
    try:
        await process.run(command(View(), ["/usr/bin/true"]), timeout=10)
    except ProcessError as error:
        raise ProcessError(
            f"bubblewrap cannot make a sandbox: {error.stderr.strip()}",
            exit_status=error.exit_status,
            hint="run as root, or allow user namespaces: sysctl -w "
            "kernel.unprivileged_userns_clone=1 (Debian), "
            "kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu)",
        ) from error


def python_folders() -> list[Path]:
    """Return the folders that this Python and its packages live in, outermost ones only."""
    wanted = {Path(sys.prefix), Path(sys.base_prefix), *map(Path, sys.path)}
    folders = {path for path in wanted if path.is_absolute() and path.is_dir()}
    return sorted(
        folder
        for folder in folders
        if not folder.is_relative_to("/usr")
        and not any(other in folder.parents for other in folders)
    )


def _system() -> list[str]:
    words = ["--ro-bind", "/usr", "/usr"]
    for name in _SYSTEM_FOLDERS:
        path = Path("/") / name
        if path.is_symlink():
            words += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            words += ["--ro-bind", str(path), str(path)]
    for file in _SYSTEM_FILES:
        words += ["--ro-bind-try", file, file]
    return words


def _privileges(cgroup: str | None) -> list[str]:
    if cgroup is None:
        return ["--cap-drop", "ALL"]
    words = ["--ro-bind", "/sys", "/sys", "--bind-try", str(cgroups.ROOT), str(cgroups.ROOT)]
    for hierarchy in cgroups.hierarchies():
        # Runtimes make groups below /cocos; inside, that is the sandbox's own group.
        words += ["--bind-try", str(hierarchy / cgroup), str(hierarchy / cgroups.INSIDE)]
    if os.geteuid() == 0:
        words += [word for name in _DROPPED for word in ("--cap-drop", name)]
    return words


def _read_init(descriptor: int) -> int | None:
    """Process id of the sandbox's first process, or None when it never came to be."""
    text = b""
    while chunk := os.read(descriptor, 4096):
        text += chunk
    try:
        return msgspec.json.decode(text, type=_Info).child_pid
    except msgspec.MsgspecError:
        return None


def _children(pid: int | None) -> list[int]:
    """The program itself: bubblewrap's first process only reaps and would ignore a signal."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
