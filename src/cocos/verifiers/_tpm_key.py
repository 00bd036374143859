# SPDX-License-Identifier: Apache-2.0
"""Whether an attestation key lives in a genuine TPM.

Two ways: the key is restricted and the TPM of a certified endorsement key has shown, by
recovering a secret, that it holds it; or an operator registered the key by hand. What the
certificate is worth, see :mod:`cocos.verifiers._tpm_authorities`.
"""

import base64
import datetime as dt
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from cocos._types import JsonObject
from cocos.crypto import tpm_credential
from cocos.errors import EvidenceError, Finding, FormatError
from cocos.evidence.tpm import Attributes, RsaPublic
from cocos.evidence.tpm_json import TpmChallenge, TpmEvidence, TpmParams
from cocos.verifiers._base import Demand, Expected
from cocos.verifiers._tpm_authorities import Authorities, Endorsement
from cocos.wire import json

TRUSTED_AK: Final = "trusted_ak"
"""Reference value: registered keys, each as base64 of its DER or as SHA-256 of that in hex."""

REGISTERED: Final = "registered"
"""Claim ``ak_trusted`` of such a key; else it is a :class:`Kind`."""

_USABLE: Final = "an RSA key of 2048 to 4096 bits with an exponent of 32 bits"
_BITS: Final = range(2048, 4096 + 1)
_EXPONENT: Final = range(3, 2**32, 2)  # a TPM's has 32 bits; a long one costs whoever verifies
_CERTIFICATE_TEXT: Final = 16 * 1024  # characters; a TPM's NV index holds less
_PUBLIC_TEXT: Final = 4096  # characters; a key of 4096 bits and its policy need fewer than 1024
_WANTED: Final = (
    Attributes.FIXED_TPM
    | Attributes.FIXED_PARENT
    | Attributes.SENSITIVE_DATA_ORIGIN
    | Attributes.RESTRICTED
    | Attributes.SIGN
)


@dataclass(frozen=True, slots=True)
class _Announced:
    """A key, and the certificate of the TPM that it is said to be in."""

    params: TpmParams
    certificate: bytes
    key: RsaPublic
    spki: bytes

    @classmethod
    def parse(cls, announced: Any) -> "_Announced":
        """Parse the member ``tpm`` of a request's ``extra-params``.

        Raises:
            FormatError: not such a member.
        """
        try:
            params = msgspec.convert(announced, TpmParams)
        except msgspec.ValidationError as error:
            raise FormatError(str(error)) from error
        if len(params.ek_certificate) > _CERTIFICATE_TEXT:
            raise FormatError(f"ek_certificate has more than {_CERTIFICATE_TEXT} characters")
        if len(params.ak_public) > _PUBLIC_TEXT:
            raise FormatError(f"ak_public has more than {_PUBLIC_TEXT} characters")
        certificate = json.b64decode(params.ek_certificate, "ek_certificate")
        key = RsaPublic.parse(json.b64decode(params.ak_public, "ak_public"))
        return cls(params, certificate, key, _spki(key))


def demand(
    announced: Any,
    reference_values: Mapping[str, Any],
    authorities: Authorities,
    now: dt.datetime,
    secret: bytes,
) -> Demand | None:
    """Challenge the TPM that a guest says it has, or nothing for a registered key.

    Raises:
        EvidenceError: malformed; or neither a certified TPM nor a registered key.
    """
    if announced is None:
        return None
    try:
        known = _Announced.parse(announced)
    except FormatError as error:
        raise _refusal(Finding("tpm.extra-params", str(error))) from error
    endorsement, findings = _endorsement(known, authorities, now)
    if endorsement is None:
        if _registered(known.spki, reference_values):
            return None
        raise EvidenceError(
            f"the attestation key is not known to live in a TPM: {findings[0].problem}",
            findings=findings,
            hint="the operator of the KBS trusts a manager with --tpm-ek-ca, a TPM vendor with "
            "--tpm-vendor-ca",
        )
    made = tpm_credential.make_credential(endorsement.key, known.key.name, secret)
    challenge = TpmChallenge(_b64(made.credential_blob), _b64(made.encrypted_secret))
    return Demand(msgspec.to_builtins(challenge), msgspec.to_builtins(known.params))


