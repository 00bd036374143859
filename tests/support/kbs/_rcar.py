# SPDX-License-Identifier: Apache-2.0
"""A handshake message by message, with whatever in them: what an attacker's client does."""

import base64
import json
from dataclasses import dataclass, field
from typing import Any, Self

import httpx
from _kbs import URL, InProcessKbs
from _tpm import Tpm

from cocos._types import JsonObject
from cocos.crypto.tee_key import TeeKeyPair
from cocos.wire.kbs import protocol as wire


@dataclass
class Handshake:
    """One session of a guest with a TPM; ``params`` is what it announces."""

    kbs: InProcessKbs
    tpm: Tpm
    params: JsonObject | None
    init_data: str | None = None
    key: TeeKeyPair = field(default_factory=TeeKeyPair.generate)
    nonce: str = ""
    challenge: JsonObject | None = None
    token: str = ""
    tee: str = "tpm"

    @classmethod
    async def opened(
        cls,
        kbs: InProcessKbs,
        tpm: Tpm,
        params: JsonObject | None,
        *,
        init_data: str | None = None,
    ) -> Self:
        made = cls(kbs, tpm, params, init_data)
        answer = await made.auth()
        assert answer.status_code == 200, answer.text
        return made

    async def auth(self) -> httpx.Response:
        self._http = httpx.AsyncClient(transport=self.kbs.transport(), base_url=URL)
        extra: JsonObject = {"supported-hash-algorithms": ["sha384"]}
        if self.params is not None:
            extra["tpm"] = self.params
        body = {"version": "0.4.0", "tee": self.tee, "extra-params": extra}
        answer = await self._http.post("/kbs/v0/auth", json=body)
        if answer.status_code == 200:
            self.nonce = answer.json()["nonce"]
            shown = answer.json()["extra-params"]
            self.challenge = shown["tpm"] if shown else None
            if not self._http.cookies:  # of a key broker whose clock is not ours
                self._http.headers["cookie"] = answer.headers["set-cookie"].partition(";")[0]
        return answer

    @property
    def report_data(self) -> bytes:
        jwk = self.key.public_jwk()
        data = {"nonce": self.nonce, "tee-pubkey": jwk, "additional-evidence": ""}
        return wire.report_data(data)

    async def evidence(self, **changes: Any) -> dict[str, Any]:
        """Evidence as the genuine guest makes it, in this session."""
        secret = None if self.challenge is None else await self.tpm.activate(self.challenge)
        return {**await self.tpm.quote(self.report_data, secret=secret), **changes}

    async def attest(self, evidence: Any) -> httpx.Response:
        body: JsonObject = {
            "runtime-data": {"nonce": self.nonce, "tee-pubkey": self.key.public_jwk()},
            "tee-evidence": {"primary_evidence": evidence, "additional_evidence": ""},
        }
        if self.init_data is not None:
            body["init-data"] = {"format": "toml", "body": self.init_data}
        answer = await self._http.post("/kbs/v0/attest", json=body)
        if answer.status_code == 200:
            self.token = answer.json()["token"]
        return answer

    async def get(self, path: str, *, token: str | None = None) -> httpx.Response:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return await self._http.get(f"/kbs/v0/resource/{path}", headers=headers)

    async def read(self, path: str) -> bytes:
        answer = await self.get(path)
        assert answer.status_code == 200, answer.text
        return self.key.decrypt(answer.json())


def claims(token: str) -> JsonObject:
    """Claims of the token's only submodule."""
    payload = token.split(".")[1]
    decoded = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    found: JsonObject = decoded["submods"]["cpu0"]
    return found


async def denial(kbs: InProcessKbs, answer: httpx.Response) -> dict[str, JsonObject]:
    """Return what ``kbs-client explain`` shows of a refusal: check → finding."""
    assert answer.status_code in {401, 403}, answer.text
    async with kbs.admin() as admin:
        found = await admin.explain(answer.json()["id"])
    assert found["findings"]
    return {finding["check"]: finding for finding in found["findings"]}
