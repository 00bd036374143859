# SPDX-License-Identifier: Apache-2.0
"""Signatures of JOSE (RFC 7518 §3, RFC 8037 §3.1): which algorithms a key can be used with.

There are no MACs here and no ``none``: a public key can never become a secret.
"""

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from cocos.errors import AuthenticationError

SigningPrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
SigningPublicKey: TypeAlias = (
    ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey
)

_HASHES: Final[Mapping[str, hashes.HashAlgorithm]] = {
    "256": hashes.SHA256(),
    "384": hashes.SHA384(),
    "512": hashes.SHA512(),
}
_CURVES: Final[Mapping[str, str]] = {
    "secp256r1": "ES256",
    "secp384r1": "ES384",
    "secp521r1": "ES512",
}
_ED25519: Final = ("EdDSA", "Ed25519")  # the second since RFC 9864
_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")


def algorithms(key: SigningPrivateKey | SigningPublicKey) -> tuple[str, ...]:
    """Return what ``alg`` may say of a signature by ``key``; we sign with the first."""
    if isinstance(key, rsa.RSAPublicKey):
        return _RSA
    if isinstance(key, ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey):
        name = _CURVES.get(key.curve.name)
        return (name,) if name else ()
    return _ED25519


def sign(data: bytes, key: SigningPrivateKey) -> bytes:
    """Sign with the first of the key's algorithms."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(data)
    (name,), size = algorithms(key), _coordinate_bytes(key)
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(_hash(name))))
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def verify(signature: bytes, data: bytes, key: SigningPublicKey, algorithm: str) -> None:
    """Verify a signature.

    Args:
        signature: As in the token.
        data: What was signed.
        key: Whose.
        algorithm: One of the key's :func:`algorithms`.

    Raises:
        AuthenticationError: ``key`` did not make it.
    """
    try:
        _verifier(key, algorithm)(signature, data)
    except InvalidSignature as error:
        raise AuthenticationError("the token is not signed by the expected key") from error


def _verifier(key: SigningPublicKey, algorithm: str) -> Callable[[bytes, bytes], None]:
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key.verify
    digest = _hash(algorithm)
    if isinstance(key, rsa.RSAPublicKey):
        scheme = (
            padding.PSS(padding.MGF1(digest), digest.digest_size)
            if algorithm.startswith("PS")
            else padding.PKCS1v15()
        )
        return lambda signature, data: key.verify(signature, data, scheme, digest)
    return lambda signature, data: key.verify(
        _der(signature, _coordinate_bytes(key), algorithm), data, ec.ECDSA(digest)
    )


def _der(signature: bytes, size: int, algorithm: str) -> bytes:
    if len(signature) != 2 * size:
        raise AuthenticationError(f"a signature by {algorithm} has {2 * size} bytes")
    r, s = signature[:size], signature[size:]
    return encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))


def _coordinate_bytes(key: ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey) -> int:
    return (key.key_size + 7) // 8


def _hash(algorithm: str) -> hashes.HashAlgorithm:
    return _HASHES[algorithm[-3:]]
