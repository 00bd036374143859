# SPDX-License-Identifier: Apache-2.0
"""Checking attestation results, and the TEE key in them."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cocos._types import UnverifiedToken, VerifiedClaims
from cocos.crypto import jwt, signing
from cocos.errors import AuthenticationError, ConfigError, EvidenceError, Finding, FormatError

TEE_KEY_PATHS: Final = (
    "/tdx/attester_runtime_data/tee-pubkey",
    "/tdx/attester_user_data/tee-pubkey",
    "/customized_claims/runtime_data/tee-pubkey",
    "/submods/cpu0/ear.veraison.annotated-evidence/runtime_data_claims/tee-pubkey",
    "/tee-pubkey",
)
"""JSON pointers (RFC 6901) to the TEE's public key, tried in this order."""

_HINT = "attest again; a token is valid for minutes and only where its issuer is trusted"


class TokenVerifier:
    """Accepts tokens of the issuers it was told to trust, one's own by default.

    The key in a token's header is never trusted, and ``kid`` selects nothing.
    """

    def __init__(self, trusted_keys: Sequence[Mapping[str, Any]]) -> None:
        """Trust issuers.

        Args:
            trusted_keys: Public P-256 keys as JWK.

        Raises:
            ConfigError: no key at all: nothing could ever be accepted.
        """
        if not trusted_keys:
            raise ConfigError("no key is trusted to sign attestation tokens")
        self._keys = [dict(key) for key in trusted_keys]

    def verify(self, token: UnverifiedToken, now: dt.datetime) -> VerifiedClaims:
        """Check a token and return its claims.

        1. It is a compact JWT whose ``alg`` is ES256.
        2. One of the trusted keys made the signature.
        3. ``exp`` is there and not past, ``nbf`` if there is not ahead; 60 s of leeway.

        Raises:
            EvidenceError: one of them does not hold.
        """
        try:
            claims = self._signed_claims(token)
            jwt.check_times(claims, now)
        except (AuthenticationError, FormatError) as error:
            raise EvidenceError(
                f"the attestation token does not hold: {error.message}",
                findings=(Finding("token", error.message),),
                hint=_HINT,
            ) from error
        return VerifiedClaims(claims)

    def _signed_claims(self, token: str) -> dict[str, Any]:
        for key in self._keys[:-1]:
            try:
                return signing.verify(token, key)
            except AuthenticationError:
                continue  # another issuer's
        return signing.verify(token, self._keys[-1])


def tee_public_key(claims: VerifiedClaims, extra_paths: Sequence[str] = ()) -> dict[str, Any]:
    """Return the TEE's public key that a token is about.

    Args:
        claims: Of a verified token.
        extra_paths: JSON pointers to try before :data:`TEE_KEY_PATHS`.

    Raises:
        EvidenceError: none of the pointers leads to an object.
    """
    for path in (*extra_paths, *TEE_KEY_PATHS):
        found = _resolve(claims, path)
        if found is None:
            continue
        if isinstance(found, Mapping):
            return dict(found)
        break
    raise EvidenceError(
        "the attestation token names no TEE public key",
        findings=(Finding("token.tee-pubkey", "no pointer leads to a key", "", path),),
    )


def _resolve(document: object, pointer: str) -> object:
    value = document
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
    return value
