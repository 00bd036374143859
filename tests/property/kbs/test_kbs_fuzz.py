# SPDX-License-Identifier: Apache-2.0
"""Whatever a stranger sends, the key broker refuses it in order: no crash, no resource."""

import asyncio
import base64
import contextlib
import hmac
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from _engine import LocalEngine
from _kbs import storage_in
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cocos._clock import system_clock
from cocos.cli.kbs.compose import compose
from cocos.crypto.tee_key import RSA_EARLY, TeeKeyPair
from cocos.kbs.admin.gate import DenyAll
from cocos.kbs.config import Settings
from cocos.stores.base import Namespace
from cocos.wire.kbs.protocol import PROBLEM_TYPE, SESSION_COOKIE, report_data

SECRET = b"never to be seen"
KEY = TeeKeyPair.generate().public_jwk()
EARLY_KEY = TeeKeyPair.generate(RSA_EARLY).public_jwk()

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
    closing = contextlib.AsyncExitStack()

    async def start(folder: Path) -> httpx.AsyncClient:
        storage = await closing.enter_async_context(storage_in(folder, system_clock))
        await storage.store.put(Namespace.RESOURCE, "a/b/c", SECRET)
        chosen = Settings(insecure_allow_sample=True)
        app = await compose(chosen, storage, DenyAll(), LocalEngine(), clock=system_clock)
        transport = httpx.ASGITransport(app)
        http = httpx.AsyncClient(transport=transport, base_url="http://kbs")
        return await closing.enter_async_context(http)

    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        http = runner.run(start(Path(folder) / "kbs"))
        yield Kbs(runner.get_loop(), http)
        runner.run(closing.aclose())


def refused(answer: httpx.Response) -> None:
    assert answer.status_code in {400, 401, 403, 404, 405}, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"].startswith((PROBLEM_TYPE, "about:blank"))
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
    begun = kbs.call(
        "POST", "/kbs/v0/auth", json={"version": "0.4.0", "tee": "sample", "extra-params": ""}
    )
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
@given(
    data=st.data(),
    version=st.sampled_from(["0.1.1", "0.2.0", "0.4.0"]),
    place=st.sampled_from(["tee-pubkey", "tee-evidence", "runtime-data", "init-data", "kty", "n"]),
)
def test_any_attestation_of_any_generation(
    kbs: Kbs, data: st.DataObject, version: str, place: str
) -> None:
    begun = kbs.call(
        "POST", "/kbs/v0/auth", json={"version": version, "tee": "sample", "extra-params": ""}
    )
    session = begun.cookies[SESSION_COOKIE]
    key: dict[str, Any] = dict(KEY if version == "0.2.0" else EARLY_KEY)
    evidence = {"svn": "1", "report_data": ""}
    body: dict[str, Any] = {"tee-pubkey": key, "tee-evidence": evidence}
    (key if place in {"kty", "n"} else body)[place] = data.draw(values)
    cookie = {"Cookie": f"{SESSION_COOKIE}={session}"}
    refused(kbs.call("POST", "/kbs/v0/attest", content=json.dumps(body), headers=cookie))
    refused(kbs.call("GET", "/kbs/v0/resource/a/b/c", headers=cookie))


numbers = st.sampled_from(
    ["1e999", "-0", "1E-999", "9" * 5000, "0." + "1" * 5000, "NaN", "01", "+1"]
)
names = st.sampled_from(["version", "tee", "nonce", "runtime-data", "tee-pubkey", "kty", "a"])
json_texts = st.recursive(
    numbers | st.sampled_from(['"\\ud800"', '"\\u0000"', "null", '"sample"', '"0.4.0"']),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda parts: f"[{','.join(parts)}]")
        | st.lists(st.tuples(names, inner), max_size=4).map(
            lambda pairs: "{" + ",".join(f'"{name}" :{text}' for name, text in pairs) + "}"
        )
        | st.tuples(inner, st.integers(1, 3000)).map(lambda it: "[" * it[1] + it[0] + "]" * it[1])
    ),
    max_leaves=6,
)


