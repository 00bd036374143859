# SPDX-License-Identifier: Apache-2.0
"""Who signs tokens: a key, and the certificates that vouch for it."""

import base64
import functools
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cocos.crypto.signing import SigningKey
from cocos.errors import ConfigError


@dataclass(frozen=True)
class Signer:
    """A signing key as it shows in the header of tokens and in a JWK set.

    Attributes:
        key: Signs.
        certificates: Its chain, leaf first.
        url: Where the chain can be had.
    """

    key: SigningKey
    certificates: tuple[x509.Certificate, ...] = ()
    url: str | None = None

    @classmethod
    def load(cls, key_pem: bytes, chain_pem: bytes | None, url: str | None) -> "Signer":
        """Load an operator's own key.

        Args:
            key_pem: EC P-256 private key.
            chain_pem: Its certificate chain, leaf first.
            url: Where the chain can be had.

        Raises:
            ConfigError: another kind of key, no certificates, or certificates of another key.
        """
        key = SigningKey.from_pem(key_pem)
        if chain_pem is None:
            return cls(key, url=url)
        try:
            chain = tuple(x509.load_pem_x509_certificates(chain_pem))
        except ValueError as error:
            raise ConfigError("the token signing certificate is not PEM") from error
        if chain[0].public_key() != key.public_key():
            raise ConfigError(
                "the first token signing certificate is not of the token signing key",
                hint="the chain begins with the key's own certificate",
            )
        return cls(key, chain, url)

    @functools.cached_property
    def header(self) -> dict[str, Any]:
        """The members of a token's header that tell who signed it."""
        return {"kid": self.key.kid, "jwk": self._jwk()}

    def published(self) -> dict[str, Any]:
        """Return the key for a JWK set."""
        return {**self._jwk(), "kid": self.key.kid, "use": "sig"}

    def _jwk(self) -> dict[str, Any]:
        jwk: dict[str, Any] = {**self.key.public_jwk()}
        more: dict[str, Any] = {} if self.url is None else {"x5u": self.url}
        if self.certificates:
            # Standard base64, not base64url (RFC 7517 §4.7).
            more["x5c"] = [
                base64.b64encode(each.public_bytes(Encoding.DER)).decode("ascii")
                for each in self.certificates
            ]
        return {"alg": jwk.pop("alg"), **more, **jwk}
