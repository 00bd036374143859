# SPDX-License-Identifier: Apache-2.0
"""The key pair of an attester, to which a KBS encrypts resources."""

from collections.abc import Mapping
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from cocos.crypto import _content, _keywrap, base64url
from cocos.crypto.jwe import check_public_jwk
from cocos.errors import ConfigError, FormatError

EC_P256: Final = "ECDH-ES+A256KW-P256"
EC_P521: Final = "ECDH-ES+A256KW-P521"
RSA: Final = "RSA-OAEP-256"
ALGORITHMS: Final = (EC_P256, EC_P521, RSA)

_RSA_BITS = 3072


class TeeKeyPair:
    """A private key that decrypts what a KBS releases to this attester.

    Generated inside the attester; it leaves the process only by :meth:`pem`.
    """

    def __init__(self, key: _keywrap.PrivateKey) -> None:
        self._key = key
        check_public_jwk(self.public_jwk())

    @classmethod
    def generate(cls, algorithm: str = EC_P256) -> "TeeKeyPair":
        """Make a new key pair.

        Args:
            algorithm: One of :data:`ALGORITHMS`.

        Raises:
            ConfigError: another name.
        """
        if algorithm == EC_P256:
            return cls(ec.generate_private_key(ec.SECP256R1()))
        if algorithm == EC_P521:
            return cls(ec.generate_private_key(ec.SECP521R1()))
        if algorithm == RSA:
            return cls(rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS))
        raise ConfigError(
            f"{algorithm!r} is no TEE key algorithm", hint=f"one of {', '.join(ALGORITHMS)}"
        )

    @classmethod
    def from_pem(cls, pem: bytes) -> "TeeKeyPair":
        """Load an unencrypted EC (P-256, P-521) or RSA private key.

        Raises:
            FormatError: not such a key.
        """
        try:
            key = serialization.load_pem_private_key(pem, None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise FormatError(
                "the TEE key is not an unencrypted private key in PEM",
                hint="EC P-256 or P-521 in PKCS#8, or RSA in PKCS#1",
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise FormatError("the TEE key is neither an EC nor an RSA key")
        return cls(key)

    def pem(self) -> bytes:
        """Return the private key: PKCS#8 for EC, PKCS#1 for RSA, as the guest tools expect."""
        is_rsa = isinstance(self._key, rsa.RSAPrivateKey)
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL
            if is_rsa
            else serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def public_jwk(self) -> dict[str, str]:
        """Return the public key with exactly the members that are hashed into report data."""
        public = self._key.public_key()
        if isinstance(public, ec.EllipticCurvePublicKey):
            return {"alg": _keywrap.ECDH_ES, **_keywrap.ec_members(public)}
        numbers = public.public_numbers()
        return {
            "alg": _keywrap.RSA_OAEP,
            "e": base64url.encode(_big_endian(numbers.e)),
            "kty": "RSA",
            "n": base64url.encode(_big_endian(numbers.n)),
        }

    def decrypt(self, response: Mapping[str, Any]) -> bytes:
        """Decrypt a resource, a flattened JWE.

        The received protected header itself is the additional data (RFC 7516 §5.2).

        Raises:
            FormatError: not such a JWE, or one made with another algorithm.
            IntegrityError: made for another key, or changed on its way.
        """
        if response.get("aad") is not None:
            raise FormatError("a resource is never encrypted with further additional data")
        header = _content.open_header(response.get("protected"))
        encrypted_key = base64url.decode(response.get("encrypted_key"), "encrypted_key of the JWE")
        return _content.decrypt(response, _keywrap.unwrap(header, encrypted_key, self._key))


def _big_endian(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")
