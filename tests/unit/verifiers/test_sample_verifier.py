# SPDX-License-Identifier: Apache-2.0
"""Sample evidence: bound to nonce and key, and believed only where an operator says so."""

import base64
from typing import Any

import pytest
from _verified import verified

from cocos._clock import system_clock
from cocos._types import ReportData
from cocos.errors import MAX_FINDING, EvidenceError
from cocos.verifiers import Expected, Kept, VerifierTable, verifier_table
from cocos.verifiers.sample import InsecureSampleDeviceVerifier, InsecureSampleVerifier
from cocos.wire.kbs.protocol import EcKey, Tee, report_data, runtime_data

NONCE = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
KEY = EcKey(crv="P-256", alg="ECDH-ES+A256KW", x="x", y="y")
BOUND = report_data(runtime_data(NONCE, KEY, ""))


def evidence(bound: bytes = BOUND) -> dict[str, Any]:
    return {"svn": "1", "report_data": base64.b64encode(bound).decode()}


def table(*, insecure_allow_sample: bool) -> VerifierTable:
    return verifier_table(insecure_allow_sample=insecure_allow_sample, clock=system_clock)


async def test_claims() -> None:
    text = evidence()["report_data"]
    assert await verified(InsecureSampleVerifier(), evidence(), Expected(BOUND)) == {
        "svn": "1",
        "report_data": text,
        "launch_digest": "abcde",
        "platform_version": {"major": 1, "minor": 4},
        "debug": False,
    }
    shown = await verified(InsecureSampleVerifier(), evidence(), Expected(BOUND), b"\x01" * 32)
    assert shown["init_data"] == base64.b64encode(b"\x01" * 32).decode()
    device = await verified(InsecureSampleDeviceVerifier(), evidence(), Expected(BOUND))
    assert device == {"svn": "1", "report_data": text}


@pytest.mark.parametrize("kind", [InsecureSampleVerifier, InsecureSampleDeviceVerifier])
@pytest.mark.parametrize(
    "bound",
    [
        report_data(runtime_data("other nonce", KEY, "")),
        report_data(runtime_data("", KEY, "")),
        report_data(runtime_data(NONCE, EcKey(crv="P-256", alg=KEY.alg, x="y", y="x"), "")),
        report_data(runtime_data(NONCE, KEY)),
        report_data(runtime_data(NONCE, KEY, "{}")),
        b"",
        BOUND[:32],
        BOUND[:47],
        BOUND + b"\0",
        BOUND + bytes(16),
        bytes(48),
    ],
)
async def test_wrong_report_data(kind: Any, bound: bytes) -> None:
    with pytest.raises(EvidenceError) as caught:
        await verified(kind(), evidence(bound), Expected(BOUND))
    (finding,) = caught.value.findings
    assert finding.check.endswith(".report_data")
    assert finding.actual == bound.hex()
    assert finding.expected == BOUND.hex()


@pytest.mark.parametrize(
    "broken",
    [
        None,
        [],
        "",
        1,
        {},
        {"svn": "1"},
        {"svn": "1", "report_data": ""},
        {"svn": "1", "report_data": None},
        {"svn": "1", "report_data": 5},
        {"svn": "1", "report_data": "!!"},
        {"svn": "1", "report_data": evidence()["report_data"] + "\n"},
        {"svn": "1", "report_data": base64.urlsafe_b64encode(b"\xff" * 48).decode()},
        {"svn": 1, "report_data": evidence()["report_data"]},
        {"report_data": evidence()["report_data"]},
    ],
)
async def test_malformed_evidence(broken: Any) -> None:
    with pytest.raises(EvidenceError) as caught:
        await verified(InsecureSampleVerifier(), broken, Expected(BOUND))
    assert caught.value.findings


@pytest.mark.parametrize("length", [0, 1, 31])
def test_nothing_is_verified_without_a_nonce(length: int) -> None:
    with pytest.raises(EvidenceError):
        Expected(ReportData(bytes(length)))


def test_the_shortest_nonce_is_a_digests() -> None:
    assert len(Expected(ReportData(bytes(32))).report_data) == 32


def test_what_is_expected_tells_no_secret() -> None:
    """It ends in logs: the challenge's secret does not, nor all that an operator registered."""
    secret = b"the challenge's secret, 32 bytes"
    kept = Kept({"tpm": "state"}, secret)
    said = repr(Expected(BOUND, kept, {"registered": 1}))
    assert "state" in said
    assert repr(secret) not in said
    assert "registered" not in said


def test_who_proves_something_is_not_called_insecure() -> None:
    every = table(insecure_allow_sample=True)
    found = [verifier for tee in Tee if (verifier := every.get(tee)) is not None]
    samples = {Tee.SAMPLE, Tee.SAMPLE_DEVICE}
    assert {verifier.kind for verifier in found if verifier.insecure} == samples
    assert len(found) > len(samples)


@pytest.mark.parametrize("tee", [Tee.SAMPLE, Tee.SAMPLE_DEVICE])
def test_sample_must_be_allowed_by_name(tee: Tee) -> None:
    strict = table(insecure_allow_sample=False)
    with pytest.raises(EvidenceError, match="--insecure-allow-sample") as caught:
        strict.find(tee)
    assert caught.value.findings
    found = table(insecure_allow_sample=True).find(tee)
    assert found.kind is tee
    assert found.insecure


@pytest.mark.parametrize(
    "tee", [tee for tee in Tee if table(insecure_allow_sample=True).get(tee) is None]
)
def test_tees_without_verifier_are_refused(tee: Tee) -> None:
    for allowed in (True, False):
        with pytest.raises(EvidenceError, match=tee.value) as caught:
            table(insecure_allow_sample=allowed).find(tee)
        assert "insecure" not in caught.value.message


@pytest.mark.parametrize(
    ("tee", "whose"),
    [
        (Tee.CSV, "cert.hygon.cn"),
        (Tee.HYGON_DCU, "cert.hygon.cn"),
        (Tee.NVIDIA_DPU, "NVIDIA publishes no root"),
        (Tee.SE, "host key documents"),
    ],
)
def test_who_is_needed_to_verify_it_is_named(tee: Tee, whose: str) -> None:
    with pytest.raises(EvidenceError, match=whose) as caught:
        table(insecure_allow_sample=False).find(tee)
    (finding,) = caught.value.findings
    assert whose in finding.problem


async def test_a_refusal_does_not_repeat_megabytes() -> None:
    """Whoever is refused would fill log and store with them, as often as he likes."""
    carried = base64.b64encode(bytes(1_400_000)).decode()
    with pytest.raises(EvidenceError) as caught:
        await verified(
            InsecureSampleVerifier(),
            {"svn": "1", "report_data": carried},
            Expected(ReportData(bytes(48))),
        )
    (finding,) = caught.value.findings
    assert finding.actual.startswith("00")
    assert len(finding.actual) == MAX_FINDING
