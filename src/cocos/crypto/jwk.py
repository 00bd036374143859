# SPDX-License-Identifier: Apache-2.0
"""Public keys that verify signatures, from PEM, JWK (RFC 7517) and JWK sets."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from cocos.crypto import _keywrap, base64url, jwt
from cocos.crypto.signature import SigningPublicKey, algorithms
from cocos.errors import AuthenticationError, FormatError

MAX_KEYS: Final = 64
_PRIVATE: Final = ("d", "k")


def _load_okp(jwk: Mapping[str, Any], what: str) -> ed25519.Ed25519PublicKey:
    if jwk.get("crv") != "Ed25519":
        raise FormatError(f"{what} is not an Ed25519 key")
    try:
        return ed25519.Ed25519PublicKey.from_public_bytes(
            base64url.decode(jwk.get("x"), f"x of {what}")
        )
    except ValueError as error:
        raise FormatError(f"{what} is not an Ed25519 key") from error


_KINDS: Final[Mapping[str, Callable[[Mapping[str, Any], str], SigningPublicKey]]] = {
    "EC": _keywrap.load_ec,
    "OKP": _load_okp,
    "RSA": _keywrap.load_rsa,
}


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key and what it is for.

    Attributes:
        key: The key.
        algorithms: What ``alg`` of a token may be; fits the key, never empty.
        kid: Its name in a set, if it has one.
    """

    key: SigningPublicKey
    algorithms: tuple[str, ...]
    kid: str | None = None

    def verify(self, token: str) -> dict[str, Any]:
        """Verify a compact JWT and return its claims; as :func:`cocos.crypto.jwt.verify`."""
        return jwt.verify(token, self.key, self.algorithms)


def from_pem(pem: bytes, what: str) -> VerificationKey:
    """Load a public key: Ed25519, EC (P-256, P-384, P-521) or RSA.

    Args:
        pem: SubjectPublicKeyInfo, PEM.
        what: What it is, for the message.

    Raises:
        FormatError: not such a key.
    """
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise FormatError(
            f"{what} is not a public key in PEM", hint="openssl pkey -in private.key -pubout"
        ) from error
    return _checked(key, what)


def from_jwk(jwk: Mapping[str, Any], what: str) -> VerificationKey:
    """Load a public key from its JWK.

    Raises:
        FormatError: another kind of key, a private or symmetric one, not a point of its
            curve, too short, or for something else than signatures.
    """
    kid, algorithm = jwk.get("kid"), jwk.get("alg")
    if any(name in jwk for name in _PRIVATE):
        raise FormatError(f"{what} holds a secret key; only public ones belong there")
    load = _KINDS.get(kty) if isinstance(kty := jwk.get("kty"), str) else None
    if load is None:
        raise FormatError(f"{what} is not a key of kind {', '.join(_KINDS)}")
    if jwk.get("use", "sig") != "sig" or (kid is not None and not isinstance(kid, str)):
        raise FormatError(f"{what} is not for signatures, or its kid is no text")
    checked = _checked(load(jwk, what), what)
    if algorithm is None:
        return VerificationKey(checked.key, checked.algorithms, kid)
    if algorithm not in checked.algorithms:
        raise FormatError(f"the alg of {what} does not fit its kind")
    return VerificationKey(checked.key, (algorithm,), kid)


def parse_set(data: bytes, what: str) -> tuple[VerificationKey, ...]:
    """Load the keys of a JWK set; those of kinds that we do not use are left out (§5).

    Raises:
        FormatError: not a set, more than :data:`MAX_KEYS`, or a secret key in it.
    """
    try:
        document = json.loads(data)
        listed = document["keys"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"{what} is not a JWK set") from error
    if not isinstance(listed, list) or not all(isinstance(jwk, dict) for jwk in listed):
        raise FormatError(f"{what} is not a JWK set")
    if len(listed) > MAX_KEYS:
        raise FormatError(f"{what} has more than {MAX_KEYS} keys")
    if any(name in jwk for jwk in listed for name in _PRIVATE):
        raise FormatError(f"{what} holds a secret key; only public ones belong there")
    found = []
    for jwk in listed:
        try:
            found.append(from_jwk(jwk, "a key"))
        except FormatError:
            continue
    return tuple(found)


def verify_with_any(keys: tuple[VerificationKey, ...], token: str) -> dict[str, Any]:
    """Verify a token with the key that its ``kid`` names, or with any if that tells nothing.

    Raises:
        FormatError: not a JWT.
        AuthenticationError: none of the keys signed it.
    """
    wanted = jwt.header_of(token).get("kid")
    named = [key for key in keys if wanted is not None and key.kid == wanted]
    nameless = [key for key in keys if wanted is None or key.kid is None]
    failure = AuthenticationError("the token's kid names no known key")
    for key in named or nameless:
        try:
            return key.verify(token)
        except AuthenticationError as error:
            failure = error
    raise failure


def _checked(key: object, what: str) -> VerificationKey:
    if not isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey):
        raise FormatError(f"{what} is not an Ed25519, EC or RSA key")
    if isinstance(key, rsa.RSAPublicKey):
        _keywrap.check_rsa_bits(key.key_size, what)
    fitting = algorithms(key)
    if not fitting:
        raise FormatError(f"the curve of {what} is not supported", hint="P-256, P-384, P-521")
    return VerificationKey(key, fitting)
