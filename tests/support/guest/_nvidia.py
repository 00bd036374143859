# SPDX-License-Identifier: Apache-2.0
"""A GPU in software: certificates of a root of its own, and reports that it signs."""

import base64
import datetime as dt
import struct
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.x509.oid import NameOID

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
FWID = bytes(range(48))
FWID_EXTENSION = bytes.fromhex("304106096086480165030402020430")
MEASUREMENTS = {1: bytes(48), 2: b"\x22" * 48, 64: b"\x64" * 48}
OPAQUE = {
    3: b"550.90.07\0",
    6: bytes.fromhex("009f009601000000"),
    20: FWID,
}


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


def certificate(  # noqa: PLR0917 - each is what one test changes
    subject: str,
    key: Any,
    issuer: str,
    signer: Any,
    ca: bool = True,
    begin: dt.datetime = NOW - DAY,
    end: dt.datetime = NOW + DAY,
    *,
    serial: str = "",
    path_length: int | None = None,
    fwid: bytes | None = None,
    sign: bool = True,
) -> x509.Certificate:
    def name(text: str, number: str = "") -> x509.Name:
        parts = [x509.NameAttribute(NameOID.COMMON_NAME, text)]
        if number:
            parts.append(x509.NameAttribute(NameOID.SERIAL_NUMBER, number))
        return x509.Name(parts)

    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject, serial))
        .issuer_name(name(*issuer.partition("/")[::2]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(
            x509.KeyUsage(not ca, False, False, False, False, ca and sign, False, False, False),
            critical=True,
        )
    )
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(ca, path_length), critical=True)
    if fwid is not None:
        oid = x509.ObjectIdentifier("2.23.133.5.4.1")
        data = FWID_EXTENSION + fwid
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, data), critical=False)
    return builder.sign(signer, hashes.SHA384())


ROOT_KEY = new_key()
ROOT = certificate("root", ROOT_KEY, "root", ROOT_KEY)


@dataclass
class Gpu:
    """One GPU; ``chain`` can be changed."""

    serial: str = "1"
    name: str = "GH100 A01 GSP FMC LF"
    key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    brom_key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    chain: list[x509.Certificate] = field(default_factory=list)

    def __post_init__(self) -> None:
        brom = certificate("brom", self.brom_key, "root", ROOT_KEY, serial=self.serial)
        self.chain = [self.leaf(), brom, ROOT]

    def leaf(self, key: Any = None, **changes: Any) -> x509.Certificate:
        values: dict[str, Any] = {"fwid": FWID, "ca": False} | changes
        issuer = f"brom/{self.serial}"
        return certificate(self.name, key or self.key, issuer, self.brom_key, **values)

    def evidence(self, nonce: bytes, **changes: Any) -> dict[str, str]:
        pem = b"".join(each.public_bytes(serialization.Encoding.PEM) for each in self.chain)
        return {
            "arch": "HOPPER",
            "uuid": "unknown",
            "evidence": base64.b64encode(report(self.key, nonce)).decode(),
            "certificate": base64.b64encode(pem).decode(),
        } | changes


def report(
    key: ec.EllipticCurvePrivateKey,
    nonce: bytes,
    measurements: dict[int, bytes] | None = None,
    opaque: dict[int, bytes] | None = None,
) -> bytes:
    blocks = [
        struct.pack("<BBHBH", index, 1, len(value) + 3, 1, len(value)) + value
        for index, value in (MEASUREMENTS if measurements is None else measurements).items()
    ]
    record = b"".join(blocks)
    items = (OPAQUE if opaque is None else opaque).items()
    said = b"".join(struct.pack("<HH", kind, len(data)) + data for kind, data in items)
    signed = bytes.fromhex("11e001ff") + nonce[:32] + b"\0" + bytes.fromhex("11600000")
    signed += bytes([len(blocks)]) + len(record).to_bytes(3, "little") + record
    signed += bytes(32) + struct.pack("<H", len(said)) + said
    signature = key.sign(signed, ec.ECDSA(hashes.SHA384()))
    r, s = utils.decode_dss_signature(signature)
    return signed + r.to_bytes(48) + s.to_bytes(48)
