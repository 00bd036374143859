# SPDX-License-Identifier: Apache-2.0
"""Real VMs under emulation, with a guest of some bytes: life, every kind of end, takeovers.

Of issue 3, "It must fail like this": VM killed, swtpm killed, manager killed.
"""

import asyncio
import contextlib
import datetime as dt
import hashlib
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import _tiny
import pytest
from _manager import eventually
from _programs import running
from grpc import aio

from cocos._clock import Clock, system_clock
from cocos.clients.manager import ManagerClient
from cocos.errors import ConfigError, StateError, ToolMissingError
from cocos.host.daemon import MARK, Daemon, kill_marked
from cocos.host.machines.qmp import Monitor
from cocos.manager.backends.qemu import QemuBackend
from cocos.manager.config import ManagerConfig
from cocos.manager.plan import CreateRequest
from cocos.manager.records import VmRecord, VmState
from cocos.manager.server import grpc_service
from cocos.manager.service import ManagerService
from cocos.manager.state import StateFolder
from cocos.transport.rpc import serve
from cocos.wire import init_data
from cocos.wire._generated import manager_pb2 as pb
from cocos.wire._generated import manager_pb2_grpc as pb_grpc
from cocos.wire.init_data import InitDocument

pytestmark = [pytest.mark.integration, pytest.mark.vm, pytest.mark.timeout(240)]

REQUEST = CreateRequest("http://127.0.0.1:7001", kbs_params="cc_kbc::http://localhost:8080")
BOOT_SECONDS = 120.0


def image(folder: Path, tail: bytes) -> Path:
    """Make an image whose kernel is a tiny guest."""
    made = folder / "image"
    made.mkdir(exist_ok=True)
    (made / "cocos.efi").write_bytes(_tiny.efi(tail))
    (made / "root.img").write_bytes(bytes(4096))
    (made / "reference-values.json").write_bytes(b'{"tpm_pcr04": []}')
    return made


def config(folder: Path, tail: bytes = _tiny.IGNORES_ALL) -> ManagerConfig:
    return ManagerConfig(
        state_folder=folder / "state",
        image_folder=image(folder, tail),
        accelerator="tcg",
        memory_mib=128,
        cpus=1,
        scratch_mib=64,
    )


@contextlib.asynccontextmanager
async def managed(
    settings: ManagerConfig,
    *,
    keep_vms: bool = False,
    stop_seconds: float = 0.2,
    clock: Clock = system_clock,
) -> AsyncIterator[ManagerService]:
    backend = QemuBackend(settings, stop_seconds=stop_seconds)
    await backend.check()
    state = StateFolder(settings.state_folder)
    service = ManagerService(state, backend, max_vms=4, keep_vms=keep_vms, clock=clock)
    try:
        async with service:
            yield service
    finally:
        if not keep_vms:
            for record in service.vms():
                kill_marked(record.id)


def vm_folder(folder: Path, vm_id: str) -> Path:
    return folder / "state" / "vms" / vm_id / "vm"


def processes(vm_id: str) -> dict[str, int]:
    """Name → id of what runs for a VM."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"{MARK}={vm_id}".encode() in path.read_bytes().split(b"\0"):
                found[(path.parent / "comm").read_text().strip()] = int(path.parent.name)
    return found


def commands() -> list[str]:
    """Command lines of everything that runs here."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes().decode(errors="replace"))
    return found


def assert_nothing_left(folder: Path, vm_id: str) -> None:
    assert processes(vm_id) == {}
    assert not vm_folder(folder, vm_id).exists()


async def console(service: ManagerService, vm_id: str, *, until: str = "") -> str:
    """Return what a VM prints, until it ends or has printed ``until``."""
    text = ""
    async with asyncio.timeout(BOOT_SECONDS):
        async for chunk in service.logs(vm_id, follow=True):
            text += chunk.decode()
            if until and until in text:
                break
    return text


async def ended(service: ManagerService, vm_id: str) -> VmRecord:
    await eventually(lambda: not service.get(vm_id).state.live, seconds=BOOT_SECONDS)
    return service.get(vm_id)


