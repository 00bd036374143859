# SPDX-License-Identifier: Apache-2.0
"""A program: serve once with a certificate and a key, in a process that may be ended for it."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from cocos.transport.http_server import serving
from cocos.transport.tls_files import TlsFiles


async def _answer(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def _once(tls: TlsFiles) -> None:
    async with serving(_answer, "127.0.0.1:0", tls=tls):
        # Its end is not what is asked for: now and then threads of Rust do not survive Python's.
        os._exit(0)


if __name__ == "__main__":
    certificate, private_key, oldest = sys.argv[1:]
    asyncio.run(_once(TlsFiles(Path(certificate), Path(private_key), oldest)))  # type: ignore[arg-type]
