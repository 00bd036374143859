# SPDX-License-Identifier: Apache-2.0
"""Evidence of TDX domains on Azure: of a paravisor and a quoting enclave in software, and real."""

import copy
import hashlib
import json
import struct
from typing import Any

import _azure_vm as azure
import pytest
from _intel import NOW, Intel, td
from _vectors import vector
from _verified import verified
from hypothesis import given, settings
from hypothesis import strategies as st

from cocos._types import JsonObject, ReportData
from cocos.errors import EvidenceError
from cocos.evidence.hcl import HclReport
from cocos.verifiers import Expected, verifier_table
from cocos.verifiers.az_tdx_vtpm import AzureTdxVerifier
from cocos.verifiers.collateral import Held
from cocos.wire.kbs.protocol import Tee

BOUND = ReportData(hashlib.sha384(b"session").digest())
MAKER = Intel()
# Azure's domains have none: their exceptions are the paravisor's business.
ATTRIBUTES = bytes(8)


def verifier(held: Held | None = None) -> AzureTdxVerifier:
    stored = MAKER.held() if held is None else held
    return AzureTdxVerifier(stored, clock=lambda: NOW, insecure_root=MAKER.root)


def evidence(version: int = 2, **changes: Any) -> JsonObject:
    data = azure.variable(BOUND if version == 2 else b"")
    quote = MAKER.quote(td(azure.signed(data), td_attributes=ATTRIBUTES))
    return {
        "version": version,
        "tpm_quote": azure.quoted(BOUND),
        "hcl_report": azure.urlsafe(azure.report(data, 4)),
        "td_quote": azure.urlsafe(quote),
    } | changes


def of(data: bytes, **changes: Any) -> JsonObject:
    """Evidence with other data of the paravisor, signed by the processor."""
    quote = MAKER.quote(td(azure.signed(data), td_attributes=ATTRIBUTES))
    report = azure.urlsafe(azure.report(data, 4))
    return evidence(hcl_report=report, td_quote=azure.urlsafe(quote)) | changes


async def claims(
    shown: Any, init_data: bytes | None = None, judge: AzureTdxVerifier | None = None
) -> JsonObject:
    return await verified(judge or verifier(), shown, Expected(BOUND), init_data)


async def checks(*args: Any, **more: Any) -> set[str]:
    with pytest.raises(EvidenceError) as caught:
        await claims(*args, **more)
    return {finding.check.removeprefix("az-tdx-vtpm.") for finding in caught.value.findings}


def numbers(shown: JsonObject) -> JsonObject:
    """The same as version 0: lists of numbers."""
    quote = shown["tpm_quote"]
    return {
        "tpm_quote": {
            "signature": [*bytes.fromhex(quote["signature"])],
            "message": [*bytes.fromhex(quote["message"])],
            "pcrs": [[*bytes.fromhex(value)] for value in quote["pcrs"]],
        },
        "hcl_report": [*_bytes(shown["hcl_report"])],
        "td_quote": [*_bytes(shown["td_quote"])],
    }


def _bytes(text: str) -> bytes:
    import base64  # noqa: PLC0415

    return base64.urlsafe_b64decode(text)


@pytest.mark.parametrize("version", [0, 1, 2])
async def test_versions(version: int) -> None:
    shown = evidence(version) if version else numbers(evidence(1))
    found = await claims(shown)
    assert found["tpm"] == {f"pcr{n:02}": azure.PCRS[n].hex() for n in range(24)}
    assert found["report_data"] == BOUND.hex()
    assert found["init_data"] == azure.PCRS[8].hex()
    assert found["tcb_status"] == "UpToDate"
    assert found["quote"]["body"]["mr_td"] == "33" * 48
    assert found["td_attributes"]["septve_disable"] is False
    assert "uefi_event_logs" not in found


