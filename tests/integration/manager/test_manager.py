# SPDX-License-Identifier: Apache-2.0
"""The manager with a backend of real sandboxed scripts, over real gRPC and HTTP."""

import asyncio
import contextlib
import datetime as dt
import json
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import httpx
import pytest
import trustme
from _manager import FOREVER, ScriptBackend, eventually
from grpc import aio

from cocos.clients.manager import ManagerClient, Tls
from cocos.errors import CallerError, NotFoundError, StateError, UnreachableError
from cocos.host.containers import cgroups
from cocos.manager.app import make_app
from cocos.manager.config import ManagerConfig
from cocos.manager.plan import CreateRequest
from cocos.manager.records import VmState
from cocos.manager.server import credentials, grpc_service
from cocos.manager.service import ManagerService
from cocos.manager.state import StateFolder
from cocos.transport.http_server import serve_http
from cocos.transport.rpc import serve
from cocos.wire._generated import manager_pb2 as pb
from cocos.wire._generated import manager_pb2_grpc as pb_grpc

pytestmark = pytest.mark.integration

REQUEST = CreateRequest("http://127.0.0.1:7001")


@contextlib.asynccontextmanager
async def managed(
    folder: Path, script: str = FOREVER, *, max_vms: int = 10
) -> AsyncIterator[ManagerService]:
    service = ManagerService(StateFolder(folder), ScriptBackend(script), max_vms=max_vms)
    async with service:
        yield service


async def until(service: ManagerService, vm_id: str, state: VmState) -> None:
    await eventually(lambda: service.get(vm_id).state is state)


def folders(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder / "vms")) for path in folder.glob("vms/**/*"))


