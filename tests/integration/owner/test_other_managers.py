# SPDX-License-Identifier: Apache-2.0
"""cocos-cli at a manager of the original, which has four methods and dials what it is told."""

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from _local_vms import CLI
from google.protobuf.empty_pb2 import Empty
from grpc import aio

from cocos.host import process
from cocos.wire._generated import manager_pb2 as pb

pytestmark = pytest.mark.integration

VM = "8f7a4b1e-9f55-4b57-9f0e-0d9a6a9b2c11"
UNAVAILABLE = 69


class Original(grpc.GenericRpcHandler):  # type: ignore[misc, unused-ignore]
    """What a manager of the original does on the wire, and what it was asked."""

    def __init__(self, *known: str) -> None:
        self.known = known or ("CreateVm", "RemoveVm", "CVMInfo")
        self.asked: list[str] = []
        self.created: list[pb.CreateReq] = []
        self.address = ""

    async def create_vm(self, request: pb.CreateReq, _: object) -> pb.CreateRes:
        self.created.append(request)
        return pb.CreateRes(cvm_id=VM, forwarded_port="6100")

    async def remove_vm(self, _request: pb.RemoveReq, _: object) -> Empty:
        return Empty()

    async def cvm_info(self, request: pb.CVMInfoReq, _: object) -> pb.CVMInfoRes:
        return pb.CVMInfoRes(id=request.id, cpu_num=4, cpu_type="EPYC-v4", ovmf_version="edk2")

    async def list_vms(self, _request: pb.ListReq, _: object) -> pb.ListRes:
        return pb.ListRes()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = handler_call_details.method.rpartition("/")[2]
        self.asked.append(method)
        if method not in self.known:
            return None
        methods: dict[str, tuple[Any, Any]] = {
            "CreateVm": (self.create_vm, pb.CreateReq),
            "RemoveVm": (self.remove_vm, pb.RemoveReq),
            "CVMInfo": (self.cvm_info, pb.CVMInfoReq),
            "ListVms": (self.list_vms, pb.ListReq),
        }
        call, request = methods[method]
        return grpc.unary_unary_rpc_method_handler(
            call,
            request_deserializer=request.FromString,
            response_serializer=lambda answer: answer.SerializeToString(),
        )

    async def agent(self, *words: str | Path) -> process.Completed:
        where = ("--manager-url", f"http://{self.address}")
        return await process.run([CLI, "agent", *words, *where], check=False)


@contextlib.asynccontextmanager
async def serving(manager: Original) -> AsyncIterator[Original]:
    server = aio.server()
    server.add_generic_rpc_handlers((manager,))
    manager.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield manager
    finally:
        await server.stop(None)


@pytest.mark.parametrize(
    ("words", "method"),
    [(["list"], "ListVms"), (["logs", VM], "Logs"), (["logs", "-f", VM], "Logs")],
)
async def test_what_it_cannot_is_said(words: list[str], method: str) -> None:
    async with serving(Original()) as manager:
        done = await manager.agent(*words)
        assert done.exit_status == UNAVAILABLE, done.stderr
        assert b"cannot do this" in done.stderr
        assert b"hint: managers of the original" in done.stderr
        assert manager.asked == [method]


@pytest.mark.parametrize(
    "known", [["CreateVm"], ["CreateVm", "ListVms"]], ids=["neither", "no console"]
)
async def test_nothing_is_created_that_could_not_be_waited_for(known: list[str]) -> None:
    async with serving(Original(*known)) as manager:
        done = await manager.agent("create", "--cvms-url", "http://10.0.0.1:7001", "--wait")
        assert done.exit_status == UNAVAILABLE, done.stderr
        assert b"hint: managers of the original" in done.stderr
        assert not done.stdout
        assert "CreateVm" not in manager.asked


async def test_one_vm_is_shown_and_only_that_one_asked_for() -> None:
    async with serving(Original()) as manager:
        done = await manager.agent("show", VM, "--json")
        assert done.exit_status == 0, done.stderr
        facts = json.loads(done.stdout)
        assert (facts["id"], facts["cpus"], facts["cpu_type"]) == (VM, 4, "EPYC-v4")
        assert manager.asked == ["CVMInfo"]
        assert b"state" not in (await manager.agent("show", VM)).stdout


async def test_create_and_remove_need_no_more() -> None:
    async with serving(Original()) as manager:
        done = await manager.agent("create", "--cvms-url", "http://10.0.0.1:7001")
        assert done.stdout == f"Virtual machine created with id {VM} and port 6100\n".encode()
        assert (await manager.agent("remove", VM)).exit_status == 0
        assert manager.asked == ["CreateVm", "RemoveVm"]


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("http://10.0.0.1:7001", "10.0.0.1:7001"),
        ("http://cvms.example/", "cvms.example:7001"),
        ("cvms.example:7002", "cvms.example:7002"),
        ("http://[fd00::1]:7001", "[fd00::1]:7001"),
    ],
)
async def test_its_agents_dial_an_address_without_a_scheme(written: str, sent: str) -> None:
    async with serving(Original()) as manager:
        done = await manager.agent("create", "--cvms-url", written)
        assert done.exit_status == 0, done.stderr
        assert [each.agent_cvm_server_url for each in manager.created] == [sent]


async def test_a_scheme_that_is_not_sent_still_counts(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(ca)
    async with serving(Original()) as manager:
        # Sent without its scheme it would have been plaintext.
        done = await manager.agent("create", "--cvms-url", "https://10.0.0.1:7001")
        assert done.exit_status != 0
        assert b"hint: give --cvms-ca" in done.stderr
        done = await manager.agent("create", "--cvms-url", "http://h:1", "--server-ca", ca)
        assert done.exit_status != 0
        assert b"says plaintext" in done.stderr
        # A certificate of the agent's that nobody would ever be shown.
        done = await manager.agent("create", "--cvms-url", "h:1", "--client-crt", ca)
        assert done.exit_status != 0
        assert b"hint: give --cvms-ca" in done.stderr
        assert not manager.created
        done = await manager.agent("create", "--cvms-url", "https://h:1", "--server-ca", ca)
        assert done.exit_status == 0, done.stderr
        assert manager.created[0].agent_cvm_server_url == "h:1"
        assert manager.created[0].agent_cvm_server_ca_cert == ca.read_bytes()
