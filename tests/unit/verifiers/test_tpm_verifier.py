# SPDX-License-Identifier: Apache-2.0
"""The TPM verifier on quotes by a key in software; tests/integration has real TPMs."""

import base64
import datetime as dt
import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from _tpm import runtime
from _vectors import vector
from _verified import verified
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from cocos._types import JsonObject, ReportData
from cocos.crypto import tpm_credential
from cocos.errors import EvidenceError, Finding
from cocos.evidence import tpm
from cocos.verifiers import Demand, Expected, Kept, verifier_table
from cocos.verifiers._tpm_explain import explain
from cocos.verifiers.tpm import Authorities, TpmVerifier
from cocos.wire.kbs.protocol import Tee

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
SECRET = bytes(range(32))
KEY = rsa.generate_private_key(65537, 2048)
CA_KEY = ec.generate_private_key(ec.SECP256R1())
SPKI = KEY.public_key().public_bytes(
    serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
)
BOUND = ReportData(hashlib.sha384(b"session").digest())
PCRS = tuple(bytes(32) for _ in range(24))
EK_USAGE = x509.ObjectIdentifier("2.23.133.8.1")


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def evidence(
    bound: bytes = BOUND, pcrs: tuple[bytes, ...] = PCRS, bitmap: bytes = b"\xff\xff\xff"
) -> dict[str, Any]:
    message = struct.pack(">IHHH", 0xFF544347, 0x8018, 0, len(bound)) + bound + bytes(25)
    message += struct.pack(">IHB", 1, 0xB, len(bitmap)) + bitmap
    message += struct.pack(">H", 32) + hashlib.sha256(b"".join(pcrs)).digest()
    signature = KEY.sign(message, padding.PKCS1v15(), hashes.SHA256())
    return {
        "tpm_quote": {
            "signature": b64(struct.pack(">HHH", 0x14, 0xB, 256) + signature),
            "message": b64(message),
            "pcrs": [value.hex() for value in pcrs],
        },
        "ak_public": b64(SPKI),
    }


def expected(**more: Any) -> Expected:
    values = {"reference_values": {"trusted_ak": [b64(SPKI)]}, **more}
    return Expected(BOUND, **values)


def ak_public(attributes: int = 0x50072, modulus: int | None = None, exponent: int = 0) -> str:
    number = modulus or KEY.public_key().public_numbers().n
    size = (number.bit_length() + 7) // 8
    body = struct.pack(">HHIH", 1, 0xB, attributes, 0) + bytes.fromhex("00100014000b")
    body += struct.pack(">HIH", number.bit_length(), exponent, size) + number.to_bytes(size, "big")
    return b64(struct.pack(">H", len(body)) + body)


def certificate(  # noqa: PLR0917 - each is what one test changes
    key: Any = None,
    usage: x509.ObjectIdentifier | None = EK_USAGE,
    begin: dt.datetime = NOW - DAY,
    end: dt.datetime = NOW + DAY,
    issuer: str = "maker",
    signer: Any = CA_KEY,
    *,
    ca: bool = False,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "maker" if ca else "tpm")])
        )
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(CA_KEY.public_key() if ca else (key or KEY).public_key())
        .serial_number(1)
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    return builder.sign(signer, hashes.SHA256())


CA = certificate(ca=True)
VERIFIER = TpmVerifier(Authorities([CA]), clock=lambda: NOW)


def params(ek: x509.Certificate | bytes, **changes: Any) -> JsonObject:
    der = ek if isinstance(ek, bytes) else ek.public_bytes(serialization.Encoding.DER)
    return {"ek_certificate": b64(der), "ak_public": ak_public(), **changes}


async def checks(
    evidence: Any, wanted: Expected, init_data: bytes | None = None
) -> dict[str, Finding]:
    with pytest.raises(EvidenceError) as caught:
        await verified(VERIFIER, evidence, wanted, init_data)
    return {finding.check: finding for finding in caught.value.findings}


