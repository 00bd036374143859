# SPDX-License-Identifier: Apache-2.0
"""What an image will measure, computed from its files alone."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from cocos._types import JsonObject
from cocos.errors import FormatError
from cocos.wire.pe import Image

PCR_BYTES = 32
_SHA256_ZERO = bytes(PCR_BYTES)

# systemd's table of sections that the stub measures, in its order.
_MEASURED = (
    *(".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".uname"),
    *(".sbat", ".pcrpkey", ".profile", ".dtbauto", ".hwids"),
)


@dataclass(frozen=True, slots=True)
class Event:
    """One event that goes into a PCR: what it is, for people, and its digest."""

    event: str
    digest: bytes


def pcr(events: Iterable[Event]) -> bytes:
    """Return a PCR after ``events``."""
    value = _SHA256_ZERO
    for event in events:
        value = hashlib.sha256(value + event.digest).digest()
    return value


def pcr11(image: Image) -> list[Event]:
    """Predict the events of PCR 11: systemd's stub measures name and content of its sections.

    The name goes with its final NUL (systemd.io, "TPM2 PCR Measurements Made by systemd").
    """
    events = []
    for name in _MEASURED:
        content = image.section(name)
        if content:
            label = hashlib.sha256(name.encode() + b"\0").digest()
            events += [
                Event(f"EV_IPL {name} (its name)", label),
                Event(f"EV_IPL {name}", hashlib.sha256(content).digest()),
            ]
    return events


def pcr4(image: Image) -> list[Event]:
    """Predict the events of PCR 4 of OVMF, as given to QEMU with ``-kernel``.

    The unified kernel image, loaded before OVMF calls it; the call; the end of the
    firmware's own phase; the kernel inside, which the stub starts as another EFI program.
    """
    inner = image.section(".linux")
    if inner is None:
        raise FormatError("this is no unified kernel image: it has no section .linux")
    call = b"Calling EFI Application from Boot Option"
    return [
        Event("EV_EFI_BOOT_SERVICES_APPLICATION File(kernel)", image.authenticode()),
        Event(f"EV_EFI_ACTION {call.decode()}", hashlib.sha256(call).digest()),
        Event("EV_SEPARATOR", hashlib.sha256(bytes(4)).digest()),
        Event("EV_EFI_BOOT_SERVICES_APPLICATION .linux", Image.parse(inner).authenticode()),
    ]


def reference_values(uki: bytes) -> JsonObject:
    """Return the reference values of an image, and what they were computed from.

    ``tpm_pcrNN_events`` lets a verifier name the first event that differs.
    """
    image = Image.parse(uki)
    predicted: dict[str, list[Event]] = {
        "tpm_pcr04": pcr4(image),
        "tpm_pcr11": pcr11(image),
        "tpm_pcr12": [],
    }
    values: JsonObject = {}
    for name, events in predicted.items():
        values[name] = [pcr(events).hex()]
        listed = [{"event": each.event, "digest": each.digest.hex()} for each in events]
        values[f"{name}_events"] = [listed]
    values["inputs"] = {"uki": {"sha256": hashlib.sha256(uki).hexdigest()}}
    return values
