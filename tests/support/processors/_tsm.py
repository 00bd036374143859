# SPDX-License-Identifier: Apache-2.0
"""The kernel's configfs-tsm in memory, and a kernel's ioctl, for simulated processors."""

import ctypes
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/kernel/config/tsm/report")
DATA_BYTES = 64


def error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@dataclass
class _Entry:
    inblob: bytes | None = None
    written: int = 0
    made: int = -1
    outblob: bytes = b""
    auxblob: bytes = b""


class FakeTsm:
    """As drivers/virt/coco/tsm.c has it.

    Args:
        provider: Name; None: configfs is there, but nobody makes reports.
        make: Report data → report, what comes beside it.

    Attributes:
        failures: Numbers of errors; the next reads of ``outblob`` fail with them.
        intruders: What somebody else writes into entries that we have written to.
    """

    def __init__(
        self, provider: str | None, make: Callable[[bytes], tuple[bytes, bytes | None]]
    ) -> None:
        self._provider = provider
        self._make = make
        self.failures: list[int] = []
        self.intruders: list[bytes] = []
        self.entries: dict[Path, _Entry] = {}

    def make(self, folder: Path) -> None:
        if self._provider is None:
            raise error(errno.ENXIO)
        if folder in self.entries or folder.parent != ROOT:
            raise error(errno.EEXIST)
        self.entries[folder] = _Entry()

    def write(self, path: Path, data: bytes) -> None:
        entry = self.entries[path.parent]
        if path.name != "inblob" or len(data) != DATA_BYTES:
            raise error(errno.EINVAL)
        entry.inblob = data
        entry.written += 1
        if self.intruders:
            entry.inblob = self.intruders.pop(0)
            entry.written += 1

    def read(self, path: Path) -> bytes:
        entry = self.entries[path.parent]
        match path.name:
            case "provider":
                return f"{self._provider}\n".encode()
            case "generation":
                return f"{entry.written}\n".encode()
            case "outblob":
                return self._outblob(entry)
            case "auxblob":
                if self._make(bytes(DATA_BYTES))[1] is None:
                    raise error(errno.ENOENT)
                if entry.made != entry.written:
                    raise error(errno.EWOULDBLOCK)
                return entry.auxblob
        raise error(errno.ENOENT)

    def remove(self, folder: Path) -> None:
        del self.entries[folder]

    def _outblob(self, entry: _Entry) -> bytes:
        if self.failures:
            raise error(self.failures.pop(0))
        if entry.inblob is None:
            raise error(errno.EINVAL)
        if entry.made != entry.written:
            entry.outblob, auxiliary = self._make(entry.inblob)
            entry.auxblob = auxiliary or b""
            entry.made = entry.written
        return entry.outblob


def peek(address: int, size: int) -> bytes:
    """Return what stands in memory, as a kernel reads it."""
    return ctypes.string_at(address, size)


def poke(address: int, data: bytes) -> None:
    """Write memory, as a kernel does."""
    ctypes.memmove(address, data, len(data))
