# SPDX-License-Identifier: Apache-2.0
"""Compact JWT with ES256 or EdDSA (RFC 7515, RFC 7518 §3.4, RFC 8037 §3.1).

The key decides the algorithm; a header that names another is refused before anything is
verified. joserfc is not used here: it warns at the name EdDSA, which Trustee requires,
and its header limit is smaller than a header with a certificate chain.
"""

import datetime as dt
import json
import math
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from cocos.crypto import base64url
from cocos.errors import AuthenticationError, FormatError

SigningPrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
SigningPublicKey: TypeAlias = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

MAX_BYTES: Final = 2**20
LEEWAY: Final = dt.timedelta(seconds=60)
_P256_BYTES = 32
_ES256 = ec.ECDSA(hashes.SHA256())


def algorithm(key: SigningPrivateKey | SigningPublicKey) -> str:
    """Return the ``alg`` that ``key`` stands for."""
    is_ec = isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey)
    return "ES256" if is_ec else "EdDSA"


def sign(header: dict[str, Any], claims: dict[str, Any], key: SigningPrivateKey) -> str:
    """Sign claims.

    Args:
        header: Members after ``typ`` and ``alg``.
        claims: JSON object.
        key: P-256 or Ed25519.

    Raises:
        FormatError: the claims hold a value that JSON does not have.
    """
    full = {"typ": "JWT", "alg": algorithm(key), **header}
    try:
        parts = [
            json.dumps(part, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
            for part in (full, claims)
        ]
    except (TypeError, ValueError, RecursionError) as error:
        raise FormatError("these claims cannot be written as JSON") from error
    signed = ".".join(map(base64url.encode, parts))
    data = signed.encode("ascii")
    if isinstance(key, ed25519.Ed25519PrivateKey):
        signature = key.sign(data)
    else:
        r, s = decode_dss_signature(key.sign(data, _ES256))
        signature = r.to_bytes(_P256_BYTES, "big") + s.to_bytes(_P256_BYTES, "big")
    return f"{signed}.{base64url.encode(signature)}"


def header_of(token: str) -> dict[str, Any]:
    """Return the header of a token that nobody has verified.

    Raises:
        FormatError: not a compact JWS.
    """
    return _object(_split(token)[0], "header")


def verify(token: str, key: SigningPublicKey) -> dict[str, Any]:
    """Verify a compact JWS and return its claims; times are the caller's business.

    Raises:
        FormatError: not a compact JWS of a JSON object.
        AuthenticationError: another algorithm, a critical header extension, or a signature
            that ``key`` did not make.
    """
    header_text, claims_text, signature_text = _split(token)
    header = _object(header_text, "header")
    wanted = algorithm(key)
    if header.get("alg") != wanted:
        raise AuthenticationError(f"the token is not signed with {wanted}")
    if "crit" in header or "b64" in header:
        raise AuthenticationError("the token needs a header extension that we do not know")
    signature = base64url.decode(signature_text, "the token's signature")
    data = f"{header_text}.{claims_text}".encode("ascii")
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, data)
        else:
            if len(signature) != 2 * _P256_BYTES:
                raise AuthenticationError("an ES256 signature has 64 bytes")
            r, s = signature[:_P256_BYTES], signature[_P256_BYTES:]
            der = encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
            key.verify(der, data, _ES256)
    except InvalidSignature as error:
        raise AuthenticationError("the token is not signed by the expected key") from error
    return _object(claims_text, "claims")


def _split(token: str) -> tuple[str, str, str]:
    parts = token.split(".") if len(token) <= MAX_BYTES else []
    if len(parts) != 3 or not token.isascii():  # noqa: PLR2004 - RFC 7515 §3.1
        raise FormatError("the token is not a signed JWT (three base64url parts with dots)")
    return parts[0], parts[1], parts[2]


def _object(part: str, what: str) -> dict[str, Any]:
    try:
        value = json.loads(base64url.decode(part, f"the token's {what}"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"the token's {what} is not JSON") from error
    if not isinstance(value, dict):
        raise FormatError(f"the token's {what} is not a JSON object")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def check_times(claims: Mapping[str, Any], now: dt.datetime) -> None:
    """Check ``exp`` (mandatory) and ``nbf`` (when present), with a minute of leeway.

    Raises:
        AuthenticationError: ``exp`` missing or past, ``nbf`` ahead, or one is no number.
    """
    present, leeway = now.timestamp(), LEEWAY.total_seconds()
    if _numeric_date(claims, "exp") <= present - leeway:
        raise AuthenticationError("the token has expired")
    if "nbf" in claims and _numeric_date(claims, "nbf") > present + leeway:
        raise AuthenticationError("the token is not valid yet")


def _numeric_date(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AuthenticationError(f"the token has no {name} claim that is a number")
    # Every comparison with NaN is false: such a token would never expire.
    if isinstance(value, float) and not math.isfinite(value):
        raise AuthenticationError(f"the token has no {name} claim that is a number")
    return value
