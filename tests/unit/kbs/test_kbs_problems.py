# SPDX-License-Identifier: Apache-2.0
"""How the key broker words what it refuses: Trustee's types, and details that begin like its."""

import base64
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from _kbs import URL, InProcessKbs, kbs_in_process

from cocos.crypto import admin_jwt
from cocos.crypto.signing import SigningKey
from cocos.crypto.tee_key import TeeKeyPair
from cocos.wire.kbs.protocol import PROBLEM_TYPE, ResourcePath

BLANK: Final = "about:blank"
ALLOW: Final = "package policy\nallow := true\n"
DENY: Final = "package policy\nallow := false\n"
FAILS: Final = "package policy\nallow := true if input.submods\nallow := 2 if input.submods\n"
P384: Final = {"kty": "EC", "crv": "P-384", "alg": "ECDH-ES+A256KW", "x": "A" * 64, "y": "A" * 64}
NONE: Final = base64.urlsafe_b64encode(b"package other").rstrip(b"=").decode()

ADMIN: Final = "admin access denied for endpoint "
AUTH: Final = "Attestation error: RCAR handshake Auth failed: "
ATTEST: Final = "Attestation error: RCAR handshake Attest failed: "
PARSE: Final = "Failed to parse policy: "
PLUGIN: Final = "Plugin internal error: "
RVPS: Final = "RVPS configuration failed: "


class Asking:
    """A KBS and those who ask it: a stranger, a guest with a token, the administrator."""

    def __init__(self, kbs: InProcessKbs, http: httpx.AsyncClient, signer: SigningKey) -> None:
        self.kbs = kbs
        self._http = http
        self._signer = signer

    def token(self, key: dict[str, Any]) -> str:
        submods = {"cpu0": {"ear.status": "affirming"}}
        claims = {"exp": self.kbs.now.timestamp() + 60, "submods": submods, "tee-pubkey": key}
        return self._signer.sign({}, claims)

    async def ask(self, who: str, request: str, body: Any = None) -> tuple[int, str, str]:
        method, path = request.split()
        bearer: dict[str, Callable[[], str]] = {
            "admin": lambda: admin_jwt.mint(self.kbs.admin_key, now=self.kbs.now),
            "guest": lambda: self.token(TeeKeyPair.generate().public_jwk()),
            "p384": lambda: self.token(P384),
            "forger": lambda: "a.b.c",
        }
        headers = {"Authorization": f"Bearer {bearer[who]()}"} if who in bearer else {}
        content = body if isinstance(body, str) else json.dumps(body)
        answer = await self._http.request(method, path, headers=headers, content=content)
        problem = answer.json()
        kind = str(problem["type"]).removeprefix(PROBLEM_TYPE)
        return answer.status_code, kind, problem["detail"]


@pytest.fixture
async def asking(tmp_path: Path) -> AsyncIterator[Asking]:
    signer = SigningKey.generate()
    keys = tmp_path / "jwks.json"
    keys.write_text(json.dumps({"keys": [signer.public_jwk()]}))
    async with contextlib.AsyncExitStack() as stack:
        kbs = await stack.enter_async_context(
            kbs_in_process(tmp_path / "kbs", trusted_jwk_sets=(str(keys),))
        )
        async with kbs.admin() as admin:
            await admin.set_resource(ResourcePath.parse("a/b/c"), b"secret")
            await admin.set_resource_policy(ALLOW, "resource/a")
            await admin.set_resource_policy(DENY, "resource/denies")
            await admin.set_resource_policy(FAILS, "resource/fails")
        http = httpx.AsyncClient(transport=kbs.transport(), base_url=URL)
        await stack.enter_async_context(http)
        yield Asking(kbs, http, signer)


