# SPDX-License-Identifier: Apache-2.0
"""Who signed a quote: from the attestation key to the root.

These are the steps that need nothing but the quote: whoever fails here has cost five
signatures. What Intel has published since, revocations and TCB levels, comes after
(:mod:`cocos.verifiers.intel.appraisal`).
"""

import datetime as dt
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import dcap_qvl
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509.oid import NameOID

from cocos.crypto.certificates import UNREADABLE
from cocos.errors import Finding, FormatError
from cocos.evidence.quote import Quote
from cocos.verifiers._pinned import key_hash

INTEL_ROOT_KEY: Final = "a0af031289f5d5d4132f9186068a7fc13628633ba235777472e29b6b6c67a49e"
"""SHA-256 of the public key (DER) of the "Intel SGX Root CA"."""

PLATFORM: Final = "platform"
_CAS: Final = {
    "Intel SGX PCK Platform CA": PLATFORM,
    "Intel SGX PCK Processor CA": "processor",
}
_LENGTH: Final = 3
_HALF: Final = 32


@dataclass(frozen=True, slots=True)
class Pck:
    """A processor's certificate for quoting, and those above it.

    Attributes:
        chain: PCK, the CA of its kind of processor, root.
        ca: Which CA: ``platform`` or ``processor``.
        fmspc: Kind of platform, 6 bytes.
        pceid: Of the provisioning enclave, 2 bytes.
        ppid: Of the platform.
        components: SVN of each of the 16 components of the TCB.
        pcesvn: SVN of the provisioning enclave.
        sgx_type: 0 standard, 1 scalable, 2 scalable with integrity.
        instance: Identifier of the platform, as claims show it; None of a processor CA.
        flags: Dynamic platform, cached keys, SMT; None of a processor CA.
    """

    chain: tuple[x509.Certificate, ...]
    ca: str
    fmspc: bytes
    pceid: bytes
    ppid: bytes
    components: tuple[int, ...]
    pcesvn: int
    sgx_type: int
    instance: bytes | None
    flags: tuple[bool, bool, bool] | None

    @classmethod
    def parse(cls, chain: Sequence[bytes]) -> "Pck":
        """Parse the certificates of a quote.

        Raises:
            FormatError: not three certificates of the forms that Intel issues.
        """
        if len(chain) != _LENGTH:
            raise FormatError(f"the quote has {len(chain)} certificates, not {_LENGTH}")
        try:
            certificates = tuple(map(x509.load_der_x509_certificate, chain))
            leaf = certificates[0].public_bytes(serialization.Encoding.PEM)
            extension = dcap_qvl.parse_pck_extension_from_pem(leaf)
            names = [_common_name(each) for each in certificates]
            keys = [each.public_key() for each in certificates]
        except UNREADABLE as error:
            raise FormatError(f"the quote's certificates cannot be read: {error}") from error
        if not all(map(_is_p256, keys)):
            raise FormatError("the quote has a certificate whose key is not of P-256")
        if names[1] not in _CAS:
            raise FormatError(f"the PCK certificate is issued by {names[1]!r}, no CA of PCKs")
        ca = _CAS[names[1]]
        flags = _flags(extension)
        instance = extension.platform_instance_id
        if any((part is not None) != (ca == PLATFORM) for part in (instance, flags)):
            raise FormatError(f"the PCK certificate is not of the form of the {ca} CA")
        return cls(
            certificates,
            ca,
            bytes(extension.fmspc),
            bytes(extension.pce_id),
            bytes(extension.ppid),
            tuple(_components(extension)),
            extension.pce_svn,
            extension.sgx_type,
            None if instance is None else bytes(instance)[::-1],
            flags,
        )


_TCB: Final = "1.2.840.113741.1.13.1.2"
_FLAGS: Final = "1.2.840.113741.1.13.1.7"


def _components(extension: dcap_qvl.PckExtension) -> Iterator[int]:
    for number in range(1, 17):
        value = extension.get_value(f"{_TCB}.{number}")
        if value is None:
            raise FormatError(f"the PCK certificate lacks component {number} of the TCB")
        yield int.from_bytes(value, "big")


def _flags(extension: dcap_qvl.PckExtension) -> tuple[bool, bool, bool] | None:
    if extension.get_value(_FLAGS) is None:
        return None
    found = [extension.get_value(f"{_FLAGS}.{number}") for number in (1, 2, 3)]
    dynamic, cached, smt = (value is not None and any(value) for value in found)
    return dynamic, cached, smt


def check(
    quote: Quote, pck: Pck, root: x509.Certificate | None, now: dt.datetime, step: str
) -> list[Finding]:
    """Return what does not hold of: root, certificates, quoting enclave, attestation key.

    Args:
        quote: The quote.
        pck: Its certificates, parsed.
        root: Believed instead of Intel's, which proves nothing.
        now: The time that certificates are judged at.
        step: What findings' names begin with.
    """
    findings: list[Finding] = []
    leaf, intermediate, top = pck.chain
    wanted = INTEL_ROOT_KEY if root is None else key_hash(root)
    found = key_hash(top)
    if found != wanted:
        problem = "the certificates lead to another root than Intel's"
        findings.append(Finding(f"{step}.root", problem, found, wanted))
    for certificate, issuer in ((leaf, intermediate), (intermediate, top), (top, top)):
        fault = _certificate_problem(certificate, issuer, now)
        if fault is not None:
            name = certificate.subject.rfc4514_string()
            findings.append(Finding(f"{step}.pck-chain", f"{name}: {fault}"))
    if not _signed_by(leaf.public_key(), quote.qe_signed, quote.qe_signature):
        problem = "the report of the quoting enclave is not signed by the PCK"
        findings.append(Finding(f"{step}.qe-signature", problem))
    made = hashlib.sha256(quote.attestation_key + quote.qe_auth_data).digest() + bytes(_HALF)
    if quote.qe_report.report_data != made:
        problem = "the attestation key is not the one that the quoting enclave made"
        actual = quote.qe_report.report_data.hex()
        findings.append(Finding(f"{step}.attestation-key", problem, actual, made.hex()))
    if not _signed_by(_point(quote.attestation_key), quote.signed, quote.signature):
        problem = "the quote is not signed by its attestation key"
        findings.append(Finding(f"{step}.signature", problem))
    return findings


def _certificate_problem(
    certificate: x509.Certificate, issuer: x509.Certificate, now: dt.datetime
) -> str | None:
    try:
        certificate.verify_directly_issued_by(issuer)
        constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = issuer.extensions.get_extension_for_class(x509.KeyUsage).value
    except (InvalidSignature, x509.ExtensionNotFound, *UNREADABLE):
        return "not issued by the next certificate"
    if not (constraints.ca and usage.key_cert_sign):
        return "issued by a certificate that is no CA"
    if now < certificate.not_valid_before_utc:
        return f"not valid before {certificate.not_valid_before_utc:%Y-%m-%d}"
    if now > certificate.not_valid_after_utc:
        return f"expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
    return None


def _signed_by(key: object, data: bytes, signature: bytes) -> bool:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    numbers = (int.from_bytes(signature[at : at + _HALF], "big") for at in (0, _HALF))
    try:
        key.verify(encode_dss_signature(*numbers), data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _point(key: bytes) -> ec.EllipticCurvePublicKey | None:
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + key)
    except ValueError:
        return None


def _is_p256(key: object) -> bool:
    return isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)


def _common_name(certificate: x509.Certificate) -> str:
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""
