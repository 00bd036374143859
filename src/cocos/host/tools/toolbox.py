# SPDX-License-Identifier: Apache-2.0
"""Programs of Debian 13 in a private cache folder, for systems whose own are too old.

Only the programs and their libraries are kept. They run through the folder's own dynamic
loader, so that the system's C library does not matter. Packages are checked by apt against
Debian's keyring; no service is started.
"""

import asyncio
import os
import posixpath
import shutil
import tarfile
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cocos.errors import IntegrityError, ToolMissingError
from cocos.host import process
from cocos.host.files import cache_folder, lock_file

SUITE = "trixie"
PROGRAMS = ("skopeo", "docker-registry")
INSTALL_SECONDS = 900.0  # five on a good network

_HINT = "apt-get install mmdebstrap debian-archive-keyring"


@dataclass(frozen=True, slots=True)
class Toolbox:
    """A folder with programs and everything they need.

    Attributes:
        folder: Holds ``usr/bin`` and ``usr/lib`` of Debian 13.
    """

    folder: Path

    def argv(self, program: str) -> tuple[str, ...]:
        """Return the words that start ``program``, to which arguments are appended.

        Raises:
            ToolMissingError: the folder is incomplete.
        """
        loaders = sorted(self.folder.glob("usr/lib*/ld-linux-*.so.*"))
        path = self.folder / "usr" / "bin" / program
        if not loaders or not path.is_file():
            raise ToolMissingError(
                f"{program} is not in {self.folder}", hint="delete that folder and try again"
            )
        # Debian's loader stands, behind a link, beside all other libraries.
        loader = loaders[0].resolve()
        return (str(loader), "--library-path", str(loader.parent), str(path))


def find() -> Toolbox | None:
    """Return the toolbox if it has been installed."""
    folder = cache_folder("tools") / SUITE
    return Toolbox(folder) if folder.is_dir() else None


async def install(check: Callable[[Toolbox], Awaitable[object]]) -> Toolbox:
    """Return the toolbox, installing it first if it is not there.

    It appears under its name only when whole and checked; of two processes that want it
    at the same time one installs and the other waits.

    Args:
        check: Raises if the new programs do not do what they are for.

    Raises:
        ToolMissingError: mmdebstrap is not installed.
        ProcessError: the packages could not be fetched.
    """
    base = cache_folder("tools")
    with await asyncio.to_thread(lock_file, base / "lock"):
        if (found := find()) is not None:
            return found
        staging = Path(tempfile.mkdtemp(prefix=".new-", dir=base))
        try:
            await _fetch(staging)
            await check(Toolbox(staging))
            os.rename(staging, base / SUITE)  # noqa: PTH104 - a rename, whichever way, is quick
        finally:
            await asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True)
    return Toolbox(base / SUITE)


async def _fetch(folder: Path) -> None:
    tool = process.find_tool("mmdebstrap", hint=_HINT)
    archive = folder / "all.tar"
    # Without root, chrootless needs neither user namespaces nor subordinate ids; a tar file
    # leaves nothing behind that only another user id could delete.
    mode = "root" if os.geteuid() == 0 else "chrootless"
    options = ["--quiet", f"--mode={mode}", "--variant=extract"]
    await process.run(
        [tool, *options, f"--include={','.join(PROGRAMS)}", SUITE, archive],
        env={"TMPDIR": str(folder)},
        timeout=INSTALL_SECONDS,
    )
    await asyncio.to_thread(_extract, archive, folder)
    archive.unlink()


def _extract(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        # Debian 12's Python 3.11.2 has no filters yet, and newer ones want to be told.
        tar.extraction_filter = getattr(tarfile, "data_filter", None)
        for member in tar:
            path = PurePosixPath(member.name)
            if not _wanted(path):
                continue
            target = posixpath.normpath(path.parent / member.linkname)
            if member.issym() and target.startswith(("/", "..")):
                raise IntegrityError(f"{path} of Debian's packages links to {member.linkname}")
            tar.extract(member, folder)


def _wanted(path: PurePosixPath) -> bool:
    """Keep the programs, the loader and the shared libraries."""
    match path.parts:
        case ("usr", "bin", name):
            return name in PROGRAMS
        case ("usr", folder, name) if folder.startswith("lib"):
            return name.startswith("ld-linux")
        case ("usr", "lib", _, name):
            return ".so" in name
    return False
