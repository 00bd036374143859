# SPDX-License-Identifier: Apache-2.0
"""SNP reports as the guest components send them: decoded, every byte a number.

Reserved bytes do not travel: who verifies writes zeros there.
"""

from typing import Final

from cocos._types import JsonObject
from cocos.errors import FormatError
from cocos.evidence._reader import Reader

REPORT_BYTES: Final = 1184
_TURIN_FAMILY: Final = 0x1A
_WITH_CPUID: Final = 3  # version of the report
_WITH_MITIGATIONS: Final = 5
_CHIP_ID_AT: Final = 0x1A0
_FAMILY_AT: Final = 0x188


def report_json(report: bytes) -> JsonObject:
    """Return a report's members.

    Raises:
        FormatError: not the length of a report.
    """
    if len(report) != REPORT_BYTES:
        raise FormatError(f"an SNP report has {REPORT_BYTES} bytes, not {len(report)}")
    reader = Reader(report, "the SNP report", "little")
    turin = _is_turin(report)
    version = reader.u32()
    first = {
        "version": version,
        "guest_svn": reader.u32(),
        "policy": reader.u64(),
        "family_id": list(reader.take(16)),
        "image_id": list(reader.take(16)),
        "vmpl": reader.u32(),
        "sig_algo": reader.u32(),
        "current_tcb": _tcb(reader, turin=turin),
        "plat_info": reader.u64(),
        "key_info": reader.u32(),
    }
    reader.take(4)
    measured = {
        "report_data": list(reader.take(64)),
        "measurement": list(reader.take(48)),
        "host_data": list(reader.take(32)),
        "id_key_digest": list(reader.take(48)),
        "author_key_digest": list(reader.take(48)),
        "report_id": list(reader.take(32)),
        "report_id_ma": list(reader.take(32)),
        "reported_tcb": _tcb(reader, turin=turin),
    }
    return {**first, **measured, **_rest(reader, version, turin=turin)}


def _rest(reader: Reader, version: int, *, turin: bool) -> JsonObject:
    names = ("cpuid_fam_id", "cpuid_mod_id", "cpuid_step")
    cpuid = {name: reader.u8() for name in names}
    reader.take(21)
    members: JsonObject = {
        **(cpuid if version >= _WITH_CPUID else dict.fromkeys(names)),
        "chip_id": list(reader.take(64)),
        "committed_tcb": _tcb(reader, turin=turin),
        "current": _firmware(reader),
        "committed": _firmware(reader),
        "launch_tcb": _tcb(reader, turin=turin),
    }
    for name in ("launch_mit_vector", "current_mit_vector"):
        vector = reader.u64()
        members[name] = vector if version >= _WITH_MITIGATIONS else None
    reader.take(0x2A0 - reader.position)
    members["signature"] = {"r": list(reader.take(72)), "s": list(reader.take(72))}
    return members


def _tcb(reader: Reader, *, turin: bool) -> JsonObject:
    parts = reader.take(8)
    if turin:
        fmc, bootloader, tee, snp = parts[:4]
    else:
        fmc, bootloader, tee, snp = None, parts[0], parts[1], parts[6]
    return {
        "fmc": fmc,
        "bootloader": bootloader,
        "tee": tee,
        "snp": snp,
        "microcode": parts[7],
    }


def _firmware(reader: Reader) -> JsonObject:
    build, minor, major = reader.take(3)
    reader.take(1)
    return {"major": major, "minor": minor, "build": build}


def _is_turin(report: bytes) -> bool:
    """Tell which layout of TCBs it has; old reports do not name the processor."""
    if int.from_bytes(report[:4], "little") >= _WITH_CPUID:
        return report[_FAMILY_AT] >= _TURIN_FAMILY
    return not any(report[_CHIP_ID_AT + 8 : _CHIP_ID_AT + 64])
