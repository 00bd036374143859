# SPDX-License-Identifier: Apache-2.0
"""Endorsement keys of TPMs: their fingerprints, lists of them, and whose CA is a manager's.

A fingerprint is the SHA-256 of the public key as DER SubjectPublicKeyInfo, in 64 lower-case
hex digits. It is the key that is one TPM's own; certificates can be issued again, and some
can be altered without becoming invalid.
"""

import hashlib
import re
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from cocos.errors import FormatError

TRUSTED_EK: Final = "trusted_ek"
"""Reference value: the endorsement keys that an operator allows, a list of fingerprints."""

MANAGER_CA_POLICY: Final = x509.ObjectIdentifier("2.25.322967535354456907542388144456249177797")
"""Certificate policy of a CA that certifies only TPMs of its own host's VMs; see ADR 0034."""

_FINGERPRINT: Final = re.compile(
    r"(?:sha256:)?([0-9a-f]{64}|[0-9a-f]{2}(?::[0-9a-f]{2}){31})", re.ASCII | re.IGNORECASE
)
_COMMENT: Final = "#"


def fingerprint(key: rsa.RSAPublicKey) -> str:
    """Return the fingerprint of an endorsement key."""
    der = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(der).hexdigest()


def parse_fingerprint(text: str) -> str:
    """Return a fingerprint in its one form; colons, upper case and ``sha256:`` are accepted.

    Raises:
        FormatError: it is none.
    """
    match = _FINGERPRINT.fullmatch(text)
    if match is None:
        raise FormatError(
            f"{text[:80]!r} is no fingerprint of an endorsement key",
            hint="64 hex digits, the SHA-256 of the public key in DER: openssl x509 -in ek.pem "
            "-pubkey -noout | openssl pkey -pubin -outform DER | sha256sum",
        )
    return match[1].replace(":", "").lower()


def parse_list(data: bytes, source: str) -> tuple[str, ...]:
    """Return the fingerprints in a file, in order, each once.

    Args:
        data: Text, a fingerprint a line; what follows ``#`` is a comment.
        source: Where it is from, for messages.

    Raises:
        FormatError: a line is none, or there is none at all: a list that allows nobody is
            more likely a file that was cut off.
    """
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise FormatError(f"{source} is not UTF-8 text") from error
    found: dict[str, None] = {}
    for number, line in enumerate(lines, 1):
        text = line.partition(_COMMENT)[0].strip()
        if not text:
            continue
        try:
            found[parse_fingerprint(text)] = None
        except FormatError as error:
            raise FormatError(
                f"{source}, line {number}: {error.message}", hint=error.hint
            ) from error
    if not found:
        raise FormatError(f"{source} names no endorsement key")
    return tuple(found)


def is_manager_ca(certificate: x509.Certificate) -> bool:
    """Tell whether a certificate says of itself that it is a manager's CA.

    Raises:
        ValueError: its extensions cannot be read.
    """
    try:
        found = certificate.extensions.get_extension_for_class(x509.CertificatePolicies)
    except x509.ExtensionNotFound:
        return False
    return any(each.policy_identifier == MANAGER_CA_POLICY for each in found.value)
