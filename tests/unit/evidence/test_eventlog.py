# SPDX-License-Identifier: Apache-2.0
import base64
import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from _vectors import vector

from cocos.errors import FormatError
from cocos.evidence.event_details import details, runtime_event, summary
from cocos.evidence.eventlog import (
    ALGORITHMS,
    EMPTY_CC_LOG,
    MAX_EVENTS,
    TYPES,
    Event,
    first_difference,
    log_end,
    parse_log,
    parse_records,
    replay,
    values,
)
from cocos.host import process

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


def several(*hashes: tuple[int, int], vendor: bytes = b"", extra: bytes = b"") -> bytes:
    """A first entry that names these hashes and their lengths."""
    named = b"".join(struct.pack("<HH", *each) for each in hashes)
    count = struct.pack("<I", len(hashes))
    return header(SPEC_ID[:-4] + count + named + bytes([len(vendor)]) + vendor + extra)


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
        header() + struct.pack("<III", 4, 4, 2) + 2 * (b"\x0b\0" + bytes(32)) + bytes(4),
        several((0xB, 32), extra=b"x"),
        several((0xB, 32), vendor=b"x")[:-1],
        header() + b"\xff" * 8 + b"x",
        header() + entry(1, 1, b"") * (MAX_EVENTS + 1),
    ],
)
def test_no_log(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_log(data)


async def test_types_are_called_as_others_call_them(tmp_path: Path) -> None:
    """Policies name them, and some decide what a digest has to be over."""
    numbers = [*range(0x20), *range(0x80000001, 0x80000100)]
    path = tmp_path / "log"
    path.write_bytes(header() + b"".join(entry(1, number, bytes(128)) for number in numbers))
    tool = process.find_tool("tpm2_eventlog", hint="apt-get install tpm2-tools")
    shown = (await process.run([tool, path], timeout=60)).stdout.decode().splitlines()
    names = [line.partition("EventType: ")[2] for line in shown if "EventType" in line][1:]
    theirs = dict(zip(numbers, names, strict=True))
    newer = {
        0x80000010: "EV_EFI_HCRTM_EVENT",
        0x800000E1: "EV_EFI_SPDM_FIRMWARE_BLOB",
        0x800000E2: "EV_EFI_SPDM_FIRMWARE_CONFIG",
    }
    known = {number: name for number, name in theirs.items() if name.startswith("EV_")}
    assert known | newer == {2: "EV_UNUSED", **TYPES}


@pytest.mark.parametrize(
    ("number", "name", "size"),
    [
        (0x4, "sha1", 20),
        (0xB, "sha256", 32),
        (0xC, "sha384", 48),
        (0xD, "sha512", 64),
        (0x12, "sm3", 32),
    ],
)
def test_hashes_have_their_own_length(number: int, name: str, size: int) -> None:
    assert ALGORITHMS[number] == name
    record = entry(1, 1, b"x", bytes(size), number)
    for events in (parse_log(several((number, size)) + record), parse_records(record)):
        assert [event.digests for event in events] == [{name: bytes(size)}]
    for other in (0, size - 1, size + 1, 2 * size):
        with pytest.raises(FormatError, match=f"{name} has {other} bytes"):
            parse_log(several((number, other)) + entry(1, 1, b"x", bytes(other), number))


def test_hashes_that_nobody_has_named() -> None:
    """Of whatever length the log says; they vouch for nothing."""
    start = several((0x99, 3), (0xB, 32), vendor=b"somebody")
    record = struct.pack("<IIIH3sH32s", 1, 1, 2, 0x99, b"abc", 0xB, bytes(32)) + bytes(4)
    (event,) = parse_log(start + record)
    assert event.digests == {"0x0099": b"abc", "sha256": bytes(32)}
    assert not event.digest_matches("0x0099")
    assert not event.digest_matches("sha1")
    with pytest.raises(FormatError, match="unknown kind"):
        parse_records(record)


def test_a_log_at_its_limits() -> None:
    """What a stranger sends is work: so much, and no more."""
    assert len(parse_log(header() + entry(1, 1, b"") * 4096)) == 4096
    (event,) = parse_records(entry(1, 1, bytes(2**20)))
    assert len(event.data) == 2**20
    hashes = [(0x100 + number, 1) for number in range(16)]
    assert parse_log(several(*hashes)) == ()
    record = struct.pack("<III", 1, 1, 16)
    record += b"".join(struct.pack("<HB", number, 7) for number, _ in hashes) + bytes(4)
    (event,) = parse_log(several(*hashes) + record)
    assert len(event.digests) == 16
    for data in (
        header() + entry(1, 1, b"") * 4097,
        header() + entry(1, 1, bytes(2**20 + 1)),
        several(*hashes, (0x110, 1)),
    ):
        with pytest.raises(FormatError, match=r"more than 4096|1048576 are allowed|17 hashes"):
            parse_log(data)


@pytest.mark.parametrize(
    "data",
    [TAGGED + b"x", TAGGED[:-1], b"LEAA\1\0\0\0x", b"LEAA\3\0\0\0 a ", b"LEAA\5\0\0\0a b \xff"],
)
def test_no_runtime_event(data: bytes) -> None:
    with pytest.raises(FormatError, match="runtime event"):
        runtime_event(Event(14, 6, {}, data))


@pytest.mark.parametrize(
    ("kind", "data"),
    [(0xD, TAGGED), (3, TAGGED), (6, b"LEAX" + TAGGED[4:]), (6, b"LEA"), (6, b"")],
)
def test_not_a_runtime_event_at_all(kind: int, data: bytes) -> None:
    """It is one by type and tag: then its digest must be over its text."""
    assert runtime_event(Event(14, kind, {}, data)) is None


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
    later = [*late, Event(0, 4, {"sha256": two}, b"")]
    assert replay(later, 0) == hashlib.sha256(first + two).digest()


@pytest.mark.parametrize(
    ("index", "data"),
    [
        (0, b"StartupLocality\0"),
        (0, b"StartupLocality\0\3\3"),
        (0, b"StartupLocalitY\0\3"),
        (0, b"Startup\3"),
        (1, b"StartupLocality\0\3"),
        (14, b"StartupLocality\0\3"),
    ],
)
def test_where_a_pcr_starts_is_not_for_a_log_to_say(index: int, data: bytes) -> None:
    """But for one byte of PCR 0: else a log could begin after what it hides."""
    assert replay([Event(index, 3, {"sha256": b"1" * 32}, data)], index) == bytes(32)


def test_first_difference() -> None:
    assert first_difference([], []) is None
    assert first_difference(["a"], ["a"]) is None
    assert first_difference(["a", "b"], ["a"]) == 1
    assert first_difference(["a"], ["a", "b"]) == 1
    assert first_difference(["x", "b"], ["a", "b"]) == 0
    assert first_difference(["a", "b", "c"], ["a", "b", "c"]) is None
    assert first_difference(["a", "x", "c"], ["a", "b", "c"]) == 1


def test_details_of_a_text_in_utf_16() -> None:
    said = details(Event(12, 0xD, {}, "quiet\u00a0init\n=/x\0".encode("utf-16-le")))
    assert said == {"string": "quiet\ufffdinit\ufffd=/x"}
    assert details(Event(12, 0xD, {}, b"a\0b\0")) == {"string": "ab"}
    assert details(Event(12, 0xD, {}, b"\0\0\0\0a\0")) == {"string": ""}


def node(kind: int, subtype: int, body: bytes = b"") -> bytes:
    return struct.pack("<BBH", kind, subtype, 4 + len(body)) + body


END = node(0x7F, 0xFF)
FILE = node(4, 4, "kernel\0".encode("utf-16-le"))


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (FILE + END + FILE, ["File(kernel)"]),
        (FILE, ["File(kernel)"]),
        (b"", []),
        (node(2, 1, struct.pack("<HHI", 0x41D0, 0xA03, 1)), ["ACPI(PNP0A03,1)"]),
        (node(2, 1, struct.pack("<HHI", 0x1234, 0xA03, 1)), ["ACPI(12340A03,1)"]),
        (
            node(4, 1, struct.pack("<IQQ16sBB", 1, 2, 3, bytes(range(16)), 2, 2)),
            ["HD(1,GPT,03020100-0504-0706-0809-0A0B0C0D0E0F,0x2,0x3)"],
        ),
        (
            node(4, 1, struct.pack("<IQQ16sBB", 1, 2, 3, bytes(range(16)), 1, 1)),
            ["HD(1,1,000102030405060708090a0b0c0d0e0f,0x2,0x3)"],
        ),
        (node(3, 9, b"ab") * 70, ["Path(3,9,6162)"] * 64),
    ],
    ids=["to its end", "without end", "empty", "PNP", "ACPI", "GPT", "MBR", "long"],
)
def test_where_a_program_came_from(path: bytes, shown: list[str]) -> None:
    """In the text form of UEFI §10.6; policies compare it."""
    event = Event(4, 0x80000003, {}, struct.pack("<24xQ", len(path)) + path)
    assert details(event) == {"device_paths": shown}
    assert summary(event) == " ".join(["EV_EFI_BOOT_SERVICES_APPLICATION", *shown])


def test_what_is_shown_of_an_event_is_not_endless() -> None:
    assert details(Event(12, 0xD, {}, b"a" * 5000)) == {"string": "a" * 4096}


def test_the_name_of_a_variable() -> None:
    data = struct.pack("<16xQQ", 2, 1) + "db".encode("utf-16-le") + b"\1"
    assert summary(Event(7, 0x80000001, {}, data)) == "EV_EFI_VARIABLE_DRIVER_CONFIG db"


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


def test_a_log_that_begins_without_a_signature_is_the_guest_components() -> None:
    """They write zeros where the firmware of a TDX guest left no log; nothing else counts."""
    assert parse_log(EMPTY_CC_LOG) == ()
    assert log_end(EMPTY_CC_LOG + b"\xff" * 8) == len(EMPTY_CC_LOG)
    for place in range(32, 48):
        changed = bytearray(EMPTY_CC_LOG)
        changed[place] = 1
        with pytest.raises(FormatError, match="crypto-agile"):
            parse_log(bytes(changed))
