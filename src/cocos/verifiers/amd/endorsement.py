# SPDX-License-Identifier: Apache-2.0
"""The certificate of the key that signed a report: VCEK, of a chip, or VLEK, of a cloud."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from cocos.crypto.certificates import UNREADABLE
from cocos.errors import EvidenceError, Finding
from cocos.evidence import snp
from cocos.evidence.snp import Product, Report, SigningKey
from cocos.verifiers._pinned import key_hash
from cocos.verifiers.amd import authorities
from cocos.verifiers.amd.authorities import INTERMEDIATE, Authorities, Authority
from cocos.verifiers.collateral import Collateral

_ARC: Final = "1.3.6.1.4.1.3704.1"
_CHIP_ID: Final = x509.ObjectIdentifier(f"{_ARC}.4")
_LEVELS: Final = (
    ("bootloader", x509.ObjectIdentifier(f"{_ARC}.3.1")),
    ("tee", x509.ObjectIdentifier(f"{_ARC}.3.2")),
    ("snp", x509.ObjectIdentifier(f"{_ARC}.3.3")),
    ("microcode", x509.ObjectIdentifier(f"{_ARC}.3.8")),
)
_FMC: Final = x509.ObjectIdentifier(f"{_ARC}.3.9")
_INTEGER: Final = 0x02
_OCTETS: Final = 0x04


@dataclass(frozen=True, slots=True)
class Endorsement:
    """A key that counts: its certificate chains to a root.

    Attributes:
        kind: VCEK or VLEK.
        key: Signs reports.
        certificate: Of the key.
        revocation: ``good``, or ``not-checked`` where no list is stored.
        insecure: Name of the root if it is not AMD's.
    """

    kind: SigningKey
    key: ec.EllipticCurvePublicKey
    certificate: x509.Certificate
    revocation: str
    insecure: str | None


def vcek_name(report: Report) -> str:
    """Return the name of a chip's certificate in the collateral."""
    chip = report.chip_id
    if report.product is Product.TURIN:
        chip = chip[: snp.TURIN_CHIP_ID_BYTES]
    return f"amd/vcek/{str(report.product).lower()}/{chip.hex()}/{report.reported_tcb}"


def endorse(
    report: Report,
    provided: Mapping[str, bytes],
    trusted: Authorities,
    collateral: Collateral,
    now: dt.datetime,
) -> Endorsement:
    """Return the key that has to have signed a report.

    Args:
        report: The report; its product is known.
        provided: Certificates that came with it, kind → DER: preferred, not believed.
        trusted: Whose chains count.
        collateral: Where the certificate is looked for if it did not come.
        now: When everything has to be valid.

    Raises:
        EvidenceError: there is none that counts.
    """
    if report.product is None or report.signing_key not in INTERMEDIATE:
        raise _refused("signing-key", "the report is not signed by a VCEK or VLEK")
    kind = SigningKey(report.signing_key)
    if kind.name not in provided and set(provided) & {each.name for each in INTERMEDIATE}:
        problem = f"the report is signed by a {kind.name}; the certificate is of another kind"
        raise _refused("certificate", problem)
    leaf = _load(kind.name, _leaf(kind, report, provided, collateral, now))
    problems = []
    for authority in trusted.of(report.product):
        chain = _chain(leaf, kind, authority, provided, now)
        if isinstance(chain, str):
            problems.append(chain)
            continue
        revoked = None
        if authority.insecure is None:
            revoked = authorities.revoked(report.product, kind, chain, collateral, now)
        if revoked:
            raise _refused("revoked", f"AMD has revoked the {INTERMEDIATE[kind]} of this key")
        checked = "not-checked" if revoked is None else "good"
        return Endorsement(kind, _key(leaf, kind), leaf, checked, authority.insecure)
    raise _refused("chain", problems[0])


