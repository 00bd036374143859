# SPDX-License-Identifier: Apache-2.0
"""A sealed result as it arrives, and the name that it gets. Two never share a name."""

import contextlib
import hashlib
import os
from pathlib import Path

from cocos.errors import CocosError, TooLargeError
from cocos.host.files import storing, sync_folder

MAX_RESULT_BYTES = 4 * 2**30

SUFFIX = ".zip.jwe"

_PIECE = 2**20


class ResultFile:
    """A result as it arrives; it gets its name when it is whole.

    Args:
        path: The name.

    Methods raise StorageError if the disk cannot take it; then nothing of it is left.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.{os.getpid()}-{id(self):x}")
        self._size = 0
        self._digest = hashlib.sha256()

    def add(self, data: bytes, *, last: bool) -> str | None:
        """Append a piece; return the SHA-256 of the whole, hex, once it is there.

        Raises:
            TooLargeError: there is more than :data:`MAX_RESULT_BYTES`.
        """
        self._size += len(data)
        if self._size > MAX_RESULT_BYTES:
            self.drop()
            raise TooLargeError(f"the result is larger than {MAX_RESULT_BYTES} bytes")
        self._digest.update(data)
        try:
            with storing(self._part), self._part.open("ab") as file:
                file.write(data)
                if last:
                    file.flush()
                    os.fsync(file.fileno())
        except CocosError:
            self.drop()
            raise
        return self._digest.hexdigest() if last else None

    def store(self) -> Path | None:
        """Give the whole result its name, durably.

        Returns:
            The new name of another result that had this one.
        """
        try:
            with storing(self._path):
                other = self._make_room()
                self._part.replace(self._path)
                sync_folder(self._path.parent)
        finally:
            self.drop()
        return other

    def _make_room(self) -> Path | None:
        if not self._path.exists() or self._is_there():
            return None
        name = self._path.name.removesuffix(SUFFIX)
        number = 1
        while (other := self._path.with_name(f"{name}.{number}{SUFFIX}")).exists():
            number += 1
        self._path.rename(other)
        return other

    def _is_there(self) -> bool:
        """Whether this very result has its name already: a CVMS was killed before it said so."""
        if self._path.stat().st_size != self._size:
            return False
        digest = hashlib.sha256()
        with self._path.open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
        return digest.digest() == self._digest.digest()

    def drop(self) -> None:
        """Remove what is here of it."""
        self._size, self._digest = 0, hashlib.sha256()
        with contextlib.suppress(OSError):
            self._part.unlink()


def sweep(path: Path) -> None:
    """Remove parts of results that a CVMS has left which was killed."""
    for part in path.parent.glob(f".{path.name}.*-*"):
        pid = part.name.removeprefix(f".{path.name}.").partition("-")[0]
        if pid.isdecimal() and not Path("/proc", pid).exists():
            with contextlib.suppress(OSError):
                part.unlink()
