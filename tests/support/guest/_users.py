# SPDX-License-Identifier: Apache-2.0
"""What another user of this machine gets when he asks; for tests that run as root."""

import json
import sys

from cocos.host import process

NOBODY = 65534

CALL = """
import json, os, sys
import grpc
from cocos.wire._generated import keyprovider_pb2 as pb, keyprovider_pb2_grpc as pb_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
address, uid = sys.argv[1], int(sys.argv[2])
os.setgroups([])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
found = {}
with grpc.insecure_channel(address) as channel:
    stub = pb_grpc.KeyProviderServiceStub(channel)
    request = pb.KeyProviderKeyWrapProtocolInput(KeyProviderKeyWrapProtocolInput=b"x")
    calls = {
        "wrap": lambda: stub.WrapKey(request, timeout=20),
        "again": lambda: stub.UnWrapKey(request, timeout=20),
        "health": lambda: health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(), timeout=20),
        "watch": lambda: next(health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(), timeout=20)),
        "reflection": lambda: next(
            reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
                iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=20)),
    }
    for name, call in calls.items():
        try:
            call()
            found[name] = ["OK", ""]
        except grpc.RpcError as error:
            found[name] = [error.code().name, error.details()]
print(json.dumps(found))
"""

GET = """
import encodings.idna, http.client, os, sys
url, uid = sys.argv[1], int(sys.argv[2])
os.setgroups([])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
host, _, port = url.rpartition("/")[2].partition(":")
client = http.client.HTTPConnection(host, int(port))
client.request("GET", "/info")
answer = client.getresponse()
print(answer.status, answer.read().decode())
"""


async def calls_as(uid: int, address: str) -> dict[str, list[str]]:
    result = await process.run([sys.executable, "-c", CALL, address, str(uid)], timeout=100)
    found: dict[str, list[str]] = json.loads(result.stdout)
    return found


async def http_as(uid: int, url: str) -> tuple[int, str]:
    """Return status and body of ``/info``."""
    result = await process.run([sys.executable, "-c", GET, url, str(uid)], timeout=100)
    status, _, body = result.stdout.decode().partition(" ")
    return int(status), body
