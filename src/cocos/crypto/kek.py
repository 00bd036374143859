# SPDX-License-Identifier: Apache-2.0
"""Key-encryption keys: their forms at rest, and wrapping with AES-256.

A key is 32 bytes. In a file or at a KBS it may stand raw or as standard base64 text of 32
bytes, with or without a newline at the end (``openssl rand -base64 32``).
"""

import base64
import binascii
import enum
import os
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import (
    InvalidUnwrap,
    aes_key_unwrap,
    aes_key_wrap,
)

from cocos.errors import FormatError, IntegrityError

KEY_BYTES = 32
_GCM_IV_BYTES = 12
_CTR_IV_BYTES = 16
_TAG_BYTES = 16
_HINT = "a key is 32 raw bytes, or base64 text of 32 bytes: openssl rand -base64 32"


class WrapType(enum.StrEnum):
    """How a key wraps; the names are those of the annotation packet."""

    A256GCM = "A256GCM"
    """IV of 12 bytes, tag of 16 bytes after the ciphertext, no associated data."""

    A256CTR = "A256CTR"
    """IV of 16 bytes as the first counter block. Not authenticated; refused by the agent."""


@dataclass(frozen=True, slots=True)
class Wrapped:
    """Ciphertext (with tag, if the type has one) and what is needed to open it."""

    wrap_type: WrapType
    iv: bytes
    data: bytes = field(repr=False)


def generate() -> bytes:
    """Return a new random key."""
    return os.urandom(KEY_BYTES)


def parse(data: bytes, what: str) -> bytes:
    """Return the 32 bytes of a key in any of its forms.

    Args:
        data: Content of a key file or of a KBS resource.
        what: Names the key, for the message: "the key kbs:///default/key/algo-key".

    Raises:
        FormatError: another length; the message names the length found.
    """
    if len(data) == KEY_BYTES:
        return data
    text = data.removesuffix(b"\n").removesuffix(b"\r")
    try:
        decoded = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        decoded = b""
    if len(decoded) == KEY_BYTES:
        return decoded
    found = f"{len(data)} bytes long"
    if decoded:
        found += f" (base64 text of {len(decoded)} bytes)"
    raise FormatError(f"{what} is {found}, not {KEY_BYTES}", hint=_HINT)


def wrap(key: bytes, plaintext: bytes, wrap_type: WrapType = WrapType.A256GCM) -> Wrapped:
    """Encrypt ``plaintext`` to ``key`` with a fresh random IV."""
    if wrap_type is WrapType.A256GCM:
        iv = os.urandom(_GCM_IV_BYTES)
        return Wrapped(wrap_type, iv, AESGCM(key).encrypt(iv, plaintext, None))
    iv = os.urandom(_CTR_IV_BYTES)
    return Wrapped(wrap_type, iv, _ctr(key, iv, plaintext))


def unwrap(key: bytes, wrapped: Wrapped, what: str) -> bytes:
    """Decrypt what :func:`wrap` made.

    Args:
        key: The 32 bytes.
        wrapped: Ciphertext, IV and type.
        what: Names the key, for the message.

    Raises:
        FormatError: an IV of the wrong length, or too short to hold a tag.
        IntegrityError: wrong key, or the ciphertext was changed (A256GCM only).
    """
    expected = _GCM_IV_BYTES if wrapped.wrap_type is WrapType.A256GCM else _CTR_IV_BYTES
    if len(wrapped.iv) != expected:
        raise FormatError(
            f"the IV for {wrapped.wrap_type} is {len(wrapped.iv)} bytes long, not {expected}"
        )
    if wrapped.wrap_type is WrapType.A256CTR:
        return _ctr(key, wrapped.iv, wrapped.data)
    if len(wrapped.data) < _TAG_BYTES:
        raise FormatError("what is wrapped is too short to hold a tag")
    try:
        return AESGCM(key).decrypt(wrapped.iv, wrapped.data, None)
    except InvalidTag as error:
        raise IntegrityError(
            f"what is wrapped does not open with {what}: it is another key, or it was changed"
        ) from error


def wrap_key(key: bytes, other: bytes) -> bytes:
    """Wrap another key of 32 bytes with ``key``: AES key wrap (RFC 3394)."""
    return aes_key_wrap(key, other)


def unwrap_key(key: bytes, wrapped: bytes, what: str) -> bytes:
    """Return the 32 bytes that :func:`wrap_key` wrapped.

    Raises:
        IntegrityError: wrong key, changed, or another length.
    """
    try:
        other = aes_key_unwrap(key, wrapped)
    except (InvalidUnwrap, ValueError) as error:
        raise IntegrityError(f"the data key does not open with {what}") from error
    if len(other) != KEY_BYTES:
        raise IntegrityError(f"the data key is {len(other)} bytes long, not {KEY_BYTES}")
    return other


def _ctr(key: bytes, iv: bytes, data: bytes) -> bytes:
    context = Cipher(algorithms.AES256(key), modes.CTR(iv)).encryptor()
    return context.update(data) + context.finalize()
