# SPDX-License-Identifier: Apache-2.0
"""Tokens whose header brings the certificate chain of its key (``jwk.x5c``)."""

import base64
import warnings
from collections.abc import Sequence
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from cocos._clock import Clock
from cocos.crypto import jwk, jwt
from cocos.crypto.certificates import UNREADABLE
from cocos.errors import AuthenticationError, ConfigError, FormatError

MAX_CERTIFICATES: Final = 8
MAX_CERTIFICATE_BYTES: Final = 16 * 1024
_UNREADABLE: Final = (*UNREADABLE, CryptographyDeprecationWarning)


def parse_trusted(pem: bytes, source: str) -> tuple[x509.Certificate, ...]:
    """Read certificates to trust: of CAs, intermediate ones too, or of signers themselves.

    Raises:
        ConfigError: there are none.
    """
    try:
        return tuple(x509.load_pem_x509_certificates(pem))
    except ValueError as error:
        raise ConfigError(f"{source} holds no certificates in PEM") from error


class CertifiedKeys:
    """Believes keys that a trusted certificate vouches for.

    The leaf must be of the key in the header, and lead to a trusted certificate: through
    CAs that may sign certificates, within their path lengths, all of them valid now. Names
    and uses do not matter: what a trusted CA certifies may sign tokens.
    """

    def __init__(self, trusted: Sequence[x509.Certificate], *, clock: Clock) -> None:
        self._store = Store(list(trusted))
        self._clock = clock

    async def verify(self, token: str) -> dict[str, Any]:
        """Verify a token and return its claims.

        Raises:
            FormatError: not a JWT, or a malformed key or chain in its header.
            AuthenticationError: no chain, none that holds, or not signed by the key.
        """
        members = header_jwk(token)
        key = jwk.from_jwk(members, "the key in the token's header")
        leaf, *others = _certificates(members.get("x5c"))
        # Encoded: what openssl and others call equal keys can be of different types.
        if _encoded(leaf) != key.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo):
            raise AuthenticationError("the certificate in the token is not of its key")
        verifier = (
            PolicyBuilder()
            .store(self._store)
            .time(self._clock())
            .max_chain_depth(MAX_CERTIFICATES)
            .extension_policies(ca_policy=_CA, ee_policy=_LEAF)
            .build_client_verifier()
        )
        try:
            verifier.verify(leaf, others)
        except (VerificationError, *_UNREADABLE) as error:
            raise AuthenticationError(
                "the certificate in the token does not lead to a trusted one"
            ) from error
        return key.verify(token)


def header_jwk(token: str) -> dict[str, Any]:
    """Return the key in a token's header, which nobody has vouched for.

    Raises:
        FormatError: not a JWT.
        AuthenticationError: there is none, or it does not name its algorithm.
    """
    members = jwt.header_of(token).get("jwk")
    if not isinstance(members, dict):
        raise AuthenticationError("the token's header has no key")
    if "alg" not in members:
        raise AuthenticationError("the key in the token's header does not name its algorithm")
    return members


def _certificates(listed: object) -> list[x509.Certificate]:
    if not isinstance(listed, list) or not listed:
        raise AuthenticationError("the key in the token's header has no certificate")
    if len(listed) > MAX_CERTIFICATES:
        raise AuthenticationError(f"the token has more than {MAX_CERTIFICATES} certificates")
    return [_certificate(text) for text in listed]


def _certificate(text: object) -> x509.Certificate:
    if not isinstance(text, str) or len(text) > 2 * MAX_CERTIFICATE_BYTES:
        raise FormatError("a certificate in the token is no text, or too long")
    try:
        # Standard base64 (RFC 7517 §4.7); some issuers write base64url.
        plain = text.translate(_STANDARD)
        der = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
        with warnings.catch_warnings():
            # What the library will refuse one day, such as negative serial numbers.
            warnings.simplefilter("error", CryptographyDeprecationWarning)
            certificate = x509.load_der_x509_certificate(der)
            certificate.public_key()
    except _UNREADABLE as error:
        raise FormatError("a certificate in the token is malformed") from error
    return certificate


_STANDARD: Final = str.maketrans("-_", "+/")


def _encoded(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _is_ca(_: Policy, __: x509.Certificate, extension: x509.BasicConstraints) -> None:
    if not extension.ca:
        raise ValueError("no CA")


def _may_certify(_: Policy, __: x509.Certificate, extension: x509.KeyUsage | None) -> None:
    if extension is not None and not extension.key_cert_sign:
        raise ValueError("may not sign certificates")


def _may_sign(_: Policy, __: x509.Certificate, extension: x509.KeyUsage | None) -> None:
    if extension is not None and not extension.digital_signature:
        raise ValueError("may not sign data")


_CA: Final = (
    ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _is_ca)
    .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _may_certify)
)
_LEAF: Final = ExtensionPolicy.permit_all().may_be_present(
    x509.KeyUsage, Criticality.AGNOSTIC, _may_sign
)
