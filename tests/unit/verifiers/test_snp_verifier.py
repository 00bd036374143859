# SPDX-License-Identifier: Apache-2.0
"""The SNP verifier: real reports, reports of a processor in software, one attack per step."""

import base64
import contextlib
import datetime as dt
import hashlib
import json
from typing import Any

import pytest
from _snp import (
    ASK,
    ASK_KEY,
    ASVK,
    CHIP_KEY,
    NOW,
    OTHER_KEY,
    ROOT,
    ROOT_KEY,
    SIMULATED,
    YEAR,
    Chip,
    certificate,
    der,
    integer,
    is_ca,
    revocation_list,
    signature,
)
from _vectors import vector
from _verified import verified
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from cocos._types import ReportData
from cocos.attestation_agent.event import record, tagged_event
from cocos.errors import ConfigError, EvidenceError, FormatError
from cocos.evidence import snp, snp_json
from cocos.evidence.snp import Product, Report, SigningKey, Tcb
from cocos.evidence.snp_binding import bind
from cocos.evidence.snp_json import of_bytes
from cocos.verifiers import Expected, verifier_table
from cocos.verifiers._pinned import key_hash
from cocos.verifiers.amd import authorities, endorsement
from cocos.verifiers.amd.authorities import Authorities, Authority, parse_authority
from cocos.verifiers.collateral import Held, Item
from cocos.verifiers.snp import SnpVerifier
from cocos.wire.kbs.protocol import Tee

BOUND = ReportData(hashlib.sha384(b"session").digest())
EXPECTED = Expected(BOUND)
CHIP = Chip()
TURIN = Chip(Product.TURIN, Tcb(1, 0, 4, 75, 3), bytes(range(1, 9)))
VLEK = Chip(kind=SigningKey.VLEK)
GOOD = of_bytes(CHIP.report(BOUND), CHIP.certificate())


def verifier(trusted: Authorities = SIMULATED, **items: bytes) -> SnpVerifier:
    held = {name: Item(data, NOW - YEAR, NOW + YEAR) for name, data in items.items()}
    return SnpVerifier(trusted, Held(held), clock=lambda: NOW)


async def refused(evidence: Any, init_data: bytes | None = None, **more: Any) -> list[str]:
    with pytest.raises(EvidenceError) as caught:
        await verified(more.pop("by", None) or verifier(), evidence, EXPECTED, init_data)
    return [finding.check for finding in caught.value.findings]


def genoa() -> tuple[Any, Expected]:
    evidence = json.loads(vector("snp/genoa-v3-evidence.json"))
    return evidence, Expected(ReportData(bytes(evidence["attestation_report"]["report_data"])))


def amd(at: dt.datetime = NOW) -> SnpVerifier:
    return SnpVerifier(clock=lambda: at)


async def test_a_real_report_of_genoa() -> None:
    evidence, expected = genoa()
    claims = await verified(amd(), evidence, expected)
    assert claims["measurement"].startswith("6a6519d757e68c2e")
    levels = ("bootloader", "tee", "snp", "microcode")
    assert [claims[f"reported_tcb_{level}"] for level in levels] == [10, 0, 23, 25]
    assert claims["report_data"].startswith("7e7320889600c7ac")
    assert claims["init_data"] == "00" * 32
    assert claims["authority_insecure"] is False
    assert claims["policy_debug_allowed"] is False
    table = verifier_table(insecure_allow_sample=False, clock=lambda: NOW)
    assert await verified(table.find(Tee.SNP), evidence, expected) == claims


async def test_a_real_report_by_its_bytes() -> None:
    evidence, expected = genoa()
    raw = snp_json.parse(evidence).report()
    vcek = bytes(evidence["cert_chain"][0]["data"])
    assert await verified(amd(), of_bytes(raw, vcek), expected) == await verified(
        amd(), evidence, expected
    )


