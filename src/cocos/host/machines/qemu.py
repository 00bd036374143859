# SPDX-License-Identifier: Apache-2.0
"""A VM as QEMU's command line: a pure function of its description.

Everything the guest's measurement depends on is here: machine type, firmware, kernel
image, devices. The kernel gets no command line: it would override the one in the image.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PROGRAM = "qemu-system-x86_64"
INSTALL_HINT = "sudo apt-get install qemu-system-x86"
MACHINE = "q35"
OVMF_CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
OVMF_VARIABLES = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
OVMF_HINT = "sudo apt-get install ovmf"
SNP_CPU = "EPYC-v4"
"""Processor of SNP VMs: its signature is in their launch digest, so it may not be the host's.

Every processor with SNP can do what this model has.
"""
SNP_POLICY = 0x3_0000
"""Guest policy: no debugging, no migration; a host with SMT is accepted."""
DEFAULT_GUEST_PORT = 7002
QUOTE_PORT = 4050  # of the TDX quote generation service, on the host's vsock
_HOST_CID = 2
# Programs that find no AVX do without it in a third of the time that emulating it takes.
_EMULATED_CPU = ",avx=off,avx2=off"
_SERIAL_BYTES = 20  # of a virtio disk
# No new files by name, no programs, no other user: QEMU needs none of it once it runs.
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


Accelerated = Literal["kvm", "tcg"]


@dataclass(frozen=True, slots=True)
class Disk:
    """A virtio disk.

    Attributes:
        serial: Its name for the guest, ``/dev/disk/by-id/virtio-SERIAL``.
        path: Raw image.
        writable: Whether the guest may write; what it wrote need not survive the VM.
    """

    serial: str
    path: Path
    writable: bool = False

    def __post_init__(self) -> None:
        if not 0 < len(self.serial) <= _SERIAL_BYTES:
            raise ValueError(f"no disk can have the serial {self.serial!r}")


@dataclass(frozen=True, slots=True)
class Firmware:
    """OVMF: its code, and its variables, of which every VM has a copy of its own."""

    code: Path
    variables: Path


OVMF = Firmware(OVMF_CODE, OVMF_VARIABLES)
"""As Debian installs it."""


@dataclass(frozen=True, slots=True)
class Snp:
    """AMD SEV-SNP.

    Attributes:
        c_bit: Number of the page table bit that means encrypted (CPUID 8000001F, EBX 5:0).
        reduced_bits: Physical address bits lost to it (EBX 11:6).
        host_data: 32 bytes that the report shows: the digest of the init data.
    """

    c_bit: int
    reduced_bits: int
    host_data: bytes


@dataclass(frozen=True, slots=True)
class Tdx:
    """Intel TDX; ``config_id`` are 48 bytes that the quote shows as MRCONFIGID."""

    config_id: bytes


@dataclass(frozen=True, slots=True)
class Sockets:
    """Descriptors of the sockets that QEMU gets: two that listen, one connected to a TPM."""

    monitor: int
    console: int
    tpm: int | None


@dataclass(frozen=True, slots=True)
class Core:
    """What a VM boots, and on what.

    Attributes:
        accelerator: ``kvm`` or ``tcg``.
        cpus: How many.
        memory_mib: Of RAM.
        firmware: For measured boot with a TPM.
        kernel: Unified kernel image.
        confidential: How its memory is encrypted; these VMs have no TPM that is worth
            anything, and firmware in one file, without variables.
    """

    accelerator: Accelerated
    cpus: int
    memory_mib: int
    firmware: Firmware
    kernel: Path
    confidential: Snp | Tdx | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """A VM.

    Attributes:
        name: For lists of processes; letters, digits and hyphens.
        core: What it boots.
        disks: In order.
        sockets: Who controls it.
        guest_port: TCP port of the guest that gets a port on our loopback.
    """

    name: str
    core: Core
    disks: Sequence[Disk]
    sockets: Sockets
    guest_port: int = DEFAULT_GUEST_PORT


def cpu_model(accelerator: Accelerated, confidential: Snp | Tdx | None = None) -> str:
    """Return the processor of a VM, as QEMU calls it: the best there is, where that is free."""
    if isinstance(confidential, Snp):
        return SNP_CPU
    return "host" if accelerator == "kvm" else "max"


def arguments(machine: Machine) -> list[str]:
    """Return what follows ``qemu-system-x86_64``. The VM waits for ``cont``."""
    words = ["-name", machine.name, "-S", *core_arguments(machine.core)]
    for number, disk in enumerate(machine.disks):
        words += _disk(number, disk)
    words += _network(machine.guest_port)
    words += _sockets(machine.sockets)
    # Entropy for the first keys; and a way to say that the kernel panicked.
    words += ["-object", "rng-random,id=rng0,filename=/dev/urandom"]
    return [*words, "-device", "virtio-rng-pci,rng=rng0", "-device", "pvpanic-pci"]


def core_arguments(core: Core) -> list[str]:
    """Return the arguments for a machine without any device that one would not need to boot."""
    words = ["-nodefaults", "-no-user-config", "-display", "none", "-sandbox", _SANDBOX]
    words += ["-no-reboot", "-rtc", "base=utc"]
    return [*words, *_processor(core), *_firmware(core), "-kernel", str(core.kernel)]


def _processor(core: Core) -> list[str]:
    options = [MACHINE, f"accel={core.accelerator}", "vmport=off", "smm=off", "usb=off"]
    extra: list[str] = []
    if core.confidential is not None:
        options += ["confidential-guest-support=tee0", "memory-backend=ram0"]
        size = f"size={core.memory_mib}M"
        extra += ["-object", f"memory-backend-memfd,id=ram0,{size},share=true,prealloc=false"]
    match core.confidential:
        case Snp() as snp:
            extra += _snp(snp)
        case Tdx() as tdx:
            options += ["kernel-irqchip=split", "hpet=off"]
            extra += _tdx(tdx)
        case None:
            pass
    cpu = cpu_model(core.accelerator, core.confidential)
    if core.accelerator == "tcg":
        cpu += _EMULATED_CPU
    words = ["-machine", ",".join(options), "-cpu", cpu]
    return [*words, "-smp", str(core.cpus), "-m", f"{core.memory_mib}M", *extra]


def _snp(snp: Snp) -> list[str]:
    # kernel-hashes: the firmware refuses another kernel than the launch digest names.
    parts = ["sev-snp-guest", "id=tee0", f"policy={SNP_POLICY:#x}", f"cbitpos={snp.c_bit}"]
    parts += [f"reduced-phys-bits={snp.reduced_bits}", "kernel-hashes=on"]
    return ["-object", ",".join([*parts, f"host-data={_base64(snp.host_data)}"])]


def _tdx(tdx: Tdx) -> list[str]:
    socket = {"type": "vsock", "cid": str(_HOST_CID), "port": str(QUOTE_PORT)}
    guest = {
        "qom-type": "tdx-guest",
        "id": "tee0",
        "mrconfigid": _base64(tdx.config_id),
        "quote-generation-socket": socket,
    }
    return ["-object", json.dumps(guest)]


def _firmware(core: Core) -> list[str]:
    if core.confidential is not None:
        return ["-bios", str(core.firmware.code)]
    words = []
    for number, (path, read_only) in enumerate(
        ((core.firmware.code, True), (core.firmware.variables, False))
    ):
        node = f"pflash{number}"
        words += _file_node(node, path, read_only=read_only)
        words += ["-machine", f"{node}={node}"]
    return words


def _file_node(node: str, path: Path, *, read_only: bool, flush: bool = True) -> list[str]:
    """Return a raw image as a node; JSON, since a path may have commas."""
    file: dict[str, object] = {"driver": "file", "filename": str(path)}
    description = {"driver": "raw", "node-name": node, "read-only": read_only, "file": file}
    if not read_only:
        file["discard"] = description["discard"] = "unmap"
    if not flush:
        file["cache"] = description["cache"] = {"no-flush": True}
    return ["-blockdev", json.dumps(description)]


def _disk(number: int, disk: Disk) -> list[str]:
    node = f"disk{number}"
    words = _file_node(node, disk.path, read_only=not disk.writable, flush=False)
    return [*words, "-device", f"virtio-blk-pci,drive={node},serial={disk.serial}"]


def _network(guest_port: int) -> list[str]:
    # Port 0: QEMU takes a free one, which nobody can take away before.
    forward = f"hostfwd=tcp:127.0.0.1:0-:{guest_port}"
    return [
        *("-netdev", f"user,id=net0,ipv6=off,{forward}"),
        # No boot from the network: nothing to measure, nothing to wait for.
        *("-device", "virtio-net-pci,netdev=net0,romfile="),
    ]


def _sockets(sockets: Sockets) -> list[str]:
    server = "server=on,wait=off"
    words = ["-chardev", f"socket,id=monitor,fd={sockets.monitor},{server}"]
    words += ["-mon", "chardev=monitor,mode=control"]
    words += ["-chardev", f"socket,id=console,fd={sockets.console},{server}"]
    words += ["-serial", "chardev:console"]
    if sockets.tpm is not None:
        words += ["-chardev", f"socket,id=tpm,fd={sockets.tpm}"]
        words += ["-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0"]
    return words


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
