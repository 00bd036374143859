# SPDX-License-Identifier: Apache-2.0
"""Key brokers that are killed, share a storage, or lose it; and a guest who goes from one to another."""

import base64
import contextlib
import datetime as dt
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any, Self

import httpx
import msgspec
from _kbs import admin_pair
from _programs import Running, running

from cocos.clients.kbs import KbsAdmin
from cocos.crypto import admin_jwt
from cocos.crypto.tee_key import TeeKeyPair
from cocos.wire.kbs import protocol as kbs

POLICY = "package policy\nimport rego.v1\nallow := true\n"


@dataclass
class Brokers:
    """How the key brokers of one storage are started, and their administrator's key."""

    folder: Path
    storage: str
    sessions: str | None = None
    private: bytes = b""

    def __post_init__(self) -> None:
        self.private, public = admin_pair()
        (self.folder / "admin.pub").write_bytes(public)

    @property
    def storage_flags(self) -> list[str]:
        return ["--storage", self.storage, "--storage-key", f"file:{self.folder}/storage.key"]

    @contextlib.asynccontextmanager
    async def start(self, *flags: str, socket: str = "127.0.0.1:0") -> AsyncIterator[Running]:
        words = ["--insecure-http", "--insecure-allow-sample", "--socket", socket, "--auth-rate=0"]
        words += ["--auth-public-key", f"{self.folder}/admin.pub", *self.storage_flags]
        if self.sessions is not None:
            words += ["--session-storage", self.sessions]
        async with running("kbs", *words, *flags) as program:
            yield program

    def admin(self, program: Running) -> KbsAdmin:
        token = admin_jwt.mint(self.private, now=dt.datetime.now(dt.UTC))
        return KbsAdmin(program.address, token=token)


@dataclass
class Guest:
    """A guest who sends each message to whom it likes."""

    http: httpx.AsyncClient = field(default_factory=lambda: httpx.AsyncClient(timeout=120))
    key: TeeKeyPair = field(default_factory=TeeKeyPair.generate)
    cookie: str = ""
    nonce: str = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    async def auth(self, at: str) -> httpx.Response:
        body = {"version": "0.4.0", "tee": "sample", "extra-params": ""}
        answer = await self._call("POST", f"{at}/kbs/v0/auth", json=body)
        if answer.status_code == 200:
            self.cookie = SimpleCookie(answer.headers["set-cookie"])[kbs.SESSION_COOKIE].value
            self.nonce = answer.json()["nonce"]
        return answer

    async def attest(self, at: str) -> httpx.Response:
        public: kbs.TeePublicKey = msgspec.convert(self.key.public_jwk(), kbs.TeePublicKey)
        digest = kbs.report_data(kbs.runtime_data(self.nonce, public, ""))
        evidence = {"svn": "1", "report_data": base64.b64encode(digest).decode()}
        body = {
            "runtime-data": {"nonce": self.nonce, "tee-pubkey": self.key.public_jwk()},
            "tee-evidence": {"primary_evidence": evidence, "additional_evidence": ""},
        }
        return await self._call("POST", f"{at}/kbs/v0/attest", json=body)

    async def get(self, at: str, path: str) -> httpx.Response:
        return await self._call("GET", f"{at}/kbs/v0/resource/{path}")

    async def read(self, at: str, path: str) -> bytes | None:
        """Return a resource, or None if there is none."""
        answer = await self.get(at, path)
        if answer.status_code == 404:
            return None
        assert answer.status_code == 200, answer.text
        return self.key.decrypt(answer.json())

    async def handshake(self, at: str) -> None:
        for step in (self.auth, self.attest):
            answer = await step(at)
            assert answer.status_code == 200, answer.text

    async def _call(self, method: str, url: str, **more: Any) -> httpx.Response:
        headers = {"Cookie": f"{kbs.SESSION_COOKIE}={self.cookie}"} if self.cookie else {}
        self.http.cookies.clear()
        return await self.http.request(method, url, headers=headers, **more)


async def healthy(program: Running) -> httpx.Response:
    """Ask whether the storage works."""
    async with httpx.AsyncClient(timeout=120) as http:
        return await http.get(f"{program.address}/healthz")
