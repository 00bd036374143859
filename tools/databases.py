# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL and Valkey to test and measure with, in a folder of the user's cache.

Debian's packages start services on the machine that they are installed on; these are
unpacked, nothing more, and run in bubblewrap for as long as somebody wants them.
PostgreSQL refuses to run as root: in its user namespace it is not.
"""

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from demo_shell import free_ports

from cocos.errors import ProcessError
from cocos.host import process
from cocos.host.files import cache_folder, lock_file
from cocos.host.tools.image_tools import fetch_packages, unpack

SUITE = "trixie"
PACKAGES = ("postgresql-17", "valkey-server", "dash")  # initdb starts its helper by a shell
START_SECONDS = 60.0

_NAME = f"{SUITE}-databases"
_PROGRAMS = "/usr/lib/postgresql/17/bin"
_ACCOUNTS = "postgres:x:1000:1000::/data:/bin/sh\n"
_WANTED = (
    *("usr/bin/dash", "usr/bin/sh", "usr/bin/valkey-", "usr/lib/postgresql/"),
    *("usr/lib/x86_64-linux-gnu/", "usr/lib64/", "usr/share/postgresql/", "usr/share/zoneinfo/"),
)
_UNWANTED = ("LLVM", "libz3", "libperl", "/perl", "/gconv/", "/bitcode/")


def find() -> Path | None:
    """Return the folder of the programs if it has been installed."""
    folder = cache_folder("tools") / _NAME
    return folder if folder.is_dir() else None


async def install() -> Path:
    """Return the folder of the programs, filling it first if there is none.

    Raises:
        CocosError: the packages could not be fetched, or do not work here.
    """
    base = cache_folder("tools")
    with await asyncio.to_thread(lock_file, base / f"{_NAME}.lock"):
        if (found := find()) is not None:
            return found
        staging = Path(tempfile.mkdtemp(prefix=".new-", dir=base))
        try:
            archive = staging / "all.tar"
            await fetch_packages(PACKAGES, SUITE, archive)
            await asyncio.to_thread(unpack, archive, staging, _is_wanted)
            archive.unlink()
            (staging / "passwd").write_text(_ACCOUNTS)
            for program in (f"{_PROGRAMS}/postgres", "/usr/bin/valkey-server"):
                await process.run(_sandboxed([program, "--version"], staging, staging))
            os.rename(staging, base / _NAME)  # noqa: PTH104 - a rename, whichever way, is quick
        finally:
            await asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True)
    return base / _NAME


def _is_wanted(path: str) -> bool:
    if path.endswith("/"):
        return False
    return path.startswith(_WANTED) and not any(part in path for part in _UNWANTED)


def _sandboxed(argv: Sequence[str], programs: Path, data: Path) -> list[str]:
    """Return the command that runs a program of the folder; it sees ``data`` as /data."""
    bwrap = process.find_tool("bwrap", hint="apt-get install bubblewrap")
    words = [str(bwrap), "--unshare-user", "--unshare-pid", "--unshare-ipc", "--die-with-parent"]
    words += ["--uid", "1000", "--gid", "1000", "--clearenv"]
    words += ["--ro-bind", f"{programs}/usr", "/usr"]
    words += ["--ro-bind", f"{programs}/passwd", "/etc/passwd"]
    for name in ("bin", "lib", "lib64"):
        words += ["--symlink", f"usr/{name}", f"/{name}"]
    words += ["--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]  # noqa: S108 - of the sandbox
    return [*words, "--bind", str(data), "/data", "--chdir", "/data", "--", *argv]


@dataclass
class Server:
    """A database server that answers; start it again with the same folder after a kill.

    Attributes:
        url: Where it answers, without TLS.
        port: On 127.0.0.1.
        pid: Of its process group.
        log: What it wrote.
    """

    url: str
    port: int
    pid: int = 0
    log: list[str] = field(default_factory=list)

    def signal(self, number: int) -> None:
        """Send a signal to all of it."""
        os.killpg(self.pid, number)


@contextlib.asynccontextmanager
async def postgres(folder: Path, *settings: str, port: int | None = None) -> AsyncIterator[Server]:
    """Have PostgreSQL run; its data are in ``folder`` and made if there are none.

    Args:
        folder: Appears to it as /data.
        settings: Such as ``ssl=on``.
        port: The one of an earlier run.
    """
    programs = await install()
    if not (folder / "pg").exists():
        words = [f"{_PROGRAMS}/initdb", "-D", "/data/pg", "-U", "postgres", "-A", "trust"]
        words += ["--no-sync", "--no-locale", "-E", "UTF8"]
        await process.run(_sandboxed(words, programs, folder), timeout=START_SECONDS)
    port = port or free_ports({"postgres": 0})[0]["postgres"]
    argv = [f"{_PROGRAMS}/postgres", "-D", "/data/pg", "-p", str(port), "-h", "127.0.0.1"]
    for setting in ("unix_socket_directories=", "jit=off", *settings):
        argv += ["-c", setting]
    server = Server(f"postgresql://postgres@127.0.0.1:{port}/postgres", port)
    async with _running(argv, programs, folder, server, "ready to accept connections"):
        yield server


@contextlib.asynccontextmanager
async def valkey(folder: Path, *settings: str, port: int | None = None) -> AsyncIterator[Server]:
    """Have Valkey run, which is Redis by another name; ``folder`` appears to it as /data.

    Args:
        folder: For what it saves, if settings make it save.
        settings: Words of its command line.
        port: The one of an earlier run.
    """
    programs = await install()
    port = port or free_ports({"valkey": 0})[0]["valkey"]
    argv = ["/usr/bin/valkey-server", "--bind", "127.0.0.1", "--port", str(port)]
    argv += [*(settings or ("--save", "")), "--dir", "/data"]
    server = Server(f"redis://127.0.0.1:{port}", port)
    async with _running(argv, programs, folder, server, "Ready to accept connections"):
        yield server


@contextlib.asynccontextmanager
async def _running(
    argv: Sequence[str], programs: Path, folder: Path, server: Server, ready: str
) -> AsyncIterator[None]:
    async with process.spawn(
        _sandboxed(argv, programs, folder),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    ) as child:
        server.pid = child.pid
        answers = asyncio.Event()
        reading = asyncio.create_task(_follow(child, server.log, ready, answers))
        waiting = asyncio.create_task(answers.wait())
        try:
            await asyncio.wait(
                {reading, waiting}, timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if not answers.is_set():
                text = "\n".join(server.log[-10:])
                raise ProcessError(f"it did not start:\n{text}", exit_status=child.returncode or 0)
            yield
        finally:
            waiting.cancel()
            reading.cancel()


async def _follow(
    child: asyncio.subprocess.Process, log: list[str], ready: str, answers: asyncio.Event
) -> None:
    assert child.stdout is not None  # we gave it a pipe
    while line := (await child.stdout.readline()).decode(errors="replace"):
        log.append(line.rstrip("\n"))
        if ready in line:
            answers.set()