# --- evidence ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form", [b64(SPKI), hashlib.sha256(SPKI).hexdigest()], ids=["DER", "SHA-256"]
)
async def test_a_registered_key(form: str) -> None:
    for listed in ([form], ["other", form], form):
        values = {"trusted_ak": listed}
        claims = await verified(VERIFIER, evidence(), Expected(BOUND, reference_values=values))
        assert claims["ak_trusted"] == "registered"
        assert claims["init_data"] == bytes(32).hex()
        assert claims["ak_public"] == b64(SPKI)
        assert not {"uefi", "debug", "computations"} & claims.keys()


@pytest.mark.parametrize(
    "values", [{}, {"trusted_ak": []}, {"trusted_ak": None}, {"trusted_ak": [""]}]
)
async def test_a_key_that_nobody_knows(values: JsonObject) -> None:
    assert set(await checks(evidence(), Expected(BOUND, reference_values=values))) == {"tpm.ak"}


async def test_the_short_form_of_a_registered_key() -> None:
    """Guest components of others bind 32 bytes; nothing shorter, and nothing in between."""
    assert await verified(VERIFIER, evidence(BOUND[:32]), expected())
    for size in (0, 16, 31, 33, 47):
        assert set(await checks(evidence(BOUND[:size]), expected())) == {"tpm.report_data"}


@pytest.mark.parametrize("number", [0, 7, 23])
@pytest.mark.parametrize("value", ["", "0" * 63, "0" * 65, "g" * 64, "\uff10" * 64, "0" * 63 + " "])
async def test_every_pcr_is_one(number: int, value: str) -> None:
    bad = evidence()
    bad["tpm_quote"]["pcrs"][number] = value
    assert set(await checks(bad, expected())) == {"tpm.evidence"}


async def test_pcrs_in_capitals() -> None:
    pcrs = (b"\xab" * 32, *PCRS[1:])
    loud = evidence(pcrs=pcrs)
    loud["tpm_quote"]["pcrs"] = [each.upper() for each in loud["tpm_quote"]["pcrs"]]
    assert (await verified(VERIFIER, loud, expected()))["pcr00"] == "ab" * 32


@pytest.mark.parametrize("member", ["signature", "message", "ak_public"])
@pytest.mark.parametrize(("size", "read"), [(4096, True), (4097, False)])
async def test_members_have_a_limit(member: str, size: int, *, read: bool) -> None:
    """They are read before anybody has signed for them."""
    bad = evidence()
    (bad if member == "ak_public" else bad["tpm_quote"])[member] = "A" * size
    (finding,) = (await checks(bad, expected())).values()
    assert ("4096 are allowed" in finding.problem) is not read


async def test_everything_that_is_wrong_is_said_at_once() -> None:
    """Of evidence by a key that counts; of any other nothing but that is said."""
    bad = evidence(bitmap=b"\xff\xff\x7f") | {"aael": b64(b"")}
    bad["tpm_quote"]["pcrs"][3:15:11] = ["11" * 32] * 2
    found = await checks(bad, expected(), b"\1" * 32)
    assert set(found) == {"tpm.selection", "tpm.pcr-digest", "tpm.pcr08", "tpm.pcr14"}
    assert found["tpm.selection"].actual == "sha256:ffff7f"
    old = evidence(b"other", bitmap=b"\xff\xff\x7f")
    assert set(await checks(old, expected(), b"\1" * 32)) == {"tpm.report_data"}
    old["tpm_quote"]["signature"] = evidence()["tpm_quote"]["signature"]
    assert set(await checks(old, expected())) == {"tpm.signature", "tpm.report_data"}
    found = await checks(old, Expected(BOUND))
    assert set(found) == {"tpm.ak", "tpm.signature", "tpm.report_data"}


