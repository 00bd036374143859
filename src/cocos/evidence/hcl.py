# SPDX-License-Identifier: Apache-2.0
"""Reports of the paravisor that Azure runs below a confidential VM (HCL), little-endian.

NV index 0x01400001 of the VM's TPM holds a report of the processor and JSON beside it,
whose hash the processor signs: keys of the TPM that the paravisor made, how the VM is
configured, and what the guest last asked to have signed along.
"""

from dataclasses import dataclass, field
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric import rsa

from cocos.crypto import base64url
from cocos.errors import FormatError
from cocos.evidence._reader import Reader
from cocos.wire import json

SNP: Final = 2
TDX: Final = 4
MAX_REPORT: Final = 2**13
"""Bytes; the NV index has 2600."""

_MAGIC: Final = b"HCLA"
_HARDWARE: Final = 1184
_SHA256: Final = 1
_HEAD: Final = 20
_ATTESTATION_KEY: Final = "HCLAkPub"
_EXPONENT: Final = 65537
_KEY_BITS: Final = range(2048, 4097)


class _Key(msgspec.Struct, frozen=True):
    kid: str
    kty: str
    n: str
    e: str


class _Variable(msgspec.Struct, frozen=True, rename="kebab"):
    keys: list[_Key]
    user_data: str = ""


@dataclass(frozen=True, slots=True)
class HclReport:
    """A report of the paravisor.

    Attributes:
        kind: Of the processor's report: :data:`SNP` or :data:`TDX`.
        hardware: The processor's report, 1184 bytes; one of TDX has 1024 and zeros.
        variable: The JSON as it stands there; its SHA-256 is what the processor signs.
        attestation_key: Of the VM's TPM.
        user_data: What the guest asked to have signed along; empty if there is none.
    """

    kind: int
    hardware: bytes = field(repr=False)
    variable: bytes = field(repr=False)
    attestation_key: rsa.RSAPublicKey = field(repr=False)
    user_data: bytes

    @classmethod
    def parse(cls, data: bytes) -> "HclReport":
        """Parse a report; zeros may follow.

        Raises:
            FormatError: another structure, another hash, no such key, or cut short.
        """
        if len(data) > MAX_REPORT:
            raise FormatError(f"the HCL report has {len(data)} bytes; {MAX_REPORT} are allowed")
        reader = Reader(data, "the HCL report", "little")
        if reader.take(4) != _MAGIC:
            raise FormatError("this is no HCL report")
        reader.take(28)  # version, size, type of the request, status, reserved
        hardware = reader.take(_HARDWARE)
        size = reader.u32()
        reader.expect(reader.u32(), 1, "version of its data")
        kind = reader.u32()
        if kind not in {SNP, TDX}:
            raise FormatError(f"the HCL report has a report of the unknown type {kind}")
        reader.expect(reader.u32(), _SHA256, "hash")
        variable = reader.sized32(MAX_REPORT)
        reader.expect(size, _HEAD + len(variable), "data of size")
        if any(data[reader.position :]):
            raise FormatError("the HCL report is followed by something else than zeros")
        shown: _Variable = json.decode(variable, _Variable, "the HCL report's data")
        try:
            user_data = bytes.fromhex(shown.user_data)
        except ValueError as error:
            raise FormatError("the HCL report's user data are no hex") from error
        return cls(kind, hardware, variable, _attestation_key(shown.keys), user_data)


def _attestation_key(keys: list[_Key]) -> rsa.RSAPublicKey:
    found = [key for key in keys if key.kid == _ATTESTATION_KEY and key.kty == "RSA"]
    if len(found) != 1:
        raise FormatError(f"the HCL report has {len(found)} keys {_ATTESTATION_KEY}, not one")
    modulus, exponent = (
        int.from_bytes(base64url.decode(text, "an HCL key"), "big")
        for text in (found[0].n, found[0].e)
    )
    if modulus.bit_length() not in _KEY_BITS or exponent != _EXPONENT or modulus % 2 == 0:
        raise FormatError("the HCL report's attestation key is not RSA of 2048 to 4096 bits")
    try:
        return rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError as error:
        raise FormatError("the HCL report's attestation key is none") from error
