# SPDX-License-Identifier: Apache-2.0
import hashlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocos.errors import FormatError
from cocos.host.machines import efi_program
from cocos.wire.pe import Image

Efi = Callable[..., bytes]

PROGRAM = efi_program.build(b"\xc3", {".cmdline": b"roothash=1", ".osrel": b"ID=x\n" * 200})


def test_sections_are_read_without_padding(efi: Efi) -> None:
    image = Image.parse(efi({".linux": b"kernel", ".cmdline": b"quiet"}))
    assert image.section(".linux") == b"kernel"
    assert image.section(".cmdline") == b"quiet"
    assert image.section(".initrd") is None


def test_authenticode_leaves_out_checksum_and_signatures_only(efi: Efi) -> None:
    content = efi({".text": b"code"})
    digest = Image.parse(content).authenticode()
    assert digest != hashlib.sha256(content).digest()
    changed = content.replace(b"SUM!", b"sum?")
    assert changed != content
    assert Image.parse(changed).authenticode() == digest
    assert Image.parse(efi({".text": b"code"}, signatures=b"signed" * 8)).authenticode() == digest
    assert Image.parse(content.replace(b"code", b"c0de")).authenticode() != digest
    # Padding of a section is hashed, too, and so is what follows the last one.
    padding = content[:-1] + b"\1"
    assert Image.parse(padding).authenticode() != digest
    assert Image.parse(content + b"appended").authenticode() != digest


@pytest.mark.parametrize("length", [0, 2, 0x40, 0x60, 0x100, 0x200])
def test_what_is_cut_off_is_refused(efi: Efi, length: int) -> None:
    content = efi({".text": b"code"})
    with pytest.raises(FormatError):
        Image.parse(content[:length])


def test_other_files_are_refused() -> None:
    with pytest.raises(FormatError):
        Image.parse(b"\x7fELF" + bytes(4096))


@given(st.binary(max_size=2048), st.integers(0, 0x300))
def test_garbage_is_refused_or_read(garbage: bytes, at: int) -> None:
    try:
        image = Image.parse(PROGRAM[:at] + garbage + PROGRAM[at + len(garbage) :])
    except FormatError:
        return
    found = image.section(".osrel")
    assert found is None or len(found) <= len(image.content)
    assert len(image.authenticode()) == 32
