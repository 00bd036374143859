# SPDX-License-Identifier: Apache-2.0
import contextlib

from hypothesis import given
from hypothesis import strategies as st

from cocos.errors import FormatError
from cocos.wire import ttrpc
from cocos.wire._generated import ttrpc_pb2 as pb


@given(stream=st.integers(0, 2**32 - 1), kind=st.integers(0, 255), payload=st.binary(max_size=200))
def test_frames_round_trip(stream: int, kind: int, payload: bytes) -> None:
    data = ttrpc.frame(stream, kind, payload)
    header = ttrpc.Header.parse(data[: ttrpc.HEADER_BYTES])
    assert header == ttrpc.Header(len(payload), stream, kind)
    assert data[ttrpc.HEADER_BYTES :] == payload


@given(data=st.binary(max_size=100))
def test_garbage_is_a_message_or_a_format_error(data: bytes) -> None:
    for parse in (ttrpc.parse_request, ttrpc.parse_response):
        with contextlib.suppress(FormatError):
            parse(data)


@given(service=st.text(max_size=20), method=st.text(max_size=20), payload=st.binary(max_size=50))
def test_requests_round_trip(service: str, method: str, payload: bytes) -> None:
    request = pb.Request(service=service, method=method, payload=payload, timeout_nano=5)
    assert ttrpc.parse_request(request.SerializeToString()) == request