def sandboxes(vm_id: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"ID={vm_id}".encode() in path.read_bytes():
                found.append(path.parent.name)
    return found


def assert_nothing_left(vm_id: str) -> None:
    assert sandboxes(vm_id) == []
    assert not [path for root in cgroups.hierarchies() for path in root.glob(f"cocos-{vm_id}")]


async def test_life_and_removal(tmp_path: Path) -> None:
    async with managed(tmp_path) as service:
        record = await service.create(REQUEST)
        assert record.state is VmState.RUNNING
        assert record.forwarded_port == "6100"
        assert sandboxes(record.id)
        await service.remove(record.id)
        assert service.vms() == []
        assert folders(tmp_path) == []
        assert_nothing_left(record.id)
        with pytest.raises(NotFoundError):
            await service.remove(record.id)


async def test_removed_twice_at_once(tmp_path: Path) -> None:
    async with managed(tmp_path) as service:
        vm_id = (await service.create(REQUEST)).id
        await asyncio.gather(service.remove(vm_id), service.remove(vm_id))
        assert_nothing_left(vm_id)
        assert service.vms() == []


async def test_a_crash_is_noticed_with_its_reason(tmp_path: Path) -> None:
    async with managed(tmp_path, "echo up; read line; echo last words; exit 7") as service:
        record = await service.create(REQUEST)
        await until(service, record.id, VmState.FAILED)
        assert service.get(record.id).reason == "the script ended with exit code 7"
        # The record and the console stay for whoever looks into it, nothing else.
        assert folders(tmp_path) == [
            record.id,
            f"{record.id}/console.log",
            f"{record.id}/vm.json",
        ]
        log = b"".join([chunk async for chunk in service.logs(record.id, follow=True)])
        assert log == b"script: up\nscript: last words\n"
        assert_nothing_left(record.id)


async def test_the_consoles_end_comes_after_the_final_state(tmp_path: Path) -> None:
    async with managed(tmp_path, "echo up; exit 7") as service:
        record = await service.create(REQUEST)
        async for _ in service.logs(record.id, follow=True):
            pass
        assert service.get(record.id).state is VmState.FAILED


async def test_an_orderly_end_is_no_failure(tmp_path: Path) -> None:
    async with managed(tmp_path, "echo up; exit 0") as service:
        record = await service.create(REQUEST)
        await until(service, record.id, VmState.STOPPED)


async def test_a_failed_start_leaves_nothing(tmp_path: Path) -> None:
    async with managed(tmp_path, "exit 5") as service:
        with pytest.raises(StateError, match="did not start: the script said nothing"):
            await service.create(REQUEST)
        assert service.vms() == []
        assert folders(tmp_path) == []


async def test_a_bad_request_starts_nothing(tmp_path: Path) -> None:
    async with managed(tmp_path) as service:
        with pytest.raises(CallerError, match="time to live"):
            await service.create(CreateRequest("h:1", ttl="soon"))
        assert folders(tmp_path) == []


async def test_a_time_to_live_ends_it(tmp_path: Path) -> None:
    async with managed(tmp_path) as service:
        record = await service.create(CreateRequest("h:1", ttl="300ms"))
        await until(service, record.id, VmState.EXPIRED)
        assert "time to live" in service.get(record.id).reason
        assert_nothing_left(record.id)


async def test_a_time_to_live_follows_the_clock(tmp_path: Path) -> None:
    """A machine that slept past the end must not wait for the rest of a timer."""
    now = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += dt.timedelta(hours=1)
        await asyncio.sleep(0)

    service = ManagerService(
        StateFolder(tmp_path), ScriptBackend(), max_vms=1, clock=lambda: now, sleep=sleep
    )
    async with service:
        record = await service.create(CreateRequest("h:1", ttl="3h"))
        await until(service, record.id, VmState.EXPIRED)
    assert len(slept) == 3
    assert max(slept) <= 30


async def test_the_limit_counts_what_runs(tmp_path: Path) -> None:
    async with managed(tmp_path, max_vms=2) as service:
        first, _ = await asyncio.gather(service.create(REQUEST), service.create(REQUEST))
        with pytest.raises(StateError, match="2 VMs run"):
            await service.create(REQUEST)
        await service.remove(first.id)
        await service.create(REQUEST)


async def test_a_creator_that_leaves_takes_its_vm_along(tmp_path: Path) -> None:
    async with managed(tmp_path, "sleep 1000") as service:
        creating = asyncio.create_task(service.create(REQUEST))
        await eventually(lambda: service.vms() and sandboxes(service.vms()[0].id))
        vm_id = service.vms()[0].id
        creating.cancel()
        await asyncio.wait({creating})
        assert service.vms() == []
        assert folders(tmp_path) == []
        assert_nothing_left(vm_id)


async def test_a_stopped_manager_ends_its_vms_and_remembers_them(tmp_path: Path) -> None:
    async with managed(tmp_path) as service:
        vm_id = (await service.create(REQUEST)).id
    assert_nothing_left(vm_id)
    async with managed(tmp_path) as service:
        record = service.get(vm_id)
        assert (record.state, record.reason) == (VmState.STOPPED, "the manager was stopped")
        assert [chunk async for chunk in service.logs(vm_id)] == [b"script: up\n"]
        await service.remove(vm_id)
        assert folders(tmp_path) == []


async def test_ended_vms_are_forgotten_at_some_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cocos.manager.service.KEPT_ENDED", 2)
    async with managed(tmp_path, "echo up; exit 0") as service:
        ids = []
        for _ in range(4):
            ids.append((await service.create(REQUEST)).id)
            await until(service, ids[-1], VmState.STOPPED)
        await eventually(lambda: len(service.vms()) == 2)
        assert [record.id for record in service.vms()] == ids[2:]


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[ManagerClient]:
    async with (
        managed(tmp_path) as service,
        serve("127.0.0.1:0", [grpc_service(service, eos_version="7")]) as address,
        ManagerClient(f"http://{address}") as manager,
    ):
        yield manager


async def test_grpc(client: ManagerClient) -> None:
    created = await client.create(pb.CreateReq(agent_cvm_server_url="h:7001", ttl="1h"))
    assert created.forwarded_port == "6100"
    (vm,) = await client.vms()
    assert (vm.id, vm.state, vm.cvms, vm.backend) == (created.cvm_id, "running", "h:7001", "script")
    assert vm.expires is not None
    assert vm.expires - vm.created == dt.timedelta(hours=1)
    info = await client.info(vm.id)
    assert (info.id, info.cpu_num, info.cpu_type, info.eos_version) == (vm.id, 3, "script", "7")
    assert b"".join([chunk async for chunk in client.logs(vm.id)]) == b"script: up\n"
    following = client.logs(vm.id, follow=True)
    assert await anext(following) == b"script: up\n"
    await client.remove(vm.id)
    assert await client.vms() == []


async def test_grpc_errors_have_names(client: ManagerClient) -> None:
    with pytest.raises(NotFoundError, match="no VM nobody"):
        await client.remove("nobody")
    with pytest.raises(NotFoundError, match="no VM nobody"):
        await client.info("nobody")
    with pytest.raises(NotFoundError, match="no VM nobody"):
        await anext(client.logs("nobody"))
    with pytest.raises(CallerError, match="time to live"):
        await client.create(pb.CreateReq(agent_cvm_server_url="h", ttl="soon"))


async def test_attestation_policy_is_refused_with_the_reason(client: ManagerClient) -> None:
    created = await client.create(pb.CreateReq(agent_cvm_server_url="h:7001"))
    async with aio.insecure_channel(client._address) as channel:
        stub = pb_grpc.ManagerServiceStub(channel)
        with pytest.raises(aio.AioRpcError) as caught:
            await stub.AttestationPolicy(pb.AttestationPolicyReq(id=created.cvm_id))
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "not measured" in (caught.value.details() or "")
        with pytest.raises(aio.AioRpcError) as caught:
            await stub.AttestationPolicy(pb.AttestationPolicyReq(id="nobody"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_tls_lets_in_only_who_has_a_certificate(tmp_path: Path) -> None:
    ca, other = trustme.CA(), trustme.CA()
    server, client, stranger = (
        ca.issue_cert("localhost"),
        ca.issue_cert("client.example"),
        other.issue_cert("client.example"),
    )
    (tmp_path / "ca.pem").write_bytes(ca.cert_pem.bytes())
    (tmp_path / "cert.pem").write_bytes(server.cert_chain_pems[0].bytes())
    (tmp_path / "key.pem").write_bytes(server.private_key_pem.bytes())
    config = ManagerConfig(
        server_cert=tmp_path / "cert.pem",
        server_key=tmp_path / "key.pem",
        client_ca=tmp_path / "ca.pem",
    )

    def tls(leaf: trustme.LeafCert | None) -> Tls:
        if leaf is None:
            return Tls(ca.cert_pem.bytes())
        return Tls(
            ca.cert_pem.bytes(), leaf.cert_chain_pems[0].bytes(), leaf.private_key_pem.bytes()
        )

    async with (
        managed(tmp_path / "state") as service,
        serve(
            "localhost:0",
            [grpc_service(service, eos_version="")],
            credentials=credentials(config),
        ) as address,
    ):
        async with ManagerClient(f"https://{address}", tls=tls(client)) as manager:
            assert await manager.vms() == []
        for wrong in (stranger, None):
            async with ManagerClient(f"https://{address}", tls=tls(wrong)) as manager:
                with pytest.raises(UnreachableError):
                    await manager.vms()
        async with ManagerClient(f"http://{address}") as manager:
            with pytest.raises(UnreachableError):
                await manager.vms()


async def test_nobody_there_is_named_with_a_hint() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with ManagerClient(f"http://127.0.0.1:{port}") as manager:
        with pytest.raises(UnreachableError, match=f"127.0.0.1:{port}") as caught:
            await manager.vms()
    assert "cocos-manager" in (caught.value.hint or "")


async def test_http(tmp_path: Path) -> None:
    async with (
        managed(tmp_path) as service,
        serve_http(make_app(service, instance_id="me"), "127.0.0.1:0") as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        await service.create(REQUEST)
        gone = await service.create(REQUEST)
        await service.remove(gone.id)
        answer = await http.get("/health")
        assert answer.headers["content-type"] == "application/health+json"
        body = json.loads(answer.content)
        assert body["status"] == "pass"
        assert body["description"] == "manager service"
        assert body["instance_id"] == "me"
        assert {"commit", "build_time"} <= set(body)  # the original's readers expect them
        assert body["version"]
        metrics = (await http.get("/metrics")).text
        assert re.search(r'^cocos_manager_vms\{state="running"\} 1.0$', metrics, re.MULTILINE)
        assert 'cocos_manager_vms_ended_total{state="stopped"} 1.0' in metrics
        assert (await http.get("/nothing")).status_code == 404