async def test_bound_to_the_session() -> None:
    other = hashlib.sha384(b"another session").digest()
    for bound in (other, b"", BOUND[:32], BOUND + b"\0"):
        assert await checks(evidence(tpm_quote=azure.quoted(bound))) == {"report_data"}
    # The paravisor was asked in another session.
    assert await checks(of(azure.variable(other))) == {"user-data"}
    assert await checks(of(azure.variable(), version=2)) == {"user-data"}
    short = json.dumps(json.loads(azure.variable()) | {"user-data": BOUND[:40].hex()}).encode()
    assert await checks(of(short)) == {"user-data"}
    assert await claims(of(azure.variable(other), version=1))


async def test_the_processors_word() -> None:
    report = azure.urlsafe(azure.report(azure.variable(BOUND, extra=1), 4))
    assert await checks(evidence(hcl_report=report)) == {"hcl"}
    stolen = MAKER.quote(td(BOUND, td_attributes=ATTRIBUTES))
    assert await checks(evidence(td_quote=azure.urlsafe(stolen))) == {"hcl"}
    tail = azure.signed(azure.variable(BOUND)) + b"\1"
    quote = MAKER.quote(td(tail, td_attributes=ATTRIBUTES))
    assert await checks(evidence(td_quote=azure.urlsafe(quote))) == {"hcl"}
    other = Intel()
    quote = other.quote(td(azure.signed(azure.variable(BOUND)), td_attributes=ATTRIBUTES))
    assert await checks(evidence(td_quote=azure.urlsafe(quote))) == {"root"}
    debug = MAKER.quote(td(azure.signed(azure.variable(BOUND)), td_attributes=b"\1" + bytes(7)))
    found = await claims(evidence(td_quote=azure.urlsafe(debug)))
    assert found["td_attributes"]["debug"] is True
    moved = td(azure.signed(azure.variable(BOUND)), td_attributes=struct.pack("<Q", 1 << 29))
    assert "service-td" in await checks(evidence(td_quote=azure.urlsafe(MAKER.quote(moved))))


@pytest.mark.parametrize("register", range(4))
async def test_a_domain_without_paravisor(register: int) -> None:
    """Firmware of a plain domain measures into registers; its owner can make up any TPM."""
    registers: dict[str, Any] = {f"rtmr_{register}": b"\x01" * 48}
    body = td(azure.signed(azure.variable(BOUND)), td_attributes=ATTRIBUTES, **registers)
    shown = evidence(td_quote=azure.urlsafe(MAKER.quote(body)))
    assert await checks(shown) == {f"rtmr_{register}"}


async def test_the_quote_of_the_tpm() -> None:
    shown = evidence()
    signature = bytearray.fromhex(shown["tpm_quote"]["signature"])
    signature[7] ^= 1
    shown["tpm_quote"]["signature"] = signature.hex()
    assert await checks(shown) == {"signature"}
    shown = evidence()
    shown["tpm_quote"]["pcrs"][11] = "00" * 32
    assert await checks(shown) == {"pcr-digest"}
    # Without PCR 3, the ninth value is another register's.
    for more in ({"bitmap": b"\xf7\xff\xff"}, {"bitmap": b"\xff\xff"}, {"bank": 0xC}):
        assert await checks(evidence(tpm_quote=azure.quoted(BOUND, **more))) == {"selection"}
    for count in (0, 8, 23, 25):
        shown = evidence()
        shown["tpm_quote"]["pcrs"] = ["00" * 32] * count
        assert await checks(shown) == {"evidence"}


async def test_init_data() -> None:
    digest = hashlib.sha256(b"init data").digest()
    pcrs = list(azure.PCRS)
    pcrs[8] = hashlib.sha256(bytes(32) + digest).digest()
    shown = evidence(tpm_quote=azure.quoted(BOUND, tuple(pcrs)))
    assert (await claims(shown, digest))["init_data"] == pcrs[8].hex()
    assert await checks(shown, digest[::-1]) == {"pcr08"}
    for size in (0, 48, 64):
        assert await checks(shown, bytes(size)) == {"init_data.algorithm"}


