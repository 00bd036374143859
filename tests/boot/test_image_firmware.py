# SPDX-License-Identifier: Apache-2.0
"""The image's firmware for encrypted memory, emulated without encryption.

What cannot be had here is a processor that measures it. What can be: which kernels it
starts. QEMU puts the hashes of SNP guests into memory before the first instruction; so
does its loader device.
"""

import asyncio
import math
import os
from collections.abc import Sequence
from pathlib import Path

import _tiny
import pytest
from sevsnpmeasure.ovmf import OVMF
from sevsnpmeasure.sev_hashes import SevHashes

from cocos.host import process
from cocos.wire.image_folder import FIRMWARE

pytestmark = [
    pytest.mark.integration,
    pytest.mark.vm,
    pytest.mark.xdist_group("image"),
    pytest.mark.timeout(600),
]

TINY = _tiny.efi(_tiny.SHUTS_DOWN)
_TICKS = os.sysconf("SC_CLK_TCK")


class Emulated:
    """A VM with firmware in one file, as VMs with encrypted memory have it."""

    def __init__(self, firmware: Path, kernel: Path, console: Path) -> None:
        words = ["qemu-system-x86_64", "-machine", "q35,accel=tcg,smm=off,usb=off"]
        words += ["-cpu", "max", "-m", "256M", "-nodefaults", "-display", "none", "-no-reboot"]
        words += ["-bios", str(firmware), "-kernel", str(kernel)]
        self.argv = [*words, "-serial", f"file:{console}"]
        self._console = console

    @property
    def greeted(self) -> bool:
        return _tiny.GREETING in self._console.read_text(errors="replace")


def loaded(table: Path, address: int) -> list[str]:
    return ["-device", f"loader,file={table},addr={address:#x},force-raw=on"]


def processor_time(pid: int) -> float:
    """Return how long a process has run; it may have ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return 0
    user, system = stat.rpartition(") ")[2].split()[11:13]
    return (int(user) + int(system)) / _TICKS


async def run(vm: Emulated, extra: Sequence[str] = (), *, seconds: float = math.inf) -> float:
    """Run a VM to its end, or for so long; return how long it ran.

    In processor time: what a VM does in it does not depend on how busy the machine is.
    """
    used = 0.0
    async with process.spawn([*vm.argv, *extra]) as qemu:
        while qemu.returncode is None and used < seconds:
            used = max(used, processor_time(qemu.pid))
            await asyncio.sleep(0.05)
        if qemu.returncode is None:
            qemu.kill()
    return used


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    (tmp_path / "kernel.efi").write_bytes(TINY)
    return tmp_path / "kernel.efi"


async def test_snp_firmware_starts_the_kernel_whose_hash_is_measured_and_no_other(
    debug_image: Path, tmp_path: Path, kernel: Path
) -> None:
    firmware = debug_image / FIRMWARE["snp"]
    table = tmp_path / "hashes"
    table.write_bytes(SevHashes(str(kernel), initrd="", append="").construct_table())
    hashes = loaded(table, OVMF(str(firmware)).sev_hashes_table_gpa())
    good = Emulated(firmware, kernel, tmp_path / "good")
    used = await run(good, hashes)
    assert good.greeted

    other = tmp_path / "other.efi"
    other.write_bytes(TINY[:-1] + b"\1")
    swapped = Emulated(firmware, other, tmp_path / "swapped")
    with_line = Emulated(firmware, kernel, tmp_path / "with a command line")
    await asyncio.gather(
        run(swapped, hashes, seconds=1.5 * used),
        run(with_line, [*hashes, "-append", "init=/bin/sh"], seconds=1.5 * used),
    )
    assert not swapped.greeted
    assert not with_line.greeted


async def test_tdx_firmware_starts_an_unsigned_kernel(
    debug_image: Path, tmp_path: Path, kernel: Path
) -> None:
    vm = Emulated(debug_image / FIRMWARE["tdx"], kernel, tmp_path / "console")
    await run(vm)
    assert vm.greeted