def signature_findings(report: Report, key: ec.EllipticCurvePublicKey) -> list[Finding]:
    """Check a report's signature."""
    if report.signature_algorithm != snp.ECDSA_P384_SHA384:
        problem = "the report is not signed by ECDSA P-384 with SHA-384"
        actual = str(report.signature_algorithm)
        return [Finding("snp.signature", problem, actual, str(snp.ECDSA_P384_SHA384))]
    try:
        signature = utils.encode_dss_signature(*report.signature)
        key.verify(signature, report.signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        return [Finding("snp.signature", "the report is not signed by the key in the certificate")]
    return []


def platform_findings(report: Report, found: Endorsement) -> list[Finding]:
    """Check that the certificate is of the chip and of the firmware that the report names."""
    findings = []
    levels = list(_LEVELS)
    if report.reported_tcb.fmc is not None:
        levels.append(("fmc", _FMC))
    for name, oid in levels:
        reported, certified = getattr(report.reported_tcb, name), _level(found.certificate, oid)
        if reported != certified:
            problem = "the certificate is of other firmware than the report says"
            wanted = "absent" if certified is None else str(certified)
            findings.append(Finding(f"snp.tcb.{name}", problem, str(reported), wanted))
    if found.kind is SigningKey.VCEK:
        findings += _chip_findings(report, found.certificate)
    return findings


def _chip_findings(report: Report, certificate: x509.Certificate) -> list[Finding]:
    if not any(report.chip_id):
        return []  # the host's owner hides it (MASK_CHIP_ID): the key is the chip's all the same
    named = _extension(certificate, _CHIP_ID) or b""
    size = len(report.chip_id)
    if len(named) == size + 2 and named[:2] == bytes([_OCTETS, size]):
        named = named[2:]
    turin = report.product is Product.TURIN
    if turin and named[:2] == bytes([_OCTETS, snp.TURIN_CHIP_ID_BYTES]) and len(named) == 10:  # noqa: PLR2004
        named = named[2:]
    if named and named.ljust(size, b"\0") == report.chip_id and (turin or len(named) == size):
        return []
    problem = "the certificate is of another chip"
    return [Finding("snp.chip_id", problem, report.chip_id.hex(), named.hex())]


def _leaf(
    kind: SigningKey,
    report: Report,
    provided: Mapping[str, bytes],
    collateral: Collateral,
    now: dt.datetime,
) -> bytes:
    if kind.name in provided:
        return provided[kind.name]
    if kind is SigningKey.VLEK:
        problem = "a VLEK's certificate comes from the host alone, and did not come"
        raise _refused("certificate", problem)
    if not any(report.chip_id):
        problem = "the host hides the chip's name, and sent no certificate"
        raise _refused("certificate", problem)
    return collateral.get(vcek_name(report), now)


def _chain(
    leaf: x509.Certificate,
    kind: SigningKey,
    authority: Authority,
    provided: Mapping[str, bytes],
    now: dt.datetime,
) -> tuple[x509.Certificate, ...] | str:
    """Return root, intermediate and leaf, or say what is wrong with them."""
    root, name = authority.root, INTERMEDIATE[kind]
    given = provided.get("ASK")  # guests call the ASVK so, too
    intermediate = _load("ASK", given) if given else authority.intermediates.get(kind)
    if intermediate is None:
        return f"there is no {name}"
    if "ARK" in provided and _key_hash("ARK", provided["ARK"]) != key_hash(root):
        return "the ARK is not AMD's"
    links = (("ARK", root, root), (name, intermediate, root), (kind.name, leaf, intermediate))
    for what, certificate, issuer in links:
        problem = authorities.why_not_signed(certificate, issuer)
        if problem is None and certificate is not leaf:
            problem = authorities.why_no_authority(certificate, now)
        if problem is None and certificate is leaf:
            problem = _why_no_leaf(leaf, kind) or authorities.why_not_valid(leaf, now)
        if problem is not None:
            return f"the {what} does not count: {problem}"
    return root, intermediate, leaf


def _why_no_leaf(leaf: x509.Certificate, kind: SigningKey) -> str | None:
    """Say why a certificate that an ASK signed is not one of a key that signs reports."""
    names = leaf.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    if [name.value for name in names] != [f"SEV-{kind.name}"]:
        return f"its name is not SEV-{kind.name}"
    return None


def _key(leaf: x509.Certificate, kind: SigningKey) -> ec.EllipticCurvePublicKey:
    try:
        key = leaf.public_key()
    except UNREADABLE as error:
        raise _refused("certificate", f"the {kind.name} has no key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise _refused("certificate", f"the {kind.name} has no key on P-384")
    return key


def _load(what: str, der: bytes) -> x509.Certificate:
    try:
        certificate = x509.load_der_x509_certificate(der)
        certificate.extensions  # noqa: B018 - parses them
        certificate.subject, certificate.issuer  # noqa: B018
    except UNREADABLE as error:
        raise _refused("certificate", f"the {what} does not parse: {error}") from error
    return certificate


def _key_hash(what: str, der: bytes) -> str:
    try:
        return key_hash(_load(what, der))
    except UNREADABLE as error:
        raise _refused("certificate", f"the {what} does not parse: {error}") from error


def _level(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> int | None:
    """Return a DER INTEGER of one byte's range; None if it is none."""
    value = _extension(certificate, oid) or b""
    if len(value) not in {3, 4} or value[0] != _INTEGER or value[1] != len(value) - 2:
        return None
    number = int.from_bytes(value[2:], "big", signed=True)
    return number if 0 <= number < 256 else None  # noqa: PLR2004 - one byte


def _extension(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> bytes | None:
    for extension in certificate.extensions:
        if extension.oid == oid and isinstance(extension.value, x509.UnrecognizedExtension):
            return extension.value.value
    return None


def _refused(step: str, problem: str) -> EvidenceError:
    return refused([Finding(f"snp.{step}", problem)])


def refused(found: Sequence[Finding]) -> EvidenceError:
    """Return the error for findings, of which there are some."""
    return EvidenceError(
        f"the SNP evidence does not hold: {found[0].problem}", findings=tuple(found)
    )
