# SPDX-License-Identifier: Apache-2.0
"""The key broker over HTTP, in process, with the real attestation service and store."""

import asyncio
import base64
import contextlib
import datetime as dt
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import structlog
from _engine import LocalEngine
from _kbs import storage_in
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from cocos.cli.kbs.compose import compose
from cocos.crypto import admin_jwt
from cocos.crypto.signing import SigningKey
from cocos.crypto.tee_key import TeeKeyPair
from cocos.errors import IntegrityError
from cocos.kbs.admin.gate import SignedTokens
from cocos.kbs.config import Settings
from cocos.stores.base import Namespace
from cocos.stores.opening import Storage
from cocos.transport.web import WebApp
from cocos.wire.kbs import protocol as kbs

START = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
SECRET = b"\x00KEK\xff" + bytes(27)
PATH = "/kbs/v0/resource/default/key/algo-key"
ALLOW = "package policy\nimport rego.v1\ndefault allow := false\nallow := true\n"
DENY = "package policy\nimport rego.v1\ndefault allow := false\n"

KEY = TeeKeyPair.generate()
OTHER_KEY = TeeKeyPair.generate()
ADMIN_KEY = ed25519.Ed25519PrivateKey.generate()
ADMIN_PEM = ADMIN_KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
ADMIN_PUBLIC = ADMIN_KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


class Clock:
    now = START

    def __call__(self) -> dt.datetime:
        return self.now

    def advance(self, **delta: float) -> None:
        self.now += dt.timedelta(**delta)


@dataclass
class World:
    """One KBS and who talks to it."""

    app: WebApp
    http: httpx.AsyncClient
    storage: Storage
    closing: contextlib.AsyncExitStack
    clock: Clock
    admin: dict[str, str]
    cookie: str | None = None
    nonce: str = ""

    async def call(
        self, method: str, path: str, *, cookie: str | None = None, **more: Any
    ) -> httpx.Response:
        headers = dict(more.pop("headers", {}))
        if cookie is not None:
            headers["Cookie"] = f"{kbs.SESSION_COOKIE}={cookie}"
        return await self.http.request(method, path, headers=headers, **more)

    async def as_admin(self, method: str, path: str, **more: Any) -> httpx.Response:
        return await self.call(method, path, headers=self.admin, **more)

    async def auth(self, **members: Any) -> httpx.Response:
        body = {"version": "0.4.0", "tee": "sample", "extra-params": "", **members}
        answer = await self.call("POST", "/kbs/v0/auth", json=body)
        if answer.status_code == 200:
            cookies = SimpleCookie(answer.headers["set-cookie"])
            self.cookie = cookies[kbs.SESSION_COOKIE].value
            self.nonce = answer.json()["nonce"]
        return answer

    def attestation(
        self,
        key: TeeKeyPair = KEY,
        *,
        bound_to: TeeKeyPair | None = None,
        nonce: str | None = None,
        bound_nonce: str | None = None,
    ) -> dict[str, Any]:
        """An attestation; evidence can be bound to another key or nonce than announced."""
        nonce = self.nonce if nonce is None else nonce
        public: kbs.TeePublicKey = msgspec.convert((bound_to or key).public_jwk(), kbs.TeePublicKey)
        bound = nonce if bound_nonce is None else bound_nonce
        digest = kbs.report_data(kbs.runtime_data(bound, public, ""))
        return {
            "runtime-data": {"nonce": nonce, "tee-pubkey": key.public_jwk()},
            "tee-evidence": {
                "primary_evidence": {
                    "svn": "1",
                    "report_data": base64.b64encode(digest).decode(),
                },
                "additional_evidence": "",
            },
        }

    async def attest(self, body: Any = None, **more: Any) -> httpx.Response:
        return await self.call(
            "POST",
            "/kbs/v0/attest",
            cookie=more.pop("cookie", self.cookie),
            json=self.attestation(**more) if body is None else body,
        )

    async def handshake(self, key: TeeKeyPair = KEY) -> str:
        assert (await self.auth()).status_code == 200
        answer = await self.attest(key=key)
        assert answer.status_code == 200, answer.text
        token: str = answer.json()["token"]
        return token

    async def get(self, path: str = PATH, **more: Any) -> httpx.Response:
        return await self.call("GET", path, cookie=more.pop("cookie", self.cookie), **more)


