# SPDX-License-Identifier: Apache-2.0
"""A VM as a command line."""

import base64
import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest

from cocos.host.machines.qemu import Core, Disk, Firmware, Machine, Snp, Sockets, Tdx, arguments

CORE = Core(
    accelerator="tcg",
    cpus=3,
    memory_mib=1536,
    firmware=Firmware(Path("/fw/code.fd"), Path("/vm/variables.fd")),
    kernel=Path("/image/cocos.efi"),
)
MACHINE = Machine(
    name="some-id",
    core=CORE,
    disks=(
        Disk("cocos-root", Path("/image/root.img")),
        Disk("cocos-scratch", Path("/vm/a,b.img"), writable=True),
    ),
    sockets=Sockets(monitor=10, console=11, tpm=12),
)


def values(words: list[str], option: str) -> list[str]:
    return [value for name, value in itertools.pairwise(words) if name == option]


def nodes(words: list[str]) -> dict[str, dict[str, object]]:
    found = [json.loads(text) for text in values(words, "-blockdev")]
    return {node["node-name"]: node for node in found}


def test_a_measured_machine() -> None:
    words = arguments(MACHINE)
    machine, *flash = values(words, "-machine")
    assert machine.split(",")[:2] == ["q35", "accel=tcg"]
    assert flash == ["pflash0=pflash0", "pflash1=pflash1"]
    assert values(words, "-cpu") == ["max,avx=off,avx2=off"]
    assert values(words, "-smp") == ["3"]
    assert values(words, "-m") == ["1536M"]
    assert values(words, "-kernel") == ["/image/cocos.efi"]
    assert "tpm-crb,tpmdev=tpm0" in values(words, "-device")
    assert "socket,id=tpm,fd=12" in values(words, "-chardev")
    for always in ("-S", "-no-reboot", "-nodefaults", "-no-user-config"):
        assert always in words


def test_nothing_overrides_the_kernels_own_command_line() -> None:
    assert not {"-append", "-initrd"} & set(arguments(MACHINE))


def test_only_what_is_this_vms_own_can_be_written() -> None:
    found = nodes(arguments(MACHINE))
    assert {name for name, node in found.items() if not node["read-only"]} == {"pflash1", "disk1"}
    assert found["pflash0"]["file"] == {"driver": "file", "filename": "/fw/code.fd"}


def test_disks_are_known_by_their_serials_and_a_path_may_have_commas() -> None:
    words = arguments(MACHINE)
    devices = values(words, "-device")
    assert "virtio-blk-pci,drive=disk0,serial=cocos-root" in devices
    assert "virtio-blk-pci,drive=disk1,serial=cocos-scratch" in devices
    file = nodes(words)["disk1"]["file"]
    assert isinstance(file, dict)
    assert file["filename"] == "/vm/a,b.img"


@pytest.mark.parametrize("serial", ["", "x" * 21])
def test_a_serial_that_a_disk_cannot_have(serial: str) -> None:
    with pytest.raises(ValueError, match="serial"):
        Disk(serial, Path("/x"))


def test_the_forwarded_port_is_on_loopback_and_qemus_choice() -> None:
    (network,) = values(arguments(replace(MACHINE, guest_port=22)), "-netdev")
    assert network.endswith(",hostfwd=tcp:127.0.0.1:0-:22")


def test_qemu_is_fenced_in() -> None:
    (sandbox,) = values(arguments(MACHINE), "-sandbox")
    assert sandbox.startswith("on,")
    assert {"spawn=deny", "elevateprivileges=deny"} <= set(sandbox.split(","))


def test_kvm_gets_the_hosts_processor() -> None:
    words = arguments(replace(MACHINE, core=replace(CORE, accelerator="kvm")))
    assert values(words, "-cpu") == ["host"]
    assert "accel=kvm" in values(words, "-machine")[0].split(",")


def confidential(kind: Snp | Tdx) -> list[str]:
    core = replace(CORE, accelerator="kvm", confidential=kind)
    return arguments(replace(MACHINE, core=core, sockets=Sockets(10, 11, tpm=None)))


def test_sev_snp() -> None:
    words = confidential(Snp(51, 1, b"\x01" * 32))
    machine = values(words, "-machine")[0].split(",")
    assert {"confidential-guest-support=tee0", "memory-backend=ram0"} <= set(machine)
    memory, guest, _rng = values(words, "-object")
    assert memory == "memory-backend-memfd,id=ram0,size=1536M,share=true,prealloc=false"
    name, *options = guest.split(",")
    assert name == "sev-snp-guest"
    assert {"id=tee0", "cbitpos=51", "reduced-phys-bits=1", "kernel-hashes=on"} <= set(options)
    assert "policy=0x30000" in options
    assert values(words, "-cpu") == ["EPYC-v4"]  # never the host's: it is in the launch digest
    host_data = base64.b64encode(b"\x01" * 32).decode()
    assert f"host-data={host_data}" in options


def test_tdx() -> None:
    words = confidential(Tdx(b"\x02" * 48))
    machine = values(words, "-machine")[0].split(",")
    assert {"confidential-guest-support=tee0", "hpet=off", "kernel-irqchip=split"} <= set(machine)
    assert values(words, "-cpu") == ["host"]
    _memory, guest, _rng = values(words, "-object")
    assert json.loads(guest) == {
        "qom-type": "tdx-guest",
        "id": "tee0",
        "mrconfigid": base64.b64encode(b"\x02" * 48).decode(),
        "quote-generation-socket": {"type": "vsock", "cid": "2", "port": "4050"},
    }


@pytest.mark.parametrize("kind", [Snp(51, 1, bytes(32)), Tdx(bytes(48))])
def test_encrypted_memory_has_firmware_in_one_file_and_no_tpm_of_the_hosts(kind: Snp | Tdx) -> None:
    words = confidential(kind)
    assert values(words, "-bios") == ["/fw/code.fd"]
    assert values(words, "-kernel") == ["/image/cocos.efi"]
    assert not {"-append", "-initrd"} & set(words)
    # A ROM of a device would be measured, too (PCR 2, RTMR 1).
    assert all("romfile=" in word for word in values(words, "-device") if "net" in word)
    assert not any(node.startswith("pflash") for node in nodes(words))
    assert "-tpmdev" not in words
