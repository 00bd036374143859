# SPDX-License-Identifier: Apache-2.0
"""Checking attestation results, and the TEE key in them."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from cocos._types import UnverifiedToken, VerifiedClaims
from cocos.crypto import jwk, jwt
from cocos.errors import (
    AuthenticationError,
    ConfigError,
    EvidenceError,
    Finding,
    FormatError,
    PeerError,
)
from cocos.policy.appraisal import APPRAISED_BY, INSECURE, UNBOUND_EVIDENCE
from cocos.tokens.chains import header_jwk
from cocos.tokens.published import understood

TEE_KEY_PATHS: Final = (
    "/tdx/attester_runtime_data/tee-pubkey",
    "/tdx/attester_user_data/tee-pubkey",
    "/customized_claims/runtime_data/tee-pubkey",
    "/submods/cpu0/ear.veraison.annotated-evidence/runtime_data_claims/tee-pubkey",
    "/tee-pubkey",
)
"""JSON pointers (RFC 6901) to the TEE's public key, tried in this order."""

_SHOWN: Final = 64
_HINT = "attest again; a token is valid for minutes and only where its issuer is trusted"


class Issuers(Protocol):
    """Some issuers whose tokens count: one's own, a JWK set, what a CA certified."""

    async def verify(self, token: str) -> dict[str, Any]:
        """Verify a token's signature and return its claims.

        Raises:
            FormatError: not a JWT.
            AuthenticationError: none of these issuers signed it.
            PeerError: their keys cannot be had at the moment.
        """
        ...


class JudgedBy:
    """Believes an attestation service as far as it judged by one policy.

    Whoever reaches the service names the policy to be judged by, and it may know laxer ones,
    which were meant for others.

    Args:
        issuers: The service.
        policy_id: What is asked for here.
    """

    def __init__(self, issuers: Issuers, policy_id: str) -> None:
        self._issuers = issuers
        self._policy_id = policy_id

    async def verify(self, token: str) -> dict[str, Any]:
        """Verify a token; all of its submodules, at least one, must be judged by the policy."""
        claims = understood(await self._issuers.verify(token))
        submods = claims.get("submods")
        parts = list(submods.values()) if isinstance(submods, Mapping) else []
        used = [part.get(APPRAISED_BY) if isinstance(part, Mapping) else None for part in parts]
        other = [each for each in used if each != self._policy_id]
        if other or not used:
            raise AuthenticationError(
                f"the machine was not judged by the policy {self._policy_id}, which is asked for "
                f"here, but by {repr(other[0])[:_SHOWN] if other else 'none'}"
            )
        return claims


class InsecureHeaderKeys:
    """Believes the key that a token itself brings: anybody can make such tokens."""

    async def verify(self, token: str) -> dict[str, Any]:
        """Verify a token with the key in its own header; the claims say so."""
        key = jwk.from_jwk(header_jwk(token), "the key in the token's header")
        return {**key.verify(token), INSECURE: ["header-jwk"]}


class TokenVerifier:
    """Accepts tokens of the issuers it was told to trust, one's own by default.

    The key in a token's header is trusted only with a certificate of a trusted CA, or with
    :class:`InsecureHeaderKeys`.
    """

    def __init__(self, issuers: Sequence[Issuers]) -> None:
        """Trust issuers.

        Args:
            issuers: Asked in this order.

        Raises:
            ConfigError: nobody at all: nothing could ever be accepted.
        """
        if not issuers:
            raise ConfigError(
                "nobody is trusted to sign attestation tokens",
                hint="name keys (trusted_jwk_sets) or certificates (trusted_certs; in the section "
                "[attestation_token]: trusted_certs_paths)",
            )
        self._issuers = tuple(issuers)

    async def verify(self, token: UnverifiedToken, now: dt.datetime) -> VerifiedClaims:
        """Check a token and return its claims.

        1. It is a compact JWT, signed with an algorithm of the key that verifies it.
        2. One of the trusted issuers made the signature.
        3. ``exp`` is there and not past, ``nbf`` if there is not ahead; 60 s of leeway.
        4. The evidence was bound to something: else the token says whose it was, not whose
           it is, and no setting makes it one to release keys on.

        Raises:
            EvidenceError: one of them does not hold.
            PeerError: nobody known signed it, and some issuer's keys cannot be had.
        """
        try:
            claims = understood(await self._signed_claims(token))
            jwt.check_times(claims, now)
            _check_bound(claims)
        except (AuthenticationError, FormatError) as error:
            raise EvidenceError(
                f"the attestation token does not hold: {error.message}",
                findings=(Finding("token", error.message),),
                hint=_HINT,
            ) from error
        return VerifiedClaims(claims)

    async def _signed_claims(self, token: str) -> dict[str, Any]:
        jwt.header_of(token)
        reasons: list[str] = []
        absent: PeerError | None = None
        for issuers in self._issuers:
            try:
                return await issuers.verify(token)
            except PeerError as error:
                absent = error
            except (AuthenticationError, FormatError) as error:
                if error.message not in reasons:
                    reasons.append(error.message)
        if absent is not None:
            raise absent
        raise AuthenticationError("; ".join(reasons))


def _check_bound(claims: Mapping[str, Any]) -> None:
    submods = claims.get("submods")
    parts = list(submods.values()) if isinstance(submods, Mapping) else []
    for part in (claims, *parts):
        named = part.get(INSECURE) if isinstance(part, Mapping) else None
        if isinstance(named, Sequence) and UNBOUND_EVIDENCE in named:
            raise AuthenticationError(
                "the evidence was bound to no nonce and no key: it may be a recorded one"
            )


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
