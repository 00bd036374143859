# SPDX-License-Identifier: Apache-2.0
"""Who may change what the key broker knows: holders of an administrator's key."""

import abc
import base64
import binascii
from collections.abc import Mapping
from typing import Final

from cocos._clock import Clock
from cocos.crypto import admin_jwt
from cocos.errors import AuthenticationError

_HINT: Final = (
    "make a token with `kbs-client admin-token --auth-private-key KEY`; a KBS started with "
    "--insecure-api asks for none"
)


class AdminGate(abc.ABC):
    """Decides on the ``Authorization`` header of a request to an admin's route."""

    @abc.abstractmethod
    def admit(self, authorization: str | None) -> str:
        """Return the name of the administrator for the log.

        Raises:
            AuthenticationError: the header proves nobody whom we know.
        """


class SignedTokens(AdminGate):
    """Admits JWTs signed by one of some Ed25519 keys."""

    def __init__(self, keys: Mapping[str, bytes], *, clock: Clock) -> None:
        """Make the gate.

        Args:
            keys: Administrator's name → public key, PEM.
            clock: Decides what has expired.

        Raises:
            ConfigError: one is not an Ed25519 public key.
        """
        for pem in keys.values():
            admin_jwt.load_public_key(pem)
        self._keys = dict(keys)
        self._clock = clock

    def admit(self, authorization: str | None) -> str:
        """Return the name under which the key that signed the token is known."""
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise AuthenticationError("this needs an administrator's bearer token", hint=_HINT)
        if _is_unsigned_json(token):
            raise AuthenticationError(
                "the bearer token is JSON that nobody signed; it proves nothing", hint=_HINT
            )
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

    def admit(self, authorization: str | None) -> str:  # noqa: ARG002 - part of the interface
        """Refuse."""
        raise AuthenticationError(
            "Admin access denied as DenyAll authorization_mode is enabled",
            hint="the KBS's operator switched its admin routes off",
        )


class InsecureAllowAll(AdminGate):
    """Admits everybody who can reach the port."""

    def admit(self, authorization: str | None) -> str:  # noqa: ARG002 - part of the interface
        """Admit."""
        return "anonymous (insecure)"


def _is_unsigned_json(token: str) -> bool:
    """Whether this is base64 of a JSON object, such as the ``e30=`` of older guides."""
    try:
        text = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return False
    return text.strip().startswith(b"{")
