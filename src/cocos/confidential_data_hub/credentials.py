# SPDX-License-Identifier: Apache-2.0
"""Resources that are written to files at the start, for programs that only read files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog

from cocos.clients.resources import ResourceSource
from cocos.confidential_data_hub.config import CREDENTIALS, Credential
from cocos.errors import FormatError
from cocos.host.disk import disk_error
from cocos.host.files import write_atomic
from cocos.wire.kbs.protocol import ResourceUri

_KERNEL_PARAMETER: Final = "cdh.kbs_resources="

_log = structlog.get_logger(__name__)


async def write(
    credentials: Sequence[Credential], resources: ResourceSource, root: Path = CREDENTIALS
) -> None:
    """Fetch and write them, readable by our user only.

    Args:
        credentials: What, and where to.
        resources: Who has them.
        root: Stands for the folder that all paths are below.

    Raises:
        CocosError: as :meth:`ResourceSource.get`; nothing after it is fetched.
        ConfigError: a file cannot be written.
    """
    for each in credentials:
        data = await resources.get(ResourceUri.parse(each.resource_uri))
        path = root / each.path.relative_to(CREDENTIALS)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(path, data)
        except OSError as error:
            raise disk_error(error, f"cannot write {path}") from error
        _log.info("credential.written", resource=each.resource_uri, path=str(path))


def of_command_line(text: str) -> list[dict[str, str]]:
    """Return the credentials of the kernel's command line: ``URI::PATH,…``.

    Raises:
        FormatError: a piece without ``::``.
    """
    found = []
    for word in text.split():
        if not word.startswith(_KERNEL_PARAMETER):
            continue
        for piece in filter(None, word.removeprefix(_KERNEL_PARAMETER).split(",")):
            uri, separator, path = piece.partition("::")
            if not separator:
                raise FormatError(f"{piece[:200]!r} of {_KERNEL_PARAMETER} is not URI::PATH")
            found.append({"resource_uri": uri, "path": path})
    return found