def trust(
    evidence: TpmEvidence,
    spki: bytes,
    expected: Expected,
    authorities: Authorities,
    now: dt.datetime,
) -> tuple[JsonObject | None, tuple[Finding, ...]]:
    """Return the claims that say why the key is trusted, ``ak_trusted`` among them.

    None, and what is missing, if it is not. That the certificate was good when the TPM was
    challenged counts for nothing: it has to be good now.
    """
    if expected.kept is not None:
        known = _Announced.parse(expected.kept.state)
        endorsement, findings = _endorsement(known, authorities, now)
        answer = _credential_finding(evidence, spki, known, expected)
        found = (*findings, *(() if answer is None else (answer,)))
        if endorsement is None or found:
            return None, found
        allowed = authorities.allows(endorsement, expected.reference_values)
        return endorsement.claims(allowed), ()
    if _registered(spki, expected.reference_values):
        return {"ak_trusted": REGISTERED}, ()
    finding = Finding(
        "tpm.ak",
        "nothing shows that the attestation key lives in a TPM: the handshake brought no "
        "endorsement-key certificate, and the key is not registered",
        actual=hashlib.sha256(spki).hexdigest(),
        expected=f"a certified TPM, or the reference value {TRUSTED_AK}",
    )
    return None, (finding,)


def load_spki(der: bytes) -> rsa.RSAPublicKey:
    """Return the key in a DER SubjectPublicKeyInfo.

    Raises:
        FormatError: no RSA key of 2048 to 4096 bits, or not its only spelling.
    """
    try:
        key = serialization.load_der_public_key(der)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise FormatError("ak_public is not a public key in DER") from error
    if not isinstance(key, rsa.RSAPublicKey) or not _is_usable(key.public_numbers()):
        raise FormatError(f"ak_public is not {_USABLE}")
    if _der(key) != der:
        raise FormatError("ak_public is not in DER")
    return key


def _endorsement(
    known: _Announced, authorities: Authorities, now: dt.datetime
) -> tuple[Endorsement | None, tuple[Finding, ...]]:
    """Return the endorsement key if a good TPM can have the announced key, else why not."""
    endorsement = authorities.endorsement(known.certificate, now)
    findings = _attribute_findings(known.key)
    if isinstance(endorsement, Finding):
        findings.append(endorsement)
    if findings or isinstance(endorsement, Finding):
        return None, tuple(findings)
    return endorsement, ()


def _credential_finding(
    evidence: TpmEvidence, spki: bytes, known: _Announced, expected: Expected
) -> Finding | None:
    """Check that the TPM which was challenged has answered, for the key of the quote."""
    if spki != known.spki:
        problem = "the quote is by another key than the handshake announced"
        actual, announced = (hashlib.sha256(key).hexdigest() for key in (spki, known.spki))
        return Finding("tpm.ak", problem, actual, announced)
    if expected.kept is None or evidence.credential is None:
        return Finding("tpm.credential", "the TPM's answer to the challenge is missing")
    try:
        shown = json.b64decode(evidence.credential.proof, "credential.proof")
    except FormatError as error:
        return Finding("tpm.credential", str(error))
    wanted = tpm_credential.proof(expected.kept.secret, expected.report_data)
    if not hmac.compare_digest(shown, wanted):
        return Finding(
            "tpm.credential",
            "the TPM of the endorsement-key certificate did not recover the secret: "
            "the attestation key is not in it, or the answer is to another challenge",
        )
    return None


def _attribute_findings(key: RsaPublic) -> list[Finding]:
    attributes = Attributes(key.attributes)
    wrong = [flag.name for flag in _WANTED if not attributes & flag]
    if attributes & Attributes.DECRYPT:
        wrong.append("not DECRYPT")
    if not wrong:
        return []
    # Only a restricted signing key never signs what merely looks like a quote.
    problem = "the attestation key is not a restricted signing key made in its TPM"
    names = ", ".join(str(name) for name in wrong)
    return [Finding("tpm.ak.attributes", problem, f"{key.attributes:#010x}", f"also {names}")]


def _registered(spki: bytes, reference_values: Mapping[str, Any]) -> bool:
    known = reference_values.get(TRUSTED_AK)
    listed = known if isinstance(known, list) else [known]
    return any(form in listed for form in (_b64(spki), hashlib.sha256(spki).hexdigest()))


def _is_usable(numbers: rsa.RSAPublicNumbers) -> bool:
    return numbers.n.bit_length() in _BITS and numbers.n % 2 == 1 and numbers.e in _EXPONENT


def _spki(key: RsaPublic) -> bytes:
    numbers = rsa.RSAPublicNumbers(key.exponent, key.modulus)
    if not _is_usable(numbers):
        raise FormatError(f"ak_public is not {_USABLE}")
    try:
        return _der(numbers.public_key())
    except ValueError as error:
        raise FormatError("ak_public is not a usable RSA key") from error


def _der(key: rsa.RSAPublicKey) -> bytes:
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _refusal(finding: Finding) -> EvidenceError:
    return EvidenceError("the tpm member of extra-params is malformed", findings=(finding,))
