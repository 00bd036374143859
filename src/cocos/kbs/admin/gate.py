# SPDX-License-Identifier: Apache-2.0
"""Who may change what the key broker knows, and which part of it."""

import abc
import base64
import binascii
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from cocos._clock import Clock
from cocos.crypto import admin_jwt
from cocos.errors import AccessDeniedError, AuthenticationError, ConfigError, Finding

_HINT: Final = (
    "kbs-client and cocos-cli encrypt: --auth-private-key KEY; for others `kbs-client admin-token "
    "--auth-private-key KEY` makes a token; a KBS started with --insecure-api asks for none"
)


@dataclass(frozen=True, slots=True)
class AdminRequest:
    """What an administrator asks for, as far as a gate looks at it.

    Attributes:
        authorization: The header of that name.
        path: Of the URL, decoded as the router sees it; without the query.
    """

    authorization: str | None
    path: str


@dataclass(frozen=True, slots=True)
class Identity:
    """An administrator who has proved who it is: a name for the log, and its roles."""

    name: str
    roles: tuple[str, ...]


class AdminGate(abc.ABC):
    """Decides on a request to an administrator's route."""

    @abc.abstractmethod
    async def admit(self, request: AdminRequest) -> str:
        """Return the name of the administrator for the log.

        Raises:
            AuthenticationError: the header proves nobody whom we know.
            AccessDeniedError: it does, but that one may not do this.
        """


class AccessList:
    """Which role may reach which paths; what no rule allows is denied."""

    def __init__(self, rules: Iterable[tuple[str, str]]) -> None:
        """Compile the rules.

        Args:
            rules: Role, and a regular expression that the whole path must match.

        Raises:
            ConfigError: one is not a regular expression, or not anchored at both ends.
        """
        self._rules = [(role, _compile(role, pattern)) for role, pattern in rules]

    def check(self, identity: Identity, path: str) -> None:
        """Return if one of the identity's roles allows the path.

        Raises:
            AccessDeniedError: none does.
        """
        for role, pattern in self._rules:
            if role in identity.roles and pattern.fullmatch(path):
                return
        role = ", ".join(identity.roles)
        raise AccessDeniedError(
            f"Role {role} not allowed" if role else "the token names no role",
            findings=(
                Finding(
                    "admin.role",
                    f"no rule lets {identity.name} reach {path}",
                    actual=role,
                    expected=", ".join(sorted({known for known, _ in self._rules})),
                ),
            ),
            hint="the KBS's operator decides which role may reach which path",
        )


class SignedTokens(AdminGate):
    """Admits JWTs signed by one of some Ed25519 keys; Trustee's ``Simple`` personas."""

    def __init__(
        self, keys: Mapping[str, bytes], *, clock: Clock, access: AccessList | None = None
    ) -> None:
        """Make the gate.

        Args:
            keys: Administrator's name, which is also its role → public key, PEM.
            clock: Decides what has expired.
            access: What roles may reach; everything without.

        Raises:
            ConfigError: one is not an Ed25519 public key.
        """
        for pem in keys.values():
            admin_jwt.load_public_key(pem)
        self._keys = dict(keys)
        self._clock = clock
        self._access = access

    async def admit(self, request: AdminRequest) -> str:
        """Return the name under which the key that signed the token is known."""
        name = self._signer(bearer_token(request))
        if self._access is not None:
            self._access.check(Identity(name, (name,)), request.path)
        return name

    def _signer(self, token: str) -> str:
        failure: AuthenticationError | None = None
        for name, pem in self._keys.items():
            try:
                admin_jwt.verify(token, pem, self._clock())
            except AuthenticationError as error:
                failure = error
            else:
                return name
        if len(self._keys) == 1 and failure is not None:
            raise AuthenticationError(failure.message, hint=failure.hint or _HINT) from failure
        raise AuthenticationError("Cannot verify token with any of the issuers", hint=_HINT)


class DenyAll(AdminGate):
    """Admits nobody: a key broker that is read only."""

    async def admit(self, request: AdminRequest) -> str:  # noqa: ARG002 - part of the interface
        """Refuse."""
        raise AccessDeniedError(
            "Admin access denied as DenyAll authorization_mode is enabled",
            hint="the KBS's operator switched its admin routes off",
        )


class InsecureAllowAll(AdminGate):
    """Admits everybody who can reach the port."""

    async def admit(self, request: AdminRequest) -> str:  # noqa: ARG002 - part of the interface
        """Admit."""
        return "anonymous (insecure)"


def bearer_token(request: AdminRequest) -> str:
    """Return the token in the ``Authorization`` header.

    Raises:
        AuthenticationError: there is none, or what is there is not signed at all.
    """
    scheme, _, token = (request.authorization or "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise AuthenticationError("this needs an administrator's bearer token", hint=_HINT)
    if _is_unsigned_json(token):
        raise AuthenticationError(
            "the bearer token is JSON that nobody signed; it proves nothing", hint=_HINT
        )
    return token


def _compile(role: str, pattern: str) -> re.Pattern[str]:
    if not pattern.startswith("^/kbs") or not pattern.endswith("$"):
        raise ConfigError(
            f"allowed_endpoints of the role {role} must begin with ^/kbs and end with $",
            hint="such as ^/kbs/v0/resource/team-a/.+$",
        )
    try:
        with warnings.catch_warnings():
            # A warning is about syntax that means something else in Rust, such as [[:alpha:]].
            warnings.simplefilter("error")
            return re.compile(pattern)
    except (re.error, OverflowError, RecursionError, Warning) as error:
        raise ConfigError(
            f"allowed_endpoints of the role {role} is not a regular expression: {error}"
        ) from error


def _is_unsigned_json(token: str) -> bool:
    """Whether this is base64 of a JSON object, such as the ``e30=`` of older guides."""
    try:
        text = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return False
    return text.strip().startswith(b"{")