@pytest.mark.parametrize(
    ("tail", "state", "reason"),
    [
        (_tiny.SHUTS_DOWN, VmState.STOPPED, "it shut itself down"),
        (_tiny.RESETS, VmState.FAILED, "it was reset: "),
        (_tiny.TRIPLE_FAULTS, VmState.FAILED, "it was reset: "),
    ],
    ids=["shutdown", "reset", "triple fault"],
)
async def test_a_guest_that_ends(tmp_path: Path, tail: bytes, state: VmState, reason: str) -> None:
    async with managed(config(tmp_path, tail)) as service:
        record = await service.create(REQUEST)
        text = await console(service, record.id)
        record = await ended(service, record.id)
        assert (record.state, record.reason.startswith(reason)) == (state, True), record.reason
        assert f"guest: {_tiny.GREETING}\n" in text
        if state is VmState.FAILED:
            assert record.reason.endswith(f"last on its console: {_tiny.GREETING}")
        assert_nothing_left(tmp_path, record.id)


async def test_a_guest_that_obeys_the_power_button_is_not_killed(tmp_path: Path) -> None:
    settings = config(tmp_path, _tiny.OBEYS_THE_BUTTON)
    # It must end by itself long before it would be killed, on a busy machine, too.
    async with managed(settings, stop_seconds=600) as service:
        record = await service.create(REQUEST)
        await console(service, record.id, until=_tiny.GREETING)
        async with asyncio.timeout(200):
            await service.remove(record.id)
        assert_nothing_left(tmp_path, record.id)
        assert not (tmp_path / "state" / "vms" / record.id).exists()


async def test_what_a_vm_is(tmp_path: Path) -> None:
    async with managed(config(tmp_path)) as service:
        record = await service.create(REQUEST)
        folder = vm_folder(tmp_path, record.id)
        disk = (folder / "init-data.img").read_bytes()
        told = InitDocument.parse(init_data.from_disk(disk)).data["agent.env"]
        assert f'AGENT_CVM_ID="{record.id}"' in told
        assert 'AGENT_CVM_GRPC_URL="10.0.2.2:7001"' in told
        for private in (folder, folder / "init-data.img", folder / "monitor.sock"):
            assert not private.stat().st_mode & 0o077, private
        # The port leads to QEMU, which took it itself.
        with socket.create_connection(("127.0.0.1", int(record.forwarded_port)), timeout=10):
            pass
        hardware = service.hardware()
        assert hardware.cpu_count == 1
        assert hardware.cpu_type == "max (tcg)"
        assert hardware.kernel_command == _tiny.COMMAND_LINE
        async with (
            serve("127.0.0.1:0", [grpc_service(service, eos_version="13")]) as address,
            aio.insecure_channel(address) as channel,
        ):
            stub: Any = pb_grpc.ManagerServiceStub(channel)
            info = await stub.CVMInfo(pb.CVMInfoReq(id=record.id))
            assert (info.cpu_num, info.kernel_cmd) == (1, _tiny.COMMAND_LINE)
            assert info.eos_version == "13"
            policy = await stub.AttestationPolicy(pb.AttestationPolicyReq(id=record.id))
            assert policy.info == b'{"tpm_pcr04": []}'
        log = "".join([chunk.decode() async for chunk in service.logs(record.id)])
        first, *others = log.splitlines()
        assert first == "manager: starts by tcg (as configured)"
        assert "manager: the CVMS at 127.0.0.1:7001 is at 10.0.2.2 for the guest" in others
        pcr = hashlib.sha256(bytes(32) + hashlib.sha256(init_data.from_disk(disk)).digest())
        assert f"PCR 8 is {pcr.hexdigest()} " in log


