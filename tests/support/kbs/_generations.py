# SPDX-License-Identifier: Apache-2.0
"""A guest of any generation of the protocol, message by message, by the letter of kbs.md."""

import base64
import functools
import hashlib
import json
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import Any

import httpx
from _kbs import URL, InProcessKbs

from cocos.crypto.tee_key import EC_P256, RSA_EARLY, TeeKeyPair

EARLY = ("0.1.1", "0.2.0")
EVERY = (*EARLY, "0.4.0")


def bound(data: dict[str, Any], svn: str = "1") -> dict[str, str]:
    """Sample evidence that is bound to ``data``."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha384(text.encode()).digest()
    return {"svn": svn, "report_data": base64.b64encode(digest).decode()}


@dataclass
class Guest:
    """One guest; every message can be sent differently."""

    kbs: InProcessKbs
    version: str = "0.4.0"
    key: TeeKeyPair = field(default_factory=TeeKeyPair.generate)
    tee: str = "sample"
    cookie: str = ""
    nonce: str = ""
    token: str = ""

    def __post_init__(self) -> None:
        self._http = httpx.AsyncClient(transport=self.kbs.transport(), base_url=URL)

    async def call(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"Cookie": f"kbs-session-id={self.cookie}", **more.pop("headers", {})}
        return await self._http.request(method, f"/kbs/v0/{path}", headers=headers, **more)

    async def auth(
        self, *, headers: dict[str, str] | None = None, params: Any = ""
    ) -> httpx.Response:
        body = {"version": self.version, "tee": self.tee, "extra-params": params}
        answer = await self.call("POST", "auth", json=body, headers=headers or {})
        if answer.status_code == 200:
            self.cookie = SimpleCookie(answer.headers["set-cookie"])["kbs-session-id"].value
            self.nonce = answer.json()["nonce"]
        return answer

    def body(
        self, version: str | None = None, *, devices: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """An attestation of this session, in the form of ``version``."""
        jwk = self.key.public_jwk()
        pair = {"nonce": self.nonce, "tee-pubkey": jwk}
        if (version or self.version) in EARLY:
            return {"tee-pubkey": jwk, "tee-evidence": bound(pair)}
        additional = "" if devices is None else json.dumps(devices)
        return {
            "runtime-data": pair,
            "tee-evidence": {
                "primary_evidence": bound({**pair, "additional-evidence": additional}),
                "additional_evidence": additional,
            },
        }

    def device(self, **changes: Any) -> dict[str, str]:
        """Evidence of a sample device in this session."""
        pair = {"nonce": self.nonce, "tee-pubkey": self.key.public_jwk(), **changes}
        return bound(pair, "2")

    async def attest(self, body: Any = None) -> httpx.Response:
        content = json.dumps(self.body() if body is None else body)
        answer = await self.call("POST", "attest", content=content)
        if answer.status_code == 200:
            self.token = answer.json()["token"]
        return answer

    async def handshake(self) -> None:
        for answer in (await self.auth(), await self.attest()):
            assert answer.status_code == 200, answer.text

    async def get(self, path: str, **more: Any) -> httpx.Response:
        return await self.call("GET", f"resource/{path}", **more)

    def claims(self) -> dict[str, Any]:
        payload = self.token.split(".")[1]
        found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=="))["submods"]
        return found


@functools.cache
def key(algorithm: str) -> TeeKeyPair:
    """One key of each kind: RSA keys take long to make."""
    return TeeKeyPair.generate(algorithm)


def key_of(version: str) -> TeeKeyPair:
    """A key that a guest of ``version`` can use."""
    return key(RSA_EARLY if version == "0.1.1" else EC_P256)
