# SPDX-License-Identifier: Apache-2.0
"""Resources in files of this machine: the guest components' ``offline_fs_kbc``.

Each file is a JSON object, resource path → standard base64. All are read as one, later
files win. They are read again for every request: who installs a key need not restart us.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog

from cocos.errors import CallerError, FormatError, NotFoundError
from cocos.host.files import read_file
from cocos.wire import json
from cocos.wire.kbs.protocol import ResourceUri

FILES: Final = (
    Path("/etc/aa-offline_fs_kbc-keys.json"),
    Path("/etc/aa-offline_fs_kbc-resources.json"),
)

_log = structlog.get_logger(__name__)


class OfflineResources:
    """Resources of files.

    Args:
        files: In order; those that are not there are passed over.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = tuple(files)

    async def get(self, uri: ResourceUri, url: str | None = None) -> bytes:
        """Return a resource.

        Raises:
            NotFoundError: no file has it.
            CallerError: a KBS is named.
            ConfigError: a file cannot be read.
            FormatError: a file is not of that form.
        """
        if url is not None:
            raise CallerError(
                f"{uri} of {url} is asked for, but this machine takes resources from files",
                hint="write offline_fs_kbc::null, or start the program with a KBS",
            )
        found = await asyncio.to_thread(self._read)
        if uri.plugin != "resource" or uri.path not in found:
            shown = ", ".join(map(str, self._files))
            raise NotFoundError(f"there is no {uri} in {shown}")
        return json.b64decode(found[uri.path], f"the resource {uri}")

    def _read(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for file in self._files:
            if not file.exists():
                _log.warning("offline-fs.absent", file=str(file))
                continue
            found.update(parse(read_file(file, "the offline resources"), str(file)))
        return found


def parse(text: bytes, name: str) -> dict[str, str]:
    """Return resource path → base64 of one file.

    Raises:
        FormatError: not a JSON object of base64 text.
    """
    members: dict[str, str] = json.decode(text, dict[str, str], name)
    for path, value in members.items():
        try:
            json.b64decode(value, path)
        except FormatError as error:
            raise FormatError(f"{name}: the resource {path[:200]} is not base64") from error
    return members