@pytest.mark.parametrize("length", [0, 20, 31, 33, 48, 64])
async def test_init_data_of_any_length_is_no_crash(length: int) -> None:
    assert set(await checks(evidence(), expected(), bytes(length))) == {"init_data.algorithm"}


async def test_init_data() -> None:
    digest = hashlib.sha256(b"init data").digest()
    pcrs = (*PCRS[:8], hashlib.sha256(bytes(32) + digest).digest(), *PCRS[9:])
    claims = await verified(VERIFIER, evidence(pcrs=pcrs), expected(), digest)
    assert claims["init_data"] == pcrs[8].hex()
    assert set(await checks(evidence(), expected(), digest)) == {"tpm.pcr08"}


async def test_the_real_quote_is_of_another_session() -> None:
    real = json.loads(vector("tpm/evidence.json"))
    values = {"trusted_ak": [real["ak_public"]]}
    found = await checks(real, Expected(BOUND, reference_values=values))
    assert set(found) == {"tpm.report_data"}
    assert set(await checks(real, Expected(BOUND))) == {"tpm.ak", "tpm.report_data"}
    bound = tpm.Quote.parse(base64.b64decode(real["tpm_quote"]["message"])).extra_data
    theirs = Expected(ReportData(bound.ljust(48, b"\0")), reference_values=values)
    assert await verified(VERIFIER, real, theirs)
    real["tpm_quote"]["pcrs"][7] = "00" * 31 + "01"
    assert "tpm.pcr-digest" in await checks(real, theirs)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
NAMES = ["tpm_quote", "ak_public", "event_log", "aael", "credential", "cmdline"]


@settings(max_examples=50)
@given(junk=JSON, name=st.sampled_from([*NAMES, ""]), data=st.binary(max_size=80))
async def test_whatever_is_sent_there_is_an_answer(junk: Any, name: str, data: bytes) -> None:
    for value in (junk, b64(data)):
        try:
            await verified(VERIFIER, {**evidence(), name: value} if name else value, expected())
        except EvidenceError as error:
            assert error.findings  # noqa: PT017 - most are refused, some are harmless


# --- endorsement keys ---------------------------------------------------------------------


async def test_a_certified_tpm_is_challenged() -> None:
    certificate_of_the_tpm = certificate()
    demand = await VERIFIER.challenge(params(certificate_of_the_tpm), {}, SECRET)
    assert isinstance(demand, Demand)
    assert set(demand.params) == {"credential_blob", "encrypted_secret"}
    # What comes back is what was announced: no secret, no verdict.
    assert demand.state == params(certificate_of_the_tpm)
    proof = {"credential": {"proof": b64(tpm_credential.proof(SECRET, BOUND))}}
    kept = Kept(demand.state, SECRET)
    assert b64(SECRET) not in repr(kept)
    assert repr(SECRET) not in repr(kept)
    wanted = Expected(BOUND, kept=kept)
    claims = await verified(VERIFIER, evidence() | proof, wanted)
    assert claims["ak_trusted"] == "manager-ca"
    # The truncated form is for registered keys only; with a state none counts as such.
    short = evidence(BOUND[:32]) | proof
    assert set(await checks(short, wanted)) == {"tpm.report_data"}
    assert set(await checks(evidence(), expected(kept=kept))) == {"tpm.credential"}


async def test_the_table_believes_whom_it_was_told_of() -> None:
    announced = params(certificate())
    for authorities, believed in ((Authorities([CA]), True), (Authorities(), False), (None, False)):
        table = verifier_table(insecure_allow_sample=False, clock=lambda: NOW, tpm=authorities)
        challenge = table.find(Tee.TPM).challenge(announced, {}, SECRET)
        if believed:
            assert await challenge is not None
        else:
            with pytest.raises(EvidenceError):
                await challenge


SHOWN = tpm_credential.proof(SECRET, BOUND)


