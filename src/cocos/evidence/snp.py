# SPDX-License-Identifier: Apache-2.0
"""The attestation report of AMD SEV-SNP, little-endian, after AMD's document 56860, §7.3."""

import enum
from dataclasses import dataclass, field
from typing import Final

from cocos.errors import FormatError
from cocos.evidence._reader import Reader

REPORT_BYTES: Final = 1184
REPORT_DATA_BYTES: Final = 64
HOST_DATA_BYTES: Final = 32
SIGNED_BYTES: Final = 0x2A0
TURIN_CHIP_ID_BYTES: Final = 8
ECDSA_P384_SHA384: Final = 1
FIRST_WITH_CPUID: Final = 3
FIRST_WITH_MITIGATIONS: Final = 5

_NUMBER_BYTES: Final = 72  # of r and s
_OLDEST: Final = 2
_ZEN_3_AND_4: Final = 0x19
_ZEN_5: Final = 0x1A


class Product(enum.StrEnum):
    """Whose certificate authority: Zen 4c (Bergamo, Siena) has Genoa's, Turin Dense Turin's."""

    MILAN = "Milan"
    GENOA = "Genoa"
    TURIN = "Turin"

    @classmethod
    def of(cls, family: int, model: int) -> "Product | None":
        """Return the product of a processor by its CPUID; None if it is not known."""
        for product, own, models in _PRODUCTS:
            if family == own and model in models:
                return product
        return None


_PRODUCTS: Final = (
    (Product.MILAN, _ZEN_3_AND_4, range(0x10)),
    (Product.GENOA, _ZEN_3_AND_4, range(0x10, 0x20)),
    (Product.GENOA, _ZEN_3_AND_4, range(0xA0, 0xB0)),
    (Product.TURIN, _ZEN_5, range(0x20)),
)


class Policy(enum.IntFlag):
    """What the guest's owner allowed the host, the bits beside the ABI's version (§4.3)."""

    SMT = 1 << 16
    MIGRATE_MA = 1 << 18
    DEBUG = 1 << 19
    SINGLE_SOCKET = 1 << 20


class Platform(enum.IntFlag):
    """PLATFORM_INFO."""

    SMT = 1 << 0
    TSME = 1 << 1


class SigningKey(enum.IntEnum):
    """Which key signed, in bits 4:2 of KEY_INFO; the names are the certificates'."""

    VCEK = 0
    VLEK = 1
    NONE = 7


@dataclass(frozen=True, slots=True)
class Tcb:
    """Security patch levels. ``fmc`` exists from Turin on."""

    bootloader: int
    tee: int
    snp: int
    microcode: int
    fmc: int | None = None

    @classmethod
    def parse(cls, data: bytes, *, with_fmc: bool) -> "Tcb":
        """Parse a TCB_VERSION of 8 bytes."""
        if with_fmc:
            return cls(data[1], data[2], data[3], data[7], data[0])
        return cls(data[0], data[1], data[6], data[7])

    def encode(self) -> bytes:
        """Return the 8 bytes; the reserved ones are zero."""
        if self.fmc is None:
            return bytes([self.bootloader, self.tee, 0, 0, 0, 0, self.snp, self.microcode])
        return bytes([self.fmc, self.bootloader, self.tee, self.snp, 0, 0, 0, self.microcode])

    def __str__(self) -> str:
        fmc = "" if self.fmc is None else f"_fmc{self.fmc:02}"
        levels = f"bl{self.bootloader:02}_tee{self.tee:02}_snp{self.snp:02}"
        return f"{levels}_ucode{self.microcode:02}{fmc}"


@dataclass(frozen=True, slots=True)
class Report:
    """An ATTESTATION_REPORT.

    Attributes:
        policy: All bits, known or not; so ``platform`` and ``key_info``.
        cpuid: Family, model, stepping; None before version 3.
        product: Made from ``cpuid``; None if it does not say.
        mitigations: Launch and current vector; None before version 5.
        signature: r and s.
        signed: The bytes that the signature is over.
    """

    version: int
    guest_svn: int
    policy: int
    family_id: bytes
    image_id: bytes
    vmpl: int
    signature_algorithm: int
    current_tcb: Tcb
    platform: int
    key_info: int
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    reported_tcb: Tcb
    cpuid: tuple[int, int, int] | None
    product: Product | None
    chip_id: bytes
    committed_tcb: Tcb
    launch_tcb: Tcb
    mitigations: tuple[int, int] | None
    signature: tuple[int, int]
    signed: bytes = field(repr=False)

    @classmethod
    def parse(cls, data: bytes) -> "Report":
        """Parse a report; reserved bytes may have any value.

        Raises:
            FormatError: not of its length, or of a version that nobody has described.
        """
        reader = Reader(data, "the SNP report", "little")
        if reader.left != REPORT_BYTES:
            raise FormatError(f"an SNP report has {REPORT_BYTES} bytes, not {len(data)}")
        version = int.from_bytes(data[:4], "little")
        if version < _OLDEST:
            raise FormatError(f"the SNP report has version {version}")
        cpuid = (data[0x188], data[0x189], data[0x18A]) if version >= FIRST_WITH_CPUID else None
        product = Product.of(*cpuid[:2]) if cpuid else None
        # Version 2 does not say; Turin's chips have names of 8 bytes.
        guess = cpuid is None and not any(data[0x1A8:0x1E0])
        with_fmc = product is Product.TURIN or guess

        def tcb() -> Tcb:
            return Tcb.parse(reader.take(8), with_fmc=with_fmc)

        return cls(
            version=reader.u32(),
            guest_svn=reader.u32(),
            policy=reader.u64(),
            family_id=reader.take(16),
            image_id=reader.take(16),
            vmpl=reader.u32(),
            signature_algorithm=reader.u32(),
            current_tcb=tcb(),
            platform=reader.u64(),
            key_info=reader.u32(),
            report_data=_after(reader, 4, REPORT_DATA_BYTES),
            measurement=reader.take(48),
            host_data=reader.take(HOST_DATA_BYTES),
            id_key_digest=reader.take(48),
            author_key_digest=reader.take(48),
            report_id=reader.take(32),
            report_id_ma=reader.take(32),
            reported_tcb=tcb(),
            cpuid=cpuid,
            product=product,
            chip_id=_after(reader, 3 + 21, 64),
            committed_tcb=tcb(),
            launch_tcb=Tcb.parse(_after(reader, 8, 8), with_fmc=with_fmc),
            mitigations=(
                (reader.u64(), reader.u64()) if version >= FIRST_WITH_MITIGATIONS else None
            ),
            signature=_signature(data),
            signed=data[:SIGNED_BYTES],
        )

    @property
    def signing_key(self) -> int:
        """Bits 4:2 of KEY_INFO; see :class:`SigningKey`."""
        return self.key_info >> 2 & 0b111


def _after(reader: Reader, reserved: int, count: int) -> bytes:
    reader.take(reserved)
    return reader.take(count)


def _signature(data: bytes) -> tuple[int, int]:
    reader = Reader(data[SIGNED_BYTES:], "the SNP report's signature", "little")
    r, s = (int.from_bytes(reader.take(_NUMBER_BYTES), "little") for _ in range(2))
    return r, s
