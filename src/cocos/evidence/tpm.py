# SPDX-License-Identifier: Apache-2.0
"""Structures of TPM 2.0, big-endian, after the TPM 2.0 Library Specification, part 2.

Only what a quote and its key need: RSA keys, RSASSA, SHA-256. Anything else is refused
by name.
"""

import enum
import hashlib
from dataclasses import dataclass, field
from typing import Final

from cocos.errors import FormatError
from cocos.evidence._reader import Reader

GENERATED: Final = 0xFF544347  # TPM_GENERATED_VALUE, §6.2
ST_ATTEST_QUOTE: Final = 0x8018  # §6.9
ALG_RSA: Final = 0x0001  # §6.3
ALG_SHA256: Final = 0x000B
ALG_NULL: Final = 0x0010
ALG_RSASSA: Final = 0x0014

PCR_COUNT: Final = 24
ALL_PCRS: Final = bytes.fromhex("ffffff")
"""Selection of PCR 0 to 23."""

_CLOCK_BYTES: Final = 17  # TPMS_CLOCK_INFO: u64 clock, u32 resets, u32 restarts, u8 safe
_MAX_SELECTIONS: Final = 16
_DEFAULT_EXPONENT: Final = 65537  # §12.2.3.5: zero means this


class Attributes(enum.IntFlag):
    """TPMA_OBJECT (§8.3), the bits that decide whether a key can be believed."""

    FIXED_TPM = 1 << 1
    FIXED_PARENT = 1 << 4
    SENSITIVE_DATA_ORIGIN = 1 << 5
    RESTRICTED = 1 << 16
    DECRYPT = 1 << 17
    SIGN = 1 << 18


@dataclass(frozen=True, slots=True)
class Selection:
    """PCRs of one bank: TPM_ALG_ID of the hash, and the bitmap, PCR 0 in the lowest bit."""

    algorithm: int
    bitmap: bytes

    def __str__(self) -> str:
        bank = "sha256" if self.algorithm == ALG_SHA256 else f"{self.algorithm:#06x}"
        return f"{bank}:{self.bitmap.hex()}"


@dataclass(frozen=True, slots=True)
class Quote:
    """A TPMS_ATTEST with a TPMS_QUOTE_INFO (§10.12).

    Attributes:
        extra_data: What the caller asked the TPM to sign along.
        selections: Which PCRs ``pcr_digest`` is over, in this order.
        pcr_digest: SHA-256 of the selected PCRs' values, one after the other.
        signed: The bytes that the signature is over.
    """

    extra_data: bytes
    selections: tuple[Selection, ...]
    pcr_digest: bytes
    signed: bytes = field(repr=False)

    @classmethod
    def parse(cls, data: bytes) -> "Quote":
        """Parse a quote.

        Raises:
            FormatError: another structure, not made by a TPM, or cut short.
        """
        reader = Reader(data, "the quote", "big")
        reader.expect(reader.u32(), GENERATED, "magic")
        reader.expect(reader.u16(), ST_ATTEST_QUOTE, "type")
        reader.sized16()  # qualified name of the signing key
        extra_data = reader.sized16()
        reader.take(_CLOCK_BYTES)
        reader.u64()  # firmware version
        count = reader.u32()
        if count > _MAX_SELECTIONS:
            raise FormatError(f"the quote selects {count} banks of PCRs")
        selections = tuple(Selection(reader.u16(), reader.take(reader.u8())) for _ in range(count))
        digest = reader.sized16()
        reader.end()
        return cls(extra_data, selections, digest, data)


@dataclass(frozen=True, slots=True)
class Signature:
    """A TPMT_SIGNATURE (§11.3.4) of kind RSASSA with SHA-256."""

    value: bytes

    @classmethod
    def parse(cls, data: bytes) -> "Signature":
        """Parse a signature.

        Raises:
            FormatError: another scheme or hash, or cut short.
        """
        reader = Reader(data, "the quote's signature", "big")
        reader.expect(reader.u16(), ALG_RSASSA, "scheme")
        reader.expect(reader.u16(), ALG_SHA256, "hash")
        value = reader.sized16()
        reader.end()
        return cls(value)


@dataclass(frozen=True, slots=True)
class RsaPublic:
    """A TPMT_PUBLIC (§12.2.4) of an RSA key.

    Attributes:
        attributes: What the TPM lets the key do; all bits, known or not.
        scheme: TPM_ALG_ID of the only scheme it signs with; :data:`ALG_NULL` for any.
        bits: Length of the modulus.
        modulus: Public modulus.
        exponent: Public exponent.
        marshalled: The TPMT_PUBLIC itself.
    """

    attributes: int
    scheme: int
    bits: int
    modulus: int
    exponent: int
    marshalled: bytes = field(repr=False)

    @classmethod
    def parse(cls, data: bytes) -> "RsaPublic":
        """Parse a TPM2B_PUBLIC: the length, then the TPMT_PUBLIC.

        Raises:
            FormatError: no RSA key, a name that is not SHA-256, or cut short.
        """
        outer = Reader(data, "the public area", "big")
        marshalled = outer.sized16()
        outer.end()
        reader = Reader(marshalled, "the public area", "big")
        reader.expect(reader.u16(), ALG_RSA, "key type")
        reader.expect(reader.u16(), ALG_SHA256, "name hash")
        attributes = reader.u32()
        reader.sized16()  # authPolicy
        if reader.u16() != ALG_NULL:  # symmetric: only of keys that wrap others
            reader.take(4)  # its length and mode
        scheme = reader.u16()
        if scheme != ALG_NULL:
            reader.expect(reader.u16(), ALG_SHA256, "signing hash")
        bits = reader.u16()
        exponent = reader.u32() or _DEFAULT_EXPONENT
        modulus = int.from_bytes(reader.sized16(), "big")
        reader.end()
        if modulus.bit_length() != bits:
            raise FormatError(f"the public area has a modulus that is not of {bits} bits")
        return cls(attributes, scheme, bits, modulus, exponent, marshalled)

    @property
    def name(self) -> bytes:
        """What the TPM knows the key by: hash id ‖ SHA-256 of the public area (part 1 §16)."""
        digest = hashlib.sha256(self.marshalled).digest()
        return ALG_SHA256.to_bytes(2, "big") + digest


def pcr_digest(values: tuple[bytes, ...]) -> bytes:
    """Return the digest that a quote over these PCR values carries."""
    return hashlib.sha256(b"".join(values)).digest()


def extend(value: bytes, digest: bytes) -> bytes:
    """Return a SHA-256 PCR's value after ``digest`` has been extended into it."""
    return hashlib.sha256(value + digest).digest()
