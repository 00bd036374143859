# SPDX-License-Identifier: Apache-2.0
"""Who certifies endorsement keys of TPMs, and what such a certificate is worth.

Two kinds of CA, and nobody is both:

- a manager's certifies only TPMs of VMs that it started itself: the host vouches for what
  its TPM measured;
- a vendor's certifies every TPM that it sells. Whoever holds one in the hand can extend its
  PCRs to any value, so that the operator has to name the TPM, too.
"""

import datetime as dt
import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from cocos._types import JsonObject
from cocos.crypto import tpm_credential
from cocos.crypto.certificates import UNREADABLE
from cocos.errors import ConfigError, Finding
from cocos.evidence import endorsement

_KP_EK_CERTIFICATE: Final = x509.ObjectIdentifier("2.23.133.8.1")  # tcg-kp-EKCertificate
_EK: Final = "tpm.ek-certificate"


class Kind(enum.StrEnum):
    """Whose CA; the values stand in claims."""

    MANAGER = "manager-ca"
    VENDOR = "vendor-ca"

    @property
    def flag(self) -> str:
        """How an operator names one."""
        return "--tpm-ek-ca" if self is Kind.MANAGER else "--tpm-vendor-ca"


@dataclass(frozen=True, slots=True)
class Endorsement:
    """An endorsement key that a CA of the operator's has certified.

    Attributes:
        key: The key.
        kind: Whose CA.
        ca: Its certificate.
    """

    key: rsa.RSAPublicKey
    kind: Kind
    ca: x509.Certificate

    def claims(self, allowed: bool) -> JsonObject:
        """Return what policies see of it."""
        return {
            "ak_trusted": self.kind.value,
            "ek_fingerprint": endorsement.fingerprint(self.key),
            "ek_allowed": allowed,
            "ek_ca": _subject(self.ca),
            "ek_ca_fingerprint": self.ca.fingerprint(hashes.SHA256()).hex(),
        }


class Authorities:
    """Whose TPMs an operator believes, and which TPMs it has named.

    Args:
        managers: CAs of managers.
        vendors: CAs of vendors; each of them is trusted, also an intermediate one.
        allowed: Fingerprints of endorsement keys, beside those in the reference values.

    Raises:
        ConfigError: a CA is of both kinds, or keys are named that no CA could certify.
    """

    def __init__(
        self,
        managers: Sequence[x509.Certificate] = (),
        vendors: Sequence[x509.Certificate] = (),
        allowed: Sequence[str] = (),
    ) -> None:
        # The key, not the certificate: that is what signs, under whatever name and dates.
        both = set(map(_key, managers)) & set(map(_key, vendors))
        if both:
            subject = next(_subject(ca) for ca in vendors if _key(ca) in both)
            raise ConfigError(
                f"{subject} is given as a manager's CA and as a TPM vendor's",
                hint=f"{Kind.MANAGER.flag} or {Kind.VENDOR.flag}, not both",
            )
        if allowed and not vendors:
            raise ConfigError(
                "endorsement keys are allowed, but no TPM vendor's CA is trusted",
                hint=f"{Kind.VENDOR.flag} FILE",
            )
        self._cas = (
            *((ca, Kind.MANAGER) for ca in managers),
            *((ca, Kind.VENDOR) for ca in vendors),
        )
        self._allowed = frozenset(allowed)

    def allows(self, found: Endorsement, reference_values: Mapping[str, Any]) -> bool:
        """Tell whether an operator has named this very TPM, at start or since."""
        own = endorsement.fingerprint(found.key)
        registered = reference_values.get(endorsement.TRUSTED_EK)
        return own in self._allowed or (isinstance(registered, list) and own in registered)

    def endorsement(self, der: bytes, now: dt.datetime) -> Endorsement | Finding:
        """Return the key in a certificate that can be believed, or why it cannot.

        Args:
            der: X.509 certificate of an endorsement key.
            now: When it has to be valid.
        """
        try:
            certificate = x509.load_der_x509_certificate(der)
            key, usages = certificate.public_key(), _usages(certificate)
        except UNREADABLE as error:
            return Finding(_EK, f"the endorsement-key certificate does not parse: {error}")
        issuer = self._issuer(certificate, now)
        if isinstance(issuer, Finding):
            return issuer
        if _KP_EK_CERTIFICATE not in usages:
            # The same CA may certify keys that are in no TPM.
            problem = "the certificate is not one for an endorsement key"
            return Finding(_EK, problem, expected=_KP_EK_CERTIFICATE.dotted_string)
        if not isinstance(key, rsa.RSAPublicKey) or key.key_size != tpm_credential.EK_BITS:
            problem = "the endorsement key is of a kind that cannot be challenged"
            return Finding(_EK, problem, expected=f"RSA, {tpm_credential.EK_BITS} bits")
        ca, kind = issuer
        return Endorsement(key, kind, ca)

    def _issuer(
        self, certificate: x509.Certificate, now: dt.datetime
    ) -> tuple[x509.Certificate, Kind] | Finding:
        issuers = [(ca, kind) for ca, kind in self._cas if _issued(certificate, ca)]
        if not issuers:
            problem = "the endorsement-key certificate is of a CA that this KBS does not trust"
            trusted = "; ".join(_subject(ca) for ca, _ in self._cas)
            trusted = trusted or f"none is configured: kbs {Kind.MANAGER.flag} FILE"
            return Finding(_EK, problem, certificate.issuer.rfc4514_string(), trusted)
        valid = [(ca, kind) for ca, kind in issuers if _valid(ca, now)]
        if not valid or not _valid(certificate, now):
            problem = "the endorsement-key certificate or its CA's is not valid now"
            until = f"until {certificate.not_valid_after_utc.isoformat()}"
            return Finding(_EK, problem, until, now.isoformat())
        return valid[0]


