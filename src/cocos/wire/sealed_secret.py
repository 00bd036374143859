# SPDX-License-Identifier: Apache-2.0
"""Sealed secrets: what only an attested guest can turn into a secret.

The text is ``sealed.`` and a compact JWS (ES256) whose header names the key that verifies
it. A *vault* secret names a resource; an *envelope* carries the secret, encrypted to a data
key that is wrapped by a key of a key service. Where that service is a KBS, which the guest
components do not have, the data key is wrapped by AES key wrap (RFC 3394).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import msgspec

from cocos.crypto import base64url, jwt, signing
from cocos.crypto.kek import Wrapped, WrapType
from cocos.crypto.signing import SigningKey
from cocos.errors import FormatError
from cocos.wire.json import b64decode, decode
from cocos.wire.kbs.protocol import ResourceUri

VERSION: Final = "0.1.0"
KBS: Final = "kbs"
MAX_BYTES: Final = 2**20

_PREFIX: Final = "sealed."
_UNSIGNED: Final = "fakejwsheader"
"""In place of a header, as upstream's examples have it."""
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,254}", re.ASCII)


class Vault(msgspec.Struct, frozen=True, tag_field="type", tag="vault"):
    """A secret that a key service stores under a name."""

    name: str
    version: str = VERSION
    provider: str = KBS
    provider_settings: dict[str, Any] = {}
    annotations: dict[str, Any] = {}


class Envelope(msgspec.Struct, frozen=True, tag_field="type", tag="envelope"):
    """A secret, encrypted to a data key, which a key of a key service wraps."""

    key_id: str
    encrypted_key: str
    encrypted_data: str
    wrap_type: str
    iv: str
    version: str = VERSION
    provider: str = KBS
    provider_settings: dict[str, Any] = {}
    annotations: dict[str, Any] = {}

    def wrapped(self) -> Wrapped:
        """Return the encrypted secret.

        Raises:
            FormatError: not base64, or an unknown wrap type.
        """
        try:
            wrap_type = WrapType(self.wrap_type)
        except ValueError as error:
            raise FormatError(f"wrap type {self.wrap_type[:50]!r} is not known") from error
        iv = b64decode(self.iv, "the sealed secret's iv")
        return Wrapped(wrap_type, iv, b64decode(self.encrypted_data, "its encrypted_data"))


Payload: TypeAlias = Vault | Envelope


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """A sealed secret that nobody has verified yet.

    Attributes:
        kid: Names the key that verifies it: a resource, or a file of that name.
    """

    kid: ResourceUri | str
    _token: str = field(repr=False)

    @classmethod
    def parse(cls, text: bytes) -> "SealedSecret":
        """Parse a sealed secret, spaces and newlines around it aside.

        Raises:
            FormatError: not such a text, or no key id that can be looked up.
        """
        token = _token(text)
        if token.startswith(f"{_UNSIGNED}."):
            raise FormatError(
                "this sealed secret is signed by nobody; it is taken only where the hub runs with "
                "--insecure-skip-sealed-secret-verification",
                hint="cocos-cli secret seals with a key of yours",
            )
        kid = jwt.header_of(token).get("kid")
        if not isinstance(kid, str):
            raise FormatError("the sealed secret's header names no kid")
        if "://" in kid:
            return cls(ResourceUri.parse(kid), token)
        if not _FILE_NAME.fullmatch(kid):
            raise FormatError(f"the sealed secret's kid {kid[:200]!r} is no key id")
        return cls(kid, token)

    def verified(self, public_jwk: Mapping[str, Any]) -> Payload:
        """Return the payload.

        Raises:
            AuthenticationError: that key did not sign it.
            FormatError: no P-256 public key, or the payload is malformed.
        """
        if "d" in public_jwk:
            raise FormatError(
                "the key that shall verify a sealed secret is a private key",
                hint="whoever can read it could seal secrets; store the public key alone",
            )
        return _payload(signing.verify(self._token, public_jwk))


def unverified(text: bytes) -> Payload:
    """Return the payload of a sealed secret that anybody may have made.

    Raises:
        FormatError: not such a text.
    """
    part = _token(text).split(".")[1]
    claims: Any = decode(base64url.decode(part, "the payload"), Any, "the payload")
    return _payload(claims)


def seal(payload: Payload, key: SigningKey, kid: str) -> str:
    """Return a sealed secret.

    Args:
        payload: What it says.
        key: Signs it.
        kid: Where the guest finds the public key.
    """
    return _PREFIX + key.sign({"kid": kid}, msgspec.to_builtins(payload))


def _token(text: bytes) -> str:
    token = text.strip().removeprefix(_PREFIX.encode())
    # The signature may be empty where nobody looks at it.
    if len(text) > MAX_BYTES or token == text.strip() or token.count(b".") != 2:  # noqa: PLR2004
        raise FormatError("this is no sealed secret: sealed.HEADER.PAYLOAD.SIGNATURE")
    try:
        return token.decode("ascii")
    except UnicodeDecodeError as error:
        raise FormatError("this is no sealed secret: it is not ASCII") from error


def _payload(claims: Any) -> Payload:
    try:
        payload: Payload = msgspec.convert(claims, Vault | Envelope)
    except msgspec.ValidationError as error:
        raise FormatError(f"the sealed secret's payload is malformed: {error}") from error
    if payload.version != VERSION:
        raise FormatError(f"sealed secrets of version {payload.version[:50]!r} are not known")
    return payload
