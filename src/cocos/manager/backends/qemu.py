# SPDX-License-Identifier: Apache-2.0
"""VMs of QEMU: measured boot, a TPM of their own, init data on a small disk.

In a VM's folder: ``init-data.img``, ``scratch.img``, ``variables.fd``, the TPM's folder,
sockets, and the files that tell of its processes, which outlive the manager.
"""

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar

import structlog

from cocos._clock import Clock, system_clock
from cocos.errors import ConfigError, UnreachableError
from cocos.evidence.tpm import extend
from cocos.host import process, unix_socket
from cocos.host.daemon import Daemon, kill_marked
from cocos.host.files import read_file, write_atomic
from cocos.host.machines import accelerator, confidential, qemu, swtpm
from cocos.host.machines.accelerator import Accelerator
from cocos.host.machines.confidential import Verdict
from cocos.host.machines.swtpm import TpmCa
from cocos.manager.backends import _qemu_vm as parts
from cocos.manager.backends._base import Backend, Hardware, Vm
from cocos.manager.backends._qemu_image import Image, check_firmware, firmware_version
from cocos.manager.backends._qemu_vm import Parts, QemuVm, attached
from cocos.manager.config import ManagerConfig
from cocos.manager.console import Console
from cocos.manager.guest import GuestConfig, guest_config
from cocos.manager.plan import VmPlan
from cocos.wire import init_data
from cocos.wire.init_data import InitDocument

ROOT, INIT_DATA, SCRATCH = "cocos-root", "cocos-initdata", "cocos-scratch"
"""Serial numbers of the disks, by which the guest knows them."""

STOP_SECONDS = 3.0  # for a guest to shut down; what it has is lost anyway

# What every processor with SNP has; CPUID cannot be asked from here.
_SNP_C_BIT, _SNP_REDUCED_BITS = 51, 1
_TDX_CONFIG_BYTES = 48

_log = structlog.get_logger(__name__)