@fuzz
@given(text=json_texts)
@pytest.mark.parametrize("endpoint", ["auth", "attest"])
def test_any_json_text(kbs: Kbs, endpoint: str, text: str) -> None:
    begun = kbs.call(
        "POST", "/kbs/v0/auth", json={"version": "0.2.0", "tee": "sample", "extra-params": ""}
    )
    cookie = {"Cookie": f"{SESSION_COOKIE}={begun.cookies[SESSION_COOKIE]}"}
    member = f'{{"version":"0.4.0","tee":"sample","extra-params":{text},"version":"0.4.0"}}'
    for body in (text, member):
        refused(kbs.call("POST", f"/kbs/v0/{endpoint}", content=body.encode(), headers=cookie))


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@fuzz
@given(
    header=st.fixed_dictionaries(
        {"alg": st.sampled_from(["none", "None", "", "HS256", "RS256", "ES384", "EdDSA", "ES256"])},
        optional={
            "jwk": st.just(KEY) | values,
            "kid": st.text(max_size=9),
            "x5c": values,
            "crit": values,
            "b64": st.booleans(),
            "typ": values,
        },
    ),
    claims=values | st.just({"exp": 2**40, "submods": {"cpu0": {"ear.status": "affirming"}}}),
    signature=st.binary(max_size=70) | st.just(b"") | st.just(bytes(64)),
    hmac_key=st.sampled_from([json.dumps(KEY).encode(), b"", None]),
)
def test_any_token(
    kbs: Kbs, header: dict[str, Any], claims: Any, signature: bytes, hmac_key: bytes | None
) -> None:
    """Unsigned, signed with a public key as a secret, with a key that it brings along."""
    signed = f"{part(header)}.{part(claims)}"
    if hmac_key is not None:
        signature = hmac.digest(hmac_key, signed.encode(), "sha256")
    token = f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    answer = kbs.call("GET", "/kbs/v0/resource/a/b/c", headers={"Authorization": f"Bearer {token}"})
    refused(answer)
    assert answer.status_code == 401


@fuzz
@given(
    data=st.data(),
    alphabet=st.sampled_from(["std", "url", "pad", "space", "newline", "bits", "hex"]),
    place=st.sampled_from(["x", "y", "report_data"]),
)
def test_other_spellings_of_base64(
    kbs: Kbs, data: st.DataObject, alphabet: str, place: str
) -> None:
    """What means the same bytes elsewhere is refused: each byte string has one spelling."""
    begun = kbs.call(
        "POST", "/kbs/v0/auth", json={"version": "0.4.0", "tee": "sample", "extra-params": ""}
    )
    key, nonce = dict(KEY), begun.json()["nonce"]
    bound = {"nonce": nonce, "tee-pubkey": key, "additional-evidence": ""}
    evidence = {"svn": "1", "report_data": base64.b64encode(report_data(bound)).decode()}
    body = {
        "runtime-data": {"nonce": nonce, "tee-pubkey": key},
        "tee-evidence": {"primary_evidence": evidence, "additional_evidence": ""},
    }
    target = key if place in {"x", "y"} else evidence
    right = target[place]
    at = data.draw(st.integers(0, len(right)))
    target[place] = {
        "std": right.replace("-", "+").replace("_", "/"),
        "url": right.replace("+", "-").replace("/", "_"),
        "pad": right + "=",
        "space": right[:at] + " " + right[at:],
        "newline": right[:at] + "\n" + right[at:],
        "bits": right[:-1] + "B",
        "hex": base64.urlsafe_b64decode(right.replace("+", "-").replace("/", "_") + "==").hex(),
    }[alphabet]
    cookie = {"Cookie": f"{SESSION_COOKIE}={begun.cookies[SESSION_COOKIE]}"}
    answer = kbs.call("POST", "/kbs/v0/attest", content=json.dumps(body), headers=cookie)
    if target[place] == right:
        assert answer.status_code == 200
    else:
        refused(answer)


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
