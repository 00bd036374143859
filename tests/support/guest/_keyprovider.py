# SPDX-License-Identifier: Apache-2.0
"""A key provider as ocicrypt asks it."""

import contextlib
from collections.abc import AsyncIterator

import grpc
from grpc import aio

from cocos.crypto import kek
from cocos.transport.rpc import client_error
from cocos.wire import ocicrypt
from cocos.wire._generated import keyprovider_pb2 as pb
from cocos.wire._generated import keyprovider_pb2_grpc as pb_grpc
from cocos.wire.json import encode
from cocos.wire.kbs.protocol import ResourceUri

OPTIONS = encode(
    {
        "symkey": bytes(range(32)),
        "digest": "sha256:" + "0" * 64,
        "cipheroptions": {"nonce": bytes(range(16))},
    }
)


@contextlib.asynccontextmanager
async def stub(address: str) -> AsyncIterator["pb_grpc.KeyProviderServiceAsyncStub"]:
    async with aio.insecure_channel(address) as channel:
        yield pb_grpc.KeyProviderServiceStub(channel)


async def wrap(address: str, parameter: str) -> bytes:
    """Return the annotation packet, as ocicrypt gets it."""
    document = ocicrypt.wrap_input(OPTIONS, [parameter])
    async with stub(address) as client:
        try:
            reply = await client.WrapKey(
                pb.KeyProviderKeyWrapProtocolInput(KeyProviderKeyWrapProtocolInput=document)
            )
        except grpc.RpcError as error:
            raise client_error(address, error, "it") from error
    return ocicrypt.parse_wrap_output(reply.KeyProviderKeyWrapProtocolOutput)


async def unwrap(address: str, annotation: bytes, parameter: str = "cc_kbc::null") -> bytes:
    """Return the private options, as ocicrypt gets them."""
    document = ocicrypt.unwrap_input(annotation, [parameter])
    async with stub(address) as client:
        try:
            reply = await client.UnWrapKey(
                pb.KeyProviderKeyWrapProtocolInput(KeyProviderKeyWrapProtocolInput=document)
            )
        except grpc.RpcError as error:
            raise client_error(address, error, "it") from error
    return ocicrypt.parse_unwrap_output(reply.KeyProviderKeyWrapProtocolOutput)


def packet(key: bytes, uri: str = "kbs:///default/key/algo-key") -> bytes:
    return ocicrypt.Packet(ResourceUri.parse(uri), kek.wrap(key, OPTIONS)).encode()
