# SPDX-License-Identifier: Apache-2.0
"""The attestation service and TDX: from a quote and its log to a token."""

import datetime as dt
import hashlib
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from _engine import LocalEngine
from _intel import NOW, Intel, b64, td

from cocos._types import JsonObject
from cocos.attestation_service.config import AttestationServiceConfig
from cocos.attestation_service.request import AppraisalRequest
from cocos.attestation_service.service import AttestationService
from cocos.attestation_service.signing_keys import SigningKeys
from cocos.crypto import jwk, jwt
from cocos.errors import EvidenceError
from cocos.policy.appraisal import INSECURE
from cocos.stores.base import Store
from cocos.stores.sql import SqlStore
from cocos.verifiers import VerifierTable
from cocos.verifiers.tdx import TdxVerifier
from cocos.wire.kbs.protocol import InitData, Tee, report_data
from cocos.wire.manifest.event import ComputationEvent

MAKER = Intel()
INIT_DATA = 'version = "0.1.0"\nalgorithm = "sha384"\n\n[data]\n"x" = "y"\n'
VALUES = {"mr_td": ["33" * 48], "rtmr_1": ["00" * 48], "rtmr_2": ["00" * 48]}
VALUES |= {"xfam": ["e742060000000000"]}
EVENT = ComputationEvent("11" * 32, "22" * 32, "33" * 32, (), "44" * 32, ("",), "55" * 32)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await SqlStore.open(f"sqlite:///{tmp_path}/store.sqlite3", clock=lambda: NOW)
    yield opened
    await opened.close()


def service(store: Store, *, trusting: bool = True) -> AttestationService:
    root = MAKER.root if trusting else None
    judge = TdxVerifier(MAKER.held(), clock=lambda: NOW, insecure_root=root)
    return AttestationService(
        store,
        keys=SigningKeys(store, clock=lambda: NOW, token_lifetime=dt.timedelta(minutes=5)),
        config=AttestationServiceConfig(),
        engine=LocalEngine(),
        clock=lambda: NOW,
        verifiers=VerifierTable({Tee.TDX: judge}),
    )


def request(nonce: str = "nonce", **changes: Any) -> AppraisalRequest:
    """Evidence of a domain that ran one computation, and was given init data."""
    runtime: JsonObject = {"nonce": "nonce", "tee-pubkey": {}, "additional-evidence": ""}
    text = " ".join(EVENT.measured()).encode()
    event = struct.pack("<II", 0x4141454C, len(text)) + text
    digest = hashlib.sha384(event).digest()
    spec = b"Spec ID Event03\0" + struct.pack("<I4BIHHB", 0, 0, 2, 0, 2, 1, 0xC, 48, 0)
    log = struct.pack("<II20xI", 0, 3, len(spec)) + spec
    log += struct.pack("<IIIH", 4, 6, 1, 0xC) + digest + struct.pack("<I", len(event)) + event
    fields = {
        "rtmr_3": hashlib.sha384(bytes(48) + digest).digest(),
        "mr_config_id": hashlib.sha384(INIT_DATA.encode()).digest(),
    }
    body = td(report_data(runtime), **(fields | changes))
    evidence = {"quote": b64(MAKER.quote(body)), "cc_eventlog": b64(log)}
    shown = InitData(format="toml", body=INIT_DATA)
    return AppraisalRequest.of_handshake(Tee.TDX, evidence, {}, runtime | {"nonce": nonce}, shown)


async def test_a_token_of_a_domain(store: Store) -> None:
    judge = service(store)
    for name, value in VALUES.items():
        await judge.set_reference_value(name, value, expires=None, new=True, tag=None)
    appraisal = await judge.appraise(request())
    # Our own root proves nothing, which the default policy refuses, and nothing else.
    found = {finding.check for finding in appraisal.findings} - {"cpu0.policy"}
    assert found == {"cpu0.insecure", "cpu0.hardware"}
    key = jwk.from_jwk(jwt.header_of(appraisal.token)["jwk"], "the key")
    (part,) = key.verify(appraisal.token)["submods"].values()
    assert part["ear.status"] == "contraindicated"
    assert part[INSECURE] == ["tdx"]
    evidence = part["ear.veraison.annotated-evidence"]
    assert evidence["tdx"]["computation"]["manifest_digest"] == "55" * 32
    assert evidence["tdx"]["tcb_status"] == "UpToDate"
    assert evidence["init_data_claims"] == {"x": "y"}
    assert evidence["kbs"]["named"] is not None


@pytest.mark.parametrize("name", sorted(VALUES))
async def test_what_is_not_registered_is_not_affirming(store: Store, name: str) -> None:
    judge = service(store)
    for each, value in VALUES.items():
        if each != name:
            await judge.set_reference_value(each, value, expires=None, new=True, tag=None)
    appraisal = await judge.appraise(request())
    assert any(finding.check.endswith(name) for finding in appraisal.findings)


async def test_denials(store: Store) -> None:
    for wrong, check in (
        (request("another"), "tdx.report_data"),
        (request(mr_config_id=bytes(48)), "tdx.init_data"),
        (request(rtmr_3=bytes(48)), "tdx.rtmr_3"),
        (request(td_attributes=struct.pack("<Q", 1 << 29)), "tdx.service-td"),
    ):
        with pytest.raises(EvidenceError) as caught:
            await service(store).appraise(wrong)
        assert check in {finding.check for finding in caught.value.findings}
    with pytest.raises(EvidenceError) as caught:
        await service(store, trusting=False).appraise(request())
    assert {finding.check for finding in caught.value.findings} == {"tdx.root"}
