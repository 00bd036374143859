# SPDX-License-Identifier: Apache-2.0
"""The attestation service on HTTP, as Trustee's restful-as, and agents that use it."""

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from _attestation import http_of
from _programs import running

from cocos._types import JsonObject
from cocos.clients.attestation_agent import AttestationAgent
from cocos.clients.attestation_rest import RestAttestationService
from cocos.crypto import base64url, jwk, jwt
from cocos.crypto.tee_key import TeeKeyPair
from cocos.errors import AuthenticationError, CocosError, EvidenceError, ProtocolError
from cocos.wire.json import canonical
from cocos.wire.kbs.protocol import Tee

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

BOUND: JsonObject = {"nonce": "of who sees it", "tee-pubkey": TeeKeyPair.generate().public_jwk()}
TOML = 'version = "0.1.0"\nalgorithm = "sha256"\n[data]\n"x" = "y"\n'


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    folder = tmp_path_factory.mktemp("as")
    arguments = ("--socket", f"unix:{folder}/as.sock", "--storage", folder / "storage")
    async with running(
        "grpc-as", *arguments, "--insecure-allow-sample", "--http-socket", "127.0.0.1:0"
    ) as program:
        yield http_of(program)


async def post(url: str, body: Any, route: str = "attestation") -> httpx.Response:
    async with httpx.AsyncClient() as http:
        if isinstance(body, bytes):
            return await http.post(f"{url}/{route}", content=body)
        return await http.post(f"{url}/{route}", json=body)


def asked(report_data: bytes, **members: Any) -> JsonObject:
    evidence = {"svn": "1", "report_data": base64.b64encode(report_data).decode()}
    shown = base64url.encode(json.dumps(evidence).encode())
    return {
        "verification_requests": [{"tee": "sample", "evidence": shown, **members}],
        "policy_ids": [],
    }


def structured(**members: Any) -> JsonObject:
    digest = hashlib.sha384(canonical(BOUND)).digest()
    return asked(digest, **{"runtime_data": {"structured": BOUND}, **members})


def part_of(token: str, part: str = "cpu0") -> JsonObject:
    claims = jwk.from_jwk(jwt.header_of(token)["jwk"], "the key").verify(token)
    found: JsonObject = claims["submods"][part]
    return found


def claims_of(token: str, part: str = "cpu0") -> JsonObject:
    found: JsonObject = part_of(token, part)["ear.veraison.annotated-evidence"]
    return found


async def test_what_a_client_of_restful_as_sends(url: str) -> None:
    answer = await post(url, structured(init_data={"init_data_toml": TOML}))
    assert answer.status_code == 200, answer.text
    claims = claims_of(answer.text)
    assert claims["runtime_data_claims"] == BOUND
    assert claims["init_data_claims"] == {"x": "y"}
    digest = hashlib.sha256(TOML.encode()).digest()
    assert claims["init_data"] == base64.b64encode(digest).decode()
    by_digest = {"init_data": {"init_data_digest": base64url.encode(digest)}}
    assert claims_of((await post(url, structured(**by_digest))).text)["init_data"]
    raw = asked(bytes(range(48)), runtime_data={"raw": base64url.encode(bytes(range(48)))})
    assert claims_of((await post(url, raw)).text)["runtime_data_claims"] is None
    other = hashlib.sha256(canonical(BOUND)).digest()
    named = {"runtime_data": {"structured": BOUND}, "runtime_data_hash_algorithm": "sha256"}
    assert (await post(url, asked(other, **named))).status_code == 200


async def test_what_the_public_attestation_agent_sends_is_bound_to_nothing(url: str) -> None:
    answer = await post(url, asked(b""))
    assert answer.status_code == 400
    problem = answer.json()
    assert "without runtime data" in problem["detail"]
    assert "nonce" in problem["hint"]


async def test_unbound_evidence_by_an_operators_word_only_and_by_name(tmp_path: Path) -> None:
    arguments = ("--socket", f"unix:{tmp_path}/as.sock", "--storage", tmp_path / "storage")
    flags = ("--insecure-allow-sample", "--insecure-allow-unbound-evidence")
    async with running("grpc-as", *arguments, *flags, "--http-socket", "127.0.0.1:0") as program:
        assert any("INSECURE-UNBOUND-EVIDENCE" in line for line in program.log)
        url = http_of(program)
        for nothing in (b"", bytes(32), bytes(64)):
            answer = await post(url, asked(nothing))
            assert answer.status_code == 200, answer.text
            part = part_of(answer.text)
            assert part["ear.cocos.insecure"] == ["sample", "unbound-evidence"]
            # Attestation policies see the same names, and the default ones deny.
            assert claims_of(answer.text)["insecure"] == part["ear.cocos.insecure"]
            assert part["ear.status"] == "contraindicated"
            assert part["ear.trustworthiness-vector"]["instance-identity"] == 97
        # What somebody recorded of a handshake does not pass for it.
        handshake = hashlib.sha384(canonical(BOUND)).digest()
        assert (await post(url, asked(handshake))).status_code == 401
        assert (await post(url, asked(b"", runtime_data={"raw": ""}))).status_code == 401
        assert (await post(url, asked(b"", runtime_data={"structured": {}}))).status_code == 401
        # Beside one that is bound, whoever made that would pass for this machine.
        both = asked(b"")
        both["verification_requests"] += structured()["verification_requests"]
        assert (await post(url, both)).status_code == 400
        both["verification_requests"].reverse()
        assert (await post(url, both)).status_code == 400
        assert part_of((await post(url, structured())).text)["ear.cocos.insecure"] == ["sample"]


