# SPDX-License-Identifier: Apache-2.0
"""A sealed result on disk, kept until somebody has stored it; it outlives its agent.

It is sealed to its consumers: the disk of the CVM holds nothing in clear.
"""

import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cocos.errors import FormatError
from cocos.host import trees
from cocos.host.files import storing, write_atomic
from cocos.wire import json
from cocos.wire.manifest.identity import Identity

_PACKAGE = "result.zip.jwe"
_NOTE = "computation.json"


class Note(msgspec.Struct, frozen=True):
    """Which computation a folder is of; ``manifest`` is its digest in hex."""

    id: str
    manifest: str

    @property
    def identity(self) -> Identity:
        """The computation."""
        return Identity(self.id, self.manifest)


@dataclass(frozen=True, slots=True)
class Kept:
    """A result and the computation that it is of."""

    identity: Identity
    package: bytes

    def digest(self) -> bytes:
        """Return the SHA-256 that a receipt for it names."""
        return hashlib.sha256(self.package).digest()


class Keep:
    """The place for one result.

    Args:
        folder: Private; made when needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, kept: Kept) -> None:
        """Keep a result durably.

        Raises:
            StorageError: the disk cannot take it.
        """
        with storing(self._folder):
            self.drop()
            self._folder.mkdir(mode=0o700, parents=True)
            write_atomic(self._folder / _PACKAGE, kept.package)
            write_atomic(self._folder / _NOTE, json.encode(Note(*kept.identity)))  # it is whole

    def get(self) -> Kept | None:
        """Return the result that is here; a half one is not."""
        with contextlib.suppress(OSError, FormatError):
            note: Note = json.decode((self._folder / _NOTE).read_bytes(), Note, "a result's note")
            return Kept(note.identity, (self._folder / _PACKAGE).read_bytes())
        return None

    def drop(self) -> None:
        """Remove what is here."""
        trees.discard(self._folder)
