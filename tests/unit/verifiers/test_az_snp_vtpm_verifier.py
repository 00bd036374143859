# SPDX-License-Identifier: Apache-2.0
"""Evidence of SNP VMs on Azure: of a paravisor and a processor in software, and real."""

import base64
import hashlib
import json
from typing import Any

import _azure_vm as azure
import pytest
from _snp import CHIP_KEY, NOW, SIMULATED, Chip
from _vectors import vector
from _verified import verified
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cocos._types import JsonObject, ReportData
from cocos.errors import EvidenceError
from cocos.evidence import tpm
from cocos.verifiers import Expected, verifier_table
from cocos.verifiers._azure import AzureEvidence
from cocos.verifiers.az_snp_vtpm import AzureSnpVerifier
from cocos.wire.kbs.protocol import Tee

BOUND = ReportData(hashlib.sha384(b"session").digest())
CHALLENGE = ReportData(b"challenge")
CHIP = Chip()
PCR8 = tpm.extend(bytes(32), hashlib.sha256(b"init").digest())


def verifier() -> AzureSnpVerifier:
    return AzureSnpVerifier(SIMULATED, clock=lambda: NOW)


def evidence(version: int = 2, report: Any = None, **changes: Any) -> JsonObject:
    data = azure.variable(BOUND if version == 2 else b"")
    hardware = CHIP.report(azure.signed(data), **(report or {}))
    return {
        "version": version,
        "tpm_quote": azure.quoted(BOUND),
        "hcl_report": azure.urlsafe(azure.report(data, 2, hardware)),
        "vcek": azure.urlsafe(CHIP.certificate()),
    } | changes


def first_version() -> JsonObject:
    """As the oldest guests send it."""
    data = azure.variable()
    hardware = CHIP.report(azure.signed(data))
    message, signature = azure.quote(BOUND)
    certificate = x509.load_der_x509_certificate(CHIP.certificate())
    return {
        "quote": {
            "signature": list(signature),
            "message": list(message),
            "pcrs": [list(pcr) for pcr in azure.PCRS],
        },
        "report": list(azure.report(data, 2, hardware)),
        "vcek": certificate.public_bytes(serialization.Encoding.PEM).decode(),
    }


async def refused(shown: Any, init_data: bytes | None = None, **more: Any) -> list[str]:
    with pytest.raises(EvidenceError) as caught:
        await verified(more.pop("by", None) or verifier(), shown, Expected(BOUND), init_data)
    return [finding.check for finding in caught.value.findings]


@pytest.mark.parametrize("shown", [evidence(), evidence(1), first_version()], ids=["2", "1", "0"])
async def test_all_versions(shown: JsonObject) -> None:
    claims = await verified(verifier(), shown, Expected(BOUND))
    assert claims["report_data"] == BOUND.hex()
    assert claims["tpm"]["pcr11"] == "0b" * 32
    assert claims["init_data"] == "08" * 32
    assert claims["reported_tcb_microcode"] == "200"
    assert claims["policy_debug_allowed"] == "false"
    assert claims["authority_insecure"] == "true"
    assert base64.b64decode(claims["measurement"]) == bytes(48)
    assert await refused(shown, by=AzureSnpVerifier(clock=lambda: NOW)) == ["snp.chain"]


async def test_real_evidence() -> None:
    """Its nonce is too short to be anybody's expectation here: it is put in the place of one."""
    shown = json.loads(vector("azure/snp-vtpm-evidence-v1.json"))
    expected = Expected(BOUND)
    object.__setattr__(expected, "report_data", CHALLENGE)
    table = verifier_table(insecure_allow_sample=False, clock=lambda: NOW)
    claims = await verified(table.find(Tee.AZ_SNP_VTPM), shown, expected)
    assert claims["report_data"] == "6368616c6c656e6765"
    assert claims["tpm"]["pcr00"].startswith("e15c44796beabf46")
    assert claims["authority_insecure"] == "false"
    judge = AzureSnpVerifier(clock=lambda: NOW)
    assert await refused(shown, by=judge) == ["az-snp-vtpm.report_data"]
    raw = shown["hcl_report"]
    report = bytearray(base64.urlsafe_b64decode(raw))
    for position in range(32, 32 + 0x2A0 + 96, 13):
        changed = bytearray(report)
        changed[position] ^= 4
        with pytest.raises(EvidenceError):
            await verified(judge, shown | {"hcl_report": azure.urlsafe(bytes(changed))}, expected)


