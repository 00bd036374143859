# SPDX-License-Identifier: Apache-2.0
"""Launch digests, recomputed as AMD's "SEV-SNP Firmware ABI Specification" says (§8.17)."""

import hashlib
import struct
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from sevsnpmeasure.guest import calc_launch_digest
from sevsnpmeasure.sev_mode import SevMode

from cocos.errors import FormatError
from cocos.image import snp

Firmware = Callable[..., bytes]
NORMAL, STATE, ZERO, SECRETS, CPUID = 1, 2, 3, 5, 6
KERNEL = b"kernel image"
SECTIONS = ((0x80_0000, 0x1000, 1), (0x81_0000, 0x1000, 0x10))


def sha384(data: bytes) -> bytes:
    return hashlib.sha384(data).digest()


def extend(digest: bytes, kind: int, address: int, content: bytes = bytes(48)) -> bytes:
    info = digest + content + struct.pack("<HBB4xQ", 0x70, kind, 0, address)
    assert len(info) == 0x70
    return sha384(info)


def hashes() -> bytes:
    """The table that QEMU writes: SHA-256 of command line, initrd and kernel."""
    entries = b""
    for guid, content in (
        ("97d02dd8-bd20-4c94-aa78-e7714d36ab2a", b"\0"),
        ("44baf731-3a2f-4bd7-9af1-41e29169781d", b""),
        ("4de79437-abd2-427f-b835-d5b172d2045b", KERNEL),
    ):
        entries += uuid.UUID(guid).bytes_le + struct.pack("<H", 50)
        entries += hashlib.sha256(content).digest()
    head = uuid.UUID("9438d606-4f22-4cc9-b479-a793d411fd21").bytes_le
    return head + struct.pack("<H", 18 + len(entries)) + entries


def state(start: int) -> bytes:
    """The first state of a processor (AMD APM volume 2, table B-4), but for what is zero."""
    page = bytearray(4096)
    flat = {0x00: 0x93, 0x20: 0x93, 0x30: 0x93, 0x40: 0x93, 0x50: 0x93, 0x70: 0x82, 0x90: 0x8B}
    for offset, attributes in flat.items():
        struct.pack_into("<HHIQ", page, offset, 0, attributes, 0xFFFF, 0)
    struct.pack_into("<HHIQ", page, 0x10, 0xF000, 0x9B, 0xFFFF, start & 0xFFFF_0000)
    for offset in (0x60, 0x80):  # tables of descriptors
        struct.pack_into("<HHIQ", page, offset, 0, 0, 0xFFFF, 0)
    for offset, value in {
        0xD0: 0x1000,  # EFER
        0x148: 0x40,  # CR4
        0x158: 0x10,  # CR0
        0x160: 0x400,  # DR7
        0x168: 0xFFFF_0FF0,  # DR6
        0x170: 0x2,  # RFLAGS
        0x178: start & 0xFFFF,  # RIP
        0x268: 0x0007_0406_0007_0406,  # PAT
        0x310: 0x80_0F12,  # RDX: family 23, model 1, stepping 2
        0x3B0: 0x1,  # SEV_FEATURES
        0x3E8: 0x1,  # XCR0
    }.items():
        struct.pack_into("<Q", page, offset, value)
    struct.pack_into("<I", page, 0x408, 0x1F80)  # MXCSR
    struct.pack_into("<H", page, 0x410, 0x37F)  # FCW
    return bytes(page)


@pytest.fixture
def files(tmp_path: Path, firmware: Firmware) -> tuple[Path, Path]:
    (tmp_path / "snp.fd").write_bytes(firmware())
    (tmp_path / "kernel").write_bytes(KERNEL)
    return tmp_path / "snp.fd", tmp_path / "kernel"


def test_every_page_is_in_the_digest(files: tuple[Path, Path]) -> None:
    content = files[0].read_bytes()
    digest = bytes(48)
    base = 2**32 - len(content)
    for at in range(0, len(content), 4096):
        digest = extend(digest, NORMAL, base + at, sha384(content[at : at + 4096]))
    digest = extend(digest, ZERO, 0x80_0000)
    digest = extend(digest, ZERO, 0x80_1000)
    digest = extend(digest, SECRETS, 0x80_D000)
    digest = extend(digest, CPUID, 0x80_E000)
    table = (bytes(0xC00) + hashes()).ljust(4096, b"\0")
    digest = extend(digest, NORMAL, 0x81_0000, sha384(table))
    expected = []
    for start in (0xFFFF_FFF0, 0x80_B004, 0x80_B004):
        digest = extend(digest, STATE, 0xFFFF_FFFF_F000, sha384(state(start)))
        expected.append(digest)
    assert snp.launch_digests(*files, cpus=3) == expected


@pytest.mark.parametrize("cpus", [1, 5])
def test_the_library_as_a_whole_says_the_same(files: tuple[Path, Path], cpus: int) -> None:
    firmware, kernel = map(str, files)
    whole = calc_launch_digest(
        SevMode.SEV_SNP, cpus, snp.CPU_SIGNATURE, firmware, kernel, "", "", snp.GUEST_FEATURES
    )
    assert snp.launch_digests(*files, cpus=cpus)[-1] == whole


def test_another_kernel_has_another_digest(files: tuple[Path, Path]) -> None:
    before = snp.launch_digests(*files, cpus=1)
    files[1].write_bytes(b"Kernel image")
    assert snp.launch_digests(*files, cpus=1) != before


def test_firmware_that_would_start_any_kernel_is_refused(
    files: tuple[Path, Path], firmware: Firmware
) -> None:
    from_debian_13 = firmware(hashes_at=0)
    without_page = firmware(snp=[(0x80_0000, 0x2000, 1)])
    for content in (from_debian_13, without_page):
        files[0].write_bytes(content)
        with pytest.raises(FormatError, match=r"snp\.fd does not check"):
            snp.launch_digests(*files, cpus=1)
    files[0].write_bytes(firmware(snp=[*SECTIONS, (0x82_0000, 0x1000, 0x77)]))
    with pytest.raises(FormatError, match=r"snp\.fd: 119 is not"):
        snp.launch_digests(*files, cpus=1)
