# SPDX-License-Identifier: Apache-2.0
"""What an image will measure, computed from its files alone."""

import hashlib

from cocos._types import JsonObject
from cocos.errors import FormatError
from cocos.image.pe import Image

PCR_BYTES = 32
_SHA256_ZERO = bytes(PCR_BYTES)

# systemd's table of sections that the stub measures, in its order.
_MEASURED = (
    *(".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".uname"),
    *(".sbat", ".pcrpkey", ".profile", ".dtbauto", ".hwids"),
)


def extend(register: bytes, digest: bytes) -> bytes:
    """Return a PCR after one more event."""
    return hashlib.sha256(register + digest).digest()


def pcr11(image: Image) -> bytes:
    """Predict PCR 11: systemd's stub measures name and content of its sections.

    The name goes with its final NUL (systemd.io, "TPM2 PCR Measurements Made by systemd").
    """
    register = _SHA256_ZERO
    for name in _MEASURED:
        content = image.section(name)
        if content:
            register = extend(register, hashlib.sha256(name.encode() + b"\0").digest())
            register = extend(register, hashlib.sha256(content).digest())
    return register


def pcr4(image: Image) -> bytes:
    """Predict PCR 4 of OVMF, as given to QEMU with ``-kernel``.

    Events: the unified kernel image, loaded before OVMF calls it; the call; the end of the
    firmware's own phase; the kernel inside, which the stub starts as another EFI program.
    """
    inner = image.section(".linux")
    if inner is None:
        raise FormatError("this is no unified kernel image: it has no section .linux")
    digests = (
        image.authenticode(),
        hashlib.sha256(b"Calling EFI Application from Boot Option").digest(),
        hashlib.sha256(bytes(4)).digest(),
        Image.parse(inner).authenticode(),
    )
    register = _SHA256_ZERO
    for digest in digests:
        register = extend(register, digest)
    return register


def reference_values(uki: bytes) -> JsonObject:
    """Return the reference values of an image, and what they were computed from."""
    image = Image.parse(uki)
    return {
        "tpm_pcr04": [pcr4(image).hex()],
        "tpm_pcr11": [pcr11(image).hex()],
        "tpm_pcr12": [_SHA256_ZERO.hex()],
        "inputs": {
            "uki": {"sha256": hashlib.sha256(uki).hexdigest()},
        },
    }
