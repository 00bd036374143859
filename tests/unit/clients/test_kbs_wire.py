# SPDX-License-Identifier: Apache-2.0
"""Answers that our own key broker never gives: a broken, foreign or hostile server."""

import base64
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from _through import Through

from cocos._types import JsonObject
from cocos.attesters import InsecureSampleAttester
from cocos.clients import _http
from cocos.clients.kbs import KbsAdmin, KbsClient
from cocos.crypto import jwe
from cocos.crypto.tee_key import TeeKeyPair
from cocos.errors import (
    AccessDeniedError,
    AuthenticationError,
    CocosError,
    IntegrityError,
    NotFoundError,
    PeerError,
    ProtocolError,
    UnreachableError,
)
from cocos.wire.agent_token import AgentToken
from cocos.wire.kbs.protocol import PROBLEM_TYPE, ResourceUri

URL = "http://kbs.test"
URI = ResourceUri.parse("kbs:///default/key/1")
KEY = TeeKeyPair.generate()
NONCE = base64.b64encode(bytes(32)).decode()


def token(**claims: Any) -> str:
    payload = {"iat": 1_800_000_000, "exp": 1_800_000_300, **claims}
    text = base64.urlsafe_b64encode(json.dumps(payload).encode()).rstrip(b"=").decode()
    return f"e30.{text}.c2ln"


def problem(status: int, variant: str, **members: str) -> httpx.Response:
    body = {"type": PROBLEM_TYPE + variant, "detail": "no", **members}
    return httpx.Response(status, json=body)


class Server:
    """Plays a key broker; each step's answer can be replaced."""

    def __init__(self) -> None:
        self.calls: list[httpx.Request] = []
        cookie = "kbs-session-id=abc; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/kbs; Secure"
        self.auth = httpx.Response(
            200, json={"nonce": NONCE, "extra-params": ""}, headers={"Set-Cookie": cookie}
        )
        self.attest = httpx.Response(200, json={"token": token()})
        self.resource: Callable[[], httpx.Response] = lambda: httpx.Response(
            200, json=jwe.encrypt(b"secret", KEY.public_jwk())
        )

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.calls.append(request)
        match request.url.path:
            case "/kbs/v0/auth":
                return self.auth
            case "/kbs/v0/attest":
                return self.attest
        return self.resource()

    def count(self, end: str) -> int:
        return sum(call.url.path.endswith(end) for call in self.calls)

    def client(self) -> KbsClient:
        return KbsClient(
            URL, InsecureSampleAttester(), key=KEY, transport=Through(httpx.MockTransport(self))
        )

    async def get(self) -> bytes:
        async with self.client() as client:
            return await client.get_resource(URI)

    async def failure(self) -> CocosError:
        with pytest.raises(CocosError) as caught:
            await self.get()
        return caught.value


async def test_the_session_survives_a_wrong_date() -> None:
    # The cookie ended in 1970 as this machine's clock has it; the host may have set that.
    server = Server()
    assert await server.get() == b"secret"
    assert [call.headers.get("cookie") for call in server.calls] == [
        None,
        "kbs-session-id=abc",
        "kbs-session-id=abc",
    ]


async def test_request_and_challenge_carry_what_attester_and_kbs_say() -> None:
    class Proving(InsecureSampleAttester):
        async def auth_params(self) -> JsonObject:
            return {"tpm": {"ak_public": "AAEC"}}

        async def evidence(
            self, report_data: bytes, challenge: JsonObject | None = None, *, events: bytes = b""
        ) -> Any:
            made = await super().evidence(report_data, challenge, events=events)
            return {**made, "answer": challenge}

    server = Server()
    params = {"tpm": {"credential_blob": "AAEC"}}
    server.auth = httpx.Response(
        200, json={"nonce": NONCE, "extra-params": params}, headers=server.auth.headers
    )
    async with KbsClient(
        URL, Proving(), key=KEY, transport=Through(httpx.MockTransport(server))
    ) as client:
        await client.attest()
    auth, attest = (json.loads(call.content) for call in server.calls)
    assert auth["extra-params"] == {
        "supported-hash-algorithms": ["sha384"],
        "tpm": {"ak_public": "AAEC"},
    }
    assert attest["tee-evidence"]["primary_evidence"]["answer"] == params


