# SPDX-License-Identifier: Apache-2.0
"""Compact JWT (RFC 7515, RFC 7519).

The key decides the algorithm; a header that names another is refused before anything is
verified. joserfc is not used here: it warns at the name EdDSA, which Trustee requires,
and its header limit is smaller than a header with a certificate chain.
"""

import datetime as dt
import json
import math
from collections.abc import Collection, Mapping
from typing import Any, Final

from cocos.crypto import base64url, signature
from cocos.crypto.signature import SigningPrivateKey, SigningPublicKey, algorithms
from cocos.errors import AuthenticationError, FormatError

MAX_BYTES: Final = 2**20
MAX_HEADER: Final = 2**18
"""Characters of a header, which is read before anything is verified; chains have room."""
LEEWAY: Final = dt.timedelta(seconds=60)


def sign(header: dict[str, Any], claims: dict[str, Any], key: SigningPrivateKey) -> str:
    """Sign claims.

    Args:
        header: Members after ``typ`` and ``alg``.
        claims: JSON object.
        key: EC or Ed25519.

    Raises:
        FormatError: the claims hold a value that JSON does not have.
    """
    full = {"typ": "JWT", "alg": algorithms(key)[0], **header}
    try:
        parts = [
            json.dumps(part, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
            for part in (full, claims)
        ]
    except (TypeError, ValueError, RecursionError) as error:
        raise FormatError("these claims cannot be written as JSON") from error
    signed = ".".join(map(base64url.encode, parts))
    made = signature.sign(signed.encode("ascii"), key)
    return f"{signed}.{base64url.encode(made)}"


def header_of(token: str) -> dict[str, Any]:
    """Return the header of a token that nobody has verified.

    Raises:
        FormatError: not a compact JWS.
    """
    return _object(_split(token)[0], "header")


def verify(
    token: str, key: SigningPublicKey, allowed: Collection[str] | None = None
) -> dict[str, Any]:
    """Verify a compact JWS and return its claims; times are the caller's business.

    Args:
        token: The token.
        key: Whose signature it must carry.
        allowed: The only algorithms to accept, if not all that fit the key.

    Raises:
        FormatError: not a compact JWS of a JSON object.
        AuthenticationError: another algorithm, a critical header extension, or a signature
            that ``key`` did not make.
    """
    header_text, claims_text, signature_text = _split(token)
    header = _object(header_text, "header")
    wanted = [name for name in algorithms(key) if allowed is None or name in allowed]
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in wanted:
        raise AuthenticationError(f"the token is not signed with {' or '.join(wanted)}")
    # RFC 7797: b64 true is a payload as every JWS has it; upstream's sealed secrets say so.
    known = header.get("b64", True) is True and ("crit" not in header or "b64" in header)
    if not known or header.get("crit", ["b64"]) != ["b64"]:
        raise AuthenticationError("the token needs a header extension that we do not know")
    made = base64url.decode(signature_text, "the token's signature")
    signature.verify(made, f"{header_text}.{claims_text}".encode("ascii"), key, algorithm)
    return _object(claims_text, "claims")


def _split(token: str) -> tuple[str, str, str]:
    parts = token.split(".", 3) if len(token) <= MAX_BYTES else []
    if len(parts) != 3 or len(parts[0]) > MAX_HEADER or not token.isascii():  # noqa: PLR2004
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
