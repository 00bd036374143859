# SPDX-License-Identifier: Apache-2.0
"""The image in an emulated machine: what it measures, what runs, what it refuses.

Of issue 3, "It must fail like this": one byte of the root image changed.
"""

import base64
import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
from _guest_console import Console, machine

from cocos.evidence import eventlog
from cocos.image import measure
from cocos.manager.backends.qemu import QemuBackend
from cocos.manager.config import ManagerConfig
from cocos.manager.plan import CreateRequest
from cocos.manager.records import VmState
from cocos.manager.service import ManagerService
from cocos.manager.state import StateFolder
from cocos.wire.image_folder import ROOT, UKI
from cocos.wire.init_data import build
from cocos.wire.pe import Image

pytestmark = [
    pytest.mark.integration,
    pytest.mark.vm,
    pytest.mark.xdist_group("image"),
    pytest.mark.timeout(1800),
]

INIT_DATA = build(
    {
        "aa.toml": "[eventlog_config]\nenable_eventlog = true\n",
        "agent.env": 'AGENT_CVM_ID="the-vm"\nAGENT_CVM_GRPC_URL="10.0.2.2:7001"\n',
    }
)


def copied(image: Path, folder: Path) -> Path:
    """Copy what a VM boots."""
    folder.mkdir()
    for name in (UKI, ROOT):
        shutil.copyfile(image / name, folder / name)
    return folder


def flip(file: Path, place: int) -> None:
    """Change one bit of a file, where it is."""
    with file.open("r+b") as disk:
        disk.seek(place)
        (value,) = disk.read(1)
        disk.seek(place)
        disk.write(bytes([value ^ 1]))


def assert_panic_of_verity(text: str) -> None:
    assert "dm-verity device has I/O error" in text or "dm-verity device corrupted" in text
    assert "Kernel panic" in text


async def check_events(console: Console, image: Path) -> None:
    """Compare the log of a boot with what the registers of a TDX guest are predicted from.

    Those get the same events, but one separator in place of one for each PCR.
    """
    await console.run("cd /sys/kernel/security/tpm0; true")
    printed = await console.run("base64 -w 0 binary*; echo; cd /")
    log = eventlog.parse_log(base64.b64decode(printed, validate=False))
    predicted = measure.boot(Image.parse((image / UKI).read_bytes()))
    for pcrs in measure.RTMR_PCRS.values():
        found = [
            (event.index, event.digests["sha256"])
            for event in log
            if event.index in pcrs and (event.index == 4 or event.type_name != "EV_SEPARATOR")
        ]
        assert found == [(each.pcr, each.digest) for each in predicted if each.pcr in pcrs]


async def check_restart(console: Console) -> None:
    """A killed agent comes back."""
    pid = "systemctl show -P MainPID cocos-agent"
    kill = f"old=$({pid}); systemctl kill -s KILL cocos-agent"
    wait = f"until new=$({pid}); [ $new != 0 -a $new != $old ]; do sleep 1; done"
    shown = await console.run(f"{kill}; {wait}; systemctl is-active cocos-agent")
    assert "active" in shown.split()


async def check_changed_disk(console: Console, image: Path) -> None:
    """A bit that the host changes under a running VM ends it when it is read."""
    blocks = re.search(rb" cocos\.blocks=(\d+) ", (image / UKI).read_bytes())
    assert blocks is not None
    flip(image / ROOT, int(blocks[1]) // 2 * 4096)
    with pytest.raises(AssertionError, match="the VM ended"):
        await console.run("echo 3 >/proc/sys/vm/drop_caches; cat /dev/mapper/root >/dev/null")
    assert_panic_of_verity(console.text)


async def test_a_boot_measures_what_was_predicted_its_services_run_and_its_disk_cannot_change(
    debug_image: Path, tmp_path: Path
) -> None:
    values = json.loads((debug_image / "reference-values.json").read_bytes())
    # One boot serves all that can be asked of an image as it is; the last question ends it.
    own = copied(debug_image, tmp_path / "image")
    async with machine(own, INIT_DATA, tmp_path) as console:
        await console.boot()
        registers = await console.run("cd /sys/class/tpm/tpm0/pcr-sha256; cat 4 9 11 12 13; cd /")
        predicted = [values[f"tpm_pcr{number}"][0] for number in ("04", "09", "11", "12", "13")]
        assert registers.lower().split() == predicted
        await check_events(console, debug_image)

        assert (await console.run("systemctl start cocos-agent; echo $?")).strip() == "0"
        names = "attestation-agent coco-keyprovider cocos-agent"
        assert (await console.run(f"systemctl is-active {names}")).split() == ["active"] * 3
        assert "active (running)" in await console.run("systemctl status coco-keyprovider")
        assert "listening on 127.0.0.1:50002" in await console.run(
            "journalctl -u attestation-agent"
        )
        assert "coco-keyprovide" in await console.run("ss -tlnp | grep 50011")
        assert await console.run("systemctl --failed --plain --no-legend") == ""

        listening = await console.run("ss -Htln")
        assert listening
        assert all("127.0.0.1" in line for line in listening.splitlines())
        bound = hashlib.sha256(bytes(32) + hashlib.sha256(INIT_DATA).digest()).hexdigest()
        register = await console.run("cat /sys/class/tpm/tpm0/pcr-sha256/8")
        assert register.strip().lower() == bound

        assert (await console.run("cat /proc/sys/kernel/modules_disabled")).strip() == "1"
        assert "Read-only" in await console.run("touch /usr/x")
        assert "crypt" in await console.run("dmsetup table cocos-scratch")
        assert "/dev/mapper/cocos-scratch on /cocos" in await console.run("mount")
        await check_restart(console)
        await check_changed_disk(console, own)


async def test_one_changed_byte_of_the_root_disk_stops_the_boot(
    debug_image: Path, tmp_path: Path
) -> None:
    image = copied(debug_image, tmp_path / "image")
    flip(image / ROOT, 1000)  # of the superblock's block, which every boot reads
    config = ManagerConfig(
        state_folder=tmp_path / "state", image_folder=image, accelerator="tcg", memory_mib=1024
    )
    backend = QemuBackend(config, stop_seconds=0)
    await backend.check()
    async with ManagerService(StateFolder(tmp_path / "state"), backend, max_vms=1) as service:
        vm_id = (await service.create(CreateRequest("127.0.0.1:7001"))).id
        chunks = [chunk async for chunk in service.logs(vm_id, follow=True)]
        record = service.get(vm_id)
        assert record.state is VmState.FAILED
        assert record.reason.startswith("its kernel panicked"), record.reason
    printed = b"".join(chunks).decode(errors="replace")
    assert "cocos-debug#" not in printed
    assert_panic_of_verity(printed)


async def test_init_data_that_would_run_the_hosts_code_start_nothing(
    debug_image: Path, tmp_path: Path
) -> None:
    evil = build({"agent.env": 'LD_PRELOAD="/run/cocos/aa.toml"\n', "aa.toml": "x"})
    async with machine(debug_image, evil, tmp_path) as console:
        await console.boot()
        assert "LD_PRELOAD" in await console.run(
            "systemctl start cocos-agent; journalctl -u cocos-initdata"
        )
        names = "attestation-agent coco-keyprovider cocos-agent"
        assert "active" not in (await console.run(f"systemctl is-active {names}")).split()