@pytest.mark.parametrize(
    "proof",
    [
        b64(tpm_credential.proof(bytes(32), BOUND)),
        b64(tpm_credential.proof(SECRET, ReportData(hashlib.sha384(b"other").digest()))),
        b64(SHOWN[:-1]),
        b64(SHOWN + b"\0"),
        b64(SECRET),
        b64(SHOWN)[:-1] + "!",
        "",
    ],
    ids=["guessed", "another session's", "short", "long", "the secret", "no base64", "empty"],
)
async def test_a_tpm_that_did_not_answer(proof: str) -> None:
    """Its certificate alone says nothing of who has it: anybody can send a copy."""
    wanted = expected(kept=Kept(params(certificate()), SECRET))
    bad = evidence() | {"credential": {"proof": proof}}
    assert set(await checks(bad, wanted)) == {"tpm.credential"}


async def test_a_tpm_that_answered_for_another_key() -> None:
    """One of its own, while the quote is by a key that a program made up."""
    other = rsa.generate_private_key(65537, 2048).public_key().public_numbers().n
    kept = Kept(params(certificate(), ak_public=ak_public(modulus=other)), SECRET)
    answered = evidence() | {"credential": {"proof": b64(SHOWN)}}
    assert set(await checks(answered, expected(kept=kept))) == {"tpm.ak"}


@pytest.mark.parametrize(
    ("modulus", "exponent"),
    [
        (1 << 1023 | 1, 0),
        (1 << 4096 | 1, 0),
        (1 << 2047, 0),
        (1 << 2047 | 1, 2),
        (1 << 2047 | 1, 1),
    ],
    ids=["1024 bits", "4097 bits", "even", "even exponent", "exponent 1"],
)
async def test_announced_keys_that_are_none(modulus: int, exponent: int) -> None:
    weak = params(certificate(), ak_public=ak_public(modulus=modulus, exponent=exponent))
    with pytest.raises(EvidenceError) as caught:
        await VERIFIER.challenge(weak, {}, SECRET)
    assert [finding.check for finding in caught.value.findings] == ["tpm.extra-params"]


@pytest.mark.parametrize(("size", "check"), [(12288, "ek-certificate"), (12289, "extra-params")])
async def test_a_certificate_is_not_read_at_any_length(size: int, check: str) -> None:
    with pytest.raises(EvidenceError) as caught:
        await VERIFIER.challenge(params(bytes(size)), {}, SECRET)
    assert [finding.check for finding in caught.value.findings] == [f"tpm.{check}"]


@pytest.mark.parametrize(
    ("ek", "said"),
    [
        (b"", "parse"),
        (b"0\x82\1\0" + bytes(256), "parse"),
        (certificate(issuer="another"), "does not trust"),
        (certificate(signer=ec.generate_private_key(ec.SECP256R1())), "does not trust"),
        (certificate(end=NOW - DAY / 2), "not valid now"),
        (certificate(begin=NOW + DAY / 2), "not valid now"),
        (certificate(usage=None), "not one for an endorsement key"),
        (certificate(usage=ExtendedKeyUsageOID.SERVER_AUTH), "not one for an endorsement key"),
        (certificate(ec.generate_private_key(ec.SECP256R1())), "cannot be challenged"),
        (certificate(rsa.generate_private_key(65537, 3072)), "cannot be challenged"),
    ],
    ids=["empty", "junk", "issuer", "signer", "old", "new", "no usage", "TLS", "EC", "RSA-3072"],
)
async def test_a_certificate_that_counts_for_nothing(
    ek: x509.Certificate | bytes, said: str
) -> None:
    with pytest.raises(EvidenceError, match=said) as caught:
        await VERIFIER.challenge(params(ek), {}, SECRET)
    assert [finding.check for finding in caught.value.findings] == ["tpm.ek-certificate"]
    # A key that the operator registered needs no certificate.
    assert await VERIFIER.challenge(params(ek), {"trusted_ak": [b64(SPKI)]}, SECRET) is None


