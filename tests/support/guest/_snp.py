# SPDX-License-Identifier: Apache-2.0
"""A processor of AMD in software: its authorities, its key, and the reports that it signs."""

import datetime as dt
import struct
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.x509.oid import NameOID

from cocos.evidence.snp import Product, SigningKey, Tcb
from cocos.verifiers.amd.authorities import Authorities, Authority

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
YEAR = dt.timedelta(days=365)
ARC = "1.3.6.1.4.1.3704.1"
PSS = padding.PSS(padding.MGF1(hashes.SHA384()), salt_length=48)
CPUIDS = {Product.MILAN: (0x19, 1, 1), Product.GENOA: (0x19, 0x11, 1), Product.TURIN: (0x1A, 2, 1)}

Rsa = rsa.RSAPrivateKey
ROOT_KEY, ASK_KEY, OTHER_KEY = (rsa.generate_private_key(65537, 2048) for _ in range(3))
CHIP_KEY = ec.generate_private_key(ec.SECP384R1())
TCB = Tcb(10, 0, 23, 200)


def name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def certificate(  # noqa: PLR0917 - each is what one test changes
    common: str,
    key: Any,
    issuer: str,
    signer: Rsa,
    begin: dt.datetime = NOW - YEAR,
    end: dt.datetime = NOW + YEAR,
    more: tuple[tuple[x509.ExtensionType, bool], ...] = (),
    *,
    serial: int = 7,
    scheme: Any = PSS,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(common))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(begin)
        .not_valid_after(end)
    )
    for value, critical in more:
        builder = builder.add_extension(value, critical)
    return builder.sign(signer, hashes.SHA384(), rsa_padding=scheme)


def is_ca(*, certifies: bool = True) -> tuple[tuple[x509.ExtensionType, bool], ...]:
    unused = dict.fromkeys(
        ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
         "key_agreement", "encipher_only", "decipher_only"), False,
    )  # fmt: skip
    usage = x509.KeyUsage(key_cert_sign=certifies, crl_sign=True, **unused)
    return (x509.BasicConstraints(ca=True, path_length=None), True), (usage, True)


ROOT = certificate("ARK-Sim", ROOT_KEY, "ARK-Sim", ROOT_KEY, more=is_ca())
ASK = certificate("SEV-Sim", ASK_KEY, "ARK-Sim", ROOT_KEY, more=is_ca())
ASVK = certificate("SEV-VLEK-Sim", OTHER_KEY, "ARK-Sim", ROOT_KEY, more=is_ca())
SIMULATED = Authorities(
    {"simulated": Authority(ROOT, {SigningKey.VCEK: ASK, SigningKey.VLEK: ASVK}, "simulated")}
)


def der(value: x509.Certificate) -> bytes:
    return value.public_bytes(serialization.Encoding.DER)


def integer(number: int) -> bytes:
    return bytes([2, 1, number]) if number < 128 else bytes([2, 2, 0, number])


@dataclass(frozen=True)
class Chip:
    """One processor.

    Attributes:
        tcb: What its report says, and by default its certificate.
    """

    product: Product = Product.GENOA
    tcb: Tcb = TCB
    identity: bytes = bytes(range(64))
    kind: SigningKey = SigningKey.VCEK
    key: Any = field(default=CHIP_KEY, repr=False)

    def extensions(self, tcb: Tcb | None = None, chip: bytes | None = None) -> Any:
        levels = tcb or self.tcb
        values = {
            f"{ARC}.3.1": integer(levels.bootloader),
            f"{ARC}.3.2": integer(levels.tee),
            f"{ARC}.3.3": integer(levels.snp),
            f"{ARC}.3.8": integer(levels.microcode),
        }
        if levels.fmc is not None:
            values[f"{ARC}.3.9"] = integer(levels.fmc)
        if self.kind is SigningKey.VCEK:
            size = 8 if self.product is Product.TURIN else 64
            values[f"{ARC}.4"] = self.identity[:size] if chip is None else chip
        return tuple(
            (x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), False)
            for oid, value in values.items()
        )

    def certificate(self, more: Any = None, **changes: Any) -> bytes:
        vlek = self.kind is SigningKey.VLEK
        values: dict[str, Any] = {
            "common": f"SEV-{self.kind.name}",
            "key": self.key,
            "issuer": "SEV-VLEK-Sim" if vlek else "SEV-Sim",
            "signer": OTHER_KEY if vlek else ASK_KEY,
            "more": self.extensions() if more is None else more,
        }
        return der(certificate(**(values | changes)))

    def report(
        self,
        report_data: bytes,
        host_data: bytes = bytes(32),
        *,
        version: int = 3,
        policy: int = 0x30000,
        vmpl: int = 0,
        algorithm: int = 1,
        cpuid: tuple[int, int, int] | None = None,
        key_info: int | None = None,
        measurement: bytes = bytes(48),
        key: Any = None,
    ) -> bytes:
        info = self.kind << 2 if key_info is None else key_info
        tcb = self.tcb.encode()
        data = struct.pack("<IIQ32xII8sQI4x", version, 0, policy, vmpl, algorithm, tcb, 1, info)
        data += report_data.ljust(64, b"\0") + measurement + host_data
        data += bytes(48 + 48 + 32 + 32) + tcb + bytes(cpuid or CPUIDS[self.product]) + bytes(21)
        data += self.identity.ljust(64, b"\0") + tcb + bytes(8) + tcb
        data = data.ljust(0x2A0, b"\0")
        return data + signature(data, key or self.key)


def signature(data: bytes, key: Any = CHIP_KEY) -> bytes:
    """What stands in a report from byte 0x2a0 on."""
    r, s = utils.decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA384())))
    return (r.to_bytes(72, "little") + s.to_bytes(72, "little")).ljust(0x200, b"\0")


def revocation_list(
    *serials: int, signer: Rsa = ROOT_KEY, issuer: str = "ARK-Sim", end: dt.datetime = NOW + YEAR
) -> bytes:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(name(issuer))
        .last_update(NOW - YEAR)
        .next_update(end)
    )
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW - YEAR)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(signer, hashes.SHA384(), rsa_padding=PSS).public_bytes(
        serialization.Encoding.DER
    )
