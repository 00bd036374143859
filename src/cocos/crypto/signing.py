# SPDX-License-Identifier: Apache-2.0
"""The key that signs attestation results: EC P-256, ES256."""

from collections.abc import Mapping
from typing import Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cocos.crypto import _keywrap, jwt, private_keys, signature
from cocos.crypto.jwk import VerificationKey
from cocos.errors import ConfigError, FormatError

ALGORITHM: Final = "ES256"


class SigningKey:
    """Signs tokens. Made once and kept, so that tokens survive a restart.

    Attributes:
        kid: Its name: the thumbprint of the public key (RFC 7638).
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        self.kid = _keywrap.thumbprint(key.public_key())

    @classmethod
    def generate(cls) -> "SigningKey":
        """Make a new key."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def from_pem(cls, pem: bytes) -> "SigningKey":
        """Load an unencrypted EC P-256 private key.

        Raises:
            ConfigError: not such a key.
        """
        try:
            key = private_keys.load(pem)
        except private_keys.UNREADABLE as error:
            raise ConfigError("the signing key is not an unencrypted private key in PEM") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
            raise ConfigError(
                "the signing key is not an EC P-256 key",
                hint="openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256",
            )
        return cls(key)

    def pem(self) -> bytes:
        """Return the private key as PKCS#8 PEM."""
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """Return the public key."""
        return self._key.public_key()

    def verification_key(self) -> VerificationKey:
        """Return what verifies this key's signatures."""
        return VerificationKey(self.public_key(), (ALGORITHM,), self.kid)

    def public_jwk(self) -> dict[str, str]:
        """Return the public key: ``alg``, ``kty``, ``crv``, ``x``, ``y``."""
        members = _keywrap.ec_members(self._key.public_key())
        order = ("kty", "crv", "x", "y")
        return {"alg": ALGORITHM, **{name: members[name] for name in order}}

    def sign(self, header: dict[str, Any], claims: dict[str, Any]) -> str:
        """Return a compact JWT; ``typ`` and ``alg`` come before the members of ``header``.

        Raises:
            FormatError: the claims cannot be written as JSON.
        """
        return jwt.sign(header, claims, self._key)

    def sign_bytes(self, data: bytes) -> bytes:
        """Return an ES256 signature (RFC 7518 §3.4), 64 bytes."""
        return signature.sign(data, self._key)


def verify(token: str, public_jwk: Mapping[str, Any]) -> dict[str, Any]:
    """Verify an ES256 token and return its claims; times are the caller's business.

    Raises:
        FormatError: not a JWT, or not a P-256 key.
        AuthenticationError: another algorithm, or not signed by this key.
    """
    if public_jwk.get("crv") != "P-256" or public_jwk.get("alg", ALGORITHM) != ALGORITHM:
        raise FormatError("tokens are verified with P-256 keys and ES256 only")
    return jwt.verify(token, _keywrap.load_ec(public_jwk, "the token's key"))
