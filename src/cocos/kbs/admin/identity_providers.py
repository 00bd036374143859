# SPDX-License-Identifier: Apache-2.0
"""Administrators whom somebody else vouches for: bearer JWTs of identity providers.

Trustee's ``AuthenticatedAuthorization``: a provider's signature, issuer and audience prove
who somebody is, the roles in its token say through which rules it gets in.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from cocos._clock import Clock
from cocos.clients.key_sets import KeySet
from cocos.crypto import jwt
from cocos.errors import AuthenticationError, CocosError, ConfigError, FormatError, PeerError
from cocos.kbs.admin.gate import AccessList, AdminGate, AdminRequest, Identity, bearer_token

ROLE: Final = "role"
_SHOWN: Final = 128  # characters of a stranger's name in a log

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class IdentityProvider:
    """Whose tokens count.

    Attributes:
        keys: Where its keys are; any of them may have signed.
        issuer: What ``iss`` must be; None does not look.
        audience: What ``aud`` must contain; None does not look.
    """

    keys: tuple[KeySet, ...]
    issuer: str | None = None
    audience: str | None = None

    async def claims(self, token: str, clock: Clock) -> dict[str, Any]:
        """Return the claims of a token that this provider made for us, and that is valid now.

        Raises:
            FormatError: not a JWT.
            AuthenticationError: somebody else's, for somebody else, or out of its time.
            PeerError: its keys could not be fetched.
        """
        claims = await self._signed(token)
        jwt.check_times(claims, clock())
        if self.issuer is not None and claims.get("iss") != self.issuer:
            raise AuthenticationError("the token's iss is another issuer")
        if self.audience is not None and self.audience not in _texts(claims.get("aud")):
            raise AuthenticationError("the token's aud does not name this KBS")
        return claims

    async def _signed(self, token: str) -> dict[str, Any]:
        failure: CocosError = AuthenticationError("the provider has no keys")
        for keys in self.keys:
            try:
                return await keys.verify(token)
            except (AuthenticationError, PeerError) as error:
                # An absent provider matters more than another's signature.
                failure = failure if isinstance(failure, PeerError) else error
        raise failure


class BearerTokens(AdminGate):
    """Admits tokens of identity providers through an access list."""

    def __init__(
        self,
        providers: Iterable[IdentityProvider],
        access: AccessList,
        *,
        clock: Clock,
        role_claim: str = ROLE,
    ) -> None:
        """Make the gate.

        Args:
            providers: Whose tokens count, tried in this order.
            access: What roles may reach.
            clock: Decides what has expired.
            role_claim: The claim that holds the roles: a text or a list of texts. Dots lead
                into objects, as in ``realm_access.roles``.

        Raises:
            ConfigError: no provider at all.
        """
        self._providers = tuple(providers)
        if not self._providers:
            raise ConfigError("there is no identity provider, nobody could administer this KBS")
        self._access = access
        self._clock = clock
        self._role_claim = role_claim
        for provider in self._providers:
            if provider.issuer is None or provider.audience is None:
                _log.warning(
                    "kbs.admin-token-of-any",
                    meaning="tokens that this provider made for others are accepted as well",
                    keys=[keys.place for keys in provider.keys],
                )

    async def admit(self, request: AdminRequest) -> str:
        """Return the subject of the token, and its issuer."""
        claims = await self._claims(bearer_token(request))
        identity = Identity(_name(claims), _texts(_find(claims, self._role_claim)))
        self._access.check(identity, request.path)
        return identity.name

    async def _claims(self, token: str) -> dict[str, Any]:
        reasons: list[str] = []
        absent: PeerError | None = None
        for provider in self._providers:
            try:
                return await provider.claims(token, self._clock)
            except PeerError as error:
                absent = error
            except (AuthenticationError, FormatError) as error:
                if error.message not in reasons:
                    reasons.append(error.message)
        if absent is not None:
            raise absent
        raise AuthenticationError(
            f"Cannot verify token with any of the issuers: {'; '.join(reasons)}",
            hint="get a new token from the identity provider that the KBS's operator named; if its "
            "key is yours: kbs-client --auth-private-key KEY --issuer NAME --role NAME "
            "--audience NAME, as in the KBS's settings",
        )


def _find(claims: Mapping[str, Any], path: str) -> object:
    if path in claims:
        return claims[path]
    value: object = claims
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _texts(value: object) -> tuple[str, ...]:
    """Return the texts of a claim that is one text or a list; what is no text does not count."""
    listed = value if isinstance(value, list) else [value]
    return tuple(text for text in listed if isinstance(text, str) and text)


def _name(claims: Mapping[str, Any]) -> str:
    parts = [str(claims[name]) for name in ("sub", "iss") if isinstance(claims.get(name), str)]
    shown = "@".join(parts) or "unnamed"
    return "".join(char if char.isprintable() else " " for char in shown[:_SHOWN])
