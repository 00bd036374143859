# SPDX-License-Identifier: Apache-2.0
"""Whether VMs really boot here with KVM: ``/dev/kvm`` may open and the guest then hang.

The probe is what our VMs are: same machine and processor, same firmware in flash, an EFI
program as kernel. There are machines, virtual ones themselves, where KVM runs code in
memory well but not firmware in flash.
"""

import os
import shutil
import tempfile
from pathlib import Path

from cocos.errors import ProcessError, ToolMissingError
from cocos.host import process
from cocos.host.machines import efi_program, qemu
from cocos.host.machines.qemu import Accelerated, Core, Firmware

DEVICE = Path("/dev/kvm")
PROBE_SECONDS = 30.0
HINT = (
    f"switch on virtualisation, and join the group of {DEVICE}; without it, VMs are emulated, "
    "which is slower"
)

_PORT = 0xF4
_VALUE = 0x2A
# mov dx, _PORT; mov al, _VALUE; out dx, al; hlt; jmp back to hlt
_CODE = bytes([0x66, 0xBA, _PORT, 0x00, 0xB0, _VALUE, 0xEE, 0xF4, 0xEB, 0xFD])
_EXIT_STATUS = _VALUE << 1 | 1  # what QEMU's isa-debug-exit makes of the value
_GIVES_UP = b"KVM internal error"  # said by a QEMU that then waits for ever


def usable() -> bool:
    """Tell whether there is a device for KVM that we may open; more shows :func:`probe`."""
    return os.access(DEVICE, os.R_OK | os.W_OK)


async def probe(firmware: Firmware = qemu.OVMF, *, accelerator: Accelerated = "kvm") -> None:
    """Boot a guest that reports a value only it can know.

    Raises:
        ToolMissingError: QEMU or the firmware is not installed, or there is no ``/dev/kvm`` for us.
        UnreachableError: the guest hung.
        ProcessError: it did not run.
    """
    program = process.find_tool(qemu.PROGRAM, hint=qemu.INSTALL_HINT)
    if accelerator == "kvm" and not usable():
        raise ToolMissingError(f"{DEVICE} is absent or closed to us", hint=HINT)

    def watch(line: bytes) -> None:
        if _GIVES_UP in line:
            raise ProcessError(
                f"the probe VM failed: {line.decode(errors='replace')}", exit_status=1
            )

    with tempfile.TemporaryDirectory(prefix="cocos-kvm-") as folder:
        core = _core(accelerator, firmware, Path(folder))
        words = [str(program), *qemu.core_arguments(core)]
        words += ["-device", f"isa-debug-exit,iobase={_PORT:#x},iosize=1"]
        result = await process.run(words, timeout=PROBE_SECONDS, check=False, on_stderr=watch)
    if result.exit_status != _EXIT_STATUS:
        raise ProcessError(
            f"the probe VM failed: {process.tail(result.stderr) or 'no output'}",
            exit_status=result.exit_status,
        )


def _core(accelerator: Accelerated, firmware: Firmware, folder: Path) -> Core:
    kernel, variables = folder / "probe.efi", folder / "variables.fd"
    kernel.write_bytes(efi_program.build(_CODE))
    try:
        shutil.copyfile(firmware.variables, variables)
    except OSError as error:
        raise ToolMissingError(
            f"the firmware {firmware.variables} is absent", hint=qemu.OVMF_HINT
        ) from error
    own = Firmware(firmware.code, variables)
    return Core(accelerator, cpus=1, memory_mib=128, firmware=own, kernel=kernel)