@pytest.mark.parametrize(
    ("position", "value", "step"),
    [(0x6E0, None, "hcl"), (0x540, 0, "parse"), (None, None, "signature"), (None, 1, "pcr")],
)
def test_the_parts_of_real_evidence(position: int | None, value: int | None, step: str) -> None:
    report = bytearray(vector("azure/snp-hcl-report.bin"))
    quote = json.loads(vector("azure/snp-tpm-quote-v1.json"))

    def findings() -> list[str]:
        shown = AzureEvidence.parse(
            Tee.AZ_SNP_VTPM,
            {"version": 1, "tpm_quote": quote, "hcl_report": azure.urlsafe(bytes(report))},
        )
        hardware = shown.report.hardware[0x50:0x90]
        found = [*shown.bound(hardware, CHALLENGE, "az"), *shown.measured(None, "az")]
        return [finding.check for finding in found]

    assert findings() == []
    if position is not None:
        report[position] = (report[position] + 1) % 256 if value is None else value
    elif value is None:
        quote["signature"] = f"{int(quote['signature'][:2], 16) ^ 1:02x}" + quote["signature"][2:]
    else:
        quote["pcrs"][0] = f"{int(quote['pcrs'][0][:2], 16) ^ 1:02x}" + quote["pcrs"][0][2:]
    if step == "parse":
        with pytest.raises(Exception, match="HCL"):
            findings()
        return
    expected = {"hcl": "az.hcl", "signature": "az.signature", "pcr": "az.pcr-digest"}[step]
    assert expected in findings()


async def test_init_data() -> None:
    digest = hashlib.sha256(b"init").digest()
    pcrs = (*azure.PCRS[:8], PCR8, *azure.PCRS[9:])
    shown = evidence(tpm_quote=azure.quoted(BOUND, pcrs))
    claims = await verified(verifier(), shown, Expected(BOUND), digest)
    assert claims["init_data"] == PCR8.hex()
    assert await refused(evidence(), digest) == ["az-snp-vtpm.pcr08"]
    assert await refused(shown, digest + bytes(16)) == ["init_data.algorithm"]


async def test_a_selection_that_leaves_one_out() -> None:
    """PCR 16, which software resets, would stand where PCR 8 is looked for."""
    shown = evidence(tpm_quote=azure.quoted(BOUND, bitmap=b"\xfe\xff\xff"))
    assert await refused(shown) == ["az-snp-vtpm.selection"]


@pytest.mark.parametrize(
    ("changes", "findings"),
    [
        ({"vmpl": 1}, ["snp.vmpl"]),
        ({"version": 2}, ["snp.version"]),
        ({"key": ec.generate_private_key(ec.SECP384R1())}, ["snp.signature"]),
        ({"cpuid": (0x17, 1, 1)}, ["snp.processor"]),
        ({"key_info": 1 << 2}, ["snp.certificate"]),
    ],
)
async def test_what_the_report_says(changes: Any, findings: list[str]) -> None:
    assert await refused(evidence(report=changes)) == findings


async def test_other_data_of_the_paravisor() -> None:
    """A key of one's own beside a report of somebody else's."""
    hardware = CHIP.report(azure.signed(azure.variable(BOUND)))
    other = azure.variable(BOUND, **{"vm-configuration": {}})
    shown = evidence(hcl_report=azure.urlsafe(azure.report(other, 2, hardware)))
    assert await refused(shown) == ["az-snp-vtpm.hcl"]


async def test_another_session() -> None:
    another = hashlib.sha384(b"another").digest()
    assert await refused(evidence(tpm_quote=azure.quoted(another))) == ["az-snp-vtpm.report_data"]
    assert await refused(evidence(tpm_quote=azure.quoted(BOUND[:32]))) == [
        "az-snp-vtpm.report_data"
    ]
    # In the newest version the processor's own report is asked for in this session, too.
    assert await refused(evidence(1) | {"version": 2}) == ["az-snp-vtpm.user-data"]


async def test_certificates() -> None:
    chip = Chip(identity=bytes(64 * [9]))
    assert await refused(evidence(vcek=azure.urlsafe(chip.certificate()))) == ["snp.chip_id"]
    with pytest.raises(EvidenceError) as caught:
        await verified(verifier(), evidence(vcek=None), Expected(BOUND))
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("cocos-cli collateral fetch amd/vcek/genoa/")
    assert CHIP_KEY is CHIP.key


def changed(**changes: Any) -> JsonObject:
    return evidence() | changes


@pytest.mark.parametrize(
    "shown",
    [None, [], {}, "x", changed(version=3), changed(version="2"), changed(version=None),
     changed(tpm_quote=None), changed(tpm_quote={}), changed(hcl_report=None),
     changed(hcl_report="!"), changed(hcl_report="AAAA"), changed(hcl_report="A" * 10**6),
     changed(vcek=5), changed(vcek="!"), changed(vcek=[0] * 10**5), changed(vcek=[]),
     first_version() | {"vcek": "-----BEGIN CERTIFICATE-----"},
     first_version() | {"vcek": "\ud800"}],
)  # fmt: skip
async def test_malformed(shown: Any) -> None:
    (check,) = await refused(shown)
    assert check in {"az-snp-vtpm.evidence", "snp.certificate"}


async def test_a_report_of_the_other_maker() -> None:
    data = azure.variable(BOUND)
    other = azure.report(data, 4, CHIP.report(azure.signed(data)))
    assert await refused(evidence(hcl_report=azure.urlsafe(other))) == ["az-snp-vtpm.evidence"]
