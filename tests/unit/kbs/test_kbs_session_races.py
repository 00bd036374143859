# SPDX-License-Identifier: Apache-2.0
"""Two changes of one session at the same time: each exchange in the store counts alone.

The real key broker and attestation service, with somebody who watches the latter and can
hold it up, so that what happens meanwhile happens in the middle.
"""

import asyncio
import base64
import dataclasses
import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any, cast

import httpx
import msgspec
import pytest
from _engine import LocalEngine
from _kbs import storage_in

from cocos.cli.kbs.attestation import builtin
from cocos.cli.kbs.compose import compose
from cocos.crypto.tee_key import TeeKeyPair
from cocos.kbs.admin.gate import DenyAll
from cocos.kbs.config import Settings
from cocos.stores.base import Namespace
from cocos.stores.sealed import SealedStore
from cocos.wire.kbs import protocol as kbs

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
KEY = TeeKeyPair.generate()
PATH = "/kbs/v0/resource/default/key/algo-key"


@dataclass
class Clock:
    now: dt.datetime = NOW

    def __call__(self) -> dt.datetime:
        return self.now


async def nothing() -> None:
    """Nothing happens meanwhile."""


@dataclass
class Watched:
    """An attestation service; ``meanwhile`` happens while it appraises."""

    service: Any
    meanwhile: Callable[[], Awaitable[None]] = nothing
    appraised: int = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.service, name)

    async def appraise(self, *arguments: Any, **more: Any) -> Any:
        self.appraised += 1
        found = await self.service.appraise(*arguments, **more)
        await self.meanwhile()
        return found


@dataclass
class Together:
    """A store; where several are expected to read a session, all of them see the same."""

    store: Any
    readers: asyncio.Barrier | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def get(self, namespace: Namespace, key: str) -> bytes | None:
        found: bytes | None = await self.store.get(namespace, key)
        if namespace is Namespace.SESSION and self.readers is not None:
            await self.readers.wait()
        return found


@dataclass
class Desk:
    """A guest with one session."""

    clock: Clock
    store: Together
    watched: Watched
    http: httpx.AsyncClient
    session: str = ""
    nonce: str = ""

    async def auth(self) -> None:
        body = {"version": "0.4.0", "tee": "sample", "extra-params": ""}
        answer = await self.http.post("/kbs/v0/auth", json=body)
        self.nonce = answer.json()["nonce"]
        # Not by httpx's jar: by its clock the session has expired.
        self.session = SimpleCookie(answer.headers["set-cookie"])[kbs.SESSION_COOKIE].value

    async def attest(self, svn: str = "1") -> httpx.Response:
        public: kbs.TeePublicKey = msgspec.convert(KEY.public_jwk(), kbs.TeePublicKey)
        digest = kbs.report_data(kbs.runtime_data(self.nonce, public, ""))
        evidence = {"svn": svn, "report_data": base64.b64encode(digest).decode()}
        body = {
            "runtime-data": {"nonce": self.nonce, "tee-pubkey": KEY.public_jwk()},
            "tee-evidence": {"primary_evidence": evidence, "additional_evidence": ""},
        }
        return await self.http.post("/kbs/v0/attest", json=body, headers=self.cookie)

    async def get(self) -> httpx.Response:
        return await self.http.get(PATH, headers=self.cookie)

    @property
    def cookie(self) -> dict[str, str]:
        return {"Cookie": f"{kbs.SESSION_COOKIE}={self.session}"}

    async def stored(self) -> bytes | None:
        return await self.store.get(Namespace.SESSION, self.session)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    clock = Clock()
    settings = Settings(insecure_http=True, insecure_allow_sample=True)
    async with storage_in(tmp_path, clock) as storage:
        store = Together(storage.store)
        real = builtin(settings, storage.store, LocalEngine(), clock=clock)
        watched = Watched(real.service)
        attestation = dataclasses.replace(real, service=watched)
        app = await compose(
            settings,
            dataclasses.replace(storage, store=cast("SealedStore", store)),
            DenyAll(),
            LocalEngine(),
            clock=clock,
            attestation=attestation,
        )
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="https://kbs.test") as http:
            made = Desk(clock, store, watched, http)
            await made.auth()
            yield made


@pytest.mark.parametrize("evidence", [["1"] * 8, list("12345678")], ids=["same", "different"])
async def test_of_those_that_read_a_session_at_once_one_is_appraised(
    desk: Desk, evidence: list[str]
) -> None:
    """The nonce is used before the appraisal, not after it."""
    desk.store.readers = asyncio.Barrier(len(evidence))
    answers = await asyncio.gather(*(desk.attest(svn) for svn in evidence))
    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 7
    assert desk.watched.appraised == 1
    refused = [answer.json()["detail"] for answer in answers if answer.status_code == 401]
    assert all("used already" in detail for detail in refused), refused


async def test_a_session_that_went_during_the_appraisal_does_not_come_back(desk: Desk) -> None:
    """Pushed out by newer ones, or deleted by an administrator of the storage."""

    async def gone() -> None:
        await desk.store.delete(Namespace.SESSION, desk.session)

    desk.watched.meanwhile = gone
    answer = await desk.attest()
    assert answer.status_code == 401, answer.text
    assert "token" not in answer.text
    assert await desk.stored() is None
    assert (await desk.get()).status_code == 401


async def test_a_session_that_expired_during_the_appraisal_is_over(desk: Desk) -> None:
    async def late() -> None:
        desk.clock.now += dt.timedelta(minutes=5)

    desk.watched.meanwhile = late
    answer = await desk.attest()
    assert answer.status_code == 401
    assert "expired" in answer.json()["detail"]
    assert (await desk.get()).status_code == 401


async def test_a_session_that_changed_during_the_appraisal_stays_as_it_is(desk: Desk) -> None:
    async def changed() -> None:
        spent = await desk.stored()
        assert spent is not None
        expires = desk.clock.now + dt.timedelta(minutes=5)
        other = spent.replace(b'"evidence":"', b'"evidence":"0')
        assert other != spent
        await desk.store.put(Namespace.SESSION, desk.session, other, expires=expires)

    desk.watched.meanwhile = changed
    assert (await desk.attest()).status_code == 401
    assert b"Spent" in (await desk.stored() or b"")
    assert (await desk.get()).status_code == 401
