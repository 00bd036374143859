# SPDX-License-Identifier: Apache-2.0
"""Attestation keys and PCRs at the edge of what is taken: which keys, in which spelling, how many."""

import base64
import hashlib
import struct
from typing import Any

import pytest
from _verified import verified
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from cocos._clock import system_clock
from cocos._types import ReportData
from cocos.errors import EvidenceError, FormatError
from cocos.verifiers import Expected
from cocos.verifiers._tpm_key import load_spki
from cocos.verifiers.tpm import Authorities, TpmVerifier

DER, SPKI = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
KEY = rsa.generate_private_key(65537, 2048)
PUBLIC = KEY.public_key().public_bytes(DER, SPKI)
BOUND = ReportData(hashlib.sha384(b"session").digest())


def der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    size = len(body)
    if size < 0x80:
        return bytes([tag, size]) + body
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + body


def integer(value: int) -> bytes:
    return der(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


RSA_ENCRYPTION = bytes.fromhex("06092a864886f70d010101")
RSA_PSS = bytes.fromhex("06092a864886f70d01010a")
NULL = b"\x05\x00"


def spki(n: int, e: int = 65537, algorithm: bytes = RSA_ENCRYPTION + NULL) -> bytes:
    """The structure of RFC 5280, by hand: a library would not write all of these."""
    return der(0x30, der(0x30, algorithm), der(3, b"\0", der(0x30, integer(n), integer(e))))


def of(bits: int) -> int:
    return (1 << (bits - 1)) | 1


def test_our_structure_is_the_librarys() -> None:
    numbers = KEY.public_key().public_numbers()
    assert spki(numbers.n, numbers.e) == PUBLIC
    assert load_spki(PUBLIC).public_numbers() == numbers


@pytest.mark.parametrize("bits", [2048, 2049, 3072, 4096])
def test_lengths_that_are_taken(bits: int) -> None:
    assert load_spki(spki(of(bits))).key_size == bits


@pytest.mark.parametrize("e", [3, 65537, 2**32 - 1])
def test_exponents_that_are_taken(e: int) -> None:
    assert load_spki(spki(of(2048), e)).public_numbers().e == e


@pytest.mark.parametrize("bits", [512, 1024, 2040, 2047, 4097, 8192])
def test_lengths_that_are_not(bits: int) -> None:
    with pytest.raises(FormatError, match="ak_public is not"):
        load_spki(spki(of(bits)))


@pytest.mark.parametrize(
    ("n", "e"),
    [(of(2048) - 1, 65537), (of(2048), 1), (of(2048), 2), (of(2048), 65536), (of(2048), 2**32 + 1)],
    ids=["even modulus", "exponent 1", "exponent 2", "even exponent", "an exponent of 33 bits"],
)
def test_numbers_that_are_no_key(n: int, e: int) -> None:
    with pytest.raises(FormatError, match="ak_public is not"):
        load_spki(spki(n, e))


def spellings() -> dict[str, bytes]:
    numbers = KEY.public_key().public_numbers()
    n, e = numbers.n, numbers.e
    inner = der(0x30, integer(n), integer(e))
    plain = der(0x30, RSA_ENCRYPTION + NULL)
    return {
        "no parameters": spki(n, e, RSA_ENCRYPTION),
        "named for PSS": spki(n, e, RSA_PSS),
        "trailing bytes": PUBLIC + b"\0",
        "a longer length": b"\x30\x83\0" + PUBLIC[2:],
        "leading zeros": der(
            0x30, plain, der(3, b"\0", der(0x30, der(2, b"\0", integer(n)[4:]), integer(e)))
        ),
        "unused bits": der(0x30, plain, der(3, b"\1", inner)),
    }


@pytest.mark.parametrize("form", spellings())
def test_a_key_has_one_spelling(form: str) -> None:
    """Its digest is registered, and compared with the one that was challenged."""
    with pytest.raises(FormatError, match="ak_public is not"):
        load_spki(spellings()[form])


def test_other_kinds_of_key() -> None:
    for data in (ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(DER, SPKI), b""):
        with pytest.raises(FormatError, match="ak_public is not"):
            load_spki(data)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def quoted(count: int, *, bitmap: bytes = b"\xff\xff\xff", size: int = 32) -> dict[str, Any]:
    """Evidence with so many PCRs, whose digest the TPM has signed."""
    pcrs = [bytes([number]) * size for number in range(count)]
    message = struct.pack(">IHHH", 0xFF544347, 0x8018, 0, len(BOUND)) + BOUND + bytes(25)
    message += struct.pack(">IHB", 1, 0xB, len(bitmap)) + bitmap
    message += struct.pack(">H", 32) + hashlib.sha256(b"".join(pcrs)).digest()
    signature = KEY.sign(message, padding.PKCS1v15(), hashes.SHA256())
    return {
        "tpm_quote": {
            "signature": b64(struct.pack(">HHH", 0x14, 0xB, 256) + signature),
            "message": b64(message),
            "pcrs": [value.hex() for value in pcrs],
        },
        "ak_public": b64(PUBLIC),
    }


async def verify(evidence: Any) -> Any:
    verifier = TpmVerifier(Authorities([]), clock=system_clock)
    values = {"trusted_ak": [b64(PUBLIC)]}
    return await verified(verifier, evidence, Expected(BOUND, reference_values=values), None)


async def test_all_of_a_tpms_pcrs() -> None:
    assert await verify(quoted(24))


@pytest.mark.parametrize("count", [0, 1, 23, 25, 48])
async def test_another_number_of_pcrs(count: int) -> None:
    """What is missing could be any; what is too much, somebody could take for one of them."""
    with pytest.raises(EvidenceError) as caught:
        await verify(quoted(count))
    assert "24" in str([(each.problem, each.expected) for each in caught.value.findings])


@pytest.mark.parametrize("bitmap", [b"\xff\xff\x7f", b"\xfe\xff\xff", b"\xff\xff\xff\x01", b""])
async def test_a_quote_of_another_selection(bitmap: bytes) -> None:
    with pytest.raises(EvidenceError):
        await verify(quoted(24, bitmap=bitmap))


@pytest.mark.parametrize("size", [0, 20, 31, 33, 48])
async def test_pcrs_of_another_bank(size: int) -> None:
    with pytest.raises(EvidenceError):
        await verify(quoted(24, size=size))
