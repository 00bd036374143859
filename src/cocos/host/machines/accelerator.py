# SPDX-License-Identifier: Apache-2.0
"""How VMs run here: by KVM if a probe VM has really booted with it, else emulated (TCG).

The finding is kept until the machine boots again or QEMU or the firmware changes: a probe of a
KVM that hangs takes its time.
"""

import platform
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cocos.errors import CocosError, FormatError, PeerError, ToolMissingError
from cocos.host import process
from cocos.host.files import cache_folder, write_atomic
from cocos.host.machines import kvm, qemu
from cocos.host.machines.qemu import Accelerated, Firmware
from cocos.wire import json

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Accelerator:
    """What runs a guest's instructions.

    Attributes:
        name: As QEMU calls it.
        reason: Why this one, in a sentence.
    """

    name: Accelerated
    reason: str


class _Finding(msgspec.Struct, forbid_unknown_fields=True):
    machine: str
    works: bool
    reason: str


async def choose(wanted: str = "auto", firmware: Firmware = qemu.OVMF) -> Accelerator:
    """Return the accelerator to use.

    Args:
        wanted: ``auto``; or ``kvm`` or ``tcg`` if somebody decided.
        firmware: Of the VMs.

    Raises:
        ToolMissingError: QEMU or the firmware is not installed.
        PeerError: KVM is wanted and does not work here.
    """
    if wanted == "tcg":
        return Accelerator("tcg", "as configured")
    if not kvm.usable():
        finding = _Finding("", works=False, reason=f"{kvm.DEVICE} is absent or closed to us")
    else:
        finding = await _probed(firmware)
    if finding.works:
        return Accelerator("kvm", finding.reason)
    if wanted == "kvm":
        raise PeerError(f"KVM is configured but does not work: {finding.reason}", hint=kvm.HINT)
    return Accelerator("tcg", f"no KVM: {finding.reason}")


async def _probed(firmware: Firmware) -> _Finding:
    machine = _machine(firmware)
    file = cache_folder("accelerator") / "kvm.json"
    try:
        known: _Finding = json.decode(file.read_bytes(), _Finding, "a finding about KVM")
    except (OSError, FormatError):
        known = _Finding("", works=False, reason="")
    if known.machine == machine:
        return known
    try:
        await kvm.probe(firmware)
    except ToolMissingError:
        raise
    except CocosError as error:
        found = _Finding(machine, works=False, reason=error.message)
    else:
        found = _Finding(machine, works=True, reason="a probe VM has booted with KVM")
    write_atomic(file, json.encode(found))
    return found


def _machine(firmware: Firmware) -> str:
    """Return what a finding holds for."""
    files = [process.find_tool(qemu.PROGRAM, hint=qemu.INSTALL_HINT)]
    files += [path.absolute() for path in (firmware.code, firmware.variables)]
    states = [(path, path.stat()) for path in files if path.exists()]
    versions = [f"{path}-{state.st_size}-{state.st_mtime_ns}" for path, state in states]
    boot = _BOOT_ID.read_text("ascii").strip()
    return " ".join([boot, platform.release(), *versions])
