# SPDX-License-Identifier: Apache-2.0
"""Frames of ttrpc, which the guest components speak on Unix sockets instead of gRPC.

A frame is u32 length, u32 stream, u8 kind, u8 flags, all big-endian, and that many bytes.
A call is one frame with a ``Request`` and one of the same stream with the ``Response``;
clients number streams 1, 3, 5, …
"""

import struct
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from cocos.errors import FormatError
from cocos.wire._generated import ttrpc_pb2 as pb

MAX_MESSAGE_BYTES: Final = 4 * 2**20
"""The limit of ttrpc itself."""

REQUEST: Final = 1
RESPONSE: Final = 2
GRPC: Final = b"PRI "
"""How a client of gRPC begins."""

_HEADER: Final = struct.Struct(">IIBB")
HEADER_BYTES: Final = _HEADER.size


@dataclass(frozen=True, slots=True)
class Header:
    """What stands before a frame's bytes."""

    length: int
    stream: int
    kind: int

    @classmethod
    def parse(cls, data: bytes) -> "Header":
        """Parse :data:`HEADER_BYTES` bytes."""
        length, stream, kind, _flags = _HEADER.unpack(data)
        return cls(length, stream, kind)


def frame(stream: int, kind: int, payload: bytes) -> bytes:
    """Return a frame."""
    return _HEADER.pack(len(payload), stream, kind, 0) + payload


def parse_request(payload: bytes) -> pb.Request:
    """Parse the payload of a request's frame.

    Raises:
        FormatError: no ``Request``.
    """
    try:
        return pb.Request.FromString(payload)
    except DecodeError as error:
        raise FormatError("the ttrpc request is malformed") from error


def parse_response(payload: bytes) -> pb.Response:
    """Parse the payload of a response's frame.

    Raises:
        FormatError: no ``Response``.
    """
    try:
        return pb.Response.FromString(payload)
    except DecodeError as error:
        raise FormatError("the ttrpc response is malformed") from error
