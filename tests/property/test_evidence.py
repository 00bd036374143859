# SPDX-License-Identifier: Apache-2.0
"""Parsers of evidence on bytes that nobody expected: a value or FormatError, nothing else."""

import contextlib
import hashlib
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocos.attestation_agent.event import record, tagged_event
from cocos.errors import FormatError
from cocos.evidence import eventlog, nvidia
from cocos.evidence.event_details import details, runtime_event, summary
from cocos.evidence.eventlog import TYPES, Event, parse_log, parse_records
from cocos.evidence.tpm import Quote, RsaPublic, Signature

HEADER = struct.pack("<II20xI", 0, 3, 33) + (
    b"Spec ID Event03\0" + struct.pack("<I4BIHHB", 0, 0, 2, 0, 2, 1, 0x0B, 32, 0)
)
QUOTE = bytes.fromhex("ff54434780180000")
PUBLIC = bytes.fromhex("00200001000b000500720000")
SPDM = bytes.fromhex("11e001ff") + bytes(33) + bytes.fromhex("116000000110000001010b0001")
STARTS = st.sampled_from([b"", HEADER, QUOTE, PUBLIC, SPDM, b"\0\x14\0\x0b"])
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Z", "C"]), min_size=1)
EVENTS = st.builds(
    Event,
    st.integers(0, 23),
    st.sampled_from([*TYPES, 0x99]),
    st.just({}),
    st.binary() | st.binary(min_size=16).map(lambda data: data[:16] + bytes(7) + data[16:]),
)


@pytest.mark.parametrize(
    "parse",
    [
        Quote.parse,
        Signature.parse,
        RsaPublic.parse,
        parse_log,
        parse_records,
        nvidia.Report.parse,
    ],
)
@given(start=STARTS, data=st.binary(max_size=200))
def test_parsers_are_total(parse: Callable[[bytes], object], start: bytes, data: bytes) -> None:
    with contextlib.suppress(FormatError):
        parse(start + data)


@given(event=EVENTS)
def test_every_event_can_be_described(event: Event) -> None:
    assert isinstance(details(event), dict)
    assert summary(event).isprintable()


@given(
    entries=st.lists(
        st.tuples(st.integers(0, 15), st.sampled_from(sorted(TYPES)), st.binary(max_size=40))
    ),
    cut=st.integers(1, 10),
)
def test_logs_survive_a_round_trip_and_no_cut(
    entries: list[tuple[int, int, bytes]], cut: int
) -> None:
    data = HEADER
    for index, kind, text in entries:
        data += struct.pack("<IIIH", index, kind, 1, 0xB) + hashlib.sha256(text).digest()
        data += struct.pack("<I", len(text)) + text
    events = parse_log(data)
    assert [(event.index, event.type, event.data) for event in events] == entries
    assert all(event.digest_matches("sha256") for event in events)
    for index in {event.index for event in events}:
        assert len(eventlog.replay(events, index)) == 32
    if entries:
        with pytest.raises(FormatError):
            parse_log(data[:-cut])


@given(
    domain=WORDS,
    operation=WORDS,
    content=st.text(st.characters(codec="ascii", exclude_categories=["C"])),
)
def test_what_the_agent_writes_is_what_we_read(domain: str, operation: str, content: str) -> None:
    tagged = tagged_event(domain, operation, content)
    (event,) = parse_records(record(14, hashlib.sha256(tagged).digest(), tagged))
    found = runtime_event(event)
    assert found is not None
    assert (found.domain, found.operation, found.content) == (domain, operation, content)