async def test_disks_have_their_serials_and_the_root_cannot_be_written(tmp_path: Path) -> None:
    settings = config(tmp_path)
    async with managed(settings, keep_vms=True) as service:
        vm_id = (await service.create(REQUEST)).id
    # The manager is gone, so that its place at the control socket is free.
    try:
        async with Monitor(vm_folder(tmp_path, vm_id) / "monitor.sock") as monitor:
            tree = await monitor.execute("query-block")
            found = {entry["qdev"]: entry["inserted"] for entry in tree if "inserted" in entry}
            read_only = {
                Path(each["image"]["filename"]).name: each["ro"] for each in found.values()
            }
            assert read_only["root.img"] is True
            assert read_only["init-data.img"] is True
            assert read_only["scratch.img"] is False
            assert (await monitor.execute("query-tpm"))[0]["model"] == "tpm-crb"
    finally:
        kill_marked(vm_id)


@pytest.mark.parametrize(
    ("victim", "reason"),
    [
        ("qemu-system-x86", "QEMU ended with signal SIGKILL"),
        ("swtpm", "its TPM (swtpm) ended with signal SIGKILL"),
    ],
)
async def test_a_killed_part_ends_the_vm_with_its_name(
    tmp_path: Path, victim: str, reason: str
) -> None:
    async with managed(config(tmp_path)) as service:
        record = await service.create(REQUEST)
        os.kill(processes(record.id)[victim], signal.SIGKILL)
        record = await ended(service, record.id)
        assert record.state is VmState.FAILED
        assert record.reason.startswith(reason)
        assert_nothing_left(tmp_path, record.id)
        again = await service.create(REQUEST)
        assert again.state is VmState.RUNNING


async def test_a_time_to_live_ends_it(tmp_path: Path) -> None:
    async with managed(config(tmp_path)) as service:
        record = await service.create(CreateRequest("h:1", ttl="100ms"))
        assert (await ended(service, record.id)).state is VmState.EXPIRED
        assert_nothing_left(tmp_path, record.id)


async def test_a_time_to_live_outlives_the_manager(tmp_path: Path) -> None:
    settings = config(tmp_path)
    async with managed(settings, keep_vms=True) as service:
        vm_id = (await service.create(CreateRequest("h:1", ttl="1h"))).id
    assert set(processes(vm_id)) == {"qemu-system-x86", "swtpm"}
    async with managed(settings, clock=lambda: system_clock() + dt.timedelta(hours=1)) as service:
        assert (await ended(service, vm_id)).state is VmState.EXPIRED
        assert_nothing_left(tmp_path, vm_id)


async def test_several_at_once_are_apart(tmp_path: Path) -> None:
    async with managed(config(tmp_path)) as service:
        records = await asyncio.gather(*(service.create(REQUEST) for _ in range(3)))
        assert len({record.forwarded_port for record in records}) == 3
        await asyncio.gather(*(service.remove(record.id) for record in records))
        for record in records:
            assert_nothing_left(tmp_path, record.id)


async def test_a_stopped_manager_leaves_nothing(tmp_path: Path) -> None:
    async with managed(config(tmp_path)) as service:
        record = await service.create(REQUEST)
    assert_nothing_left(tmp_path, record.id)


async def test_kept_vms_are_taken_over_and_still_end_as_they_should(tmp_path: Path) -> None:
    settings = config(tmp_path, _tiny.OBEYS_THE_BUTTON)
    async with managed(settings, keep_vms=True) as service:
        record = await service.create(CreateRequest("h:1", ttl="1h"))
    before = processes(record.id)
    assert set(before) == {"qemu-system-x86", "swtpm"}
    async with managed(settings) as service:
        assert service.get(record.id) == record
        assert processes(record.id) == before
        await console(service, record.id, until=_tiny.GREETING)
        os.kill(before["qemu-system-x86"], signal.SIGKILL)
        assert (await ended(service, record.id)).reason.startswith("QEMU ended")
        assert_nothing_left(tmp_path, record.id)


