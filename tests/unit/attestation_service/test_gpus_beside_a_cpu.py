# SPDX-License-Identifier: Apache-2.0
"""Composite evidence: a machine and the GPUs of one attester, a submodule for each."""

import base64
import datetime as dt
import json
from typing import Any

import pytest
from _engine import LocalEngine
from _nvidia import FWID, MEASUREMENTS, NOW, OPAQUE, ROOT, Gpu, report

from cocos._types import JsonObject
from cocos.attestation_service.config import AttestationServiceConfig
from cocos.attestation_service.request import AppraisalRequest
from cocos.attestation_service.service import AttestationService
from cocos.attestation_service.signing_keys import SigningKeys
from cocos.crypto import jwk, jwt
from cocos.crypto.tee_key import TeeKeyPair
from cocos.errors import EvidenceError
from cocos.policy import defaults
from cocos.policy.appraisal import INSECURE
from cocos.policy.documents import BaseDocuments
from cocos.policy.engine import Policy
from cocos.stores.base import Store
from cocos.verifiers import NvidiaVerifier, VerifierTable
from cocos.verifiers.sample import InsecureSampleDeviceVerifier, InsecureSampleVerifier
from cocos.wire.kbs.protocol import Tee, report_data

TEE_JWK = TeeKeyPair.generate().public_jwk()
DATA: JsonObject = {"nonce": "nonce", "tee-pubkey": TEE_JWK}
BOUND = report_data(DATA)
VALUES: JsonObject = {
    "nvidia_measurements": [{str(index): each.hex() for index, each in MEASUREMENTS.items()}],
    "allowed_vbios_versions": ["96.00.9f.00.01"],
    "allowed_driver_versions": ["550.90.07"],
}


@pytest.fixture
def clock() -> Any:
    return lambda: NOW


@pytest.fixture(params=[False])
async def service(store: Store, request: pytest.FixtureRequest) -> AttestationService:
    gpus = NvidiaVerifier(clock=lambda: NOW, insecure_root=ROOT)
    gpus.insecure = request.param  # as if the root were NVIDIA's, unless a test asks
    verifiers = (InsecureSampleVerifier(), InsecureSampleDeviceVerifier(), gpus)
    made = AttestationService(
        store,
        keys=SigningKeys(store, clock=lambda: NOW, token_lifetime=dt.timedelta(minutes=5)),
        config=AttestationServiceConfig(insecure_allow_sample=True),
        engine=LocalEngine(),
        clock=lambda: NOW,
        verifiers=VerifierTable({each.kind: each for each in verifiers}),
    )
    payload = base64.b64encode(json.dumps(VALUES).encode()).decode()
    await made.register_reference_values({"type": "sample", "payload": payload})
    return made


def sample(data: JsonObject, svn: str) -> JsonObject:
    return {"svn": svn, "report_data": base64.b64encode(report_data(data)).decode()}


def request(*gpus: JsonObject, **more: JsonObject) -> AppraisalRequest:
    devices: dict[Tee, Any] = {Tee(name): each for name, each in more.items()}
    devices[Tee.NVIDIA] = {"device_evidence_list": list(gpus)}
    primary = {**DATA, "additional-evidence": json.dumps(devices)}
    return AppraisalRequest.of_handshake(
        tee=Tee.SAMPLE, evidence=sample(primary, "1"), runtime_data=primary, additional=devices
    )


async def submodules(service: AttestationService, asked: AppraisalRequest) -> tuple[Any, Any]:
    token = (await service.appraise(asked)).token
    claims = jwk.from_jwk(jwt.header_of(token)["jwk"], "the key").verify(token)
    policy = Policy(defaults.text(defaults.RESOURCE))
    base = BaseDocuments.of({}, lapsed=frozenset(), operator={})
    return claims["submods"], policy.evaluate(("allow",), claims, base=base)["allow"]


async def test_every_gpu_has_its_own_submodule(service: AttestationService) -> None:
    gpus = [Gpu(serial=number).evidence(BOUND) for number in "789"]
    found, allowed = await submodules(service, request(*gpus, sampledevice=sample(DATA, "2")))
    assert sorted(found) == ["cpu0", "gpu0", "gpu1", "gpu2", "gpu3"]
    claimed = [each["ear.veraison.annotated-evidence"] for each in found.values()]
    serials = [each["nvidia"]["device_serial"] for each in claimed if "nvidia" in each]
    assert serials == ["7", "8", "9"]
    assert {each["ear.status"] for each in found.values()} == {"affirming"}
    assert allowed is True


@pytest.mark.parametrize("service", [True], indirect=True)
async def test_a_root_that_is_not_the_maker_s(service: AttestationService) -> None:
    gpus = [Gpu(serial=number).evidence(BOUND) for number in "12"]
    found, allowed = await submodules(service, request(*gpus))
    for name in ("gpu0", "gpu1"):
        assert found[name][INSECURE] == ["nvidia"]
        assert found[name]["ear.status"] == "contraindicated"
    assert allowed is False


async def test_one_gpu_that_is_not_as_registered_denies(service: AttestationService) -> None:
    other = Gpu(serial="2")
    for changes in (
        {"measurements": {**MEASUREMENTS, 2: b"\x23" * 48}},
        {"opaque": {**OPAQUE, 3: b"550.90.08\0"}},
        {"opaque": {20: FWID}},
    ):
        made: Any = report(other.key, BOUND, **changes)
        bad = other.evidence(BOUND, evidence=base64.b64encode(made).decode())
        found, allowed = await submodules(service, request(Gpu().evidence(BOUND), bad))
        assert found["gpu0"]["ear.status"] == "affirming"
        assert found["gpu1"]["ear.status"] == "warning"
        assert found["gpu1"]["ear.cocos.findings"]
        assert allowed is False


async def test_a_gpu_of_another_session_fails_the_whole(service: AttestationService) -> None:
    stolen = report_data({"nonce": "nonce", "tee-pubkey": TeeKeyPair.generate().public_jwk()})
    with pytest.raises(EvidenceError) as caught:
        await service.appraise(request(Gpu().evidence(BOUND), Gpu(serial="2").evidence(stolen)))
    assert [each.check for each in caught.value.findings] == ["nvidia.1.report_data"]


async def test_a_gpu_alone_is_no_machine(service: AttestationService) -> None:
    """Whoever has a GPU in his hands would get the keys that are for a machine with one."""
    evidence = {"device_evidence_list": [Gpu().evidence(BOUND)]}
    asked = AppraisalRequest.of_handshake(
        tee=Tee.NVIDIA, evidence=evidence, runtime_data=DATA, additional={}
    )
    with pytest.raises(EvidenceError, match="beside") as caught:
        await service.appraise(asked)
    assert [each.check for each in caught.value.findings] == ["tee"]


def test_a_token_about_a_gpu_alone_gets_nothing() -> None:
    """Other attestation services make such tokens."""
    policy = Policy(defaults.text(defaults.RESOURCE))
    base = BaseDocuments.of({}, lapsed=frozenset(), operator={})
    good = {"ear.status": "affirming"}
    for submods, allowed in (
        ({"gpu0": good}, False),
        ({"cpu0": good}, True),
        ({"cpu0": good, "gpu0": good}, True),
        ({"cpu0": {}, "gpu0": good}, False),
        ({"cpu0": None, "gpu0": good}, False),
    ):
        said = policy.evaluate(("allow",), {"submods": submods}, base=base)
        assert said["allow"] is allowed, submods