async def test_a_real_report_without_its_certificate_names_what_is_missing() -> None:
    evidence, expected = genoa()
    vcek = bytes(evidence["cert_chain"][0]["data"])
    report = Report.parse(snp_json.parse(evidence).report())
    name = endorsement.vcek_name(report)
    for chain in (None, [], [{"cert_type": "Empty", "data": []}], [{"cert_type": {"OTHER": "x"}, "data": [1]}]):  # fmt: skip
        evidence["cert_chain"] = chain
        with pytest.raises(EvidenceError) as caught:
            await verified(amd(), evidence, expected)
        assert caught.value.hint == f"cocos-cli collateral fetch {name}"
        stored = verifier(Authorities(), **{name: vcek})
        assert (await verified(stored, evidence, expected))["product"] == "Genoa"


async def test_a_real_report_of_milan_in_an_old_version() -> None:
    raw, vcek = vector("snp/milan-v2-report.bin"), vector("snp/milan-v2-vcek.der")
    report = Report.parse(raw)
    assert report.measurement.hex().startswith("a1f3930413247bb38cfc171579ea3c12")
    assert await refused(of_bytes(raw, vcek), by=amd()) == ["snp.version"]
    # Its signature, chain and levels hold: only its version keeps it out.
    certificate_ = x509.load_der_x509_certificate(vcek)
    key = certificate_.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert endorsement.signature_findings(report, key) == []
    changed = bytearray(raw)
    changed[42] += 1
    (finding,) = endorsement.signature_findings(Report.parse(bytes(changed)), key)
    assert finding.check == "snp.signature"
    (milan,) = Authorities().of(Product.MILAN)
    ask, asvk = (milan.intermediates[kind] for kind in (SigningKey.VCEK, SigningKey.VLEK))
    assert authorities.why_not_signed(certificate_, ask) is None
    assert authorities.why_not_signed(certificate_, asvk) is not None
    found = endorsement.Endorsement(SigningKey.VCEK, key, certificate_, "", None)
    assert endorsement.platform_findings(report, found) == []
    changed = bytearray(raw)
    changed[0x180] += 1
    (finding,) = endorsement.platform_findings(Report.parse(bytes(changed)), found)
    assert finding.check == "snp.tcb.bootloader"


@pytest.mark.parametrize("product", Product)
def test_roots_are_pinned(product: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = Authorities().of(product)
    assert key_hash(found.root) == authorities.PINNED[product]
    for below in found.intermediates.values():
        assert authorities.why_not_signed(below, found.root) is None
    authorities._amd.cache_clear()
    monkeypatch.setattr(authorities, "PINNED", dict.fromkeys(Product, "00" * 32))
    with pytest.raises(ConfigError, match="not AMD's"):
        Authorities().of(product)
    authorities._amd.cache_clear()


@pytest.mark.parametrize("chip", [CHIP, TURIN, VLEK, Chip(Product.MILAN)], ids=str)
@pytest.mark.parametrize("version", [3, 4, 5])
async def test_reports_of_a_processor_in_software(chip: Chip, version: int) -> None:
    evidence = of_bytes(chip.report(BOUND, version=version), chip.certificate(), chip.kind.name)
    claims = await verified(verifier(), evidence, EXPECTED)
    assert claims["authority_insecure"] is True
    assert claims["signing_key"] == chip.kind.name.lower()
    assert claims.get("reported_tcb_fmc") == chip.tcb.fmc
    assert claims["product"] == str(chip.product)
    (check,) = await refused(evidence, by=amd())
    assert check == "snp.chain"


@pytest.mark.parametrize(
    ("cpuid", "product"),
    [
        ((0x19, 0x0F), Product.MILAN),
        ((0x19, 0x1F), Product.GENOA),
        ((0x19, 0xA0), Product.GENOA),
        ((0x19, 0xAF), Product.GENOA),
        ((0x1A, 0x02), Product.TURIN),
        ((0x1A, 0x11), Product.TURIN),
        ((0x19, 0x20), None),
        ((0x19, 0xB0), None),
        ((0x1A, 0x20), None),
        ((0x17, 0x31), None),
    ],
)
async def test_processors(cpuid: tuple[int, int], product: Product | None) -> None:
    assert Product.of(*cpuid) is product
    if product is None:
        raw = CHIP.report(BOUND, cpuid=(*cpuid, 0))
        assert await refused(of_bytes(raw, CHIP.certificate())) == ["snp.processor"]


REPORTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "version 2": ({"version": 2}, ["snp.version"]),
    "version 6": ({"version": 6}, ["snp.version"]),
    "version 1": ({"version": 1}, ["snp.evidence"]),
    "no key signed": ({"key_info": SigningKey.NONE << 2}, ["snp.signing-key"]),
    "a key of a kind nobody knows": ({"key_info": 2 << 2}, ["snp.signing-key"]),
    "signed by a VLEK": ({"key_info": SigningKey.VLEK << 2}, ["snp.certificate"]),
    "another algorithm": ({"algorithm": 2}, ["snp.signature"]),
    "another key": ({"key": ec.generate_private_key(ec.SECP384R1())}, ["snp.signature"]),
    "asked for by the guest's lowest": ({"vmpl": 3}, ["snp.vmpl"]),
}