async def test_an_agents_token_is_used_as_it_is_and_asked_for_each_time() -> None:
    class Agent:
        def __init__(self) -> None:
            self.asked: list[tuple[str, str]] = []

        async def kbs_token(self, url: str, *, refused: str = "") -> AgentToken:
            self.asked.append((url, refused))
            return AgentToken(token(n=len(self.asked)), KEY.pem().decode(), "abc")

    server, agent = Server(), Agent()
    async with KbsClient(
        f"{URL}/", agent, transport=Through(httpx.MockTransport(server))
    ) as client:
        assert await client.get_resource(URI) == b"secret"
        good, server.resource = server.resource, lambda: problem(401, "TokenNotFound")
        with pytest.raises(AuthenticationError):
            await client.get_resource(URI)
        server.resource = good
        assert await client.get_resource(URI) == b"secret"
    assert agent.asked == [(URL, ""), (URL, ""), (URL, token(n=2)), (URL, "")]
    assert server.count("auth") == server.count("attest") == 0
    assert {call.headers["cookie"] for call in server.calls} == {"kbs-session-id=abc"}


async def test_what_the_guest_components_send() -> None:
    server = Server()
    await server.get()
    auth, attest, _ = server.calls
    assert json.loads(auth.content) == {
        "version": "0.4.0",
        "tee": "sample",
        "extra-params": {"supported-hash-algorithms": ["sha384"]},
    }
    body = json.loads(attest.content)
    assert body["init-data"] is None
    assert body["runtime-data"] == {"nonce": NONCE, "tee-pubkey": KEY.public_jwk()}
    assert body["tee-evidence"]["additional_evidence"] == ""
    assert body["tee-evidence"]["primary_evidence"].keys() == {"svn", "report_data"}


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, content=b""),
        httpx.Response(200, content=b"<html>"),
        httpx.Response(200, json={"extra-params": ""}),
        httpx.Response(200, json={"nonce": 7}),
        httpx.Response(200, json=[NONCE]),
        httpx.Response(200, content=b'{"nonce":' + b"[" * 100_000),
        httpx.Response(200, content=b'{"nonce":"\xff"}'),
        httpx.Response(
            200, json={"nonce": NONCE, "extra-params": {"selected-hash-algorithm": "sha512"}}
        ),
        httpx.Response(200, json={"nonce": NONCE, "extra-params": {"selected-hash-algorithm": 1}}),
        httpx.Response(200, json={"nonce": NONCE}),
        httpx.Response(200, json={"nonce": NONCE}, headers={"Set-Cookie": "other=abc"}),
        httpx.Response(
            200, json={"nonce": NONCE}, headers=[(b"Set-Cookie", b"kbs-session-id=\xe9")]
        ),
        httpx.Response(
            200, json={"nonce": NONCE}, headers={"Set-Cookie": "kbs-session-id=\x07; \x1b=2"}
        ),
        httpx.Response(204),
        httpx.Response(302, headers={"Location": "http://elsewhere.test/"}),
        httpx.Response(500, content=b"<html>fault</html>"),
    ],
)
async def test_a_challenge_that_is_none(answer: httpx.Response) -> None:
    server = Server()
    server.auth = answer
    error = await server.failure()
    assert isinstance(error, ProtocolError)
    assert len(server.calls) == 1


@pytest.mark.parametrize(
    "text", ["", "no-jwt", "a.b", "e30.e30.", "e30.!!!.x", "e30.W10.x", token(exp="soon")]
)
async def test_a_token_that_is_none(text: str) -> None:
    server = Server()
    server.attest = httpx.Response(200, json={"token": text})
    error = await server.failure()
    assert isinstance(error, ProtocolError)
    assert server.count("/1") == 0


