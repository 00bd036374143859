# SPDX-License-Identifier: Apache-2.0
"""Evidence of NVIDIA's devices: JSON around SPDM measurements, certificates beside them.

A report is the request ``GET_MEASUREMENTS`` and the response ``MEASUREMENTS`` of SPDM 1.1
(DMTF DSP0274), little-endian, signed together; the device says more of itself in the
response's opaque data.
"""

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from cocos._types import JsonObject
from cocos.errors import FormatError
from cocos.evidence._reader import Reader

SIGNATURE_BYTES: Final = 96  # ECDSA P-384, r and s
NONCE_BYTES: Final = 32

_VERSION: Final = 0x11
_GET_MEASUREMENTS: Final = 0xE0
_MEASUREMENTS: Final = 0x60
_DMTF: Final = 1
_REPORT: Final = "the NVIDIA report"

_TEXTS: Final = {
    3: "driver_version",
    11: "nvdec0_status",
    15: "chip_sku",
    16: "chip_sku_mod",
    17: "project",
    18: "project_sku",
    21: "protected_pcie_status",
}
_BYTES: Final = {
    1: "cert_issuer_name",
    2: "cert_authority_key_identifier",
    4: "gpu_info",
    5: "sku",
    7: "manufacturer_id",
    8: "tamper_detection",
    9: "smc",
    10: "vpr",
    13: "cpr_info",
    14: "board_id",
    19: "project_sku_mod",
    20: "fwid",
    22: "switch_pdi",
    23: "floorswept_ports",
    24: "position_id",
    25: "lock_switch_status",
    32: "gpu_link_conn",
    33: "sys_enable_status",
}
_VBIOS_VERSION: Final = 6
_COUNTS: Final = 12


class DeviceJson(msgspec.Struct, frozen=True):
    """One device.

    Attributes:
        arch: ``HOPPER``, ``BLACKWELL`` or ``LS10``.
        uuid: What the driver calls it; nobody signs for that.
        evidence: The report, standard base64; hex of old attesters.
        certificate: Chain in PEM, the device's own first; standard base64.
    """

    arch: str
    uuid: str
    evidence: str
    certificate: str


class NvidiaEvidence(msgspec.Struct, frozen=True):
    """Evidence of kind ``nvidia``."""

    device_evidence_list: tuple[DeviceJson, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """A report.

    Attributes:
        nonce: Of the request.
        measurements: Index → value.
        config: What the device says of itself, by name; JSON.
        signed: What the signature is over.
        signature: r and s, big-endian.
    """

    nonce: bytes
    measurements: dict[int, bytes]
    config: JsonObject
    signed: bytes
    signature: bytes

    @classmethod
    def parse(cls, data: bytes) -> "Report":
        """Parse a report, to its last byte.

        Raises:
            FormatError: it is none.
        """
        reader = Reader(data, _REPORT, "little")
        nonce = _request(reader)
        reader.expect(reader.u8(), _VERSION, "SPDM version")
        reader.expect(reader.u8(), _MEASUREMENTS, "response code")
        reader.take(2)
        blocks = reader.u8()
        record = reader.take(int.from_bytes(reader.take(3), "little"))
        reader.take(NONCE_BYTES)  # the device's own
        opaque = reader.take(reader.u16())
        signed = data[: reader.position]
        signature = reader.take(SIGNATURE_BYTES)
        reader.end()
        return cls(nonce, _measurements(record, blocks), _config(opaque), signed, signature)


def _request(reader: Reader) -> bytes:
    reader.expect(reader.u8(), _VERSION, "SPDM version")
    reader.expect(reader.u8(), _GET_MEASUREMENTS, "request code")
    reader.take(2)
    nonce = reader.take(NONCE_BYTES)
    reader.take(1)  # slot
    return nonce


def _measurements(record: bytes, blocks: int) -> dict[int, bytes]:
    reader = Reader(record, "the measurement record", "little")
    found: dict[int, bytes] = {}
    for _ in range(blocks):
        index = reader.u8()
        reader.expect(reader.u8(), _DMTF, "measurement specification")
        block = Reader(reader.take(reader.u16()), f"measurement {index}", "little")
        block.take(1)  # type of the value
        value = block.take(block.u16())
        block.end()
        if index in found:
            raise FormatError(f"measurement {index} is there twice")
        found[index] = value
    reader.end()
    return found


def _config(opaque: bytes) -> JsonObject:
    reader = Reader(opaque, "the opaque data", "little")
    found: JsonObject = {}
    while reader.left:
        kind = reader.u16()
        name, value = _item(kind, reader.take(reader.u16()))
        if name in found:
            raise FormatError(f"{name} is there twice")
        found[name] = value
    return found


def _item(kind: int, data: bytes) -> tuple[str, Any]:
    if kind in _TEXTS:
        return _TEXTS[kind], data.decode("utf-8", "replace").rstrip("\0")
    if kind == _VBIOS_VERSION:
        return "vbios_version", _vbios_version(data)
    if kind == _COUNTS:
        return "measurement_count", _counts(data)
    return _BYTES.get(kind, f"type_{kind}"), data.hex()


def _vbios_version(data: bytes) -> str:
    half = len(data) // 2
    if not half:
        raise FormatError(f"a VBIOS version has {len(data)} bytes")
    return ".".join(f"{each:02x}" for each in (*reversed(data[:half]), data[half]))


def _counts(data: bytes) -> dict[str, int]:
    reader = Reader(data, "the counts of measurements", "little")
    found: dict[str, int] = {}
    while reader.left:
        found[str(len(found) + 1)] = reader.u32()
    return found
