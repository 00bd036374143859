# SPDX-License-Identifier: Apache-2.0
"""The key pair of an attester, to which a KBS encrypts resources."""

from collections.abc import Mapping
from typing import Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from cocos.crypto import _content, _keywrap, base64url, early_jwe, private_keys
from cocos.crypto.jwe import check_public_jwk
from cocos.errors import ConfigError, FormatError

EC_P256: Final = "ECDH-ES+A256KW-P256"
EC_P521: Final = "ECDH-ES+A256KW-P521"
RSA: Final = "RSA-OAEP-256"
ALGORITHMS: Final = (EC_P256, EC_P521, RSA)
RSA_EARLY: Final = _keywrap.RSA_1_5
"""Only for KBSs that know nothing better: no choice for anybody else."""

_RSA_BITS = 3072


class TeeKeyPair:
    """A private key that decrypts what a KBS releases to this attester.

    Generated inside the attester; it leaves the process only by :meth:`pem`.
    """

    def __init__(self, key: _keywrap.PrivateKey, *, early: bool = False) -> None:
        self._key = key
        self._name = RSA_EARLY if early else _keywrap.algorithm(key.public_key())
        check_public_jwk(self.public_jwk())

    @classmethod
    def generate(cls, algorithm: str = EC_P256) -> "TeeKeyPair":
        """Make a new key pair.

        Args:
            algorithm: One of :data:`ALGORITHMS`, or :data:`RSA_EARLY`.

        Raises:
            ConfigError: another name.
        """
        if algorithm == EC_P256:
            return cls(ec.generate_private_key(ec.SECP256R1()))
        if algorithm == EC_P521:
            return cls(ec.generate_private_key(ec.SECP521R1()))
        if algorithm in {RSA, RSA_EARLY}:
            made = rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)
            return cls(made, early=algorithm == RSA_EARLY)
        raise ConfigError(
            f"{algorithm!r} is no TEE key algorithm", hint=f"one of {', '.join(ALGORITHMS)}"
        )

    @classmethod
    def from_pem(cls, pem: bytes, *, early: bool = False) -> "TeeKeyPair":
        """Load an unencrypted EC (P-256, P-521) or RSA private key.

        Args:
            pem: The key.
            early: It is an RSA key, used with :data:`RSA_EARLY`.

        Raises:
            FormatError: not such a key.
        """
        try:
            key = private_keys.load(pem)
        except private_keys.UNREADABLE as error:
            raise FormatError(
                "the TEE key is not an unencrypted private key in PEM",
                hint="EC P-256 or P-521 in PKCS#8, or RSA in PKCS#1",
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise FormatError("the TEE key is neither an EC nor an RSA key")
        return cls(key, early=early)

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
            return {"alg": self._name, **_keywrap.ec_members(public)}
        numbers = public.public_numbers()
        return {
            "alg": self._name,
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
        cek = _keywrap.unwrap(header, encrypted_key, self._key, self._name)
        return _content.decrypt(response, cek)

    def decrypt_early(self, response: Mapping[str, Any]) -> bytes:
        """Decrypt a resource of protocol 0.1.1, whose header nothing authenticates.

        Raises:
            FormatError: not such a resource, or this key is not for it.
            IntegrityError: made for another key, or changed on its way.
        """
        if self._name != RSA_EARLY or not isinstance(self._key, rsa.RSAPrivateKey):
            raise FormatError(f"protocol 0.1.1 encrypts to {RSA_EARLY} keys only")
        return early_jwe.decrypt(response, self._key)


def _big_endian(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")