@pytest.mark.parametrize("case", REPORTS)
async def test_what_a_report_says(case: str) -> None:
    changes, findings = REPORTS[case]
    assert await refused(of_bytes(CHIP.report(BOUND, **changes), CHIP.certificate())) == findings


@pytest.mark.parametrize(
    "bound", [bytes(48), b"", hashlib.sha384(b"another").digest(), BOUND[:47], bytes(BOUND) + b"x"]
)
async def test_another_session(bound: bytes) -> None:
    assert await refused(of_bytes(CHIP.report(bound), CHIP.certificate())) == ["snp.report_data"]


async def test_report_data_that_does_not_fit() -> None:
    """What is not bound whole is not bound."""
    long = ReportData(bytes(65))
    with pytest.raises(EvidenceError):
        await verified(
            verifier(), of_bytes(CHIP.report(bytes(64)), CHIP.certificate()), Expected(long)
        )


async def test_init_data() -> None:
    digest = hashlib.sha384(b"toml").digest()
    shown = of_bytes(CHIP.report(BOUND, digest[:32]), CHIP.certificate())
    assert (await verified(verifier(), shown, EXPECTED, digest))["init_data"] == digest[:32].hex()
    assert (await verified(verifier(), shown, EXPECTED, digest[:32]))["init_data"]
    assert await refused(shown, bytes(32)) == ["snp.host_data"]
    assert await refused(GOOD, digest) == ["snp.host_data"]
    assert await refused(GOOD, b"") == ["init_data.algorithm"]


CERTIFICATES: dict[str, tuple[bytes, list[str]]] = {
    "expired": (CHIP.certificate(end=NOW - dt.timedelta(days=1)), ["snp.chain"]),
    "not yet valid": (CHIP.certificate(begin=NOW + dt.timedelta(days=1)), ["snp.chain"]),
    "by another key": (CHIP.certificate(signer=OTHER_KEY), ["snp.chain"]),
    "by the root": (CHIP.certificate(signer=ROOT_KEY, issuer="ARK-Sim"), ["snp.chain"]),
    "by the authority of VLEKs": (
        CHIP.certificate(signer=OTHER_KEY, issuer="SEV-VLEK-Sim"),
        ["snp.chain"],
    ),
    "names another issuer": (CHIP.certificate(issuer="ARK-Sim"), ["snp.chain"]),
    "signed in another way": (CHIP.certificate(scheme=padding.PKCS1v15()), ["snp.chain"]),
    "of another name": (CHIP.certificate(common="SEV-VLEK"), ["snp.chain"]),
    "a key on another curve": (
        CHIP.certificate(key=ec.generate_private_key(ec.SECP256R1())),
        ["snp.certificate"],
    ),
    "an RSA key": (CHIP.certificate(key=OTHER_KEY), ["snp.certificate"]),
    "of another chip": (
        CHIP.certificate(more=CHIP.extensions(chip=bytes(64))),
        ["snp.chip_id"],
    ),
    "of the chip's first bytes": (
        CHIP.certificate(more=CHIP.extensions(chip=CHIP.identity[:8])),
        ["snp.chip_id"],
    ),
    "older firmware": (
        CHIP.certificate(more=CHIP.extensions(Tcb(10, 0, 22, 200))),
        ["snp.tcb.snp"],
    ),
    "nothing in it": (
        CHIP.certificate(more=()),
        ["snp.tcb.bootloader", "snp.tcb.tee", "snp.tcb.snp", "snp.tcb.microcode", "snp.chip_id"],
    ),
    "no certificate": (b"\x30\x03\x02\x01\x01", ["snp.certificate"]),
    "cut short": (CHIP.certificate()[:-1], ["snp.certificate"]),
}


