# SPDX-License-Identifier: Apache-2.0
"""The checks of ``cocos-cli doctor`` of the ports that our programs use."""

import asyncio
import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cocos.cli.owner.doctor_checks import ANSWER_SECONDS, Check, Verdict, get
from cocos.errors import CocosError
from cocos.transport.rpc import calling, readable
from cocos.wire import ocicrypt


@dataclass(frozen=True, slots=True)
class _Port:
    number: int
    name: str
    grpc_service: str = ""
    http_path: str = ""


PORTS = (
    _Port(5000, "registry", http_path="/v2/"),
    _Port(8080, "KBS", http_path="/kbs/v0/auth"),
    _Port(50002, "attestation agent", "attestation_agent.AttestationAgentService"),
    _Port(50011, "key provider", "keyprovider.KeyProviderService"),
    _Port(7001, "CVMS", "cvms.Service"),
    _Port(7020, "manager", "manager.ManagerService"),
    _Port(7003, "manager's health", http_path="/health"),
)


async def check_ports() -> list[Check]:
    """Ports of the guide: free, or who answers there."""
    return list(await asyncio.gather(*map(_check_port, PORTS)))


async def _check_port(port: _Port) -> Check:
    name = f"port {port.number}"
    if await asyncio.to_thread(_is_free, port.number):
        if port.number == _asked_by_skopeo():
            detail = "no key provider answers, whom OCICRYPT_KEYPROVIDER_CONFIG has Skopeo ask"
            fix = f"coco-keyprovider --socket 127.0.0.1:{port.number} --kbs URL"
            return Check(name, Verdict.WARNING, detail, fix)
        return Check(name, Verdict.OK, f"free, for the {port.name}")
    answers = _answers_grpc if port.grpc_service else _answers_http
    if await answers(port):
        return Check(name, Verdict.OK, f"a {port.name} answers")
    return Check(
        name,
        Verdict.WARNING,
        f"taken by something that is no {port.name}",
        f"see who it is: ss -tlnp sport = :{port.number}",
    )


def _asked_by_skopeo() -> int | None:
    """Return the port of the key provider that Skopeo is told to ask in this environment."""
    try:
        config = json.loads(Path(os.environ["OCICRYPT_KEYPROVIDER_CONFIG"]).read_bytes())
        address: str = config["key-providers"][ocicrypt.PROVIDER]["grpc"]
        return int(address.rpartition(":")[2])
    except (KeyError, OSError, ValueError, TypeError, AttributeError):
        return None


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


async def _answers_grpc(port: _Port) -> bool:
    options = [("grpc.enable_http_proxy", 0)]
    address = f"127.0.0.1:{port.number}"
    async with aio.insecure_channel(address, options=options) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service=port.grpc_service)
        try:
            with calling(address, port.grpc_service):
                answer = await stub.Check(request, timeout=ANSWER_SECONDS)
            readable(answer, address, port.grpc_service)
        except CocosError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def _answers_http(port: _Port) -> bool:
    for scheme in ("http", "https"):
        try:
            answer = await get(f"{scheme}://127.0.0.1:{port.number}{port.http_path}", verify=False)
        except httpx.HTTPError:
            continue
        # A KBS refuses GET on its handshake, a private registry wants a login first.
        return answer.status_code in {200, 401, 405}
    return False
