# SPDX-License-Identifier: Apache-2.0
"""What a VM costs: time and memory, against the same kernel that starts an empty program.

The image is the debug one, since only that lets us ask the guest where its time went. It
runs the same services.
"""

import asyncio
import contextlib
import re
import shutil
import statistics
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from base_image import buildah_environment
from demo_shell import Server, Shell, free_ports

from cocos.clients.manager import ManagerClient
from cocos.host import process
from cocos.host.daemon import MARK
from cocos.host.files import cache_folder
from cocos.host.machines import accelerator, qemu
from cocos.host.tools.image_tools import Tools
from cocos.image import initrd
from cocos.wire import pe
from cocos.wire._generated import manager_pb2 as pb

ROUNDS = 3
TOGETHER = 4
_IMAGE = cache_folder("image") / "cocos-debug"
_STUB = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"
_REACHED = b"BARE-INIT"
_INIT = f"#!/bin/sh\nwhile :; do echo {_REACHED.decode()}; sleep 1; done\n".encode()
_UNITS = {
    "init data": "cocos-initdata",
    "scratch disk": "cocos-scratch",
    "attestation agent": "attestation-agent",
    "key provider": "coco-keyprovider",
}
_ASK = (
    "date +%s.%N; cat /proc/uptime;"
    " journalctl -k -o short-monotonic | sed -n '2p; /Run .init as/p' | tr -d '[' | cut -d']' -f1;"
    " systemctl show -p UserspaceTimestampMonotonic --value;"
    f" for unit in {' '.join(_UNITS.values())}; do"
    " systemctl show -p ActiveEnterTimestampMonotonic --value $unit; done"
)


_ATTEST = (
    """grpcurl -plaintext -d '{"TokenType": "kbs"}' 127.0.0.1:50002"""
    " attestation_agent.AttestationAgentService/GetToken > /dev/null;"
    " journalctl --sync; journalctl -u attestation-agent -o cat"
    " | grep -o 'kbs.attested.*seconds=[0-9.]*' | grep -o '[0-9.]*$'"
)


@dataclass(frozen=True)
class Booted:
    """A VM whose agent has connected."""

    vm_id: str
    port: str
    began: float  # time.time() before it was asked for
    connected: float  # the same, when the CVMS heard of it

    @property
    def seconds(self) -> float:
        return self.connected - self.began


async def bare_boot(folder: Path, how: qemu.Accelerated) -> list[float]:
    """Return how long the image's kernel takes to an init that does nothing, from the firmware."""
    await _make_bare(folder)
    times = []
    for _ in range(ROUNDS):
        shutil.copyfile(qemu.OVMF_VARIABLES, folder / "variables.fd")
        firmware = qemu.Firmware(qemu.OVMF_CODE, folder / "variables.fd")
        core = qemu.Core(how, 2, 2048, firmware, folder / "bare.efi")
        argv = [qemu.PROGRAM, *qemu.core_arguments(core), "-serial", "stdio"]
        begin = time.monotonic()
        async with process.spawn(argv, stdout=asyncio.subprocess.PIPE) as child:
            assert child.stdout is not None
            while _REACHED not in (line := await child.stdout.readline()):
                assert line, "the bare VM ended"
            times.append(time.monotonic() - begin)
            child.kill()
    return times


async def _make_bare(folder: Path) -> None:
    """Link the image's kernel with an initrd of busybox and a script."""
    tools = await asyncio.to_thread(_lay_out_bare, folder)
    words = ["python3", "/usr/lib/systemd/ukify", "build", f"--stub={_STUB}", "--linux=kernel"]
    words += ["--initrd=initrd", "--cmdline=@cmdline", "--os-release=NAME=bare", "--uname=bare"]
    words += ["--output=bare.efi"]
    await tools.run(words, work=folder)


def _lay_out_bare(folder: Path) -> Tools:
    kernel = pe.Image.parse((_IMAGE / "cocos.efi").read_bytes()).section(".linux")
    assert kernel is not None
    (folder / "kernel").write_bytes(kernel)
    busybox = Path(process.find_tool("busybox", hint="apt-get install busybox-static"))
    files: dict[str, bytes | str] = {"init": _INIT, "bin/busybox": busybox.read_bytes()}
    files |= {f"bin/{name}": "busybox" for name in ("sh", "sleep")} | {"dev/.keep": b""}
    (folder / "initrd").write_bytes(initrd.archive(files))
    (folder / "cmdline").write_text("console=ttyS0 loglevel=4 panic=-1")
    (tools,) = (cache_folder("image") / ".inputs").glob("tools-*[0-9a-f]")
    return Tools(tools)


@contextlib.asynccontextmanager
async def booted(
    manager: ManagerClient, cvms: Server, asked: pb.CreateReq, *, count: int = 1
) -> AsyncIterator[list[Booted]]:
    """Have VMs run; enter the block when all of their agents have connected."""
    began = time.time()

    async def one() -> Booted:
        created = await manager.create(asked)
        await cvms.prints(f"agent {created.cvm_id} connected")
        return Booted(created.cvm_id, created.forwarded_port, began, time.time())

    found = await asyncio.gather(*(one() for _ in range(count)))
    try:
        yield found
    finally:
        await asyncio.gather(*(manager.remove(each.vm_id) for each in found))


