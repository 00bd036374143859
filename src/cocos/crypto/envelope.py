# SPDX-License-Identifier: Apache-2.0
"""Records sealed for one place of a storage, and the keys that seal them.

A record is: version (1), id of the data key (8 bytes), nonce (12 bytes), ciphertext with
tag. The cipher is AES-256-GCM-SIV (RFC 8452): nonces are random, and one that came twice
would show no more than that two records of one place are equal. Namespace, name, version
and key id are authenticated, so that a record opens nowhere but where it was sealed for.

Data keys are themselves records, sealed by a root key that is not in the storage.
"""

import abc
import os
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

from cocos.errors import FormatError, IntegrityError

KEY_BYTES: Final = 32
KEY_ID_BYTES: Final = 8
VERSION: Final = b"\x01"

_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_HEADER_BYTES: Final = len(VERSION) + KEY_ID_BYTES
_LABEL: Final = b"cocos record\0"
_KEY_NAMESPACE: Final = "data-key"


@dataclass(frozen=True, slots=True)
class DataKey:
    """A key that seals records.

    Attributes:
        id: 8 random bytes.
        secret: 32 bytes.
    """

    id: bytes
    secret: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> "DataKey":
        """Make a new key."""
        return cls(os.urandom(KEY_ID_BYTES), os.urandom(KEY_BYTES))


def seal(key: DataKey, namespace: str, name: str, plaintext: bytes) -> bytes:
    """Return the record that holds ``plaintext`` at one place."""
    header = VERSION + key.id
    nonce = os.urandom(_NONCE_BYTES)
    context = _context(header, namespace, name)
    return header + nonce + AESGCMSIV(key.secret).encrypt(nonce, plaintext, context)


def key_id(record: bytes) -> bytes:
    """Return the id of the key that a record claims to be sealed with.

    Raises:
        FormatError: not a record of a version that we know.
    """
    shortest = _HEADER_BYTES + _NONCE_BYTES + _TAG_BYTES
    if len(record) < shortest or not record.startswith(VERSION):
        raise FormatError("this is not a sealed record of a version that we know")
    return record[len(VERSION) : _HEADER_BYTES]


def unseal(key: DataKey, namespace: str, name: str, record: bytes) -> bytes:
    """Return what a record of one place holds.

    Raises:
        FormatError: not a record.
        IntegrityError: sealed with another key, for another place, or changed since.
    """
    if key_id(record) != key.id:
        raise IntegrityError(f"the record of {namespace} {name!r} is sealed with another key")
    header, rest = record[:_HEADER_BYTES], record[_HEADER_BYTES:]
    nonce, ciphertext = rest[:_NONCE_BYTES], rest[_NONCE_BYTES:]
    try:
        context = _context(header, namespace, name)
        return AESGCMSIV(key.secret).decrypt(nonce, ciphertext, context)
    except InvalidTag as error:
        raise IntegrityError(
            f"the record of {namespace} {name!r} was changed, or belongs somewhere else"
        ) from error


def _context(header: bytes, namespace: str, name: str) -> bytes:
    place = namespace.encode()
    return _LABEL + header + len(place).to_bytes(2, "big") + place + name.encode()


class RootKey(abc.ABC):
    """The key that wraps data keys: in memory, or in a device that never shows it."""

    @abc.abstractmethod
    async def wrap(self, key: DataKey) -> bytes:
        """Return the secret of a data key, sealed for its id."""

    @abc.abstractmethod
    async def unwrap(self, key_id: bytes, wrapped: bytes) -> DataKey:
        """Return a data key.

        Raises:
            IntegrityError: another root key wrapped it, for another id, or it was changed.
        """


class LocalRootKey(RootKey):
    """A root key of 32 bytes in this program's memory."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) != KEY_BYTES:
            raise ValueError(f"a root key has {KEY_BYTES} bytes")
        self._key = DataKey(bytes(KEY_ID_BYTES), secret)

    async def wrap(self, key: DataKey) -> bytes:
        """Return the secret of a data key, sealed for its id."""
        return seal(self._key, _KEY_NAMESPACE, key.id.hex(), key.secret)

    async def unwrap(self, key_id: bytes, wrapped: bytes) -> DataKey:
        """Return a data key."""
        try:
            secret = unseal(self._key, _KEY_NAMESPACE, key_id.hex(), wrapped)
        except FormatError as error:
            raise IntegrityError("this root key did not wrap the data key") from error
        return DataKey(key_id, secret)
