# SPDX-License-Identifier: Apache-2.0
"""The attestation service and TPMs: challenges, what they leave, and what a token says of it."""

import base64
import datetime as dt
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from _engine import LocalEngine
from _software_tpm import SoftwareCa, SoftwareTpm

from cocos._types import JsonObject, ReportData
from cocos.attestation_service.config import AttestationServiceConfig
from cocos.attestation_service.request import AppraisalRequest, Attester
from cocos.attestation_service.service import AttestationService
from cocos.attestation_service.signing_keys import SigningKeys
from cocos.crypto import jwk, jwt
from cocos.errors import EvidenceError
from cocos.policy.appraisal import INSECURE
from cocos.stores.base import Namespace, Store
from cocos.stores.sql import SqlStore
from cocos.verifiers import verifier_table
from cocos.verifiers.tpm import Authorities
from cocos.wire.kbs.protocol import Tee, report_data

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
CA = SoftwareCa(NOW)
TPM = SoftwareTpm()
ANNOUNCED: JsonObject = {"tpm": TPM.params(CA.certificate(TPM.ek))}
BY_THE_KEY = """package policy
default hardware := 97
hardware := 2 if input.tpm.ak_trusted == "manager-ca"
trust_claims := {"hardware": hardware}
"""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await SqlStore.open(f"sqlite:///{tmp_path}/store.sqlite3", clock=lambda: NOW)
    yield opened
    await opened.close()


@pytest.fixture
def service(store: Store) -> AttestationService:
    """Believes the TPMs of one CA."""
    verifiers = verifier_table(
        insecure_allow_sample=False,
        clock=lambda: NOW,
        tpm=Authorities([CA.certificate()]),
    )
    return AttestationService(
        store,
        keys=SigningKeys(store, clock=lambda: NOW, token_lifetime=dt.timedelta(minutes=5)),
        config=AttestationServiceConfig(verbose_token=False),
        engine=LocalEngine(),
        clock=lambda: NOW,
        verifiers=verifiers,
    )


def handshake(nonce: str, secret: bytes | None, state: str | None) -> AppraisalRequest:
    runtime: JsonObject = {"nonce": nonce, "tee-pubkey": {}, "additional-evidence": ""}
    evidence = TPM.quote(report_data(runtime), secret=secret)
    return AppraisalRequest.of_handshake(Tee.TPM, evidence, {}, runtime, state=state)


async def answered(service: AttestationService) -> AppraisalRequest:
    """What a guest sends that was challenged."""
    asked = await service.demand(Tee.TPM, ANNOUNCED)
    assert asked is not None
    return handshake(asked.nonce, TPM.activate(asked.params), asked.state)


def submodules(token: str) -> Any:
    return jwk.from_jwk(jwt.header_of(token)["jwk"], "the key").verify(token)["submods"]


async def refused(service: AttestationService, request: AppraisalRequest) -> list[str]:
    with pytest.raises(EvidenceError) as caught:
        await service.appraise(request)
    return [finding.check for finding in caught.value.findings]


async def test_a_challenge_that_was_answered(service: AttestationService) -> None:
    await service.set_policy("default_cpu", BY_THE_KEY)
    appraisal = await service.appraise(await answered(service))
    assert appraisal.findings == ()
    (part,) = submodules(appraisal.token).values()
    assert part["ear.status"] == "affirming"
    assert INSECURE not in part


async def test_a_challenge_is_answered_once(service: AttestationService) -> None:
    request = await answered(service)
    await service.appraise(request)
    assert await refused(service, request) == ["tpm.state"]


async def test_without_its_state_a_challenge_proves_nothing(service: AttestationService) -> None:
    asked = await service.demand(Tee.TPM, ANNOUNCED)
    assert asked is not None
    secret = TPM.activate(asked.params)
    assert await refused(service, handshake(asked.nonce, secret, None)) == ["tpm.ak"]
    assert await refused(service, handshake("another", secret, asked.state)) == ["tpm.state"]


async def test_evidence_of_no_session_answers_no_challenge(service: AttestationService) -> None:
    """Nobody knows of which nonce it would be."""
    asked = await service.demand(Tee.TPM, ANNOUNCED)
    assert asked is not None
    bound = ReportData(hashlib.sha384(b"").digest())
    evidence = TPM.quote(bound, secret=TPM.activate(asked.params))
    attester = Attester(Tee.TPM, evidence, bound, state=asked.state)
    assert await refused(service, AppraisalRequest((attester,))) == ["tpm.state"]


async def test_a_tpm_of_nobody_is_not_challenged(service: AttestationService) -> None:
    announced = {"tpm": TPM.params(SoftwareCa(NOW, "another").certificate(TPM.ek))}
    with pytest.raises(EvidenceError) as caught:
        await service.demand(Tee.TPM, announced)
    assert [finding.check for finding in caught.value.findings] == ["tpm.ek-certificate"]


@pytest.mark.parametrize(
    ("tee", "announced"),
    [
        (Tee.TPM, {}),
        (Tee.TPM, None),
        (Tee.TPM, {"snp": {}}),
        (Tee.HYGON_DCU, {"hygondcu": {"a": 1}}),
    ],
)
async def test_who_is_asked_for_nothing_but_a_nonce(
    service: AttestationService, store: Store, tee: Tee, announced: Any
) -> None:
    assert await service.demand(tee, announced) is None
    assert await store.keys(Namespace.SESSION) == []


async def test_report_data_that_is_no_digest_of_ours(service: AttestationService) -> None:
    """A token of it shows no runtime data, also where tokens are short."""
    fingerprint = hashlib.sha256(TPM.spki).hexdigest()
    bound = ReportData(hashlib.sha384(b"whatever").digest())
    attester = Attester(Tee.TPM, TPM.quote(bound), bound)
    payload = base64.b64encode(json.dumps({"trusted_ak": [fingerprint]}).encode()).decode()
    message = {"version": "0.1.0", "type": "sample", "payload": payload}
    await service.register_reference_values(message)
    appraisal = await service.appraise(AppraisalRequest((attester,)))
    (part,) = submodules(appraisal.token).values()
    evidence = part["ear.veraison.annotated-evidence"]
    assert evidence["runtime_data_claims"] is None
    assert evidence["report_data"] == bytes(bound).hex()
