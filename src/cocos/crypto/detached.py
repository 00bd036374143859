# SPDX-License-Identifier: Apache-2.0
"""Signatures beside what they are of: compact JWS with detached content (RFC 7515, F).

The header brings the key, and who verifies knows the key's thumbprint (RFC 7638): nothing
has to be fetched first.
"""

import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric import ec

from cocos.crypto import _keywrap, base64url, jwt, signature
from cocos.errors import AuthenticationError, FormatError

if TYPE_CHECKING:  # guests, who only verify, do without what it imports
    from cocos.crypto.signing import SigningKey

ALGORITHM: Final = "ES256"
MAX_BYTES: Final = 16 * 2**10


def sign(payload: bytes, key: "SigningKey") -> str:
    """Return ``header..signature``.

    Args:
        payload: Must be no JSON object: by this key it would be a token.
        key: Signs.
    """
    header = {"alg": ALGORITHM, "jwk": key.public_jwk()}
    text = base64url.encode(json.dumps(header, separators=(",", ":")).encode("ascii"))
    made = key.sign_bytes(f"{text}.{base64url.encode(payload)}".encode("ascii"))
    return f"{text}..{base64url.encode(made)}"


def verify(text: str, payload: bytes, thumbprints: Collection[str]) -> None:
    """Verify a signature by one of some keys.

    Args:
        text: As of :func:`sign`.
        payload: What it must be of.
        thumbprints: Names of the keys.

    Raises:
        FormatError: not such a signature.
        AuthenticationError: another key's, or of something else.
    """
    parts = text.split(".") if len(text) <= MAX_BYTES else []
    if len(parts) != 3 or parts[1] or not text.isascii():  # noqa: PLR2004 - RFC 7515 §3.1
        raise FormatError("this is no detached signature (header..signature)")
    whole = f"{parts[0]}.{base64url.encode(payload)}.{parts[2]}"
    header = jwt.header_of(whole)
    if header.keys() != {"alg", "jwk"} or header["alg"] != ALGORITHM:
        raise FormatError(f"a detached signature has a header with jwk, and alg {ALGORITHM}")
    key = _public_key(header["jwk"], thumbprints)
    made = base64url.decode(parts[2], "the signature")
    signature.verify(made, whole.rpartition(".")[0].encode("ascii"), key, ALGORITHM)


def verify_token(token: str, thumbprints: Collection[str]) -> dict[str, Any]:
    """Verify a token that brings its key, if that is one of some keys; return its claims.

    Raises:
        FormatError: not a JWT, or without a P-256 key in its header.
        AuthenticationError: another key's.
    """
    key = _public_key(jwt.header_of(token).get("jwk"), thumbprints)
    return jwt.verify(token, key)


def _public_key(jwk: object, thumbprints: Collection[str]) -> ec.EllipticCurvePublicKey:
    """Return the key of a JWK that somebody shows, if its thumbprint is one of those expected.

    Raises:
        FormatError: not a P-256 key.
        AuthenticationError: another key; names it.
    """
    if not isinstance(jwk, Mapping) or jwk.get("kty") != "EC" or jwk.get("crv") != "P-256":
        raise FormatError("there is no P-256 key with it")
    key = _keywrap.load_ec(jwk, "the key with it")
    found = _keywrap.thumbprint(key)
    if found not in thumbprints:
        expected = " or ".join(sorted(thumbprints))
        raise AuthenticationError(f"it is signed by the key {found}, not by {expected}")
    return key
