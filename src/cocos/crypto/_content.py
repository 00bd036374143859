# SPDX-License-Identifier: Apache-2.0
"""Content encryption of every JWE of ours: A256GCM (RFC 7518 §5.3)."""

import json
import os
from collections.abc import Mapping
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cocos.crypto import base64url
from cocos.errors import FormatError, IntegrityError, TooLargeError

ENC: Final = "A256GCM"
CEK_BYTES: Final = 32
IV_BYTES: Final = 12
_TAG_BYTES = 16
_MAX_BYTES = 2**31 - 1 - _TAG_BYTES  # what one call of the AES-GCM implementation takes


def new_key() -> bytes:
    """Return a fresh content encryption key."""
    return os.urandom(CEK_BYTES)


def protect(header: dict[str, Any]) -> str:
    """Encode a protected header.

    Compact JSON, members in the given order: the guest does not use the text it received
    as additional data but serialises the header again (kbs.md §6, "interop trap").
    """
    return base64url.encode(json.dumps(header, separators=(",", ":")).encode("ascii"))


def open_header(text: object) -> dict[str, Any]:
    """Decode a protected header.

    Raises:
        FormatError: not base64url of a JSON object, or other content encryption than A256GCM.
    """
    try:
        header = json.loads(base64url.decode(text, "the JWE's protected header"))
    except (ValueError, RecursionError) as error:
        raise FormatError("the JWE's protected header is not JSON") from error
    if not isinstance(header, dict) or header.pop("enc", None) != ENC:
        raise FormatError(f"the JWE is not encrypted with {ENC}")
    return header


def encrypt(plaintext: bytes, key: bytes, protected: str) -> dict[str, str]:
    """Return the members ``iv``, ``ciphertext`` and ``tag``.

    Raises:
        TooLargeError: more than 2 GiB.
    """
    iv = os.urandom(IV_BYTES)
    sealed = AESGCM(key).encrypt(iv, within_limit(plaintext), protected.encode("ascii"))
    return {
        "iv": base64url.encode(iv),
        "ciphertext": base64url.encode(sealed[:-_TAG_BYTES]),
        "tag": base64url.encode(sealed[-_TAG_BYTES:]),
    }


def within_limit(plaintext: bytes) -> bytes:
    """Return what is to be encrypted in one piece.

    Raises:
        TooLargeError: more than 2 GiB.
    """
    if len(plaintext) > _MAX_BYTES:
        raise TooLargeError(f"cannot encrypt {len(plaintext)} bytes in one piece")
    return plaintext


def decrypt(jwe: Mapping[str, Any], key: bytes) -> bytes:
    """Decrypt from the members ``protected``, ``iv``, ``ciphertext`` and ``tag``.

    Raises:
        FormatError: a member is missing or has the wrong length.
        IntegrityError: something was changed, or ``key`` is not the key.
    """
    iv, ciphertext, tag = (
        base64url.decode(jwe.get(name), f"{name} of the JWE")
        for name in ("iv", "ciphertext", "tag")
    )
    if len(iv) != IV_BYTES or len(tag) != _TAG_BYTES:
        raise FormatError("iv and tag of the JWE must be 12 and 16 bytes")
    if len(key) != CEK_BYTES:
        raise IntegrityError("the content key of the JWE is not 32 bytes")
    try:
        return AESGCM(key).decrypt(iv, ciphertext + tag, str(jwe["protected"]).encode("ascii"))
    except InvalidTag as error:
        raise IntegrityError("the JWE was changed on its way") from error
