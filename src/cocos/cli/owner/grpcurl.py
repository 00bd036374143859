# SPDX-License-Identifier: Apache-2.0
"""A small grpcurl: lists, describes and calls what a gRPC server serves, by its reflection.

Stands in for the real grpcurl, which Debian does not package. It calls methods that take
and return one message; it does not stream and says so.
"""

import sys
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import grpc
import typer
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from cocos.cli import _common as common
from cocos.errors import (
    FormatError,
    NotFoundError,
    ProtocolError,
    UnreachableError,
    UsageError,
)
from cocos.transport.rpc import client_error

NAME = "grpcurl"
CALL_SECONDS = 10.0
METHOD_SECONDS = 130.0

app = common.make_app(
    "List, describe and call the services of a gRPC server that has reflection. "
    "A small stand-in for the real grpcurl."
)


@app.command()
def main_command(
    address: Annotated[str, typer.Argument(help="The server, HOST:PORT or unix:/PATH.")],
    verb: Annotated[
        str,
        typer.Argument(
            metavar="list|describe|SERVICE/METHOD", help="What to do, or the method to call."
        ),
    ],
    symbol: Annotated[
        str, typer.Argument(help="Service (list, describe) or message (describe).")
    ] = "",
    *,
    plaintext: Annotated[
        bool, typer.Option("-plaintext", "--plaintext", help="Without TLS; needed.")
    ] = False,
    data: Annotated[
        str,
        typer.Option(
            "-d", help="The method's argument as JSON, bytes as base64; @: standard input."
        ),
    ] = "",
) -> None:
    """List services or the methods of one, describe a service or message, or call a method."""
    if not plaintext:
        raise UsageError("this grpcurl has no TLS", hint="give -plaintext, or get the real one")
    if verb not in {"list", "describe"} and "/" not in verb:
        raise UsageError(f"this grpcurl cannot do {verb!r}", hint="list, describe, SERVICE/METHOD")
    if data == "@":
        data = sys.stdin.read()
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            # The reflection client has no deadline of its own.
            grpc.channel_ready_future(channel).result(timeout=CALL_SECONDS)
            server = ProtoReflectionDescriptorDatabase(channel)
            if "/" in verb:
                lines: Iterable[str] = [_call(channel, server, verb, data or "{}")]
            else:
                lines = _answer(server, verb, symbol)
        except grpc.FutureTimeoutError as error:
            raise UnreachableError(
                f"nobody answers at {address} within {CALL_SECONDS:g} s",
                hint="is it running, and is this its address?",
            ) from error
        except grpc.RpcError as error:
            raise ProtocolError(f"the server at {address} has no reflection") from error
    for line in lines:
        print(line)  # noqa: T201 - the result


def _call(
    channel: grpc.Channel, server: ProtoReflectionDescriptorDatabase, path: str, data: str
) -> str:
    """Call a method and return its answer as JSON."""
    service_name, _, name = path.partition("/")
    try:
        method = DescriptorPool(server).FindServiceByName(service_name).methods_by_name[name]
    except KeyError as error:
        raise NotFoundError(f"the server knows no method {path}") from error
    if method.client_streaming or method.server_streaming:
        raise UsageError(f"{path} streams, and this grpcurl does not")
    try:
        request = json_format.Parse(data, GetMessageClass(method.input_type)())
    except json_format.ParseError as error:
        raise FormatError(f"the argument of {path} does not fit: {error}") from error
    call: Any = channel.unary_unary(
        f"/{path}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    try:
        reply = call(request, timeout=METHOD_SECONDS)
    except grpc.RpcError as error:
        raise client_error(path, error, "the server") from error
    return json_format.MessageToJson(reply)


def _answer(
    server: ProtoReflectionDescriptorDatabase, verb: str, symbol: str
) -> Iterator[str] | list[str]:
    pool = DescriptorPool(server)
    services = sorted(server.get_services())
    try:
        if verb == "list":
            return _methods(pool.FindServiceByName(symbol)) if symbol else services
        if symbol in services:
            return list(_describe_service(pool.FindServiceByName(symbol)))
        if symbol:
            return list(_describe_message(pool.FindMessageTypeByName(symbol)))
        found = [pool.FindServiceByName(name) for name in services]
    except KeyError as error:
        raise NotFoundError(
            f"the server knows no {symbol}", hint=f"it has {', '.join(services)}"
        ) from error
    return [line for service in found for line in _describe_service(service)]


def _methods(service: ServiceDescriptor) -> list[str]:
    return sorted(method.full_name for method in service.methods)


def _describe_service(service: ServiceDescriptor) -> Iterator[str]:
    yield f"{service.full_name} is a service:"
    yield f"service {service.name} {{"
    for method in sorted(service.methods, key=lambda each: each.name):
        takes = _streaming(method.client_streaming, method.input_type)
        gives = _streaming(method.server_streaming, method.output_type)
        yield f"  rpc {method.name} ( {takes} ) returns ( {gives} );"
    yield "}"


def _streaming(streams: bool, message: Descriptor) -> str:
    return f"{'stream ' if streams else ''}.{message.full_name}"


def _describe_message(message: Descriptor) -> Iterator[str]:
    proto = DescriptorProto()
    message.CopyToProto(proto)
    yield f"{message.full_name} is a message:"
    yield f"message {message.name} {{"
    for field in proto.field:
        kind = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
        repeated = field.label == FieldDescriptorProto.LABEL_REPEATED
        words = ["repeated"] * repeated + [field.type_name or kind, field.name]
        yield f"  {' '.join(words)} = {field.number};"
    yield "}"


def main() -> None:
    """Run the program."""
    common.run_app(app, NAME)


if __name__ == "__main__":
    main()
