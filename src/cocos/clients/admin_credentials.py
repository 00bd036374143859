# SPDX-License-Identifier: Apache-2.0
"""How administrators prove themselves to a KBS: one set of credentials for every client."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from cocos._clock import Clock
from cocos.crypto import admin_jwt
from cocos.errors import ConfigError
from cocos.transport.loopback import is_loopback
from cocos.wire.kbs.address import KbsAddress

LIFETIME: Final = dt.timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Credentials:
    """A token, or a key that tokens are made with; neither for a KBS that asks for none.

    Attributes:
        token: JWT of an administrator.
        private_key: Ed25519, PEM.
        claims: Of tokens that are made: ``role``, ``iss``, ``aud``.
        source: The file, as the user named it.
        found: The user did not name it: it lay where Trustee's client looks.
    """

    token: str | None = field(default=None, repr=False)
    private_key: bytes | None = field(default=None, repr=False)
    claims: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    found: bool = False

    def __bool__(self) -> bool:
        return self.token is not None or self.private_key is not None

    def bearer(self, clock: Clock, lifetime: dt.timedelta = LIFETIME) -> str | None:
        """Return a token that is valid now; None without credentials.

        Raises:
            ConfigError: the key is no such key.
        """
        if self.private_key is None:
            return self.token
        try:
            return admin_jwt.mint(
                self.private_key, now=clock(), lifetime=lifetime, claims=dict(self.claims)
            )
        except ConfigError as error:
            raise ConfigError(f"{self.source}: {error.message}", hint=error.hint) from error

    def check(self, url: str) -> None:
        """Refuse to send a token that nobody named to where anybody on the way reads it.

        Args:
            url: Address of the KBS.

        Raises:
            ConfigError: it is neither TLS nor this machine.
            FormatError: it is no address.
        """
        address = urlsplit(KbsAddress.parse(url).url)
        if not self.found or address.scheme == "https" or is_loopback(address.hostname or ""):
            return
        raise ConfigError(
            f"the admin's token found in {self.source} is not sent to {address.netloc} by plain "
            "HTTP: whoever reads it on the way becomes an administrator",
            hint="speak TLS to the KBS, or name the file: --admin-token-file "
            "(KBS_ADMIN_TOKEN_FILE)",
        )

    @property
    def advice(self) -> str:
        """What to do when a KBS does not accept them."""
        if not self:
            return (
                "give --auth-private-key FILE or --admin-token-file FILE (KBS_AUTH_PRIVATE_KEY, "
                "KBS_ADMIN_TOKEN_FILE)"
            )
        if self.private_key is None:
            return f"is the token in {self.source} of this KBS's identity provider, and fresh?"
        return (
            f"{self.source} is not the pair of the KBS's key (its --auth-public-key), or, where "
            "an identity provider is set (Trustee since v0.21): --issuer, --role and --audience "
            "are those of its settings"
        )
