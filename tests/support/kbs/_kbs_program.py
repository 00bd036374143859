# SPDX-License-Identifier: Apache-2.0
"""The KBS as a program, with its administrator's key."""

import contextlib
import datetime as dt
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from _kbs import admin_pair
from _programs import Running, running

from cocos.clients.kbs import KbsAdmin
from cocos.crypto import admin_jwt
from cocos.wire.kbs.protocol import ResourcePath


@dataclass
class Kbs:
    """A KBS and its administrator's key."""

    program: Running
    key_file: Path
    pem: bytes

    @property
    def url(self) -> str:
        return self.program.address

    async def requests(self, method: str, route: str) -> int:
        """Return how often something was asked for, by the KBS's own count."""
        async with httpx.AsyncClient() as client:
            text = (await client.get(f"{self.url}/metrics")).text
        line = rf'^kbs_http_requests_total{{method="{method}",route="{re.escape(route)}.*}} (\S+)$'
        return sum(int(float(count)) for count in re.findall(line, text, re.MULTILINE))

    async def store(self, key: ResourcePath, data: bytes) -> None:
        token = admin_jwt.mint(self.pem, now=dt.datetime.now(dt.UTC))
        async with KbsAdmin(self.url, token=token) as admin:
            await admin.set_resource(key, data)


@contextlib.asynccontextmanager
async def start_kbs(
    folder: Path, *flags: str, env: dict[str, str] | None = None
) -> AsyncIterator[Kbs]:
    pem, public_pem = admin_pair()
    private, public = folder / "admin.key", folder / "admin.pub"
    private.write_bytes(pem)
    public.write_bytes(public_pem)
    arguments = ["--insecure-http", "--socket", "127.0.0.1:0"]
    storage = ["--storage", str(folder / "kbs"), "--auth-public-key", str(public)]
    async with running("kbs", *arguments, *storage, *flags, env=env) as program:
        yield Kbs(program, private, pem)
