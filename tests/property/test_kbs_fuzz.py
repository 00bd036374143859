# SPDX-License-Identifier: Apache-2.0
"""Whatever a stranger sends, the key broker refuses it in order: no crash, no resource."""

import asyncio
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from _engine import LocalEngine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cocos._clock import system_clock
from cocos.cli._kbs_compose import compose
from cocos.crypto.tee_key import TeeKeyPair
from cocos.kbs.admin import DenyAll
from cocos.kbs.config import Settings
from cocos.stores.base import Namespace
from cocos.stores.sql import SqlStore, storage_url
from cocos.wire.kbs import PROBLEM_TYPE, SESSION_COOKIE

SECRET = b"never to be seen"
KEY = TeeKeyPair.generate().public_jwk()

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
headers = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60)


@dataclass
class Kbs:
    """One KBS and the loop it lives in."""

    loop: asyncio.AbstractEventLoop
    http: httpx.AsyncClient

    def call(self, method: str, path: str, **more: Any) -> httpx.Response:
        return self.loop.run_until_complete(self.http.request(method, path, **more))


@pytest.fixture(scope="module")
def kbs() -> Iterator[Kbs]:
    async def start(folder: str) -> tuple[SqlStore, httpx.AsyncClient]:
        store = await SqlStore.open(storage_url(folder))
        await store.put(Namespace.RESOURCE, "a/b/c", SECRET)
        chosen = Settings(insecure_allow_sample=True)
        app = await compose(chosen, store, DenyAll(), LocalEngine(), clock=system_clock)
        transport = httpx.ASGITransport(app)
        return store, httpx.AsyncClient(transport=transport, base_url="http://kbs")

    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        store, http = runner.run(start(str(Path(folder) / "kbs")))
        yield Kbs(runner.get_loop(), http)
        runner.run(http.aclose())
        runner.run(store.close())


def refused(answer: httpx.Response) -> None:
    assert answer.status_code in {400, 401, 403, 404, 405}, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"].startswith(PROBLEM_TYPE)
    assert SECRET not in answer.content


fuzz = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@fuzz
@given(body=st.binary(max_size=200) | values.map(lambda value: json.dumps(value).encode()))
@pytest.mark.parametrize("endpoint", ["auth", "attest"])
def test_any_body(kbs: Kbs, endpoint: str, body: bytes) -> None:
    cookie = {"Cookie": f"{SESSION_COOKIE}={'0' * 32}"}
    refused(kbs.call("POST", f"/kbs/v0/{endpoint}", content=body, headers=cookie))


@fuzz
@given(
    data=st.data(),
    place=st.sampled_from(
        [
            ("init-data",),
            ("runtime-data",),
            ("runtime-data", "nonce"),
            ("runtime-data", "tee-pubkey"),
            ("runtime-data", "tee-pubkey", "kty"),
            ("runtime-data", "tee-pubkey", "x"),
            ("tee-evidence",),
            ("tee-evidence", "primary_evidence"),
            ("tee-evidence", "primary_evidence", "report_data"),
            ("tee-evidence", "additional_evidence"),
        ]
    ),
)
def test_any_attestation_in_a_real_session(
    kbs: Kbs, data: st.DataObject, place: tuple[str, ...]
) -> None:
    begun = kbs.call("POST", "/kbs/v0/auth", json={"version": "0.4.0", "tee": "sample"})
    session = begun.cookies[SESSION_COOKIE]
    body: dict[str, Any] = {
        "runtime-data": {"nonce": begun.json()["nonce"], "tee-pubkey": dict(KEY)},
        "tee-evidence": {
            "primary_evidence": {"svn": "1", "report_data": ""},
            "additional_evidence": "",
        },
    }
    target = body
    for name in place[:-1]:
        target = target[name]
    target[place[-1]] = data.draw(values)
    cookie = {"Cookie": f"{SESSION_COOKIE}={session}"}
    refused(kbs.call("POST", "/kbs/v0/attest", content=json.dumps(body), headers=cookie))
    refused(kbs.call("GET", "/kbs/v0/resource/a/b/c", headers=cookie))


@fuzz
@given(cookie=headers, authorization=headers, scheme=st.sampled_from(["Bearer ", "bearer ", ""]))
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_any_credentials(
    kbs: Kbs, method: str, cookie: str, authorization: str, scheme: str
) -> None:
    given_headers = {
        "Cookie": f"{SESSION_COOKIE}={cookie}",
        "Authorization": (scheme + authorization).strip(),
    }
    refused(kbs.call(method, "/kbs/v0/resource/a/b/c", headers=given_headers))


@fuzz
@given(path=st.binary(max_size=40).map(lambda raw: "".join(f"%{byte:02x}" for byte in raw)))
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_any_path(kbs: Kbs, method: str, path: str) -> None:
    refused(kbs.call(method, f"/kbs/v0/resource/{path}"))
    refused(kbs.call(method, f"/kbs/v0/{path}"))