async def make(folder: Path, **settings: Any) -> World:
    clock = Clock()
    closing = contextlib.AsyncExitStack()
    storage = await closing.enter_async_context(storage_in(folder, clock))
    gate = SignedTokens({"alice": ADMIN_PUBLIC}, clock=clock)
    chosen = Settings(**{"insecure_allow_sample": True, **settings})
    app = await compose(chosen, storage, gate, LocalEngine(), clock=clock)
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://kbs.test")
    closing.push_async_callback(http.aclose)
    admin = {"Authorization": f"Bearer {admin_jwt.mint(ADMIN_PEM, now=START)}"}
    return World(app, http, storage, closing, clock, admin)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await make(tmp_path)
    answer = await made.as_admin("POST", PATH, content=SECRET)
    assert (answer.status_code, answer.content) == (200, b"")
    yield made
    await made.closing.aclose()


@pytest.fixture
async def strict(tmp_path: Path) -> AsyncIterator[World]:
    made = await make(tmp_path, insecure_allow_sample=False)
    yield made
    await made.closing.aclose()


def variant(answer: httpx.Response) -> str:
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["id"] == answer.headers["x-request-id"]
    return str(problem["type"]).removeprefix(kbs.PROBLEM_TYPE)


def b64(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def unb64(part: str) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=="))
    return decoded


# --- the way it is meant to go ---


@pytest.mark.parametrize(
    "algorithm", ["ECDH-ES+A256KW-P256", "ECDH-ES+A256KW-P521", "RSA-OAEP-256"]
)
async def test_a_resource_reaches_the_attested_key(world: World, algorithm: str) -> None:
    key = TeeKeyPair.generate(algorithm)
    await world.handshake(key)
    answer = await world.get()
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"protected", "encrypted_key", "iv", "ciphertext", "tag"}
    assert key.decrypt(answer.json()) == SECRET
    assert "set-cookie" not in answer.headers


async def test_the_cookie_cannot_leak(world: World) -> None:
    answer = await world.auth()
    (morsel,) = SimpleCookie(answer.headers["set-cookie"]).values()
    assert len(morsel.value) == 32
    # A proxy may have put us below a path of its own: the client's default is right.
    assert (morsel["path"], morsel["samesite"]) == ("", "strict")
    assert morsel["httponly"]
    assert morsel["secure"]
    assert morsel["expires"] == "Mon, 23 Nov 2026 12:05:00 GMT"
    attested = await world.attest()
    (again,) = SimpleCookie(attested.headers["set-cookie"]).values()
    assert (again.value, again["expires"]) == (morsel.value, morsel["expires"])


async def test_nonces_and_sessions_are_new_each_time(world: World) -> None:
    seen = set()
    for _ in range(20):
        await world.auth()
        assert len(base64.b64decode(world.nonce)) == 32
        seen |= {world.nonce, world.cookie}
    assert len(seen) == 40


async def test_the_token_says_that_it_is_insecure(world: World) -> None:
    token = await world.handshake()
    claims = unb64(token.split(".")[1])
    assert claims["submods"]["cpu0"]["ear.status"] == "affirming"
    assert claims["submods"]["cpu0"]["ear.cocos.insecure"]


async def test_a_token_works_as_bearer_and_serves_its_own_key_only(world: World) -> None:
    token = await world.handshake()
    answer = await world.call("GET", PATH, headers={"Authorization": f"Bearer {token}"})
    assert KEY.decrypt(answer.json()) == SECRET
    with pytest.raises(IntegrityError):
        OTHER_KEY.decrypt(answer.json())


