# SPDX-License-Identifier: Apache-2.0
"""A real key broker inside the test's process, for tests of its clients."""

import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from _engine import LocalEngine
from _through import Through
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from starlette.types import ASGIApp, Receive, Scope, Send

from cocos._clock import Clock
from cocos.attesters import InsecureSampleAttester
from cocos.cli.kbs.attestation import appraiser, builtin
from cocos.cli.kbs.compose import admin_gate, compose
from cocos.clients.kbs import EvidenceSource, KbsAdmin, KbsClient
from cocos.crypto import admin_jwt
from cocos.crypto.tee_key import EC_P256
from cocos.host.root_keys.file import FileRootKey
from cocos.kbs.admin.gate import SignedTokens
from cocos.kbs.config import Settings
from cocos.policy.engine import PolicyEngine
from cocos.stores.base import Store
from cocos.stores.opening import Storage, open_storage
from cocos.stores.sql import storage_url
from cocos.verifiers.collateral import Collateral
from cocos.wire.kbs.protocol import InitData

URL = "http://kbs.test:8080"


def admin_pair() -> tuple[bytes, bytes]:
    """Return a new admin's private and public key, PEM."""
    key = ed25519.Ed25519PrivateKey.generate()
    return (
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
    )


@dataclass
class InProcessKbs:
    """A key broker, its clock, and every request that it got."""

    admin_key: bytes
    now: dt.datetime
    app: ASGIApp | None = None
    store: Store | None = None
    storage: Storage | None = None
    client: tuple[str, int] | None = None
    folder: Path | None = None
    requests: list[str] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests.append(f"{scope['method']} {scope['path']}")
        assert self.app is not None
        await self.app({**scope, "client": self.client}, receive, send)

    def count(self, request: str) -> int:
        return self.requests.count(request)

    @property
    def handshakes(self) -> int:
        return self.count("POST /kbs/v0/auth")

    def clock(self) -> dt.datetime:
        return self.now

    def transport(self) -> httpx.ASGITransport:
        return httpx.ASGITransport(self)

    def guest(
        self,
        evidence: EvidenceSource | None = None,
        *,
        key_algorithm: str = EC_P256,
        init_data: InitData | None = None,
    ) -> KbsClient:
        return KbsClient(
            URL,
            evidence or InsecureSampleAttester(),
            key_algorithm=key_algorithm,
            init_data=init_data,
            transport=Through(self.transport(), URL),
        )

    def admin(self, private_key: bytes | None = None) -> KbsAdmin:
        token = admin_jwt.mint(private_key or self.admin_key, now=self.now)
        return KbsAdmin(URL, token=token, transport=Through(self.transport(), URL))


def storage_in(folder: Path, clock: Clock) -> contextlib.AbstractAsyncContextManager[Storage]:
    """Have a storage with a key file in a folder."""
    key = FileRootKey(folder / "storage.key")
    return open_storage(storage_url(str(folder)), [key], clock=clock)


@contextlib.asynccontextmanager
async def kbs_in_process(
    folder: Path,
    *,
    allow_sample: bool = True,
    tpm_ek_ca: Sequence[Path] = (),
    engine: PolicyEngine | None = None,
    collateral: Collateral | None = None,
    **settings: Any,
) -> AsyncIterator[InProcessKbs]:
    """Have a key broker with an empty store in ``folder``."""
    private, public = admin_pair()
    now = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
    kbs = InProcessKbs(admin_key=private, now=now, folder=folder)
    chosen = Settings(
        insecure_http=True,
        insecure_allow_sample=allow_sample,
        tpm_ek_ca=tuple(tpm_ek_ca),
        **settings,
    )
    async with (
        storage_in(folder, kbs.clock) as storage,
        appraiser(chosen, clock=kbs.clock) as attestation,
    ):
        kbs.storage, kbs.store = storage, storage.store
        judge = engine or LocalEngine()
        if collateral is not None:
            own = builtin(chosen, storage.store, judge, clock=kbs.clock, collateral=collateral)
        kbs.app = await compose(
            chosen,
            storage,
            SignedTokens({"admin": public}, clock=kbs.clock)
            if not (chosen.deny_admin or chosen.identity_providers)
            else admin_gate(chosen, kbs.clock),
            judge,
            clock=kbs.clock,
            attestation=own if collateral is not None else attestation,
        )
        yield kbs
