# SPDX-License-Identifier: Apache-2.0
import base64
import hashlib
import json
import struct
from typing import Any

import pytest
from _vectors import vector

from cocos.errors import FormatError
from cocos.evidence.event_details import details, runtime_event, summary
from cocos.evidence.eventlog import (
    MAX_EVENTS,
    Event,
    first_difference,
    parse_log,
    parse_records,
    replay,
    values,
)

TAGGED = bytes.fromhex("4c45414118000000646f6d61696e206f7065726174696f6e20636f6e74656e74")
SPEC_ID = b"Spec ID Event03\0" + struct.pack("<I4BI", 0, 0, 2, 0, 2, 1)


def header(event: bytes = SPEC_ID + struct.pack("<HHB", 0xB, 32, 0), kind: int = 3) -> bytes:
    return struct.pack("<II20xI", 0, kind, len(event)) + event


def entry(
    index: int, kind: int, data: bytes, digest: bytes | None = None, algorithm: int = 0xB
) -> bytes:
    digest = hashlib.sha256(data).digest() if digest is None else digest
    head = struct.pack("<IIIH", index, kind, 1, algorithm)
    return head + digest + struct.pack("<I", len(data)) + data


def test_a_log_of_the_firmware() -> None:
    assert parse_log(b"") == ()
    assert parse_log(header()) == ()
    (event,) = parse_log(header() + entry(4, 4, bytes(4)))
    assert (event.index, event.type_name) == (4, "EV_SEPARATOR")
    assert event.digest_matches("sha256")
    assert not event.digest_matches("sha384")
    for filling in (b"\xff" * 8, bytes(64)):
        assert parse_log(header() + entry(4, 4, b"x") + filling)[0].data == b"x"
    assert Event(0, 0x99, {}, b"").type_name == "0x00000099"


def test_records_of_the_attestation_agent() -> None:
    """The example of guest-components.md §2.7."""
    (event,) = parse_records(entry(14, 6, TAGGED))
    expected = "46df8dacf00a07d34a83cdf56d7978697790787cf2ba1432ef7c38f22cd96351"
    assert event.digests["sha256"].hex() == expected
    assert event.digest_matches("sha256")
    found = runtime_event(event)
    assert found is not None
    assert (found.domain, found.operation, found.content) == ("domain", "operation", "content")
    assert summary(event) == "EV_EVENT_TAG domain operation content"


@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        header()[:-1],
        header(kind=4),
        header(SPEC_ID[:-4]),
        header(b"Spec ID Event02\0" + SPEC_ID[16:] + struct.pack("<HHB", 0xB, 32, 0)),
        header(SPEC_ID + struct.pack("<HHB", 0xB, 20, 0)),
        header(SPEC_ID + struct.pack("<HHB", 0xB, 32, 1)),
        header(SPEC_ID[:-4] + struct.pack("<I", 17)),
        header() + entry(4, 4, b"x")[:-1],
        header() + entry(4, 4, b"x", algorithm=0xC),
        header() + struct.pack("<III", 4, 4, 17),
        header() + struct.pack("<III", 4, 4, 0) + struct.pack("<I", 2**32 - 1),
        header() + struct.pack("<III", 4, 4, 2) + 2 * (b"\x0b\0" + bytes(32)) + bytes(3) + b"\1",
        header() + b"\xff" * 8 + b"x",
        header() + entry(1, 1, b"") * (MAX_EVENTS + 1),
    ],
)
def test_no_log(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_log(data)


@pytest.mark.parametrize(
    "data",
    [TAGGED + b"x", TAGGED[:-1], b"LEAA\1\0\0\0x", b"LEAA\3\0\0\0 a ", b"LEAA\5\0\0\0a b \xff"],
)
def test_no_runtime_event(data: bytes) -> None:
    with pytest.raises(FormatError, match="runtime event"):
        runtime_event(Event(14, 6, {}, data))


def test_replay() -> None:
    one, two = hashlib.sha256(b"1").digest(), hashlib.sha256(b"2").digest()
    events = [
        Event(0, 3, {}, b"StartupLocality\0\3"),
        Event(4, 4, {"sha256": one}, b""),
        Event(5, 4, {"sha1": bytes(20)}, b""),
        Event(4, 4, {"sha256": two}, b""),
    ]
    first = hashlib.sha256(bytes(32) + one).digest()
    assert replay(events, 4) == hashlib.sha256(first + two).digest()
    assert replay(events, 7) == bytes(32)
    assert replay(events, 0) == bytes(31) + b"\3"
    with pytest.raises(FormatError, match="PCR 5"):
        replay(events, 5)
    assert list(values(events, 4)) == [bytes(32), first, hashlib.sha256(first + two).digest()]
    assert list(values(events, 7)) == [bytes(32)]
    # The locality is where PCR 0 starts: later it would be a way to choose a byte of it.
    late = [Event(0, 4, {"sha256": one}, b""), *events]
    assert replay(late, 0) == first


def test_first_difference() -> None:
    assert first_difference([], []) is None
    assert first_difference(["a"], ["a"]) is None
    assert first_difference(["a", "b"], ["a"]) == 1
    assert first_difference(["a"], ["a", "b"]) == 1
    assert first_difference(["x", "b"], ["a", "b"]) == 0


def test_details_of_a_text_in_utf_16() -> None:
    said = details(Event(12, 0xD, {}, "quiet\u00a0init\n=/x\0".encode("utf-16-le")))
    assert said == {"string": "quiet\ufffdinit\ufffd=/x"}


def test_a_real_log_reads_as_expected() -> None:
    expected: list[Any] = json.loads(vector("eventlog/ccel-aael.json"))["uefi_event_logs"]
    events = parse_log(vector("eventlog/ccel-aael.bin"))
    shown = [
        {
            "details": details(event),
            "digest_matches_event": event.digest_matches("sha384"),
            "digests": [{"alg": "SHA-384", "digest": event.digests["sha384"].hex()}],
            "event": base64.b64encode(event.data).decode(),
            "index": event.index,
            "type_name": event.type_name,
        }
        for event in events
    ]
    assert shown == expected
    assert len(parse_log(vector("tdx/quote-v4-ccel.bin"))) == 5
