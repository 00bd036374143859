# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocos.errors import FormatError
from cocos.host import efi_program
from cocos.wire import uki

IMAGE = efi_program.build(b"\xc3", {".cmdline": b"roothash=1", ".osrel": b"ID=x\n" * 200})


def test_sections() -> None:
    assert uki.section(IMAGE, ".text") == b"\xc3"
    assert uki.section(IMAGE, ".cmdline") == b"roothash=1"
    assert uki.section(IMAGE, ".osrel") == b"ID=x\n" * 200
    assert uki.section(IMAGE, ".none") is None


@pytest.mark.parametrize("image", [b"", b"MZ", b"\0" * 4096, IMAGE[:0x150], IMAGE[:0x500]])
def test_what_is_no_image_or_only_half_of_one(image: bytes) -> None:
    with pytest.raises(FormatError):
        uki.section(image, ".osrel")


@given(st.binary(max_size=2048), st.integers(0, 0x300))
def test_garbage_is_refused_or_read(garbage: bytes, at: int) -> None:
    broken = IMAGE[:at] + garbage + IMAGE[at + len(garbage) :]
    try:
        found = uki.section(broken, ".osrel")
    except FormatError:
        return
    assert found is None or isinstance(found, bytes)
