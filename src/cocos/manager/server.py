# SPDX-License-Identifier: Apache-2.0
"""gRPC ⇄ use cases of the manager."""

import datetime as dt
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import aio

from cocos.manager.config import ManagerConfig
from cocos.manager.plan import CreateRequest
from cocos.manager.records import VmRecord
from cocos.manager.service import ManagerService
from cocos.transport.local_callers import LocalCallers
from cocos.transport.rpc import Service, server_credentials
from cocos.wire._generated import manager_pb2 as pb
from cocos.wire._generated import manager_pb2_grpc as pb_grpc

_Context = aio.ServicerContext[Any, Any]

NO_POLICY = (
    "a policy states what a measured VM must measure; VMs of the backend {backend} are not "
    "measured, so there is nothing to state"
)


class ManagerServicer(pb_grpc.ManagerServiceServicer):
    """Serves ``manager.ManagerService``."""

    def __init__(self, service: ManagerService, *, eos_version: str) -> None:
        self._service = service
        self._eos_version = eos_version

    async def CreateVm(self, request: pb.CreateReq, _context: _Context) -> pb.CreateRes:  # noqa: N802 - wire name
        record = await self._service.create(_create_request(request))
        return pb.CreateRes(forwarded_port=record.forwarded_port, cvm_id=record.id)

    async def RemoveVm(self, request: pb.RemoveReq, _context: _Context) -> Empty:  # noqa: N802 - wire name
        await self._service.remove(request.cvm_id)
        return Empty()

    async def CVMInfo(self, request: pb.CVMInfoReq, _context: _Context) -> pb.CVMInfoRes:  # noqa: N802 - wire name
        record = self._service.get(request.id)
        hardware = self._service.hardware()
        return pb.CVMInfoRes(
            id=record.id,
            ovmf_version=hardware.ovmf_version,
            cpu_num=hardware.cpu_count,
            cpu_type=hardware.cpu_type,
            kernel_cmd=hardware.kernel_command,
            eos_version=self._eos_version,
            cvm=_cvm(record, self._service.problem(record.id)),
        )

    async def AttestationPolicy(  # noqa: N802 - wire name
        self, request: pb.AttestationPolicyReq, context: _Context
    ) -> pb.AttestationPolicyRes:
        record = self._service.get(request.id)
        values = self._service.reference_values()
        if values is None:
            reason = NO_POLICY.format(backend=record.backend)
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, reason)
        return pb.AttestationPolicyRes(id=record.id, info=values)

    async def ListVms(self, _request: pb.ListReq, _context: _Context) -> pb.ListRes:  # noqa: N802 - wire name
        problem = self._service.problem
        return pb.ListRes(cvms=[_cvm(vm, problem(vm.id)) for vm in self._service.vms()])

    async def Logs(self, request: pb.LogsReq, _context: _Context) -> AsyncIterator[pb.LogsRes]:  # noqa: N802 - wire name
        async for chunk in self._service.logs(request.cvm_id, follow=request.follow):
            yield pb.LogsRes(data=chunk)


def grpc_service(service: ManagerService, *, eos_version: str) -> Service:
    """Return the manager as :func:`cocos.transport.rpc.serve` wants it."""
    servicer = ManagerServicer(service, eos_version=eos_version)
    return Service(
        "manager.ManagerService",
        partial(pb_grpc.add_ManagerServiceServicer_to_server, servicer),
    )


def credentials(config: ManagerConfig) -> grpc.ServerCredentials | None:
    """Return the TLS side of the API, or None for plaintext.

    Raises:
        ConfigError: a file cannot be read.
    """
    if config.server_cert is None or config.server_key is None:
        return None
    cas = [] if config.client_ca is None else [config.client_ca]
    return server_credentials(config.server_cert, config.server_key, cas, "the clients' CA")


def callers(config: ManagerConfig) -> LocalCallers | None:
    """Return the users of this machine who may use the API; None: who has a certificate, or all.

    Raises:
        ConfigError: there is no such user.
    """
    if config.client_ca is not None or config.insecure_api:
        return None
    return LocalCallers.of(config.allow_users)


def _create_request(message: pb.CreateReq) -> CreateRequest:
    return CreateRequest(
        cvms_url=message.agent_cvm_server_url,
        log_level=message.agent_log_level,
        ttl=message.ttl,
        kbs_params=message.aa_kbs_params,
        ca_url=message.agent_cvm_ca_url,
        server_ca=message.agent_cvm_server_ca_cert,
        client_cert=message.agent_cvm_client_cert,
        client_key=message.agent_cvm_client_key,
        registry_ca=message.registry_ca_cert,
        registry_credentials=message.registry_credentials,
        certs_token=message.agent_certs_token,
        keep=message.keep,
        aws={
            "AWS_ACCESS_KEY_ID": message.aws_access_key_id,
            "AWS_SECRET_ACCESS_KEY": message.aws_secret_access_key,
            "AWS_ENDPOINT_URL": message.aws_endpoint_url,
            "AWS_REGION": message.aws_region,
        },
    )


def _cvm(record: VmRecord, problem: str) -> pb.Cvm:
    return pb.Cvm(
        id=record.id,
        backend=record.backend,
        state=record.state,
        forwarded_port=record.forwarded_port,
        created=_timestamp(record.created),
        expires=None if record.expires is None else _timestamp(record.expires),
        cvms_url=record.cvms,
        reason=record.reason,
        outcome=record.outcome,
        problem=problem,
    )


def _timestamp(moment: dt.datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
