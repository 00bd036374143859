# SPDX-License-Identifier: Apache-2.0
"""The key that opens a key broker's storage, in a file."""

import asyncio
import base64
import stat
from pathlib import Path

import structlog

from cocos.crypto import kek
from cocos.crypto.envelope import LocalRootKey, RootKey
from cocos.errors import ConfigError, FormatError
from cocos.host.disk import disk_error
from cocos.host.files import read_file, write_new

_log = structlog.get_logger(__name__)


def parse_root_key(data: bytes, what: str) -> RootKey:
    """Return a root key from any form of 32 bytes.

    Raises:
        ConfigError: not 32 bytes.
    """
    try:
        return LocalRootKey(kek.parse(data, what))
    except FormatError as error:
        raise ConfigError(error.message, hint=error.hint) from error


class FileRootKey:
    """A root key in a file of its own: 32 bytes, or base64 text of them."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    async def load(self) -> RootKey | None:
        """Return the key, or None if there is no such file.

        Raises:
            ConfigError: it cannot be read, or is no key.
        """
        return await asyncio.to_thread(self._load)

    async def create(self) -> RootKey:
        """Make the file, for its owner alone, and return the key.

        Raises:
            ConfigError: it cannot be written.
        """
        return await asyncio.to_thread(self._create)

    def _load(self) -> RootKey | None:
        what = "the key of the storage"
        try:
            mode = self._path.stat().st_mode
        except FileNotFoundError:
            return None
        except OSError as error:
            raise disk_error(error, f"cannot read {what}, {self._path}") from error
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            _log.warning("storage.key-readable", file=str(self._path), hint="chmod 600")
        return parse_root_key(read_file(self._path, what, limit=1024), f"{what}, {self._path},")

    def _create(self) -> RootKey:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_new(self._path, base64.b64encode(kek.generate()) + b"\n")
        except OSError as error:
            raise disk_error(error, f"cannot write {self._path}") from error
        made = self._load()
        if made is None:
            raise ConfigError(f"{self._path} has vanished")
        _log.info("storage.key-made", file=str(self._path), hint="keep a copy apart from backups")
        return made
