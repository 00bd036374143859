# SPDX-License-Identifier: Apache-2.0
"""Bearer tokens of a KBS administrator: a JWT signed with Ed25519 (``alg`` EdDSA)."""

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from cocos.crypto import jwt, private_keys
from cocos.errors import AuthenticationError, ConfigError, FormatError

ROLE: Final = "admin"
"""What Trustee's access lists look for since v0.21; others pass it over."""
LIFETIME: Final = dt.timedelta(hours=2)
_HINT = "openssl genpkey -algorithm ed25519"


def mint(
    private_key_pem: bytes,
    *,
    now: dt.datetime,
    lifetime: dt.timedelta = LIFETIME,
    claims: Mapping[str, Any] | None = None,
) -> str:
    """Make an administrator's token.

    Args:
        private_key_pem: Unencrypted Ed25519 key, PKCS#8.
        now: Issue time.
        lifetime: How long it is valid, at least a second.
        claims: Further claims, such as ``iss``, or another ``role`` than :data:`ROLE`; not
            ``iat`` and ``exp``.

    Raises:
        ConfigError: not such a key.
        FormatError: a lifetime below a second.
    """
    try:
        key = private_keys.load(private_key_pem)
    except private_keys.UNREADABLE as error:
        raise ConfigError(
            "the admin's private key is not an unencrypted key in PEM", hint=_HINT
        ) from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ConfigError("the admin's private key is not an Ed25519 key", hint=_HINT)
    issued = int(now.timestamp())
    expires = int((now + lifetime).timestamp())
    if expires <= issued:
        raise FormatError("an admin token must be valid for at least a second")
    return jwt.sign({}, {"role": ROLE, **(claims or {}), "iat": issued, "exp": expires}, key)


def load_public_key(pem: bytes) -> ed25519.Ed25519PublicKey:
    """Load the administrator's public key.

    Raises:
        ConfigError: not an Ed25519 public key in PEM.
    """
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            "the admin's public key is not a public key in PEM",
            hint="openssl pkey -in private.key -pubout",
        ) from error
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise ConfigError("the admin's public key is not an Ed25519 key", hint=_HINT)
    return key


def verify(token: str, public_key_pem: bytes, now: dt.datetime) -> dict[str, Any]:
    """Verify an administrator's token and return its claims.

    ``exp`` is mandatory, ``nbf`` counts when present, both with a minute of leeway.

    Raises:
        AuthenticationError: malformed, unsigned, signed by another key, or out of its time.
        ConfigError: the public key is not an Ed25519 key.
    """
    key = load_public_key(public_key_pem)
    try:
        claims = jwt.verify(token, key)
    except FormatError as error:
        raise AuthenticationError(error.message, hint="kbs-client admin-token makes one") from error
    jwt.check_times(claims, now)
    return claims
