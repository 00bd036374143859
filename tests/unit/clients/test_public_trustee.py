# SPDX-License-Identifier: Apache-2.0
"""Our client at a public Trustee of every release that matters (kbs.md §2, §19)."""

import json
from typing import Any

import httpx
import msgspec
import pytest
import structlog
from _through import Through
from _trustee import URL, Trustee, refuse

from cocos._patience import Patience, Wait, may_pass
from cocos._types import JsonObject
from cocos.attestation_agent.machine import Machine
from cocos.attestation_agent.service import AttestationAgent
from cocos.attestation_agent.tokens import KbsTokens
from cocos.attesters import InsecureSampleAttester
from cocos.attesters.sample_device import InsecureSampleDevice
from cocos.clients.kbs import KbsClient
from cocos.crypto.tee_key import EC_P521, RSA, RSA_EARLY, TeeKeyPair
from cocos.errors import (
    AccessDeniedError,
    AuthenticationError,
    CocosError,
    NotFoundError,
    PeerError,
    TooManyRequestsError,
    UnreachableError,
    UnsupportedError,
)
from cocos.wire.agent_token import AgentToken
from cocos.wire.kbs.generations import Generation
from cocos.wire.kbs.protocol import InitData, ResourceUri

PATH = "default/key/1"
URI = ResourceUri.parse(f"kbs:///{PATH}")
# joserfc, of which the peer is made, warns of RSA1_5.
pytestmark = pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")

SECRET = b"\x00KEK\xff" + bytes(27)
EARLY_KEY = TeeKeyPair.generate(RSA_EARLY)


def client(trustee: Any, **more: Any) -> KbsClient:
    attester = more.pop("attester", None) or InsecureSampleAttester()
    if more.get("oldest") is Generation.V0_1_1:
        more.setdefault("key", EARLY_KEY)  # making one takes long
    return KbsClient(URL, attester, transport=Through(httpx.MockTransport(trustee)), **more)


def trustee(version: str, **more: Any) -> Trustee:
    return Trustee(version, resources={PATH: SECRET}, **more)


async def failure(peer: Any, **more: Any) -> CocosError:
    async with client(peer, **more) as guest:
        with pytest.raises(CocosError) as caught:
            await guest.get_resource(URI)
    return caught.value


@pytest.mark.parametrize("algorithm", [EC_P521, RSA])
@pytest.mark.parametrize("version", ["0.2.0", "0.4.0"])
async def test_a_resource(version: str, algorithm: str) -> None:
    peer = trustee(version)
    async with client(peer, key_algorithm=algorithm) as guest:
        assert await guest.get_resource(URI) == SECRET
        assert await guest.get_resource(URI) == SECRET
    assert peer.versions() == (["0.4.0"] if version == "0.4.0" else ["0.4.0", "0.2.0"])


async def test_a_resource_of_0_1_1() -> None:
    peer = trustee("0.1.1")
    async with client(peer, oldest=Generation.V0_1_1, key=None) as guest:
        assert await guest.get_resource(URI) == SECRET
    assert peer.versions() == ["0.4.0", "0.2.0", "0.1.1"]
    assert peer.attestation()["tee-pubkey"]["alg"] == "RSA1_5"


async def test_a_refusal_without_a_reason_is_tried_in_an_older_version() -> None:
    async with client(trustee("0.2.0", silent=True)) as guest:
        assert await guest.get_resource(URI) == SECRET


async def test_an_older_version_is_loud() -> None:
    with structlog.testing.capture_logs() as lines:
        async with client(trustee("0.2.0")) as guest:
            await guest.attest()
    (line,) = [line for line in lines if line["event"] == "kbs.older-protocol"]
    assert (line["log_level"], line["protocol"]) == ("warning", "0.2.0")


async def test_every_handshake_begins_with_the_newest_version() -> None:
    # Whoever refused it once on the way has no lasting effect.
    peer = trustee("0.2.0")
    async with client(peer) as guest:
        session = await guest.session()
        peer.version = "0.4.0"
        await guest.session(ended=session)
    assert peer.versions() == ["0.4.0", "0.2.0", "0.4.0"]


# --- nothing is given up because somebody on the way asks for it ---


async def test_rsa1_5_only_by_name() -> None:
    peer = trustee("0.1.1")
    error = await failure(peer)
    assert isinstance(error, AuthenticationError)
    assert "--oldest-protocol 0.1.1" in (error.hint or "")
    assert peer.versions() == ["0.4.0", "0.2.0"]


class WithDevice(InsecureSampleAttester):
    devices = (InsecureSampleDevice(),)


INIT_DATA = InitData("toml", 'version = "0.1.0"\nalgorithm = "sha256"\n[data]\n')


@pytest.mark.parametrize(
    ("more", "lost"),
    [({"attester": WithDevice()}, "devices"), ({"init_data": INIT_DATA}, "init data")],
    ids=["devices", "init-data"],
)
@pytest.mark.parametrize("version", ["0.1.1", "0.2.0"])
async def test_devices_and_init_data_are_given_up_only_by_name(
    version: str, more: JsonObject, lost: str
) -> None:
    oldest = Generation(version)
    if oldest is Generation.V0_2_0:
        peer = trustee(version)
        error = await failure(peer, **more)
        assert isinstance(error, UnsupportedError)
        assert lost in error.message
        assert "attest" not in [path for _, path, _ in peer.requests]
    with structlog.testing.capture_logs() as lines:
        async with client(trustee(version), oldest=oldest, **more) as guest:
            assert await guest.get_resource(URI) == SECRET
    assert [line["lost"] for line in lines if line["event"] == "kbs.not-shown"] == [[lost]]