async def test_an_expired_ca() -> None:
    old = certificate(ca=True, begin=NOW - 2 * DAY, end=NOW - DAY)
    with pytest.raises(EvidenceError, match="not valid now"):
        await TpmVerifier(Authorities([old]), clock=lambda: NOW).challenge(
            params(certificate()), {}, SECRET
        )


@pytest.mark.parametrize("bit", [1, 4, 5, 16, 18])
async def test_every_attribute_counts(bit: int) -> None:
    weak = params(certificate(), ak_public=ak_public(0x50072 & ~(1 << bit)))
    with pytest.raises(EvidenceError, match="restricted signing key"):
        await VERIFIER.challenge(weak, {}, SECRET)
    both = params(certificate(), ak_public=ak_public(0x50072 | 1 << 17))
    with pytest.raises(EvidenceError, match="restricted signing key"):
        await VERIFIER.challenge(both, {}, SECRET)


@pytest.mark.parametrize(
    "announced",
    [0, "", [], {}, {"ek_certificate": "!", "ak_public": ""}, params(b"", ak_public="")],
)
async def test_malformed_announcements(announced: Any) -> None:
    with pytest.raises(EvidenceError) as caught:
        await VERIFIER.challenge(announced, {}, SECRET)
    assert caught.value.findings


@pytest.mark.parametrize("member", ["ek_certificate", "ak_public"])
async def test_long_announcements_are_not_even_decoded(member: str) -> None:
    with pytest.raises(EvidenceError) as caught:
        await VERIFIER.challenge({**params(b""), member: "A" * 2_000_000}, {}, SECRET)
    assert f"{member} has more than" in caught.value.findings[0].problem


async def test_who_announces_nothing_is_asked_nothing() -> None:
    assert await VERIFIER.challenge(None, {}, SECRET) is None


# --- explanations -------------------------------------------------------------------------

FINDING = Finding("tpm.pcr04", "not good", "a", "b")
UEFI = [
    {"index": 4, "type": "EV_EFI_ACTION", "digest": "d1", "details": {"string": "Calling"}},
    {"index": 5, "type": "EV_SEPARATOR", "digest": "d0", "details": {}},
    {"index": 4, "type": "EV_APP", "digest": "d2", "details": {"device_paths": ["a", "b"]}},
]


def sequence(*digests: str) -> list[JsonObject]:
    return [{"digest": digest, "event": f"E{digest}"} for digest in digests]


@pytest.mark.parametrize(
    ("events", "said"),
    [
        (
            [sequence("d1", "d9")],
            "event 2 in its log is the first that differs: EV_APP a/b d2 instead of Ed9 d9",
        ),
        (
            [sequence("d9"), sequence("d1", "d8")],
            "event 2 in its log is the first that differs: EV_APP a/b d2 instead of Ed8 d8",
        ),
        (
            [sequence("d1", "d2", "d3")],
            "event 3 in its log is the first that differs: no event instead of Ed3 d3",
        ),
        ([sequence("d1", "d2")], "its log is as expected"),
        (None, "the events in its log: EV_EFI_ACTION Calling d1, EV_APP a/b d2"),
        (
            [sequence("d1", "d7"), sequence("d9"), sequence("d1", "d8")],
            "event 2 in its log is the first that differs: EV_APP a/b d2 instead of Ed7 d7",
        ),
        (
            ["junk", 5, {}, [1], [{}], [{"digest": "d1"}, 1]],
            "the events in its log: EV_EFI_ACTION Calling d1, EV_APP a/b d2",
        ),
    ],
)
def test_the_first_event_that_differs(events: Any, said: str) -> None:
    found = explain(FINDING, UEFI, {"tpm_pcr04_events": events})
    assert found.problem == f"not good; {said}"
    assert (found.check, found.actual, found.expected) == ("tpm.pcr04", "a", "b")