async def parts(shell: Shell, vm: Booted) -> list[tuple[str, float]]:
    """Return where the time to the agent's connection went, from the guest's own clock."""
    now, uptime, message, init, userspace, *units = (await _inside(shell, vm, _ASK)).split("\n")
    zero = float(now) - float(uptime.split()[0])  # when the kernel's clock began
    moments = [
        ("software TPM, firmware", zero - vm.began),
        ("kernel", float(init) - float(message)),  # its messages count from the reset
        ("initrd", int(userspace) / 1e6),
    ]
    moments += [(name, int(at) / 1e6) for name, at in zip(_UNITS, units, strict=False)]
    return [*moments, ("agent connected", vm.connected - zero)]


async def attestation(shell: Shell, vm: Booted) -> float:
    """Return how long the guest's first handshake with the KBS takes, by its own log."""
    return float(await _inside(shell, vm, _ATTEST))


async def _inside(shell: Shell, vm: Booted, commands: str) -> str:
    ssh = "ssh -i ssh -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    return await shell.run(
        f"{ssh} -o LogLevel=ERROR -p {vm.port} root@localhost bash -s << 'END'\n{commands}\nEND"
    )


def memory(vm_id: str) -> int:
    """Return the bytes that a VM's processes hold, shared ones by their share."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{MARK}={vm_id}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found = re.search(
                    r"^Pss: +(\d+)", (folder / "smaps_rollup").read_text(), re.MULTILINE
                )
                total += int(found[1]) * 1024 if found else 0
    return total


async def vms(folder: Path) -> float:
    """Measure boots; return how long a bare one takes, in seconds."""
    shell = await Shell.make(folder, buildah_environment())
    await shell.run(
        "cocos-cli image build --debug",
        "cocos-cli keys",
        "ssh-keygen -q -t ed25519 -N '' -f ssh",
        "openssl genpkey -algorithm ed25519 -out admin.key",
        "openssl pkey -in admin.key -pubout -out admin.pub",
        "cocos-manager tpm-ca --state-folder vms > tpm-ca.pem",
    )
    found = await accelerator.choose()
    print(f"\nVMs, {found.name} ({found.reason}):")
    base = statistics.median(await bare_boot(folder, found.name))
    _show("bare boot: firmware, our kernel, an empty init", base)
    ports, _ = free_ports({"cvms": 0, "api": 0, "http": 0, "kbs": 0})
    asked = pb.CreateReq(
        agent_cvm_server_url=f"127.0.0.1:{ports['cvms']}",
        aa_kbs_params=f"cc_kbc::http://127.0.0.1:{ports['kbs']}",
    )
    async with (
        shell.server(
            f"kbs --socket 127.0.0.1:{ports['kbs']} --insecure-http --auth-public-key admin.pub"
            " --tpm-ek-ca tpm-ca.pem --storage vm-kbs"
        ),
        # Nobody serves the image: the VM is idle after the computation has failed.
        shell.server(
            "cvms-test -public-key-path public.pem -algo-type oci-image -algo-source-url"
            " docker://localhost:1/x:y -algo-kbs-path a/b/c -attested-tls-bool false"
            f" -host 127.0.0.1 -port {ports['cvms']}"
        ) as cvms,
        shell.server(
            f"cocos-manager --grpc-port {ports['api']} --http-port {ports['http']} --state-folder"
            f" vms --backend qemu --image-folder {_IMAGE} --authorized-keys ssh.pub"
        ),
        ManagerClient(f"127.0.0.1:{ports['api']}") as manager,
    ):
        await _measure(shell, manager, cvms, asked, base)
    return base


async def _measure(
    shell: Shell, manager: ManagerClient, cvms: Server, asked: pb.CreateReq, base: float
) -> None:
    times = []
    for number in range(ROUNDS):
        async with booted(manager, cvms, asked) as (vm,):
            times.append(vm.seconds)
            if not number:
                await cvms.prints("Failed")
                held, timeline = memory(vm.vm_id), await parts(shell, vm)
                attested = await attestation(shell, vm)
    alone = statistics.median(times)
    _show("agent create to agent connected", alone, alone / base)
    for name, at in timeline:
        after = "create" if name == timeline[0][0] else "that"
        print(f"    {name:<50}at {at:6.1f} s after {after}")
    _show("attestation: quote, handshake, token", attested, attested / base)
    print(f"  {'memory of its processes, idle':<52}{held / 2**20:9.0f} MiB")
    async with booted(manager, cvms, asked, count=TOGETHER) as many:
        slowest = max(each.seconds for each in many)
    _show(f"{TOGETHER} at once, the last one connected", slowest, slowest / alone)


def _show(name: str, seconds: float, ratio: float | None = None) -> None:
    print(f"  {name:<52}{seconds:9.1f} s" + (f"{ratio:8.2f} x" if ratio else ""))