@pytest.mark.parametrize("case", CERTIFICATES)
async def test_certificates(case: str) -> None:
    data, findings = CERTIFICATES[case]
    assert await refused(of_bytes(CHIP.report(BOUND), data)) == findings


async def test_levels_of_turin_have_one_part_more() -> None:
    older = TURIN.certificate(more=TURIN.extensions(Tcb(1, 0, 4, 75, 2)))
    assert await refused(of_bytes(TURIN.report(BOUND), older)) == ["snp.tcb.fmc"]
    without = TURIN.certificate(more=TURIN.extensions(Tcb(1, 0, 4, 75)))
    assert await refused(of_bytes(TURIN.report(BOUND), without)) == ["snp.tcb.fmc"]
    octets = b"\x04\x08" + TURIN.identity
    framed = TURIN.certificate(more=TURIN.extensions(chip=octets))
    assert await verified(verifier(), of_bytes(TURIN.report(BOUND), framed), EXPECTED)


async def test_a_framed_name_of_a_chip_and_a_hidden_one() -> None:
    framed = CHIP.certificate(more=CHIP.extensions(chip=b"\x04\x40" + CHIP.identity))
    assert await verified(verifier(), of_bytes(CHIP.report(BOUND), framed), EXPECTED)
    hidden = Chip(identity=bytes(64)).report(BOUND)
    claims = await verified(verifier(), of_bytes(hidden, CHIP.certificate()), EXPECTED)
    assert claims["chip_id"] == "00" * 64
    assert await refused(of_bytes(hidden)) == ["snp.certificate"]
    assert await refused(of_bytes(VLEK.report(BOUND))) == ["snp.certificate"]


def chain(**others: bytes) -> Any:
    entries = {"VCEK": CHIP.certificate()} | others
    listed = [{"cert_type": kind, "data": list(data)} for kind, data in entries.items()]
    return of_bytes(CHIP.report(BOUND)) | {"cert_chain": listed}


async def test_chains_that_come_along_are_preferred_and_not_believed() -> None:
    key = rsa.generate_private_key(65537, 2048)
    again = certificate("SEV-Sim", key, "ARK-Sim", ROOT_KEY, more=is_ca(), serial=8)
    vcek = CHIP.certificate(signer=key)
    assert await verified(verifier(), chain(VCEK=vcek, ASK=der(again), ARK=der(ROOT)), EXPECTED)
    own = certificate("SEV-Sim", key, "ARK-Sim", key, more=is_ca())
    assert await refused(chain(VCEK=vcek, ASK=der(own))) == ["snp.chain"]
    root = certificate("ARK-Sim", key, "ARK-Sim", key, more=is_ca())
    assert await refused(chain(VCEK=vcek, ASK=der(own), ARK=der(root))) == ["snp.chain"]
    # In the wrong order, in a loop, and authorities that are none.
    assert await refused(chain(ASK=der(ROOT), ARK=der(ASK))) == ["snp.chain"]
    assert await refused(chain(ASK=CHIP.certificate())) == ["snp.chain"]
    loop = certificate("SEV-Sim", ASK_KEY, "SEV-Sim", ASK_KEY, more=is_ca())
    assert await refused(chain(ASK=der(loop))) == ["snp.chain"]
    assert await refused(chain(ASK=der(ASVK))) == ["snp.chain"]
    for more in ((), is_ca(certifies=False), is_ca()[:1], is_ca()[1:]):
        none = certificate("SEV-Sim", ASK_KEY, "ARK-Sim", ROOT_KEY, more=more)
        assert await refused(chain(ASK=der(none))) == ["snp.chain"]
    old = certificate("SEV-Sim", ASK_KEY, "ARK-Sim", ROOT_KEY, end=NOW - dt.timedelta(1), more=is_ca())  # fmt: skip
    assert await refused(chain(ASK=der(old))) == ["snp.chain"]