async def test_a_bearer_helps_when_the_session_is_gone(world: World) -> None:
    token = await world.handshake()
    for cookie in ("f" * 32, "", "../../x"):
        answer = await world.get(cookie=cookie, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 200


# --- handshakes that must fail ---


async def test_a_nonce_is_not_replayed(world: World) -> None:
    await world.auth()
    body = world.attestation()
    assert (await world.attest(body)).status_code == 200
    again = await world.attest(body)
    assert again.status_code == 401
    assert variant(again) == "AttestationError"
    assert "used already" in again.json()["detail"]
    assert (await world.get()).status_code == 200  # the first one's session is untouched


async def test_of_two_attestations_at_once_one_is_appraised(world: World) -> None:
    await world.auth()
    answers = await asyncio.gather(*(world.attest() for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 7


async def test_a_nonce_of_another_session_is_refused(world: World) -> None:
    await world.auth()
    first = world.nonce
    await world.auth()
    answer = await world.attest(nonce=first)
    assert answer.status_code == 401
    assert "not the one of this session" in answer.json()["detail"]


@pytest.mark.parametrize("bound_nonce", ["", "A" * 44])
async def test_evidence_for_another_nonce_is_refused(world: World, bound_nonce: str) -> None:
    await world.auth()
    answer = await world.attest(bound_nonce=bound_nonce)
    assert answer.status_code == 401
    assert "not bound" in answer.json()["detail"]


async def test_a_failed_appraisal_uses_the_nonce(world: World) -> None:
    await world.auth()
    assert (await world.attest(bound_nonce="")).status_code == 401
    assert "used already" in (await world.attest()).json()["detail"]
    assert (await world.get()).status_code == 401


async def test_a_session_expires(world: World) -> None:
    await world.auth()
    world.clock.advance(minutes=5)
    answer = await world.attest()
    assert answer.status_code == 401
    assert "expired" in answer.json()["detail"]


async def test_an_attested_session_expires(world: World) -> None:
    await world.handshake()
    world.clock.advance(minutes=4, seconds=59)
    assert (await world.get()).status_code == 200
    world.clock.advance(seconds=1)
    answer = await world.get()
    assert answer.status_code == 401
    assert variant(answer) == "TokenNotFound"


async def test_a_cookie_is_useless_with_another_tee_key(world: World) -> None:
    # A thief of the cookie before the attestation: evidence speaks of the victim's key.
    await world.auth()
    answer = await world.attest(key=OTHER_KEY, bound_to=KEY)
    assert answer.status_code == 401
    assert "TEE key" in answer.json()["detail"]
    # A thief after it: no second attestation, and the answer is encrypted to the victim.
    await world.handshake()
    assert (await world.attest(key=OTHER_KEY)).status_code == 401
    stolen = await world.get()
    with pytest.raises(IntegrityError):
        OTHER_KEY.decrypt(stolen.json())


@pytest.mark.parametrize("cookie", [None, "", "f" * 32, "../" * 9, "%00"])
async def test_without_a_session_there_is_no_attestation(world: World, cookie: str | None) -> None:
    await world.auth()
    answer = await world.attest(cookie=cookie)
    assert answer.status_code == 401
    assert variant(answer) == "AttestationError"


@pytest.mark.parametrize("cookie", [r'"\000"', "F" * 32, "f" * 33, ""])
async def test_the_store_is_asked_for_nothing_but_ids_of_ours(
    world: World, monkeypatch: pytest.MonkeyPatch, cookie: str
) -> None:
    """PostgreSQL would fail on some."""
    asked, get = [], world.storage.store.get

    async def spy(namespace: Namespace, key: str) -> bytes | None:
        asked.append(key)
        return await get(namespace, key)

    monkeypatch.setattr(world.storage.store, "get", spy)
    await world.auth()
    for wanted in (cookie, "f" * 32):
        assert (await world.attest(cookie=wanted)).status_code == 401
        assert (await world.get(cookie=wanted)).status_code == 401
    assert asked == ["f" * 32] * 2


async def test_sample_evidence_is_refused_unless_allowed_by_name(strict: World) -> None:
    await strict.auth()
    answer = await strict.attest()
    assert answer.status_code == 401
    assert "--insecure-allow-sample" in answer.json()["detail"]
    assert (await strict.get()).status_code == 401


@pytest.mark.parametrize("tee", ["snp", "tdx", "nvidia", "sampledevice"])
async def test_sample_evidence_under_another_name_is_refused(world: World, tee: str) -> None:
    await world.auth(tee=tee)
    answer = await world.attest()
    if answer.status_code == 200:  # a sample device attests, but is no CPU
        assert (await world.get()).status_code != 200
    else:
        assert answer.status_code == 401


@pytest.mark.parametrize(
    "members",
    [
        {"version": "0.1.0"},
        {"version": 4},
        {"tee": "unknown"},
        {"tee": "SAMPLE"},
        {"tee": None},
    ],
    ids=str,
)
async def test_a_request_we_do_not_understand_is_400(world: World, members: dict[str, Any]) -> None:
    answer = await world.auth(**members)
    assert answer.status_code == 400
    assert variant(answer) == "AttestationError"


P384 = {"kty": "EC", "crv": "P-384", "alg": "ECDH-ES+A256KW", "x": "A" * 64, "y": "A" * 64}


@pytest.mark.parametrize(
    "key",
    [
        {**KEY.public_jwk(), "x": OTHER_KEY.public_jwk()["x"]},  # not on the curve
        {**KEY.public_jwk(), "x": ""},
        {**KEY.public_jwk(), "kty": "OKP"},
        {"kty": "RSA", "alg": "RSA1_5", "n": "AQAB", "e": "AQAB"},
        {"kty": "RSA", "alg": "RSA-OAEP-256", "n": "AQAB", "e": "AQAB"},
        {},
    ],
    # Names must not hold the key: parallel test processes have keys of their own.
    ids=["off-curve", "empty-x", "okp", "rsa1-5", "rsa-short", "empty"],
)
async def test_a_malformed_key_is_refused_at_once(world: World, key: dict[str, str]) -> None:
    await world.auth()
    body = world.attestation()
    body["runtime-data"]["tee-pubkey"] = key
    assert (await world.attest(body)).status_code == 400
    # It was not the evidence's fault: the session can still attest.
    assert (await world.attest()).status_code == 200


async def bound_to(world: World, key: dict[str, str]) -> dict[str, Any]:
    await world.auth()
    public: kbs.TeePublicKey = msgspec.convert(key, kbs.TeePublicKey)
    digest = kbs.report_data(kbs.runtime_data(world.nonce, public, ""))
    body = world.attestation()
    body["runtime-data"]["tee-pubkey"] = key
    body["tee-evidence"]["primary_evidence"]["report_data"] = base64.b64encode(digest).decode()
    return body


@pytest.mark.parametrize("change", [P384, {"alg": "ECDH-ES"}, {"crv": "secp256k1"}], ids=str)
async def test_a_key_of_another_algorithm_gets_a_token_and_no_resource(
    world: World, change: dict[str, str]
) -> None:
    key = {**KEY.public_jwk(), **change}
    answer = await world.attest(await bound_to(world, key))
    assert answer.status_code == 200
    claims = unb64(answer.json()["token"].split(".")[1])
    evidence = claims["submods"]["cpu0"]["ear.veraison.annotated-evidence"]
    assert evidence["runtime_data_claims"]["tee-pubkey"] == key
    refused = await world.get()
    assert (refused.status_code, variant(refused)) == (400, "JweError")


async def test_a_key_of_another_algorithm_is_bound_like_any(world: World) -> None:
    body = await bound_to(world, P384)
    body["runtime-data"]["tee-pubkey"] = {**P384, "alg": "ECDH-ES"}
    assert (await world.attest(body)).status_code == 401


@pytest.mark.parametrize("endpoint", ["auth", "attest"])
@pytest.mark.parametrize(
    "body", [b"", b"{", b"null", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"version":"0.4.0"}']
)
async def test_malformed_json_is_400(world: World, endpoint: str, body: bytes) -> None:
    await world.auth()
    answer = await world.call("POST", f"/kbs/v0/{endpoint}", cookie=world.cookie, content=body)
    assert answer.status_code == 400
    assert variant(answer) == "AttestationError"


@pytest.mark.parametrize("additional", ["{", "[]", '{"unknown":{}}', "null"])
async def test_malformed_device_evidence_is_400(world: World, additional: str) -> None:
    await world.auth()
    body = world.attestation()
    body["tee-evidence"]["additional_evidence"] = additional
    assert (await world.attest(body)).status_code == 400


@pytest.mark.parametrize("endpoint", ["auth", "attest", "resource/a/b/c", "resource-policy"])
async def test_ten_megabytes_are_413(world: World, endpoint: str) -> None:
    answer = await world.call(
        "POST", f"/kbs/v0/{endpoint}", headers=world.admin, content=bytes(10 * 2**20)
    )
    assert answer.status_code == 413
    variant(answer)


# --- resources that must not leave ---


async def test_without_attestation_nothing_leaves(world: World) -> None:
    answer = await world.call("GET", PATH)
    assert answer.status_code == 401
    assert variant(answer) == "TokenNotFound"
    await world.auth()
    assert (await world.get()).status_code == 401


async def test_a_token_signed_by_another_key_is_refused(world: World) -> None:
    token = await world.handshake()
    header, payload, _ = token.split(".")
    forger = SigningKey.generate()
    forged = forger.sign({"jwk": forger.public_jwk()}, unb64(payload))
    with_our_jwk = forger.sign({"jwk": unb64(header)["jwk"]}, unb64(payload))
    unsigned = f"{b64(json.dumps({'alg': 'none'}))}.{payload}."
    for bearer in (forged, with_our_jwk, unsigned, token[:-4] + "AAAA", "x", "e30="):
        answer = await world.call("GET", PATH, headers={"Authorization": f"Bearer {bearer}"})
        assert answer.status_code == 401
        assert variant(answer) == "TokenVerifierError"


async def test_a_token_expires(world: World) -> None:
    token = await world.handshake()
    world.clock.advance(minutes=7)
    answer = await world.call("GET", PATH, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 401
    assert variant(answer) == "TokenVerifierError"


async def test_an_unknown_resource_is_404(world: World) -> None:
    await world.handshake()
    answer = await world.get("/kbs/v0/resource/default/key/unknown")
    assert answer.status_code == 404
    assert variant(answer) == "PluginInternalError"
    assert "default/key/unknown" in answer.json()["detail"]


@pytest.mark.parametrize(
    "path",
    [
        "a/b",
        "a/b/c/d",
        "/a/b/c",
        "a//c",
        "%2e%2e/%2e%2e/etc",
        "a/%2e%2e/c",
        "a/..%2fb/c",
        "a%2fb%2fc%2fd",
        "a/b/c%00",
        "a/b/c%0a",
        "a/b/%c3%a4",
        ".a/b/c",
        "a/b/c%20",
    ],
)
async def test_other_paths_are_400(world: World, path: str) -> None:
    await world.handshake()
    for answer in (
        await world.get(f"/kbs/v0/resource/{path}"),
        await world.as_admin("POST", f"/kbs/v0/resource/{path}", content=b"x"),
        await world.as_admin("DELETE", f"/kbs/v0/resource/{path}"),
    ):
        assert (answer.status_code, variant(answer)) == (400, "PluginInternalError"), answer.text


async def test_the_policy_decides(world: World) -> None:
    await world.handshake()
    await set_policy(world, DENY)
    answer = await world.get()
    assert answer.status_code == 403
    assert variant(answer) == "PolicyDeny"
    # Whoever may not have it does not learn whether it exists.
    unknown = await world.get("/kbs/v0/resource/default/key/unknown")
    assert unknown.status_code == 403
    await set_policy(world, ALLOW)
    assert (await world.get()).status_code == 200


async def test_the_policy_sees_what_is_asked_for(world: World) -> None:
    await world.handshake()
    await set_policy(
        world,
        """
        package policy
        import rego.v1
        default allow := false
        allow if {
            data.plugin == "resource"
            data["resource-path"] == ["default", "key", "algo-key"]
            data.query == {"a": "b"}
            input.submods.cpu0["ear.status"] == "affirming"
            input.submods.cpu0["ear.veraison.annotated-evidence"].sample.svn == "1"
        }
        """,
    )
    assert (await world.get()).status_code == 403
    assert (await world.get(f"{PATH}?a=b")).status_code == 200
    assert (await world.get(f"{PATH}?a=b&a=c")).status_code == 400


@pytest.mark.parametrize(
    "rule", ['allow := "true"', "allow := 1", "allow := {true}", "allow := null"]
)
async def test_only_true_allows(world: World, rule: str) -> None:
    await world.handshake()
    await set_policy(world, f"package policy\nimport rego.v1\n{rule}\n")
    assert (await world.get()).status_code == 403


async def test_a_policy_that_fails_denies(world: World) -> None:
    await world.handshake()
    await set_policy(
        world,
        "package policy\nimport rego.v1\n"
        "allow := true if input.submods\nallow := 2 if input.submods\n",
    )
    assert (await world.get()).status_code == 403


async def test_the_default_policy_wants_affirming(world: World) -> None:
    text = 'package policy\nimport rego.v1\ntrust_claims := {"hardware": 97}\n'
    body = {"type": "rego", "policy_id": "default_cpu", "policy": b64(text)}
    answer = await world.as_admin("POST", "/kbs/v0/attestation-policy", json=body)
    assert answer.status_code == 200
    await world.handshake()
    assert (await world.get()).status_code == 403


async def set_policy(world: World, text: str) -> None:
    answer = await world.as_admin("POST", "/kbs/v0/resource-policy", json={"policy": b64(text)})
    assert answer.status_code == 200, answer.text


# --- administrators ---

ADMIN_ROUTES = [
    ("POST", "resource/a/b/c"),
    ("DELETE", "resource/default/key/algo-key"),
    ("POST", "resource-policy"),
    ("GET", "resource-policy"),
    ("POST", "attestation-policy"),
    ("POST", "reference-value"),
    ("GET", "reference-value/x"),
    ("GET", "denial/0123456789abcdef"),
]


@pytest.mark.parametrize(("method", "route"), ADMIN_ROUTES)
async def test_only_administrators_administer(world: World, method: str, route: str) -> None:
    token = await world.handshake()
    for authorization in ({}, {"Authorization": f"Bearer {token}"}):
        answer = await world.call(
            method, f"/kbs/v0/{route}", headers=authorization, cookie=world.cookie
        )
        assert answer.status_code == 401
        assert variant(answer) == "AdminAuthAccess"
    assert (await world.get()).status_code == 200


@pytest.mark.parametrize("token", ["e30=", "e30K"])
async def test_the_old_guide_s_token_is_refused_with_a_way_out(world: World, token: str) -> None:
    answer = await world.call(
        "POST", PATH, headers={"Authorization": f"Bearer {token}"}, content=b"x"
    )
    assert answer.status_code == 401
    assert "kbs-client admin-token" in answer.json()["hint"]
    assert "--insecure-api" in answer.json()["hint"]


async def test_an_admin_token_expires(world: World) -> None:
    world.clock.advance(hours=2, minutes=2)
    assert (await world.as_admin("POST", PATH, content=b"x")).status_code == 401


async def test_a_resource_is_not_replaced_if_the_admin_asks_so(world: World) -> None:
    headers = {**world.admin, "If-None-Match": "*"}
    answer = await world.call("POST", PATH, headers=headers, content=b"other")
    assert answer.status_code == 409
    assert await world.storage.store.get(Namespace.RESOURCE, "default/key/algo-key") == SECRET
    new = PATH.replace("algo-key", "new-key")
    assert (await world.call("POST", new, headers=headers, content=b"x")).status_code == 200


def conditional(admin: dict[str, str], *lines: tuple[str, str]) -> list[tuple[str, str]]:
    return [*admin.items(), *lines]


NEITHER = [
    [("If-None-Match", "*"), ("If-None-Match", '"x"')],
    [("If-None-Match", '"x"'), ("If-None-Match", "*")],
    [("If-None-Match", "*, *")],
    [("If-None-Match", '"x"')],
    [("If-None-Match", "")],
    [("If-Match", "*")],
    [("If-Match", '"x"')],
    [("If-Match", '"x"'), ("If-None-Match", "*")],
]


@pytest.mark.parametrize("lines", NEITHER, ids=str)
@pytest.mark.parametrize(
    ("method", "route"),
    [
        ("POST", "resource/default/key/algo-key"),
        ("DELETE", "resource/default/key/algo-key"),
        ("PUT", "resource-policy/resource/default"),
        ("POST", "resource-policy"),
        ("PUT", "attestation-policy/default_cpu"),
        ("POST", "attestation-policy"),
        ("POST", "reference-value"),
    ],
)
async def test_a_condition_is_never_passed_over(
    world: World, method: str, route: str, lines: list[tuple[str, str]]
) -> None:
    before = await world.storage.store.get(Namespace.RESOURCE, "default/key/algo-key")
    answer = await world.http.request(
        method, f"/kbs/v0/{route}", content=DENY, headers=conditional(world.admin, *lines)
    )
    assert answer.status_code == 400
    assert "If-" in answer.json()["detail"]
    assert await world.storage.store.get(Namespace.RESOURCE, "default/key/algo-key") == before
    assert await world.storage.store.keys(Namespace.RESOURCE_POLICY) == []
    # Who is not known learns nothing of it.
    stranger = await world.http.request(method, f"/kbs/v0/{route}", content=DENY, headers=lines)
    assert stranger.status_code == 401


async def test_resources_are_replaced_and_deleted(world: World) -> None:
    await world.as_admin("POST", PATH, content=b"new")
    await world.handshake()
    assert KEY.decrypt((await world.get()).json()) == b"new"
    assert (await world.as_admin("DELETE", PATH)).status_code == 200
    assert (await world.get()).status_code == 404
    assert (await world.as_admin("DELETE", PATH)).status_code == 404


@pytest.mark.parametrize("size", [0, 2 * 2**20])
async def test_any_bytes_are_a_resource(world: World, size: int) -> None:
    assert (await world.as_admin("POST", PATH, content=bytes(size))).status_code == 200
    await world.handshake()
    assert KEY.decrypt((await world.get()).json()) == bytes(size)


@pytest.mark.parametrize(
    "policy",
    ["", b64("package other"), b64("package policy\nallow {"), b64(ALLOW) + "=", "+/+/", "/w"],
)
@pytest.mark.parametrize("endpoint", ["resource-policy", "attestation-policy"])
async def test_a_policy_that_is_none_is_400(world: World, policy: str, endpoint: str) -> None:
    await world.handshake()
    answer = await world.as_admin(
        "POST", f"/kbs/v0/{endpoint}", json={"policy": policy, "policy_id": "default_cpu"}
    )
    expected = {"resource-policy": "ParsePolicyError", "attestation-policy": "AttestationError"}
    assert (answer.status_code, variant(answer)) == (400, expected[endpoint])
    assert (await world.get()).status_code == 200  # the old one still holds


async def test_reference_values(world: World) -> None:
    payload = base64.b64encode(json.dumps({"svn": ["1"], "a/b": 7}).encode()).decode()
    answer = await world.as_admin(
        "POST",
        "/kbs/v0/reference-value",
        json={"version": "0.1.0", "type": "sample", "payload": payload},
    )
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == "application/json"
    assert (await world.as_admin("GET", "/kbs/v0/reference-value/svn")).json() == ["1"]
    assert (await world.as_admin("GET", "/kbs/v0/reference-value/a/b")).json() == 7
    unknown = await world.as_admin("GET", "/kbs/v0/reference-value/unknown")
    assert unknown.status_code == 404
    assert variant(unknown) == "RvpsError"


async def test_reference_values_that_nobody_signs_can_be_switched_off(tmp_path: Path) -> None:
    extractors = {"rvps_config": {"extractors": {"sample_extractor": False}}}
    world = await make(tmp_path, attestation_service=extractors)
    message = {"type": "sample", "payload": base64.b64encode(b'{"svn":["1"]}').decode()}
    for method, path, body in (("POST", "", message), ("PUT", "/svn", ["1"])):
        answer = await world.as_admin(method, f"/kbs/v0/reference-value{path}", json=body)
        assert (answer.status_code, variant(answer)) == (501, "RvpsError")
        assert "sample_extractor" in answer.json()["hint"]
    assert (await world.as_admin("GET", "/kbs/v0/reference-value")).json() == []
    await world.closing.aclose()


async def test_policies_are_listed(world: World) -> None:
    answer = await world.as_admin("GET", "/kbs/v0/resource-policy")
    assert answer.json() == ["resource-policy"]


# --- explanations ---


async def test_a_refused_attestation_is_explained_to_administrators_only(world: World) -> None:
    await world.auth()
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        answer = await world.attest(bound_nonce="")
    denial = answer.json()["id"]
    (line,) = [line for line in lines if line["event"] == "http.failed"]
    assert line["request"] == denial
    assert "sample.report_data" in line["findings"][0]
    explained = (await world.as_admin("GET", f"/kbs/v0/denial/{denial}")).json()
    assert explained["id"] == denial
    assert explained["step"] == "POST /kbs/v0/attest"
    assert explained["time"] == "2026-11-23T12:00:00Z"
    (finding,) = explained["findings"]
    assert finding["check"] == "sample.report_data"
    assert finding["actual"] != finding["expected"]
    assert finding["expected"] not in answer.text


async def test_a_policy_s_denial_is_explained(world: World) -> None:
    await world.handshake()
    await set_policy(world, DENY)
    denial = (await world.get()).json()["id"]
    explained = (await world.as_admin("GET", f"/kbs/v0/denial/{denial}")).json()
    checks = {finding["check"]: finding for finding in explained["findings"]}
    assert checks["resource-policy"]["actual"] == "false"
    assert checks["cpu0.ear.status"]["actual"].startswith("affirming ")
    assert checks["cpu0.ear.status"]["expected"] == ""


FINDINGS = """
findings contains {"check": "who", "problem": "not you", "actual": ["a"], "expected": ["b", "c"]}
findings contains {"problem": "no check"}
findings contains 1
"""


async def test_a_policy_explains_itself(world: World) -> None:
    await world.handshake()
    for rule, shown in ((FINDINGS, ["who"]), ("findings := 1 / 0", []), ("findings := true", [])):
        await set_policy(world, f"package policy\nimport rego.v1\nallow := false\n{rule}")
        denial = (await world.get()).json()["id"]
        explained = (await world.as_admin("GET", f"/kbs/v0/denial/{denial}")).json()
        found = [each for each in explained["findings"] if each["check"] == "who"]
        assert [each["check"] for each in found] == shown
        assert all((each["actual"], each["expected"]) == ('["a"]', "b or c") for each in found)
        assert "resource-policy" in {each["check"] for each in explained["findings"]}


async def test_findings_allow_nothing_and_deny_nothing(world: World) -> None:
    await world.handshake()
    for allow, status in (("true", 200), ("false", 403)):
        text = f"package policy\nimport rego.v1\nallow := {allow}\n{FINDINGS}"
        await set_policy(world, text)
        assert (await world.get()).status_code == status


@pytest.mark.parametrize("denial", ["0123456789abcdef", "x", "0123", "..%2f..", "0" * 999])
async def test_unknown_denials_are_404(world: World, denial: str) -> None:
    assert (await world.as_admin("GET", f"/kbs/v0/denial/{denial}")).status_code == 404


async def test_explanations_end(world: World) -> None:
    await world.auth()
    denial = (await world.attest(bound_nonce="")).json()["id"]
    world.clock.advance(days=7)
    world.admin = {"Authorization": f"Bearer {admin_jwt.mint(ADMIN_PEM, now=world.clock.now)}"}
    assert (await world.as_admin("GET", f"/kbs/v0/denial/{denial}")).status_code == 404


# --- the rest of the surface ---


async def test_get_auth_says_that_the_server_is_alive(world: World) -> None:
    answer = await world.call("GET", "/kbs/v0/auth")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert "alive" in answer.json()["detail"]
    assert "POST" in answer.json()["detail"]


async def test_health_and_unknown_routes(world: World) -> None:
    assert (await world.call("GET", "/healthz")).status_code == 200
    answer = await world.call("GET", "/kbs/v0/nowhere/x")
    assert answer.status_code == 404
    assert variant(answer) == "PluginNotFound"
    assert (await world.call("POST", "/metrics")).status_code == 405


async def test_health_means_that_the_store_answers(world: World) -> None:
    await world.storage.database.write("DROP TABLE resource")
    assert (await world.call("GET", "/healthz")).status_code == 503


async def test_metrics_name_no_secret(world: World) -> None:
    await world.handshake()
    await world.get()
    await world.get("/kbs/v0/resource/default/key/unknown")
    await set_policy(world, DENY)
    await world.get()
    text = (await world.call("GET", "/metrics")).text
    assert "algo-key" not in text
    assert "unknown" not in text
    for line in (
        "kbs_auth_requests_total 1.0",
        "kbs_auth_successes_total 1.0",
        "kbs_attestation_requests_total 1.0",
        'kbs_attestation_successes_total{tee_type="sample"} 1.0',
        "kbs_resource_reads_total 1.0",
        "kbs_resource_writes_total 1.0",
        "kbs_policy_evaluations_total 3.0",
        "kbs_policy_approvals_total 2.0",
        "kbs_policy_violations_total 1.0",
    ):
        assert line in text
    assert 'route="/kbs/v0/resource/{path:path}",status="404"' in text


async def test_tokens_survive_a_restart(world: World, tmp_path: Path) -> None:
    token = await world.handshake()
    second = await make(tmp_path)
    answer = await second.call("GET", PATH, headers={"Authorization": f"Bearer {token}"})
    assert KEY.decrypt(answer.json()) == SECRET
    assert (await second.get(cookie=world.cookie)).status_code == 200
    await second.closing.aclose()


async def test_nothing_secret_is_logged(world: World) -> None:
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        await world.as_admin("POST", PATH, content=b"topsecret")
        token = await world.handshake()
        await world.get()
        await world.call("GET", PATH, headers={"Authorization": f"Bearer {token}x"})
    text = repr(lines)
    assert lines
    for secret in ("topsecret", token, world.cookie, world.admin["Authorization"]):
        assert secret is not None
        assert secret not in text
