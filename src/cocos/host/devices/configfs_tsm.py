# SPDX-License-Identifier: Apache-2.0
"""Reports through the kernel's configfs (Documentation/ABI/testing/configfs-tsm-report).

Each report has a folder of its own: what is written into it counts the attribute
``generation`` up, so that one can see whether somebody else wrote meanwhile.
"""

import asyncio
import contextlib
import errno
import os
import random
import secrets
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from cocos._patience import LONGEST_SECONDS, back_off
from cocos.errors import UnreachableError

ROOT: Final = Path("/sys/kernel/config/tsm/report")
SNP: Final = "sev_guest"
TDX: Final = "tdx_guest"

_MORE_TRIES: Final = 6
_RACES: Final = frozenset({errno.EBUSY, errno.EWOULDBLOCK, errno.EINTR})
_NOBODY: Final = frozenset({errno.ENXIO, errno.ENODEV, errno.ENOENT, errno.ENOTTY})
_OUR_WRITES: Final = 1


class Files(Protocol):
    """What is done with files; every method raises OSError."""

    def make(self, folder: Path) -> None:
        """Make a folder; the kernel puts the attributes into it."""
        ...

    def read(self, path: Path) -> bytes:
        """Return a file's content."""
        ...

    def write(self, path: Path, data: bytes) -> None:
        """Write a file by one call."""
        ...

    def remove(self, folder: Path) -> None:
        """Remove a folder; the kernel takes the attributes away."""
        ...


class KernelFiles:
    """Files as the kernel has them."""

    def make(self, folder: Path) -> None:
        """Make a folder."""
        folder.mkdir()

    def read(self, path: Path) -> bytes:
        """Return a file's content."""
        return path.read_bytes()

    def write(self, path: Path, data: bytes) -> None:
        """Write a file that is there, by one call: each counts."""
        descriptor = os.open(path, os.O_WRONLY)
        try:
            if os.write(descriptor, data) != len(data):
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        finally:
            os.close(descriptor)

    def remove(self, folder: Path) -> None:
        """Remove a folder."""
        folder.rmdir()


@dataclass(frozen=True, slots=True)
class TsmReport:
    """What the provider made.

    Attributes:
        blob: The report or quote.
        auxiliary: What came beside it: of SNP, the host's certificate table.
    """

    blob: bytes
    auxiliary: bytes


class ConfigfsTsm:
    """Makes reports; one at a time.

    Args:
        provider: Whose reports are wanted.
        root: The folder of reports.
        files: How it is used.
        sleep: Waits that many seconds.
    """

    def __init__(
        self,
        provider: str,
        *,
        root: Path = ROOT,
        files: Files | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._provider = provider
        self._root = root
        self._files = files or KernelFiles()
        self._sleep = sleep
        self._lock = asyncio.Lock()

    async def report(self, data: bytes) -> TsmReport:
        """Return a report that carries ``data``, 64 bytes.

        Raises:
            UnreachableError: the provider is another one, or does not answer.
        """
        async with self._lock:
            failures = 0
            while True:
                try:
                    return await asyncio.to_thread(self._once, data)
                except OSError as error:
                    if error.errno not in _RACES or failures == _MORE_TRIES:
                        raise _unreachable(self._root, error) from error
                await self._sleep(back_off(failures, LONGEST_SECONDS, random.random))
                failures += 1

    def _once(self, data: bytes) -> TsmReport:
        with _entry(self._files, self._root) as folder:
            self._check_provider(folder)
            self._files.write(folder / "inblob", data)
            blob = self._files.read(folder / "outblob")
            auxiliary = self._auxiliary(folder)
            generation = int(self._files.read(folder / "generation"))
            if generation != _OUR_WRITES:
                # The report may be on what somebody else wrote.
                raise OSError(errno.EWOULDBLOCK, "somebody else writes into our report")
            return TsmReport(blob, auxiliary)

    def _check_provider(self, folder: Path) -> None:
        found = self._files.read(folder / "provider").decode("ascii", "replace").strip()
        if found != self._provider:
            raise OSError(errno.ENOTTY, f"the provider is {found}, not {self._provider}")

    def _auxiliary(self, folder: Path) -> bytes:
        try:
            return self._files.read(folder / "auxblob")
        except FileNotFoundError:
            return b""  # of SNP only, and not of every kernel


def provider(root: Path = ROOT, files: Files | None = None) -> str | None:
    """Return who makes reports on this machine; None if nobody does.

    Raises:
        UnreachableError: there is somebody, but we may not ask.
    """
    files = files or KernelFiles()
    try:
        with _entry(files, root) as folder:
            return files.read(folder / "provider").decode("ascii", "replace").strip()
    except OSError as error:
        if error.errno in _NOBODY:
            return None
        raise _unreachable(root, error) from error


@contextlib.contextmanager
def _entry(files: Files, root: Path) -> Iterator[Path]:
    folder = root / f"cocos-{secrets.token_hex(8)}"
    files.make(folder)
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):
            files.remove(folder)


def _unreachable(root: Path, error: OSError) -> UnreachableError:
    return UnreachableError(
        f"no report through {root}: {error.strerror or error}",
        hint="is the attestation agent root, and configfs mounted?",
    )
