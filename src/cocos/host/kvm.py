# SPDX-License-Identifier: Apache-2.0
"""Whether KVM really runs a guest here: ``/dev/kvm`` may open and the guest then hang."""

import os
import tempfile
from pathlib import Path

from cocos.errors import ProcessError, ToolMissingError
from cocos.host import process

DEVICE = Path("/dev/kvm")
PROBE_SECONDS = 20.0
QEMU = "qemu-system-x86_64"
INSTALL_HINT = "sudo apt-get install qemu-system-x86"
HINT = (
    f"switch on virtualisation, and join the group of {DEVICE}; without it, VMs are emulated, "
    "which is slower"
)

_PORT = 0xF4
_VALUE = 0x2A
# mov dx, _PORT; mov al, _VALUE; out dx, al; hlt; jmp back to hlt
_CODE = bytes([0xBA, _PORT, 0x00, 0xB0, _VALUE, 0xEE, 0xF4, 0xEB, 0xFD])
_BOOT_SECTOR = _CODE.ljust(510, b"\0") + b"\x55\xaa"
_EXIT_STATUS = _VALUE << 1 | 1  # what QEMU's isa-debug-exit makes of the value


def usable() -> bool:
    """Tell whether there is a device for KVM that we may open; more shows :func:`probe`."""
    return os.access(DEVICE, os.R_OK | os.W_OK)


async def probe(*, accelerator: str = "kvm") -> None:
    """Boot a guest of one sector that reports a value only it can know.

    Args:
        accelerator: ``kvm`` or ``tcg``.

    Raises:
        ToolMissingError: QEMU is not installed, or there is no ``/dev/kvm`` for us.
        UnreachableError: the guest hung.
        ProcessError: it did not run.
    """
    qemu = process.find_tool(QEMU, hint=INSTALL_HINT)
    if accelerator == "kvm" and not usable():
        raise ToolMissingError(f"{DEVICE} is absent or closed to us", hint=HINT)
    with tempfile.TemporaryDirectory(prefix="cocos-kvm-") as folder:
        disk = Path(folder) / "boot.img"
        disk.write_bytes(_BOOT_SECTOR)
        words = ["-accel", accelerator, "-nodefaults", "-no-user-config", "-display", "none"]
        words += ["-m", "16M", "-no-reboot"]
        words += ["-device", f"isa-debug-exit,iobase={_PORT:#x},iosize=1"]
        words += ["-drive", f"file={disk},format=raw,if=ide"]
        result = await process.run([qemu, *words], timeout=PROBE_SECONDS, check=False)
    if result.exit_status != _EXIT_STATUS:
        raise ProcessError(
            f"the probe VM failed: {process.tail(result.stderr) or 'no output'}",
            exit_status=result.exit_status,
        )
