# SPDX-License-Identifier: Apache-2.0
"""MRTD, recomputed as the "Intel TDX Module ABI Specification" says; empty variables."""

import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from cocos.errors import FormatError
from cocos.image import tdx

Firmware = Callable[..., bytes]
OVMF_VARIABLES = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")


@pytest.fixture
def file(tmp_path: Path, firmware: Firmware) -> Path:
    (tmp_path / "tdx.fd").write_bytes(firmware())
    return tmp_path / "tdx.fd"


def test_the_measurement_is_of_all_pages_and_of_the_codes_content(file: Path) -> None:
    content = file.read_bytes()
    blocks = []
    for page in range(3):
        address = 0xFFFF_D000 + page * 4096
        blocks.append(b"MEM.PAGE.ADD\0\0\0\0" + struct.pack("<Q", address) + bytes(104))
        for chunk in range(16):
            at = 0x2000 + page * 4096 + chunk * 256
            head = b"MR.EXTEND\0\0\0\0\0\0\0" + struct.pack("<Q", address + chunk * 256)
            blocks += [head + bytes(104), content[at : at + 128], content[at + 128 : at + 256]]
    for address in (0xFFFF_B000, 0xFFFF_C000, 0x80_9000, 0x80_A000, 0x81_0000):
        blocks.append(b"MEM.PAGE.ADD\0\0\0\0" + struct.pack("<Q", address) + bytes(104))
    assert {len(block) for block in blocks} == {128}
    assert tdx.mrtd(file) == hashlib.sha384(b"".join(blocks)).digest()


def test_code_counts_and_variables_do_not(file: Path) -> None:
    content = bytearray(file.read_bytes())
    before = tdx.mrtd(file)
    content[0x100] ^= 1
    file.write_bytes(content)
    assert tdx.mrtd(file) == before
    content[0x2100] ^= 1
    file.write_bytes(content)
    assert tdx.mrtd(file) != before


@pytest.mark.parametrize(
    "section",
    [
        (0, 0, 0x80_9000, 0x2000, 4, 0),  # another type
        (0, 0, 0x80_9000, 0x2000, 3, 2),  # added by the guest itself
        (0, 0, 0x80_9000, 0x2001, 3, 0),  # no whole pages
        (0, 0x3000, 0x80_9000, 0x2000, 0, 1),  # more than fits
    ],
)
def test_what_is_not_known_is_not_guessed(
    file: Path, firmware: Firmware, section: tuple[int, ...]
) -> None:
    file.write_bytes(firmware(tdx=[section]))
    with pytest.raises(FormatError, match="unknown kind"):
        tdx.mrtd(file)


def test_other_firmware_is_refused(file: Path) -> None:
    with pytest.raises(FormatError, match="no firmware for TDX"):
        tdx.mrtd(OVMF_VARIABLES)
    file.write_bytes(file.read_bytes().replace(b"TDVF", b"TDVX"))
    with pytest.raises(FormatError, match="unknown form"):
        tdx.mrtd(file)


def test_emptied_variables_are_those_that_debian_ships_empty() -> None:
    empty = OVMF_VARIABLES.read_bytes()
    enrolled = OVMF_VARIABLES.with_name("OVMF_VARS_4M.ms.fd").read_bytes()
    code = b"code" * 1000
    assert enrolled != empty
    assert tdx.without_variables(enrolled + code) == empty + code


@pytest.mark.parametrize("content", [b"", b"\0" * 4096, b"\0" * 40 + b"_FVH" + b"\xff" * 64])
def test_what_has_no_variables_is_refused(content: bytes) -> None:
    with pytest.raises(FormatError, match="variables"):
        tdx.without_variables(content)
