# SPDX-License-Identifier: Apache-2.0
import base64
import json
import struct
from typing import Any

import pytest
from _vectors import vector

from cocos.errors import FormatError
from cocos.evidence.tpm import (
    ALG_NULL,
    ALG_SHA256,
    ALL_PCRS,
    Attributes,
    Quote,
    RsaPublic,
    Selection,
    Signature,
    extend,
    pcr_digest,
)

MODULUS = (1 << 2047 | 1).to_bytes(256, "big")


def public(  # noqa: PLR0917 - members of a structure, in its order
    kind: int = 1,
    name_hash: int = 0xB,
    attributes: int = 0x50072,
    symmetric: bytes = b"\0\x10",
    scheme: bytes = b"\0\x14\0\x0b",
    bits: int = 2048,
    exponent: int = 0,
    modulus: bytes = MODULUS,
) -> bytes:
    body = struct.pack(">HHIH", kind, name_hash, attributes, 0) + symmetric + scheme
    body += struct.pack(">HIH", bits, exponent, len(modulus)) + modulus
    return struct.pack(">H", len(body)) + body


def quote(count: int = 1, end: bytes = b"") -> bytes:
    data = struct.pack(">IH", 0xFF544347, 0x8018) + b"\0\x02ab" + b"\0\x03xyz" + bytes(17 + 8)
    data += struct.pack(">I", count) + struct.pack(">HB3s", 0xB, 3, ALL_PCRS) * count
    return data + b"\0\x02dd" + end


def test_a_quote() -> None:
    parsed = Quote.parse(quote())
    assert parsed.extra_data == b"xyz"
    assert parsed.pcr_digest == b"dd"
    assert parsed.selections == (Selection(ALG_SHA256, ALL_PCRS),)
    assert parsed.signed == quote()
    assert str(parsed.selections[0]) == "sha256:ffffff"
    assert str(Selection(0xC, b"\1")) == "0x000c:01"
    assert Quote.parse(quote(0)).selections == ()
    assert len(Quote.parse(quote(16)).selections) == 16


@pytest.mark.parametrize(
    "data",
    [
        b"",
        quote()[:-1],
        quote(end=b"\0"),
        b"\0" + quote()[1:],
        quote()[:5] + b"\x17" + quote()[6:],
        quote(17),
    ],
    ids=["empty", "short", "long", "magic", "certify", "many banks"],
)
def test_no_quote(data: bytes) -> None:
    with pytest.raises(FormatError, match="quote"):
        Quote.parse(data)


def test_a_public_area() -> None:
    key = RsaPublic.parse(public())
    assert key.exponent == 65537
    assert key.modulus == int.from_bytes(MODULUS, "big")
    assert Attributes(key.attributes) & Attributes.RESTRICTED
    assert key.name[:2] == b"\0\x0b"
    assert len(key.name) == 34
    assert RsaPublic.parse(public(attributes=0)).name != key.name
    wrapping = public(symmetric=b"\0\x06\0\x80\0\x43", scheme=b"\0\x10")
    assert RsaPublic.parse(wrapping).scheme == ALG_NULL
    assert RsaPublic.parse(public(exponent=3)).exponent == 3


@pytest.mark.parametrize(
    "data",
    [
        b"",
        public()[2:],
        public()[:-1],
        public() + b"\0",
        struct.pack(">H", len(public()) - 1) + public()[2:] + b"\0",
        public(kind=0x23),
        public(name_hash=0xC),
        public(scheme=b"\0\x14\0\x04"),
        public(bits=3072),
        public(modulus=bytes(256)),
    ],
    ids=[
        "empty",
        "unsized",
        "short",
        "long",
        "long inside",
        "ECC",
        "SHA-384",
        "SHA-1",
        "bits",
        "zero",
    ],
)
def test_no_public_area(data: bytes) -> None:
    with pytest.raises(FormatError, match="public area"):
        RsaPublic.parse(data)


@pytest.mark.parametrize(
    "data",
    [b"", b"\0\x14\0\x0b\0\x02x", b"\0\x16\0\x0b\0\0", b"\0\x14\0\x04\0\0", b"\0\x14\0\x0b\0\0x"],
)
def test_no_signature(data: bytes) -> None:
    with pytest.raises(FormatError, match="signature"):
        Signature.parse(data)


def test_the_init_data_example() -> None:
    """PCR 8 for a digest, as evidence.md §1 has it."""
    digest = bytes.fromhex("8505e4e25e50a27c5dc8147af88efbece627fbea55291911eff832d9ee127781")
    expected = "bddaccb9c52249e97a31baea61b7d91be8221a16e703d92148d04fb8e9c1dfdd"
    assert extend(bytes(32), digest).hex() == expected


def test_a_real_quote() -> None:
    evidence: dict[str, Any] = json.loads(vector("tpm/evidence.json"))
    parts = evidence["tpm_quote"]
    parsed = Quote.parse(base64.b64decode(parts["message"]))
    assert parsed.selections == (Selection(ALG_SHA256, ALL_PCRS),)
    assert pcr_digest(tuple(map(bytes.fromhex, parts["pcrs"]))) == parsed.pcr_digest
    assert parsed.extra_data.hex().startswith("a04182b506878d4f29b91ee606a71a0d")
    assert len(parsed.extra_data) == 64
    assert len(Signature.parse(base64.b64decode(parts["signature"])).value) == 256