GET, POLICY, RULES = "GET /kbs/v0", "/kbs/v0/resource-policy", "/kbs/v0/attestation-policy"
SET_RULES = "Attestation error: Set Attestation Policy failed: "
TABLE: Final[list[tuple[str, str, Any, int, str, str]]] = [
    # guests
    ("", "POST /kbs/v0/auth", {}, 400, "AttestationError", AUTH),
    ("", "POST /kbs/v0/attest", {}, 401, "AttestationError", ATTEST),
    ("", f"{GET}/auth", None, 405, "AttestationError", "the key broker service is alive"),
    ("", f"{GET}/resource/a/b/c", None, 401, "TokenNotFound", "Attestation Token not found"),
    ("forger", f"{GET}/resource/a/b/c", None, 401, "TokenVerifierError", "Token Verifier error: "),
    ("guest", f"{GET}/resource/denies/b/c", None, 403, "PolicyDeny", "Access denied by policy"),
    ("guest", f"{GET}/resource/fails/b/c", None, 403, "PolicyEngineError", "Policy engine error"),
    ("p384", f"{GET}/resource/a/b/c", None, 400, "JweError", "JWE failed: nothing is encrypted to"),
    ("guest", f"{GET}/resource/a/b/d", None, 404, "PluginInternalError", f"{PLUGIN}there is no"),
    ("guest", f"{GET}/resource/a/b", None, 400, "PluginInternalError", PLUGIN),
    # administrators
    ("", "POST /kbs/v0/resource/a/b/c", "x", 401, "AdminAuthAccess", f"{ADMIN}resource: "),
    ("", f"GET {POLICY}", None, 401, "AdminAuthAccess", f"{ADMIN}resource-policy: "),
    ("", f"GET {RULES}", None, 401, "AdminAuthAccess", f"{ADMIN}attestation-policy: "),
    ("", f"{GET}/reference-value/x", None, 401, "AdminAuthAccess", f"{ADMIN}reference-value: "),
    ("", f"{GET}/audit", None, 401, "AdminAuthAccess", f"{ADMIN}audit: "),
    ("", f"{GET}/denial/x", None, 401, "AdminAuthAccess", f"{ADMIN}denial: "),
    ("admin", "DELETE /kbs/v0/resource/a/b/d", None, 404, "PluginInternalError", PLUGIN),
    ("admin", f"POST {POLICY}", {"policy": NONE}, 400, "ParsePolicyError", PARSE),
    ("admin", f"POST {POLICY}", {}, 400, "ParsePolicyError", PARSE),
    ("admin", f"PUT {POLICY}/resource/x", "package other", 400, "ParsePolicyError", PARSE),
    ("admin", f"GET {POLICY}/resource/x", None, 404, BLANK, "there is no resource policy"),
    ("admin", f"DELETE {POLICY}/resource/x", None, 404, BLANK, "no resource policy"),
    ("admin", f"PATCH {POLICY}", None, 405, BLANK, "PATCH is not possible"),
    ("admin", f"POST {RULES}", {}, 400, "AttestationError", SET_RULES),
    ("admin", f"PUT {RULES}/default_cpu", "package other", 400, "AttestationError", SET_RULES),
    ("admin", f"GET {RULES}/x", None, 404, BLANK, "there is no attestation policy"),
    ("admin", f"DELETE {RULES}/x", None, 404, BLANK, "no attestation policy"),
    ("admin", f"{GET}/reference-value/x", None, 404, "RvpsError", RVPS),
    ("admin", "POST /kbs/v0/reference-value", {}, 400, "RvpsError", RVPS),
    ("admin", f"{GET}/audit?after=x", None, 400, BLANK, "after is not a number"),
    ("admin", f"{GET}/denial/x", None, 404, BLANK, "nothing was denied"),
    # everybody
    ("", f"{GET}/nowhere/x", None, 404, "PluginNotFound", "Plugin nowhere not found"),
    ("", f"{GET}/nowhere%0a", None, 400, BLANK, "the path has characters"),
    ("", "GET /nowhere", None, 404, BLANK, "there is nothing at /nowhere"),
    ("", "GET /kbs/v0", None, 404, BLANK, "there is nothing at /kbs/v0"),
    ("", "POST /metrics", None, 405, BLANK, "POST is not possible at /metrics"),
    ("", "POST /healthz", None, 405, BLANK, "POST is not possible at /healthz"),
]


@pytest.mark.parametrize("case", TABLE, ids=lambda case: f"{case[0]} {case[1]} {case[3]}".strip())
async def test_type_and_detail(asking: Asking, case: tuple[str, str, Any, int, str, str]) -> None:
    who, request, body, *expected, detail = case
    status, kind, said = await asking.ask(who, request, body)
    assert [status, kind] == expected, said
    assert said.startswith(detail)


BROKEN = [
    ("", "GET /healthz", BLANK),
    ("admin", f"GET {POLICY}/resource/x", BLANK),
    ("admin", f"DELETE {POLICY}/resource/x", BLANK),
    ("admin", f"GET {RULES}/x", BLANK),
    ("guest", f"{GET}/resource/a/b/c", "PluginInternalError"),
]


async def test_a_storage_that_fails_is_nobody_s_policy(asking: Asking) -> None:
    assert asking.kbs.storage is not None
    for table in ("resource", "resource_policy", "attestation_policy"):
        await asking.kbs.storage.database.write(f"DROP TABLE {table}")
    for who, request, expected in BROKEN:
        status, kind, said = await asking.ask(who, request)
        assert (status, kind) == (503, expected), request
        assert said.removeprefix(PLUGIN).startswith("the storage")
