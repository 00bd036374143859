# SPDX-License-Identifier: Apache-2.0
"""The guest's Python, without a guest: Debian 13's, its tpm2-pytss, our locked wheels.

tpm2-pytss is a Debian package only, and this Python may be another one than the system's.
The programs here are the ones of the VM image on the interpreter of the VM image; what
they talk to is on this machine.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import sys
import tarfile
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from _programs import Running, started

from cocos.host import process
from cocos.host.files import cache_folder
from cocos.image import spec

ROOT = Path(__file__).resolve().parents[3]
LOCK = ROOT / "requirements" / "run.txt"
PACKAGES = ("python3", "python3-tpm2-pytss", "libstdc++6")
INSTALL_SECONDS = 900


@dataclass(frozen=True)
class GuestPython:
    """A folder with a root file system (``root``) and our dependencies (``site``)."""

    folder: Path

    def argv(self, program: str, *arguments: str | Path, folder: Path) -> list[str | Path]:
        """Return the command that runs one of our programs; ``folder`` is all it can write."""
        view: list[str | Path] = [
            process.find_tool("bwrap", hint="apt-get install bubblewrap"),
            *("--die-with-parent", "--ro-bind", self.folder / "root" / "usr", "/usr"),
            *("--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib"),
            *("--symlink", "usr/lib64", "/lib64", "--proc", "/proc", "--dev", "/dev"),
            *("--tmpfs", "/tmp", "--ro-bind", ROOT / "src", "/cocos/src"),
            *("--ro-bind", self.folder / "site", "/cocos/site"),
            *("--bind", self.folder / "bytecode", "/cocos/bytecode"),
            *("--bind", folder, folder),
            *("--setenv", "PYTHONPATH", "/cocos/src:/cocos/site"),
            *("--setenv", "PYTHONPYCACHEPREFIX", "/cocos/bytecode"),
        ]
        module = spec.PROGRAMS[program]
        code = f"import sys; sys.argv[0] = {program!r}; from {module} import main; main()"
        return [*view, "/usr/bin/python3", "-c", code, *arguments]

    @contextlib.asynccontextmanager
    async def running(
        self,
        program: str,
        *arguments: str | Path,
        folder: Path,
        env: dict[str, str] | None = None,
    ) -> AsyncIterator[Running]:
        """Have one of our programs run, with ``--json``."""
        argv = [*self.argv(program, *arguments, folder=folder), "--json"]
        async with started(program, argv, env=env) as found:
            yield found


async def guest_python() -> GuestPython:
    """Return the guest's Python, fetched into the cache folder if it is not there."""
    wanted = hashlib.sha256(LOCK.read_bytes() + repr(PACKAGES).encode()).hexdigest()[:16]
    base = cache_folder("tools")
    folder = base / f"guest-python-{wanted}"
    with await asyncio.to_thread(_lock, base / "guest-python.lock") as _:
        if not folder.is_dir():
            for old in base.glob("guest-python-*/"):
                shutil.rmtree(old)
            staging = Path(tempfile.mkdtemp(prefix=".new-", dir=base))
            try:
                await _fetch(staging)
                staging.rename(folder)  # noqa: ASYNC240 - a rename is quick
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    return GuestPython(folder)


async def _fetch(folder: Path) -> None:
    tool = process.find_tool("mmdebstrap", hint="apt-get install mmdebstrap")
    archive = folder / "all.tar"
    mode = "root" if os.geteuid() == 0 else "chrootless"
    include = f"--include={','.join(PACKAGES)}"
    argv: list[str | Path] = [
        tool,
        "--quiet",
        f"--mode={mode}",
        "--variant=extract",
        include,
        "trixie",
        archive,
    ]
    await process.run(argv, env={"TMPDIR": str(folder)}, timeout=INSTALL_SECONDS)
    for name in ("root", "site", "bytecode"):
        (folder / name).mkdir()
    await asyncio.to_thread(_extract, archive, folder / "root")
    archive.unlink()
    machine = platform.machine()
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    options += ["--python-version", "3.13", "--python-platform", f"{machine}-manylinux_2_40"]
    # The whole environment: it may say where packages come from, and whom to trust. uv reads
    # pip's variables only under its own names.
    env = dict(os.environ)
    if "PIP_INDEX_URL" in env:
        env.setdefault("UV_DEFAULT_INDEX", env["PIP_INDEX_URL"])
    argv = [Path(sys.executable).with_name("uv"), "pip", "install", *options]
    argv += ["--target", folder / "site", "-r", LOCK]
    await process.run(argv, env=env, timeout=INSTALL_SECONDS)


def _extract(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        tar.extraction_filter = getattr(tarfile, "data_filter", None)
        wanted = ("./usr/bin/python", "./usr/lib/", "./usr/lib64/")
        for member in tar:
            # Absolute links lead to configuration of programs that do not run here.
            if member.name.startswith(wanted) and not member.linkname.startswith("/"):
                tar.extract(member, folder)


@contextlib.contextmanager
def _held(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(path: Path) -> contextlib.AbstractContextManager[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return _held(descriptor)