def parse_cas(pem: bytes, source: str, kind: Kind) -> tuple[x509.Certificate, ...]:
    """Read the certificates of those who certify endorsement keys.

    Args:
        pem: One or more certificates.
        source: Where the text is from, for messages.
        kind: What the operator takes them for.

    Raises:
        ConfigError: no certificates, one that cannot issue others, or one of the other kind.
    """
    try:
        found = tuple(x509.load_pem_x509_certificates(pem))
    except ValueError as error:
        raise ConfigError(f"{source} holds no certificates in PEM") from error
    for certificate in found:
        try:
            basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
            managers = endorsement.is_manager_ca(certificate)
            certificate.public_key()
        except (x509.ExtensionNotFound, *UNREADABLE) as error:
            raise ConfigError(f"{source}: {_subject(certificate)} is no CA") from error
        if not basic.ca:
            raise ConfigError(f"{source}: {_subject(certificate)} is no CA")
        # Not because of attackers, who choose no files here: a vendor's CA in the place of a
        # manager's would let in everybody who can buy a TPM.
        if kind is Kind.MANAGER and not (managers and _issued(certificate, certificate)):
            raise ConfigError(
                f"{source}: {_subject(certificate)} was not made by a manager",
                hint=f"{kind.flag} takes what cocos-manager tpm-ca prints (of an older version: "
                "have it made anew, docs/operate/manager.md); a TPM vendor's CA goes to "
                f"{Kind.VENDOR.flag}",
            )
        if kind is Kind.VENDOR and managers:
            raise ConfigError(
                f"{source}: {_subject(certificate)} is a manager's CA, not a TPM vendor's",
                hint=f"give it to {Kind.MANAGER.flag}",
            )
    return found


def _usages(certificate: x509.Certificate) -> x509.ExtendedKeyUsage | tuple[()]:
    try:
        return certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return ()


def _issued(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _valid(certificate: x509.Certificate, now: dt.datetime) -> bool:
    return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc


def _key(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _subject(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string()