@pytest.mark.parametrize(
    ("count", "more"), [(19, ""), (20, ""), (21, ", 1 more"), (30, ", 10 more")]
)
def test_of_many_events_some_are_shown(count: int, more: str) -> None:
    named = {"type": "EV_EFI_VARIABLE_BOOT", "details": {"unicode_name": "Boot"}}
    events = [{"index": 4, "digest": f"d{number}", **named} for number in range(count)]
    shown = ", ".join(f"EV_EFI_VARIABLE_BOOT Boot d{number}" for number in range(min(count, 20)))
    found = explain(FINDING, events, {})
    assert found.problem == f"not good; the events in its log: {shown}{more}"


def test_what_has_no_events_is_left_alone() -> None:
    for check in ("tpm.debug", "init_data", "tpm.pcr04x"):
        finding = Finding(check, "not good")
        assert explain(finding, UEFI, {}) == finding
    assert explain(FINDING, [], {}).problem == "not good; its log has no events"
    init_data = explain(Finding("tpm.pcr08", "not good"), UEFI, {})
    assert init_data.problem.startswith("not good; its only event is the digest of what the host")


# --- a real boot ------------------------------------------------------------------------

BOOT: dict[str, Any] = json.loads(
    (Path(__file__).parent / "boot-of-debian12-ovmf.json").read_text("utf-8")
)


def booted(**changes: Any) -> dict[str, Any]:
    pcrs = tuple(map(bytes.fromhex, BOOT["pcrs"]))
    return {**evidence(pcrs=pcrs), "event_log": BOOT["event_log"], **changes}


async def test_the_log_of_a_real_boot_leads_to_its_pcrs() -> None:
    claims = await verified(VERIFIER, booted(aael="", cmdline=BOOT["cmdline"]), expected())
    assert claims["debug"] is True
    assert claims["computations"] == []
    own = [event for event in claims["uefi"] if event["index"] == 4]
    assert [event["type"] for event in own] == [
        "EV_EFI_BOOT_SERVICES_APPLICATION",
        "EV_EFI_ACTION",
        "EV_SEPARATOR",
        "EV_EFI_BOOT_SERVICES_APPLICATION",
    ]
    assert own[0]["details"]["device_paths"][1] == "File(kernel)"


@pytest.mark.parametrize("cmdline", ["", "cocos.debug", BOOT["cmdline"].replace("debug", "x")])
async def test_another_command_line_is_refused(cmdline: str) -> None:
    assert set(await checks(booted(cmdline=cmdline), expected())) == {"tpm.cmdline"}


async def test_without_the_command_line_nothing_is_said_of_debugging() -> None:
    claims = await verified(VERIFIER, booted(), expected())
    assert not {"debug", "cmdline"} & claims.keys()


async def test_a_log_that_leads_elsewhere_is_refused_without_the_agents() -> None:
    """It becomes claims; that there is no other log changes nothing."""
    other = evidence() | {"event_log": BOOT["event_log"]}
    assert "tpm.pcr04" in await checks(other, expected())


@pytest.mark.parametrize("content", ["", "{}", "[]", "junk"])
async def test_a_computation_that_does_not_read_is_not_left_out(content: str) -> None:
    """It was measured: without it the claims would be those of a VM that never ran it."""
    event = runtime("cocos", "computation", content)
    pcrs = (*PCRS[:14], tpm.extend(bytes(32), event.extended), *PCRS[15:])
    bad = evidence(pcrs=pcrs) | {"aael": b64(event.record)}
    assert set(await checks(bad, expected())) == {"tpm.event-log"}
    other = runtime("cocos", "other", content)
    pcrs = (*PCRS[:14], tpm.extend(bytes(32), other.extended), *PCRS[15:])
    good = evidence(pcrs=pcrs) | {"aael": b64(other.record)}
    assert (await verified(VERIFIER, good, expected()))["computations"] == []
