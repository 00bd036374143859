# SPDX-License-Identifier: Apache-2.0
"""What whoever reaches an attestation service can make it do with one request, counted."""

import hashlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from _attestation import attestation_server, service_in
from _costly import EVIDENCE, INIT_DATA, JSONS, KEY, ON_LOOP, affordable, logged, objects
from _meter import Meter, call
from grpc import aio

from cocos._types import JsonObject
from cocos.attestation_service.app import routes
from cocos.crypto import base64url
from cocos.transport.web import WebApp
from cocos.wire._generated import attestation_pb2 as pb
from cocos.wire._generated import attestation_pb2_grpc as pb_grpc
from cocos.wire.attestation_rpc import MAX_MESSAGE_BYTES
from cocos.wire.json import canonical

pytestmark = pytest.mark.integration

RUNTIME: JsonObject = {"nonce": "n", "tee-pubkey": KEY}
BOUND = hashlib.sha384(canonical(RUNTIME)).digest()


# --- gRPC -----------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def stub(tmp_path: Path) -> AsyncIterator[Any]:
    options = [("grpc.max_send_message_length", MAX_MESSAGE_BYTES)]
    async with (
        attestation_server(tmp_path) as address,
        aio.insecure_channel(address, options=options) as channel,
    ):
        yield pb_grpc.AttestationServiceStub(channel)


def individual(evidence: Any, **members: Any) -> pb.IndividualAttestationRequest:
    bound = {"structured_runtime_data": json.dumps(RUNTIME), **members}
    text = base64url.encode(json.dumps(evidence, separators=(",", ":")).encode())
    return pb.IndividualAttestationRequest(tee="tpm", evidence=text, **bound)


async def cost(method: Any, request: Any) -> Meter:
    """Return what a call costs that must fail, without a crash."""
    with Meter() as meter, pytest.raises(aio.AioRpcError) as caught:
        await method(request)
    assert caught.value.code() in {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.INVALID_ARGUMENT,
    }
    return meter


@pytest.mark.parametrize("name", EVIDENCE)
async def test_evidence(stub: Any, name: str) -> None:
    request = individual(EVIDENCE[name](BOUND))
    affordable(
        await cost(stub.AttestationEvaluate, pb.AttestationRequest(verification_requests=[request]))
    )


async def test_much_evidence(stub: Any) -> None:
    """As many attesters as one may name, each with logs: it grows with the message alone."""
    costs = []
    for logs in ("log of one PCR", ""):
        made = EVIDENCE[logs] if logs else logged([])
        request = individual(made(BOUND))
        shown = pb.AttestationRequest(verification_requests=[request] * 40)
        costs.append((await cost(stub.AttestationEvaluate, shown)).total)
    assert costs[0] - costs[1] < ON_LOOP


@pytest.mark.parametrize("name", INIT_DATA)
async def test_init_data(stub: Any, name: str) -> None:
    request = individual(logged([])(BOUND), init_data_toml=INIT_DATA[name])
    meter = await cost(
        stub.AttestationEvaluate, pb.AttestationRequest(verification_requests=[request])
    )
    affordable(meter)
    assert meter.total < ON_LOOP


@pytest.mark.parametrize("made", JSONS)
async def test_members(stub: Any, made: Callable[[], str]) -> None:
    text = f'{{"x":{made()}}}'
    for members in (
        {"structured_runtime_data": text},
        {"init_data_json": text},
        {"state": text},
        {"state": base64url.encode(text.encode())},
    ):
        request = individual(logged([])(BOUND), **members)
        affordable(
            await cost(
                stub.AttestationEvaluate, pb.AttestationRequest(verification_requests=[request])
            )
        )


@pytest.mark.parametrize("made", JSONS)
async def test_challenges(stub: Any, made: Callable[[], str]) -> None:
    inner = {"tee": "tpm", "tee_params": f'{{"tpm":{made()}}}'}
    affordable(await cost(stub.GetAttestationChallenge, pb.ChallengeRequest(inner=inner)))


async def test_what_is_too_much_is_never_made(stub: Any) -> None:
    """Each value of two bytes would become an object of a hundred."""
    many = "[" + "[]," * 5_000_000 + "[]]"
    meter = await cost(
        stub.GetAttestationChallenge, pb.ChallengeRequest(inner={"tee": "tpm", "tee_params": many})
    )
    affordable(meter)


# --- REST -----------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def app(tmp_path: Path) -> AsyncIterator[WebApp]:
    async with service_in(tmp_path) as (service, _):
        yield WebApp(routes(service))


def posted(evidence: Any, **members: Any) -> bytes:
    request = {
        "tee": "tpm",
        "evidence": base64url.encode(json.dumps(evidence, separators=(",", ":")).encode()),
        "runtime_data": {"structured": RUNTIME},
        **members,
    }
    return json.dumps({"verification_requests": [request]}, separators=(",", ":")).encode()


@pytest.mark.parametrize("name", EVIDENCE)
async def test_evidence_by_rest(app: WebApp, name: str) -> None:
    answer, meter = await call(app, "POST", "/attestation", body=posted(EVIDENCE[name](BOUND)))
    assert answer.status in {400, 401, 413}
    affordable(meter)


@pytest.mark.parametrize("made", JSONS)
async def test_members_by_rest(app: WebApp, made: Callable[[], str]) -> None:
    evidence = logged([])(BOUND)
    for members in (
        {"runtime_data": {"structured": {"x": json.loads(made())}}},
        {"init_data": {"init_data_json": made()}},
        {"state": made()},
    ):
        answer, meter = await call(app, "POST", "/attestation", body=posted(evidence, **members))
        assert answer.status in {400, 401, 413}
        affordable(meter)


async def test_challenges_by_rest(app: WebApp) -> None:
    body = f'{{"tee":"tpm","x":{objects()}}}'.encode()
    _, meter = await call(app, "POST", "/challenge", body=body)
    affordable(meter)