async def test_a_token_without_lifetime_is_used_for_one_call_only() -> None:
    server = Server()
    server.attest = httpx.Response(200, json={"token": token(exp=1_700_000_000)})
    async with server.client() as client:
        await client.get_resource(URI)
        await client.get_resource(URI)
    assert server.count("/auth") == 2


async def test_a_resource_for_another_key() -> None:
    server = Server()
    server.resource = lambda: httpx.Response(
        200, json=jwe.encrypt(b"secret", TeeKeyPair.generate().public_jwk())
    )
    error = await server.failure()
    assert isinstance(error, IntegrityError)
    assert "secret" not in error.message


@pytest.mark.parametrize(
    "change",
    [
        {"ciphertext": "AAAA"},
        {"tag": "AAAAAAAAAAAAAAAAAAAAAA"},
        {"encrypted_key": "A" * 54},
    ],
)
async def test_a_tampered_resource(change: dict[str, str]) -> None:
    server = Server()
    sealed = jwe.encrypt(b"secret", KEY.public_jwk())
    server.resource = lambda: httpx.Response(200, json=sealed | change)
    assert isinstance(await server.failure(), IntegrityError)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"secret in clear",
        b'{"protected":"e30","encrypted_key":"","iv":"","ciphertext":"","tag":""}',
        b'{"protected":"!","encrypted_key":"","iv":"","ciphertext":"","tag":""}',
    ],
)
async def test_a_resource_that_is_no_jwe(body: bytes) -> None:
    server = Server()
    server.resource = lambda: httpx.Response(200, content=body)
    assert isinstance(await server.failure(), ProtocolError)


async def test_no_retry_storm_when_no_session_is_ever_good_enough() -> None:
    server = Server()
    server.resource = lambda: problem(401, "TokenNotFound")
    assert isinstance(await server.failure(), AuthenticationError)
    assert server.count("/auth") == 2
    assert server.count("/1") == 2


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        # Trustee answers 401 to all of these.
        (problem(401, "PolicyDeny"), AccessDeniedError),
        (problem(401, "PolicyEngineError"), AccessDeniedError),
        (problem(401, "PluginInternalError"), PeerError),
        (problem(404, "PluginNotFound"), NotFoundError),
        (problem(403, "Other"), AccessDeniedError),
        (problem(503, "Other"), UnreachableError),
        (problem(418, "Other"), ProtocolError),
        (httpx.Response(401, content=b"<html>"), ProtocolError),
        (httpx.Response(404, content=b"not found"), ProtocolError),
        (httpx.Response(307, headers={"Location": "http://elsewhere.test/"}), ProtocolError),
    ],
)
async def test_a_refusal_is_final(answer: httpx.Response, kind: type[CocosError]) -> None:
    server = Server()
    server.resource = lambda: answer
    error = await server.failure()
    assert type(error) is kind
    assert URL in error.message
    assert server.count("/auth") == 1
    assert server.count("/1") == 1


async def test_a_strangers_words_cannot_drive_the_terminal() -> None:
    server = Server()
    server.resource = lambda: problem(
        403, "PolicyDeny", detail="\x1b[2Jno\r\nforged line\u202e", hint="\x07ask", id="a\x1bb"
    )
    error = await server.failure()
    shown = f"{error.message}{error.hint}"
    assert shown.isprintable()
    assert "forged line" in error.message
    assert "ask" in (error.hint or "")


async def test_an_answer_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_http, "MAX_ANSWER_BYTES", 1000)
    server = Server()
    server.resource = lambda: httpx.Response(200, content=b" " * 1001)
    error = await server.failure()
    assert isinstance(error, ProtocolError)
    assert "1000 bytes" in error.message


async def test_the_admins_token_is_in_no_message() -> None:
    transport = Through(httpx.MockTransport(lambda _request: httpx.Response(500, content=b"oops")))
    async with KbsAdmin(URL, token="the-token", transport=transport) as admin:
        with pytest.raises(ProtocolError) as caught:
            await admin.set_resource_policy("package policy")
    assert "the-token" not in f"{caught.value!r}{caught.value.hint}{caught.value.__cause__}"