@pytest.mark.parametrize("victim", ["qemu-system-x86", "swtpm"])
async def test_what_died_while_nobody_watched_is_cleaned_up(tmp_path: Path, victim: str) -> None:
    settings = config(tmp_path)
    async with managed(settings, keep_vms=True) as service:
        vm_id = (await service.create(REQUEST)).id
    killed = Daemon.find(
        vm_folder(tmp_path, vm_id) / ("qemu.pid" if victim != "swtpm" else "tpm/swtpm.pid")
    )
    assert killed is not None
    await killed.kill()
    killed.close()
    async with managed(settings) as service:
        record = service.get(vm_id)
        assert record.state is VmState.LOST
        assert "no manager watched" in record.reason
        assert_nothing_left(tmp_path, vm_id)


async def test_a_vm_of_another_backend_or_without_record_does_not_run_on(tmp_path: Path) -> None:
    settings = config(tmp_path)
    async with managed(settings, keep_vms=True) as service:
        vm_id = (await service.create(REQUEST)).id
    (tmp_path / "state" / "vms" / vm_id / "vm.json").write_text("{")
    async with managed(settings) as service:
        assert service.vms() == []
    assert_nothing_left(tmp_path, vm_id)


async def test_a_killed_managers_vms_run_on_and_the_next_one_has_them(tmp_path: Path) -> None:
    settings = config(tmp_path)
    words = ["--backend", "qemu", "--accelerator", "tcg", "--memory", "128M", "--cpus", "1"]
    words += ["--state-folder", str(settings.state_folder), "--grpc-port", "0", "--http-port", "0"]
    words += ["--image-folder", str(settings.image_folder)]
    vm_id = ""
    try:
        async with running("cocos-manager", *words) as program:
            async with ManagerClient(f"http://{program.address}") as client:
                request = pb.CreateReq(agent_cvm_server_url="127.0.0.1:7001")
                created = await client.create(request)
                vm_id = created.cvm_id
            program.kill()
        assert set(processes(vm_id)) == {"qemu-system-x86", "swtpm"}
        async with (
            running("cocos-manager", *words) as program,
            ManagerClient(f"http://{program.address}") as client,
        ):
            (vm,) = await client.vms()
            assert (vm.id, vm.state) == (vm_id, "running")
            await client.remove(vm_id)
            assert await client.vms() == []
        assert_nothing_left(tmp_path, vm_id)
    finally:
        kill_marked(vm_id)


async def test_a_manager_killed_during_a_start_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    settings = config(tmp_path)
    async with managed(settings, keep_vms=True) as service:
        record = await service.create(REQUEST)
    state = StateFolder(settings.state_folder)
    # As on the disk of a manager that was killed before its creator got an answer.
    state.save(VmRecord(record.id, "qemu", VmState.STARTING, record.created, record.cvms))
    async with managed(settings) as service:
        assert service.get(record.id).state is VmState.LOST
        assert_nothing_left(tmp_path, record.id)


async def test_a_start_that_fails_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    settings = config(tmp_path)
    async with managed(settings) as service:
        assert settings.image_folder is not None
        (settings.image_folder / "root.img").unlink()
        with pytest.raises(StateError, match=r"root\.img"):
            await service.create(REQUEST)
        assert service.vms() == []
        assert list((tmp_path / "state" / "vms").iterdir()) == []
        assert not [path for path in commands() if str(tmp_path) in path]


async def test_a_creator_that_leaves_takes_its_vm_along(tmp_path: Path) -> None:
    async with managed(config(tmp_path)) as service:
        creating = asyncio.create_task(service.create(REQUEST))
        await eventually(lambda: service.vms() and processes(service.vms()[0].id))
        vm_id = service.vms()[0].id
        creating.cancel()
        await asyncio.wait({creating})
        assert service.vms() == []
        assert_nothing_left(tmp_path, vm_id)


async def test_missing_things_are_named_before_anything_starts(tmp_path: Path) -> None:
    settings = config(tmp_path)
    firmware = settings.model_copy(update={"ovmf_code": tmp_path / "none.fd"})
    with pytest.raises(ToolMissingError, match=r"none\.fd"):
        await QemuBackend(firmware).check()
    assert settings.image_folder is not None
    shutil.rmtree(settings.image_folder)
    with pytest.raises(ConfigError, match="there is no image") as caught:
        await QemuBackend(settings).check()
    assert "image build" in (caught.value.hint or "")
