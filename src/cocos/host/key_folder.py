# SPDX-License-Identifier: Apache-2.0
"""The owner's own key-encryption keys: one file per key, named like its resource path."""

from pathlib import Path

from cocos.crypto import kek
from cocos.errors import StateError
from cocos.host.disk import disk_error
from cocos.host.files import data_folder, read_file, write_atomic
from cocos.wire.kbs.protocol import ResourcePath

_MAX_BYTES = 4096


class KeyFolder:
    """Keys under ``folder/repository/type/tag``, readable by their owner only.

    Args:
        folder: Made when the first key is stored.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def default(cls) -> "KeyFolder":
        """Return the user's own key folder."""
        return cls(data_folder("keys"))

    def path(self, key: ResourcePath) -> Path:
        """Return where a key is, or would be."""
        return self.folder / key.repository / key.type / key.tag

    def read(self, key: ResourcePath) -> bytes | None:
        """Return the 32 bytes of a key, or None if it is not here.

        Raises:
            ConfigError: the file cannot be read.
            FormatError: it is no key; the message names the length found.
        """
        path = self.path(key)
        if not path.exists():
            return None
        data = read_file(path, f"the key {key.uri}", limit=_MAX_BYTES)
        return kek.parse(data, f"the key {key.uri} in {path}")

    def store(self, key: ResourcePath, data: bytes) -> None:
        """Store a new key; one that is already here is never overwritten.

        Raises:
            StateError: there is another key of that name.
            ConfigError: the folder cannot be written.
        """
        present = self.read(key)
        if present == data:
            return
        path = self.path(key)
        if present is not None:
            raise StateError(
                f"there is another key {key.uri} in {path}",
                hint="images may need it: choose another name, or move the file away",
            )
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(path, data)
        except OSError as error:
            raise disk_error(error, f"cannot write the key {path}") from error

    def discard(self, key: ResourcePath) -> None:
        """Forget a key that was made but is not used."""
        self.path(key).unlink(missing_ok=True)

    def names(self) -> list[ResourcePath]:
        """Return the names of all keys, sorted."""
        parts = (path.relative_to(self.folder).parts for path in self.folder.glob("*/*/*"))
        return sorted(ResourcePath(*part) for part in parts if not part[2].startswith("."))
