# SPDX-License-Identifier: Apache-2.0
"""Client of the confidential data hub, a process of the same machine."""

from typing import Final, Self

from cocos.clients._local_rpc import LocalChannel
from cocos.wire._generated import confidential_data_hub_pb2 as pb

CALL_SECONDS: Final = 70.0
"""A little more than the hub gives itself for one resource."""

_NAMES = pb.DESCRIPTOR.services_by_name
_GET_RESOURCE = (_NAMES["GetResourceService"].full_name, "GetResource")
_UNSEAL = (_NAMES["SealedSecretService"].full_name, "UnsealSecret")
_WHAT = "the confidential data hub"


class DataHub:
    """One confidential data hub; an async context manager.

    Every method raises UnreachableError if the hub does not answer, and else the error of
    the hub's status code.

    Args:
        address: ``host:port`` or ``unix:/path`` for gRPC, ``unix:///path`` for ttrpc.
    """

    def __init__(self, address: str) -> None:
        self._channel = LocalChannel(address, _WHAT)

    async def __aenter__(self) -> Self:
        await self._channel.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._channel.__aexit__(*exc_info)

    async def resource(self, uri: str) -> bytes:
        """Return the resource of a URI such as ``kbs:///default/key/1``."""
        request = pb.GetResourceRequest(ResourcePath=uri)
        answer = await self._channel.call(
            _GET_RESOURCE, request, pb.GetResourceResponse, CALL_SECONDS
        )
        return answer.Resource

    async def unseal(self, secret: bytes) -> bytes:
        """Return what a sealed secret stands for."""
        request = pb.UnsealSecretInput(secret=secret)
        answer = await self._channel.call(_UNSEAL, request, pb.UnsealSecretOutput, CALL_SECONDS)
        return answer.plaintext