async def test_devices_and_init_data_reach_0_4_0() -> None:
    peer = trustee("0.4.0")
    async with client(peer, attester=WithDevice(), init_data=INIT_DATA) as guest:
        assert await guest.get_resource(URI) == SECRET
    assert set(json.loads(peer.attestation()["tee-evidence"]["additional_evidence"])) == {
        "sampledevice"
    }
    assert peer.attestation()["init-data"]["body"] == INIT_DATA.body


async def test_a_kbs_of_the_newest_version_is_never_asked_in_an_older_one() -> None:
    def refusing(_request: httpx.Request) -> httpx.Response:
        calls.append(1)
        return refuse("AttestationError", "Attestation error: RCAR handshake Auth failed: no TEE")

    calls: list[int] = []
    error = await failure(refusing, oldest=Generation.V0_1_1)
    assert "no TEE" in error.message
    assert calls == [1]


async def test_whoever_refuses_every_version_is_believed_in_the_end() -> None:
    error = await failure(trustee("0.5.0"), oldest=Generation.V0_1_1)
    assert "expect =0.5.0" in error.message


async def test_a_key_of_one_s_own_that_the_version_cannot_use() -> None:
    error = await failure(trustee("0.1.1"), key=TeeKeyPair.generate(), oldest=Generation.V0_1_1)
    assert isinstance(error, UnsupportedError)
    async with client(trustee("0.1.1"), key=EARLY_KEY, oldest=Generation.V0_1_1) as guest:
        assert await guest.get_resource(URI) == SECRET


async def test_an_agent_hands_on_what_its_session_speaks() -> None:
    peer = trustee("0.1.1")

    class Agent:
        async def kbs_token(self, url: str, *, refused: str = "") -> AgentToken:
            assert (url, refused) == (URL, "")
            return msgspec.json.decode(await agent.token(f"kbs::{url}"), type=AgentToken)

    async with KbsTokens(lambda _url: client(peer, oldest=Generation.V0_1_1)) as tokens:
        agent = AttestationAgent(Machine(InsecureSampleAttester(), None), tokens)
        async with KbsClient(URL, Agent(), transport=Through(peer.transport())) as provider:
            assert await provider.get_resource(URI) == SECRET


# --- Trustee says 401 to everything ---


@pytest.mark.parametrize(
    ("version", "kind"), [("0.1.1", NotFoundError), ("0.2.0", PeerError), ("0.4.0", PeerError)]
)
async def test_a_resource_that_does_not_exist(version: str, kind: type[CocosError]) -> None:
    peer = Trustee(version)
    error = await failure(peer, oldest=Generation.V0_1_1)
    assert type(error) is kind
    assert [path for _, path, _ in peer.requests].count(f"resource/{PATH}") == 1
    if kind is PeerError:
        assert "does it exist?" in (error.hint or "")


@pytest.mark.parametrize("version", Generation)
async def test_a_denial_is_final(version: str) -> None:
    peer = trustee(version, denies=True)
    error = await failure(peer, oldest=Generation.V0_1_1)
    assert isinstance(error, AccessDeniedError)
    assert [path for _, path, _ in peer.requests].count("attest") == 1


@pytest.mark.parametrize("version", Generation)
async def test_a_session_that_ended_is_renewed_once(version: str) -> None:
    peer = trustee(version)
    async with client(peer, oldest=Generation.V0_1_1) as guest:
        await guest.get_resource(URI)
        peer.key = None
        assert await guest.get_resource(URI) == SECRET
    assert [path for _, path, _ in peer.requests].count("attest") == 2


@pytest.mark.parametrize("version", Generation)
async def test_evidence_that_does_not_hold(version: str) -> None:
    class Replayer(InsecureSampleAttester):
        async def evidence(
            self, report_data: bytes, challenge: JsonObject | None = None, *, events: bytes = b""
        ) -> Any:
            return await super().evidence(bytes(len(report_data)), challenge, events=events)

    error = await failure(trustee(version), attester=Replayer(), oldest=Generation.V0_1_1)
    assert isinstance(error, AuthenticationError)


# --- a busy KBS ---


@pytest.mark.parametrize(
    ("after", "wait"),
    [("0", 0), ("3600", 3600), ("soon", None), ("nan", None), ("inf", None), ("-1", None)],
)
@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_a_busy_kbs_says_when(after: str, wait: float | None, status: int) -> None:
    def busy(_request: httpx.Request) -> httpx.Response:
        calls.append(1)
        answer = refuse("AttestationError", "too many handshakes", status)
        answer.headers["Retry-After"] = after
        return answer

    calls: list[int] = []
    error = await failure(busy)
    assert isinstance(error, TooManyRequestsError if status == 429 else UnreachableError)
    assert may_pass(error)
    assert error.retry_after == (1.0 if wait is None and status == 429 else wait)
    assert len(calls) == 1, "who asks knows whether it is worth a wait"


async def test_a_kbs_that_was_busy() -> None:
    peer = trustee("0.4.0")
    busy = [refuse("AttestationError", "too many", 429) for _ in range(2)]
    for answer in busy:
        answer.headers["Retry-After"] = "0"

    def first_busy(request: httpx.Request) -> httpx.Response:
        return busy.pop() if busy else peer(request)

    waits: list[Wait] = []
    patience = Patience(60, tell=waits.append, jitter=lambda: 0)
    async with client(first_busy) as guest:
        assert await patience.ask(lambda: guest.get_resource(URI)) == SECRET
    assert [each.first for each in waits] == [True, False]