async def test_recorded_evidence(url: str) -> None:
    other = {**BOUND, "nonce": "of somebody else"}
    stale = asked(hashlib.sha384(canonical(BOUND)).digest(), runtime_data={"structured": other})
    answer = await post(url, stale)
    assert answer.status_code == 401
    assert "expected" not in answer.text  # findings are for the operator's log


def without(*names: str) -> JsonObject:
    request = structured()
    for name in names:
        del request["verification_requests"][0][name]
    return request


RAW = base64url.encode(bytes(48))
TWICE = base64url.encode(b'{"svn": "1", "svn": "1"}')
MALFORMED: dict[str, Any] = {
    "no JSON": b"{",
    "no object": [],
    "nothing": {},
    "nobody": {"verification_requests": [], "policy_ids": []},
    "too many": {"verification_requests": structured()["verification_requests"] * 65},
    "no evidence": without("evidence"),
    "no TEE": without("tee"),
    "other TEE": structured() | {"verification_requests": [{"tee": "Sample", "evidence": "e30"}]},
    "both forms": structured(runtime_data={"raw": RAW, "structured": BOUND}),
    "neither form": structured(runtime_data={}),
    "structured text": structured(runtime_data={"structured": json.dumps(BOUND)}),
    "padded": asked(bytes(1), runtime_data={"raw": "AA=="}),
    "md5": structured(runtime_data_hash_algorithm="md5"),
    "evidence is no base64": structured(evidence="!"),
    "a name twice in evidence": structured(evidence=TWICE),
    "two init data": structured(init_data={"init_data_toml": TOML, "init_data_digest": RAW}),
    "policies are no list": structured() | {"policy_ids": "default"},
    "a name twice": b'{"verification_requests": [], "verification_requests": []}',
}


@pytest.mark.parametrize("what", MALFORMED)
async def test_malformed_requests(url: str, what: str) -> None:
    answer = await post(url, MALFORMED[what])
    assert answer.status_code == 400, answer.text


async def test_challenges_and_policies(url: str) -> None:
    nonces = {(await post(url, {"tee": "tpm", "tee_params": ""}, "challenge")).text for _ in "12"}
    assert {len(base64.b64decode(nonce)) for nonce in nonces} == {32}
    assert len(nonces) == 2
    assert (await post(url, {"tee": "se"}, "challenge")).status_code == 401
    assert (await post(url, {}, "challenge")).status_code == 400
    policy = {"policy_id": "default_cpu", "policy": base64url.encode(b"package policy")}
    assert (await post(url, policy, "policy")).status_code == 404


async def test_tokens_of_our_agent(url: str, tmp_path: Path) -> None:
    config, init_data = tmp_path / "aa.json", tmp_path / "init-data"
    init_data.write_text(TOML)
    config.write_text(json.dumps({"token_configs": {"coco_as": {"url": f"{url}/"}}}))
    flags = ("-a", f"unix://{tmp_path}/aa.sock", "-c", config, "-t", init_data)
    async with (
        running(
            "attestation-agent",
            *flags,
            "--insecure-sample",
            env={"ENABLE_SAMPLE_DEVICE": "yes"},
        ) as program,
        AttestationAgent(program.address) as agent,
    ):
        token = (await agent.get_token("coco_as", runtime_data=json.dumps(BOUND).encode())).decode()
        cpu = claims_of(token)
        assert {n: cpu["runtime_data_claims"][n] for n in BOUND} == BOUND
        assert cpu["init_data_claims"] == {"x": "y"}
        assert claims_of(token, "gpu0")["runtime_data_claims"] == BOUND
        assert claims_of((await agent.get_token("coco_as")).decode())


async def answers(url: str, folder: Path) -> CocosError:
    """What our agent says of the attestation service at ``url``."""
    config = folder / "aa.toml"
    config.write_text(f'[token_configs.coco_as]\nurl = "{url}"\n')
    flags = ("-a", f"unix:{folder}/aa.sock", "-c", config, "--insecure-sample")
    async with (
        running("attestation-agent", *flags) as program,
        AttestationAgent(program.address) as agent,
    ):
        with pytest.raises(CocosError) as caught:
            await agent.get_token("coco_as")
        return caught.value


async def test_a_service_that_refuses(tmp_path: Path) -> None:
    strict = ("--socket", "127.0.0.1:0", "--storage", tmp_path / "as")
    async with running("grpc-as", *strict, "--http-socket", "127.0.0.1:0") as program:
        for place in (http_of(program), f"grpc://{program.address}"):
            refusal = await answers(place, tmp_path)
            assert isinstance(refusal, AuthenticationError)
            assert "sample" in refusal.message
        assert "404" in (await answers(f"{http_of(program)}/kbs", tmp_path)).message
        other = await answers(f"http://{program.address}", tmp_path)
        assert "is not the attestation service" in other.message


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (500, "Verifier Error: REPORT_DATA", EvidenceError, "refuses the evidence"),
        (503, "busy\x1b[2J", ProtocolError, r"status 503: busy \[2J"),
        (200, "<html>welcome</html>", ProtocolError, "no token"),
        (200, "", ProtocolError, "no token"),
        (200, "a.b.c\n", None, "a.b.c"),
    ],
)
async def test_other_peoples_answers(
    status: int, body: str, kind: type[CocosError] | None, words: str
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"POST /as/attestation HTTP/1.1\r\n")
        writer.write(f"HTTP/1.1 {status} .\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, RestAttestationService(f"http://127.0.0.1:{port}/as") as service:
        asking = service.evaluate(Tee.SAMPLE, {}, {}, BOUND, None)
        if kind is None:
            assert await asking == words
        else:
            with pytest.raises(kind, match=words):
                await asking