async def test_documents_are_missing() -> None:
    found = await checks(evidence(), judge=verifier(Held()))
    assert all(name.startswith("collateral.intel/") for name in found)


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 3}, {"version": -1}, {"version": True}, {"version": "1"}, {"version": 1.0},
        {"tpm_quote": None}, {"tpm_quote": {}}, {"hcl_report": None}, {"hcl_report": "?"},
        {"hcl_report": ""}, {"hcl_report": [256]}, {"hcl_report": [True]}, {"td_quote": None},
        {"td_quote": "A" * 100000}, {"td_quote": [-1]}, {"td_quote": {}},
        {"hcl_report": azure.urlsafe(azure.report(azure.variable(), 2))},
        {"hcl_report": azure.urlsafe(azure.report(azure.variable(), 3))},
        {"hcl_report": azure.urlsafe(azure.report(azure.variable(), 4, hashed=2))},
        {"hcl_report": azure.urlsafe(azure.report(azure.variable(), 4) + b"x")},
        {"hcl_report": azure.urlsafe(azure.report(azure.variable(), 4)[:1300])},
        {"hcl_report": azure.urlsafe(azure.report(b"{}", 4))},
        {"hcl_report": azure.urlsafe(azure.report(b"\xff", 4))},
        {"hcl_report": azure.urlsafe(azure.report(b"[" * 1000, 4))},
        *(
            {"hcl_report": azure.urlsafe(azure.report(azure.variable(keys=keys), 4))}
            for keys in (
                [], [azure.key("HCLEkPub")], [azure.key(), azure.key()], [azure.key(kty="EC")],
                [azure.key(n="AQAB")], [azure.key(e="Aw")], [azure.key(n="?")], [azure.key(n="")],
            )
        ),
    ],
)  # fmt: skip
async def test_no_evidence(changes: JsonObject) -> None:
    assert await checks(evidence() | changes) == {"evidence"}


@pytest.mark.parametrize("shown", [None, [], "x", 1, {}])
async def test_no_object(shown: Any) -> None:
    assert await checks(shown) == {"evidence"}


@settings(max_examples=100, deadline=None)
@given(st.data())
async def test_any_change_of_the_report_is_refused_or_harmless(data: st.DataObject) -> None:
    shown = evidence()
    report = bytearray(_bytes(shown["hcl_report"]))
    at = data.draw(st.integers(0, len(report) - 1))
    report[at] ^= data.draw(st.integers(1, 255))
    shown["hcl_report"] = azure.urlsafe(bytes(report))
    try:
        found = await claims(shown)
    except EvidenceError as error:
        assert error.findings  # noqa: PT017 - both ends are fine
    else:
        assert found == await claims(evidence())


async def test_real_evidence() -> None:
    """Everything holds but the nonce, which nobody here knows; nor Intel's word on it."""
    shown = json.loads(vector("azure/tdx-vtpm-evidence-v1.json"))
    judge = verifier_table(insecure_allow_sample=False, clock=lambda: NOW).find(Tee.AZ_TDX_VTPM)
    assert not judge.insecure
    with pytest.raises(EvidenceError) as caught:
        await judge.authenticate(shown, Expected(BOUND))
    (finding,) = caught.value.findings
    assert (finding.check, finding.actual) == ("az-tdx-vtpm.report_data", b"challenge".hex())
    for member in ("signature", "message"):
        wrong = copy.deepcopy(shown)
        text = bytearray.fromhex(wrong["tpm_quote"][member])
        text[20] ^= 1
        wrong["tpm_quote"][member] = text.hex()
        with pytest.raises(EvidenceError) as caught:
            await judge.authenticate(wrong, Expected(BOUND))
        assert "az-tdx-vtpm.signature" in {each.check for each in caught.value.findings}


def test_real_reports() -> None:
    found = HclReport.parse(vector("azure/snp-hcl-report.bin"))
    assert (found.kind, found.user_data) == (2, bytes(64))
    assert found.hardware[0x50:0x90] == hashlib.sha256(found.variable).digest() + bytes(32)
