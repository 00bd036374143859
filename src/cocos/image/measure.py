# SPDX-License-Identifier: Apache-2.0
"""What a boot of an image measures, computed from the unified kernel image alone.

The same events go into a TPM's PCRs and, with SHA-384, into the RTMRs of a TDX guest.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cocos.errors import FormatError
from cocos.image import initrd
from cocos.wire.pe import Image

RTMR_PCRS: Final = {1: range(2, 7), 2: range(8, 16)}
"""RTMR → PCRs whose events go there (UEFI 2.10, §38.4.1)."""

# systemd's table of sections that the stub measures, in its order.
_MEASURED = (
    *(".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".uname"),
    *(".sbat", ".pcrpkey", ".profile", ".dtbauto", ".hwids"),
)


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a boot.

    Attributes:
        pcr: What it is extended into.
        event: What it is, for people.
        digest: What is extended.
    """

    pcr: int
    event: str
    digest: bytes


def boot(image: Image, algorithm: str = "sha256") -> list[Event]:
    """Predict what OVMF, systemd's stub and the kernel measure of an image, in order.

    OVMF loads it from QEMU's ``-kernel`` before it calls it. The stub measures name and
    content of its sections, then starts the kernel as another program, which measures
    its command line and its initrd. Left out is what does not come from the image:
    firmware, its settings (PCR 0, 1, 7), separators of other PCRs than 4.
    """
    inner = image.section(".linux")
    if inner is None:
        raise FormatError("this is no unified kernel image: it has no section .linux")

    def hashed(pcr: int, event: str, content: bytes) -> Event:
        return Event(pcr, event, hashlib.new(algorithm, content).digest())

    def action(pcr: int, text: str) -> Event:
        return hashed(pcr, f"EV_EFI_ACTION {text}", text.encode("ascii"))

    application = "EV_EFI_BOOT_SERVICES_APPLICATION"
    kernel = Image.parse(inner)
    return [
        Event(4, f"{application} File(kernel)", image.authenticode(algorithm)),
        action(4, "Calling EFI Application from Boot Option"),
        hashed(4, "EV_SEPARATOR", bytes(4)),
        *_sections(image, algorithm),
        Event(4, f"{application} .linux", kernel.authenticode(algorithm)),
        hashed(9, "EV_EVENT_TAG LOADED_IMAGE::LoadOptions", _load_options(image)),
        hashed(9, "EV_EVENT_TAG Linux initrd", _initrd(image)),
        action(5, "Exit Boot Services Invocation"),
        action(5, "Exit Boot Services Returned with Success"),
    ]


def register(events: Iterable[Event], algorithm: str = "sha256") -> bytes:
    """Return a register after ``events``."""
    value = bytes(hashlib.new(algorithm).digest_size)
    for event in events:
        value = hashlib.new(algorithm, value + event.digest).digest()
    return value


def _sections(image: Image, algorithm: str) -> Iterable[Event]:
    # The name goes with its final NUL (systemd.io, "TPM2 PCR Measurements Made by systemd").
    for name in _MEASURED:
        content = image.section(name)
        if content:
            label = hashlib.new(algorithm, name.encode() + b"\0").digest()
            yield Event(11, f"EV_IPL {name} (its name)", label)
            yield Event(11, f"EV_IPL {name}", hashlib.new(algorithm, content).digest())


def _load_options(image: Image) -> bytes:
    return (image.section(".cmdline") or b"").decode("ascii").encode("utf-16-le") + b"\0\0"


def _initrd(image: Image) -> bytes:
    """Return the initrd as the kernel gets it: the stub appends a copy of os-release."""
    own = image.section(".initrd") or b""
    release = image.section(".osrel") or b""
    return own + bytes(-len(own) % 4) + initrd.stub_archive("os-release", release)
