# SPDX-License-Identifier: Apache-2.0
"""Chains of certificates that evidence brings, up to a maker's key that we know."""

import datetime as dt
import hashlib
from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from cocos.crypto.certificates import UNREADABLE
from cocos.errors import Finding, FormatError


def key_hash(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of a certificate's public key, DER SubjectPublicKeyInfo, in hex.

    Raises:
        ValueError, and others of :data:`UNREADABLE`: a key that cannot be read.
    """
    der = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(der).hexdigest()


def parse_chain(data: bytes, *, most: int) -> tuple[x509.Certificate, ...]:
    """Parse certificates in PEM.

    Args:
        data: Text, the leaf first.
        most: How many are read.

    Raises:
        FormatError: a certificate cannot be read, or there are none or too many.
    """
    count = data.count(b"-----BEGIN ")
    if not 0 < count <= most:
        raise FormatError(f"a chain has {count} certificates, not 1 to {most}")
    try:
        chain = tuple(x509.load_pem_x509_certificates(data))
        for each in chain:
            each.public_key()
            _ = each.extensions
    except UNREADABLE as error:
        raise FormatError(f"a certificate cannot be read: {error}") from error
    return chain


def chain_findings(
    chain: Sequence[x509.Certificate], root: str, now: dt.datetime, step: str, whose: str
) -> list[Finding]:
    """Return why a chain cannot be believed; nothing where it can.

    From the root down, and no further than the first fault: of what a stranger wrote, nothing
    is looked at that nobody vouches for.

    Args:
        chain: Leaf first, the root last.
        root: Hash of the root's key, as of :func:`key_hash`.
        now: When all of it has to be valid.
        step: Name of the check.
        whose: Whose root it is, for the message.
    """
    if len(chain) == 1:
        return [Finding(step, "there is no chain: the root signs no evidence", "1 certificate")]
    last = key_hash(chain[-1])
    if last != root:
        return [Finding(step, f"the chain does not lead to {whose} root", last, root)]
    issuer = chain[-1]
    for number in reversed(range(len(chain))):
        each = chain[number]
        problem = _problem(each, issuer, now, below=number - 1)
        if problem:
            name = each.subject.rfc4514_string()
            return [Finding(step, f"certificate {number} {problem}", name)]
        issuer = each
    return []


def _problem(
    certificate: x509.Certificate, issuer: x509.Certificate, now: dt.datetime, *, below: int
) -> str:
    """Return what is wrong with a certificate; ``below`` CAs are under it, -1 for a leaf."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *UNREADABLE):
        return "is not signed by the next one"
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        return "is not valid now"
    may = _may_certify(certificate, below=below)
    if below >= 0 and not may:
        return "may not certify others"
    return "certifies others, and no evidence" if below < 0 and may else ""


def _may_certify(certificate: x509.Certificate, *, below: int) -> bool:
    """Whether it is a CA's, with ``below`` CAs between it and the leaf."""
    extensions = certificate.extensions
    try:
        basic = extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return False
    room = basic.path_length is None or basic.path_length >= below
    return basic.ca and room and usage.key_cert_sign