@pytest.mark.parametrize("issuer_is_ours", [True, False])
async def test_a_revoked_authority(issuer_is_ours: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """AMD's lists count for AMD's chains: here the root in software stands for AMD's."""
    ours = Authority(ROOT, {SigningKey.VCEK: ASK, SigningKey.VLEK: ASVK})
    monkeypatch.setattr(authorities, "_amd", lambda _: ours)
    name = authorities.crl_name(Product.GENOA, SigningKey.VCEK)
    signer = ROOT_KEY if issuer_is_ours else OTHER_KEY
    listed = verifier(Authorities(), **{name: revocation_list(ASK.serial_number, signer=signer)})
    if not issuer_is_ours:
        with pytest.raises(EvidenceError, match="not AMD's list"):
            await verified(listed, GOOD, EXPECTED)
        return
    assert await refused(GOOD, by=listed) == ["snp.revoked"]
    other = verifier(Authorities(), **{name: revocation_list(99)})
    assert (await verified(other, GOOD, EXPECTED))["revocation"] == "good"
    late = verifier(Authorities(), **{name: revocation_list(99, end=NOW - dt.timedelta(days=1))})
    assert (await verified(late, GOOD, EXPECTED))["revocation"] == "not-checked"
    assert (await verified(verifier(Authorities()), GOOD, EXPECTED))["revocation"] == "not-checked"


async def test_every_bit_of_a_real_report() -> None:
    """Refused, or one of the bytes that are neither signed nor part of the signature."""
    evidence, expected = genoa()
    raw, vcek = snp_json.parse(evidence).report(), bytes(evidence["cert_chain"][0]["data"])
    whole = await verified(amd(), of_bytes(raw, vcek), expected)
    report = Report.parse(raw)
    key = x509.load_der_x509_certificate(vcek).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    end = snp.SIGNED_BYTES + 144
    for bit in range(end * 8):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        with contextlib.suppress(FormatError):
            parsed = Report.parse(bytes(changed))
            assert parsed != report
            assert endorsement.signature_findings(parsed, key), bit
    unsigned = bytearray(raw)
    unsigned[end:] = b"\xff" * (len(raw) - end)
    assert await verified(amd(), of_bytes(bytes(unsigned), vcek), expected) == whole
    for position in range(0, end, 61):  # the whole way, too
        changed = bytearray(raw)
        changed[position] ^= 0x10
        with pytest.raises(EvidenceError):
            await verified(amd(), of_bytes(bytes(changed), vcek), expected)


FIELDS = (
    "version",
    "policy",
    "plat_info",
    "key_info",
    "vmpl",
    "chip_id",
    "cpuid_fam_id",
    "signature",
)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", [None, -1, 2**64, "x", [], {}, [256] * 64, 1.5, True])
async def test_fields_of_other_types(field: str, value: Any) -> None:
    evidence, _ = genoa()
    evidence["attestation_report"][field] = value
    (check,) = await refused(evidence, by=amd())
    assert check in {"snp.evidence", "snp.version"}


@pytest.mark.parametrize(
    "evidence",
    [None, [], "", {}, {"attestation_report": None}, {"attestation_report": ""},
     {"attestation_report": "A" * 10**6}, {"attestation_report": "!"},
     of_bytes(bytes(1184)), of_bytes(bytes(1183)), of_bytes(b"\xff" * 1184),
     GOOD | {"cert_chain": GOOD["cert_chain"] * 9}, GOOD | {"cert_chain": "VCEK"},
     GOOD | {"cert_chain": [{"cert_type": "VCEK", "data": [0] * 10**5}]},
     GOOD | {"cert_chain": [{"cert_type": "VCEK", "data": list(b"-----BEGIN CERTIFICATE-----")}]}],
)  # fmt: skip
async def test_malformed(evidence: Any) -> None:
    (check,) = await refused(evidence)
    assert check in {"snp.evidence", "snp.version"}


def test_levels_of_another_processor_do_not_fit() -> None:
    evidence, _ = genoa()
    evidence["attestation_report"]["reported_tcb"]["fmc"] = 1
    with pytest.raises(Exception, match="its processor has none"):
        snp_json.parse(evidence).report()


@settings(max_examples=200)
@given(data=st.binary(max_size=1300) | st.binary(min_size=1184, max_size=1184))
async def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(EvidenceError):
        await verified(verifier(), of_bytes(data, CHIP.certificate()), EXPECTED)


@settings(max_examples=300)
@given(position=st.integers(0, len(CHIP.certificate()) - 1), bit=st.integers(0, 7))
async def test_any_bit_of_a_certificate(position: int, bit: int) -> None:
    data = bytearray(bytes(GOOD["cert_chain"][0]["data"]))
    data[position] ^= 1 << bit
    changed = of_bytes(CHIP.report(BOUND), bytes(data))
    try:
        claims = await verified(verifier(), changed, EXPECTED)
    except EvidenceError:
        return
    # The copy of the signature's algorithm outside of what is signed: nobody goes by it.
    assert claims == await verified(
        verifier(), of_bytes(CHIP.report(BOUND), CHIP.certificate()), EXPECTED
    )


def test_levels_survive_a_round_trip() -> None:
    for tcb in (Tcb(1, 2, 3, 4), Tcb(1, 2, 3, 4, 5)):
        assert Tcb.parse(tcb.encode(), with_fmc=tcb.fmc is not None) == tcb


def test_an_authority_of_somebody() -> None:
    pem = b"".join(one.public_bytes(serialization.Encoding.PEM) for one in (ASK, ROOT, ASVK))
    found = parse_authority(pem, "trial")
    assert found.root == ROOT
    assert found.intermediates == {SigningKey.VCEK: ASK, SigningKey.VLEK: ASVK}
    for bad in (b"", b"-----BEGIN CERTIFICATE-----", pem.split(b"-----BEGIN")[0]):
        with pytest.raises(ConfigError):
            parse_authority(bad, "trial")


def test_signatures_of_the_helpers_are_little_endian() -> None:
    raw = CHIP.report(BOUND)
    assert raw[: snp.SIGNED_BYTES] == Report.parse(raw).signed
    assert signature(b"x", CHIP_KEY)[48:72] == bytes(24)
    assert integer(217) == bytes.fromhex("020200d9")


def with_log(log: bytes, shown: bytes | None, bound: bytes = BOUND) -> Any:
    evidence = of_bytes(CHIP.report(bind(bound, log)), CHIP.certificate())
    return evidence if shown is None else evidence | {"aael": base64.b64encode(shown).decode()}


def event(domain: str, content: str) -> bytes:
    data = tagged_event(domain, "op", content)
    return record(14, hashlib.sha384(data).digest(), data, algorithm="sha384")


async def test_runtime_events_are_bound_through_report_data() -> None:
    log = event("example.org", "one") + event("example.org", "two")
    claims = await verified(verifier(), with_log(log, log), EXPECTED)
    assert [each["content"] for each in claims["runtime_events"]] == ["one", "two"]
    assert claims["computations"] == []
    assert claims["computations_bound_by"] == "report_data"


@pytest.mark.parametrize(
    "case", ["left out", "shorter", "in another order", "another", "of another session", "added"]
)
async def test_a_log_that_is_not_the_bound_one(case: str) -> None:
    one, two = event("example.org", "one"), event("example.org", "two")
    shown = {"left out": None, "shorter": one, "in another order": two + one, "another": two}
    evidence = with_log(one + two, shown.get(case, one + two))
    if case == "of another session":
        evidence = with_log(one, one, hashlib.sha384(b"another").digest())
    if case == "added":
        evidence = GOOD | {"aael": base64.b64encode(one).decode()}
    assert await refused(evidence) == ["snp.report_data"]


async def test_report_data_that_mimics_a_log_is_not_believed() -> None:
    """Also where somebody expects just that."""
    log = event("example.org", "one")
    chosen = ReportData(bind(BOUND, log))
    with pytest.raises(EvidenceError):
        await verified(verifier(), with_log(log, None), Expected(chosen))


async def test_a_log_that_does_not_hold() -> None:
    changed = event("example.org", "one").replace(b"one", b"two")
    assert await refused(with_log(changed, changed)) == ["snp.event-log.0"]
    assert await refused(with_log(b"x", b"x")) == ["snp.event-log"]
    assert await refused(GOOD | {"aael": "!"}) == ["snp.evidence"]