class QemuBackend(Backend):
    """Starts VMs."""

    name: ClassVar[str] = "qemu"
    survives: ClassVar[bool] = True

    def __init__(
        self,
        config: ManagerConfig,
        *,
        clock: Clock = system_clock,
        stop_seconds: float = STOP_SECONDS,
    ) -> None:
        self._config = config
        self._clock = clock
        self._stop_seconds = stop_seconds
        self._ca = TpmCa(config.tpm_ca_folder.absolute())
        self._accelerator = Accelerator("tcg", "not chosen yet")
        self._verdict = Verdict(None, "not looked at yet")
        self._image: Image | None = None
        self._firmware = config.ovmf_code
        self._hardware = Hardware(config.cpus, "")

    async def check(self) -> None:
        """See the base; also decides how VMs run here, and makes the CA of their TPMs."""
        process.find_tool(qemu.PROGRAM, hint=qemu.INSTALL_HINT)
        swtpm.Tools.find()
        check_firmware(self._config)
        self._image = Image.find(self._config)
        self._accelerator = await accelerator.choose(
            self._config.accelerator, self._config.firmware
        )
        self._verdict = await self._judge()
        self._firmware = await asyncio.to_thread(self._choose_firmware, self._image)
        await asyncio.to_thread(self._ca.make, self._clock())
        kind = self._verdict.kind
        model = qemu.SNP_CPU if kind == "snp" else qemu.cpu_model(self._accelerator.name)
        self._hardware = Hardware(
            cpu_count=self._config.cpus,
            cpu_type=f"{model} ({kind or self._accelerator.name})",
            ovmf_version=self._firmware.name if kind else await firmware_version(),
            kernel_command=await asyncio.to_thread(self._image.kernel_command),
        )
        _log.info(
            "backend.ready",
            accelerator=self._accelerator.name,
            why=self._accelerator.reason,
            memory=self._verdict.reason,
            tpm_ca=str(self._ca.certificate_file),
        )

    async def _judge(self) -> Verdict:
        if self._config.confidential != "auto":
            return Verdict(None, "as configured")
        if self._accelerator.name != "kvm":
            return Verdict(None, "memory can be encrypted with KVM only")
        verdict = confidential.judge(await confidential.read_facts())
        if verdict.kind is not None:
            why = "the guest has no attester for it yet, so that no KBS gives a key"
            _log.warning("backend.cannot_attest", memory=verdict.kind, why=why)
        return verdict

    def _choose_firmware(self, image: Image) -> Path:
        config = self._config
        if self._verdict.kind is None:
            return config.ovmf_code.absolute()
        if config.ovmf_confidential is not None:
            return config.ovmf_confidential.absolute()
        return image.firmware(self._verdict.kind, config.cpus)

    def hardware(self) -> Hardware:
        """See the base."""
        return self._hardware

    def reference_values(self) -> bytes | None:
        """See the base; what the image's builder computed."""
        try:
            return None if self._image is None else self._image.reference_values.read_bytes()
        except OSError:
            return None

    @contextlib.asynccontextmanager
    async def start(
        self, vm_id: str, plan: VmPlan, folder: Path, console: Console
    ) -> AsyncIterator[Vm]:
        """See the base; returns when the VM's first instruction may run."""
        guest = guest_config(vm_id, plan, authorized_keys=await asyncio.to_thread(self._keys))
        how = f"{self._verdict.kind or self._accelerator.name} ({self._accelerator.reason})"
        console.write("manager", f"starts by {how}")
        for sentence in guest.rewritten:
            _log.info("vm.told", vm=vm_id, what=sentence)
            console.write("manager", sentence)
        pcr = extend(bytes(32), InitDocument.parse(guest.text).digest)
        console.write("manager", f"PCR 8 is {pcr.hex()} once the guest has measured its init data")
        await asyncio.to_thread(self._lay_out, folder, guest)
        running = Parts()
        async with _ended(running):
            await self._boot(vm_id, folder, guest, running)
            async with self._controlled(folder, running, console) as vm:
                running.vm = vm
                await vm.monitor.execute("cont")
                yield vm

    @contextlib.asynccontextmanager
    async def resume(self, vm_id: str, folder: Path, console: Console) -> AsyncIterator[Vm]:
        """See the base."""
        running = Parts(Daemon.find(folder / parts.PID_FILE), swtpm.find(folder / parts.TPM_FOLDER))
        async with _ended(running):
            if running.qemu is None:
                raise UnreachableError("it ended while no manager watched it")
            if running.tpm is None and (folder / parts.TPM_FOLDER).exists():
                raise UnreachableError("its TPM (swtpm) ended while no manager watched it")
            console.write("manager", "taken over; what the guest printed meanwhile was not kept")
            async with self._controlled(folder, running, console) as vm:
                running.vm = vm
                # A manager that was killed may not have come to it.
                await vm.monitor.execute("cont")
                _log.info("vm.resumed", vm=vm_id, port=vm.forwarded_port)
                yield vm

    def clean(self, vm_id: str, folder: Path) -> None:
        """See the base."""
        files = [folder / parts.PID_FILE, folder / parts.TPM_FOLDER / swtpm.PID_FILE]
        kill_marked(vm_id, files)

    def _keys(self) -> str:
        if self._config.authorized_keys is None:
            return ""
        data = read_file(self._config.authorized_keys, "the guests' authorized keys", limit=2**16)
        return data.decode("utf-8", "replace")

    def _controlled(
        self, folder: Path, running: Parts, console: Console
    ) -> contextlib.AbstractAsyncContextManager[QemuVm]:
        if running.qemu is None:
            raise AssertionError
        return attached(folder, running.qemu, running.tpm, console, grace=self._stop_seconds)

    def _lay_out(self, folder: Path, guest: GuestConfig) -> None:
        write_atomic(folder / "init-data.img", init_data.to_disk(guest.text))
        write_atomic(folder / "scratch.img", b"")
        os.truncate(folder / "scratch.img", self._config.scratch_mib * 2**20)
        shutil.copyfile(self._config.ovmf_variables, folder / "variables.fd")
        (folder / "variables.fd").chmod(0o600)

    async def _boot(self, vm_id: str, folder: Path, guest: GuestConfig, running: Parts) -> None:
        """Start the processes of a VM, each noted in ``running`` as soon as it runs."""
        if self._image is None:
            raise ConfigError("check() has not been called")
        with contextlib.ExitStack() as stack:
            tpm: int | None = None
            if self._verdict.kind is None:
                place = folder / parts.TPM_FOLDER
                place.mkdir(mode=0o700)
                await swtpm.manufacture(place, vm_id, self._ca)
                running.tpm, control = swtpm.start(place, vm_id)
                tpm = stack.enter_context(control).fileno()
            monitor = stack.enter_context(unix_socket.listen(folder / parts.MONITOR_SOCKET))
            console = stack.enter_context(unix_socket.listen(folder / parts.CONSOLE_SOCKET))
            sockets = qemu.Sockets(monitor.fileno(), console.fileno(), tpm)
            machine = self._machine(vm_id, folder, self._image, guest, sockets)
            program = process.find_tool(qemu.PROGRAM, hint=qemu.INSTALL_HINT)
            running.qemu = Daemon.start(
                [program, *qemu.arguments(machine)],
                mark=vm_id,
                pid_file=folder / parts.PID_FILE,
                log=folder / parts.LOG,
                inherited=[
                    number for number in (monitor.fileno(), console.fileno(), tpm) if number
                ],
            )

    def _machine(
        self, vm_id: str, folder: Path, image: Image, guest: GuestConfig, sockets: qemu.Sockets
    ) -> qemu.Machine:
        config = self._config
        digest = InitDocument.parse(guest.text).digest
        tee: qemu.Snp | qemu.Tdx | None = None
        if self._verdict.kind == "snp":
            tee = qemu.Snp(_SNP_C_BIT, _SNP_REDUCED_BITS, digest)
        elif self._verdict.kind == "tdx":
            tee = qemu.Tdx(digest.ljust(_TDX_CONFIG_BYTES, b"\0"))
        core = qemu.Core(
            accelerator=self._accelerator.name,
            cpus=config.cpus,
            memory_mib=config.memory_mib,
            firmware=qemu.Firmware(self._firmware, folder / "variables.fd"),
            kernel=image.kernel,
            confidential=tee,
        )
        return qemu.Machine(
            name=vm_id,
            core=core,
            disks=(
                qemu.Disk(ROOT, image.root),
                qemu.Disk(INIT_DATA, folder / "init-data.img"),
                qemu.Disk(SCRATCH, folder / "scratch.img", writable=True),
            ),
            sockets=sockets,
            guest_port=config.guest_port,
        )


@contextlib.asynccontextmanager
async def _ended(running: Parts) -> AsyncIterator[None]:
    """Have everything in ``running`` ended after the block, unless its VM is to be left."""
    try:
        yield
    finally:
        try:
            if running.vm is None or not running.vm.left:
                # Shielded: a second cancellation must not leave a VM behind.
                await asyncio.shield(running.end())
        finally:
            running.close()
