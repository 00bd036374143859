# SPDX-License-Identifier: Apache-2.0
"""A paravisor of our own, and the TPM that it makes: what a confidential VM on Azure has."""

import base64
import hashlib
import json
import struct
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

KEY: Final = rsa.generate_private_key(65537, 2048)
PCRS: Final = tuple(bytes([number]) * 32 for number in range(24))


def urlsafe(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()


def _number(value: int) -> str:
    return urlsafe(value.to_bytes((value.bit_length() + 7) // 8, "big")).rstrip("=")


def key(kid: str = "HCLAkPub", **changes: Any) -> dict[str, Any]:
    numbers = KEY.public_key().public_numbers()
    made = {"kid": kid, "kty": "RSA", "key_ops": ["sign"]}
    return made | {"n": _number(numbers.n), "e": _number(numbers.e)} | changes


def variable(user_data: bytes = b"", **changes: Any) -> bytes:
    """The JSON that the processor signs the hash of."""
    shown = {
        "keys": [key(), key("HCLEkPub")],
        "vm-configuration": {"secure-boot": True},
        "user-data": user_data.ljust(64, b"\0").hex().upper(),
    }
    return json.dumps(shown | changes).encode()


def report(data: bytes, kind: int, hardware: bytes = b"", hashed: int = 1) -> bytes:
    """The paravisor's report, as in the NV index."""
    head = b"HCLA" + struct.pack("<III", 2, 1236 + len(data), 2) + bytes(16)
    head += hardware.ljust(1184, b"\0")
    head += struct.pack("<IIIII", 20 + len(data), 1, kind, hashed, len(data))
    return (head + data).ljust(2600, b"\0")


def signed(data: bytes) -> bytes:
    """Report data of the processor's report."""
    return hashlib.sha256(data).digest()


def quote(
    bound: bytes, pcrs: tuple[bytes, ...] = PCRS, bitmap: bytes = b"\xff\xff\xff", bank: int = 0xB
) -> tuple[bytes, bytes]:
    """A quote of the TPM, and its signature."""
    message = struct.pack(">IHHH", 0xFF544347, 0x8018, 0, len(bound)) + bound + bytes(25)
    message += struct.pack(">IHB", 1, bank, len(bitmap)) + bitmap
    message += struct.pack(">H", 32) + hashlib.sha256(b"".join(pcrs)).digest()
    return message, KEY.sign(message, padding.PKCS1v15(), hashes.SHA256())


def quoted(bound: bytes, pcrs: tuple[bytes, ...] = PCRS, **more: Any) -> dict[str, Any]:
    """The same as member of evidence."""
    message, signature = quote(bound, pcrs, **more)
    return {
        "signature": signature.hex(),
        "message": message.hex(),
        "pcrs": [value.hex() for value in pcrs],
    }
