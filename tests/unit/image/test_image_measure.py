# SPDX-License-Identifier: Apache-2.0
import hashlib
from collections.abc import Callable

import pytest

from cocos.errors import FormatError
from cocos.image import measure
from cocos.wire.pe import Image

Efi = Callable[..., bytes]


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def replay(*digests: bytes) -> bytes:
    register = bytes(32)
    for digest in digests:
        register = sha256(register + digest)
    return register


def test_pcr_11_is_names_and_contents_in_the_order_of_the_stub(efi: Efi) -> None:
    # The order in the file is another one, and ".text" is not measured.
    image = Image.parse(efi({".text": b"stub", ".initrd": b"I", ".cmdline": b"C", ".linux": b"L"}))
    assert measure.pcr(measure.pcr11(image)) == replay(
        *(sha256(b".linux\0"), sha256(b"L")),
        *(sha256(b".cmdline\0"), sha256(b"C")),
        *(sha256(b".initrd\0"), sha256(b"I")),
    )


def test_pcr_4_covers_both_programs(efi: Efi) -> None:
    kernel = efi({".text": b"kernel"})
    image = Image.parse(efi({".text": b"stub", ".linux": kernel}))
    assert measure.pcr(measure.pcr4(image)) == replay(
        image.authenticode(),
        sha256(b"Calling EFI Application from Boot Option"),
        sha256(bytes(4)),
        Image.parse(kernel).authenticode(),
    )


def test_a_changed_command_line_changes_both_registers(efi: Efi) -> None:
    kernel = efi({".text": b"kernel"})
    one, other = (
        measure.reference_values(efi({".linux": kernel, ".cmdline": line}))
        for line in (b"roothash=1", b"roothash=2")
    )
    assert one["tpm_pcr04"] != other["tpm_pcr04"]
    assert one["tpm_pcr11"] != other["tpm_pcr11"]
    assert one["tpm_pcr12"] == other["tpm_pcr12"] == ["00" * 32]


def test_a_program_without_kernel_is_refused(efi: Efi) -> None:
    with pytest.raises(FormatError, match="linux"):
        measure.reference_values(efi({".text": b"stub"}))
