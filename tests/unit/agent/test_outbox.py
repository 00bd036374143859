# SPDX-License-Identifier: Apache-2.0
"""The agent's outbox: order, bounds, results whole; manifests in pieces."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from cocos.agent.kept import Kept
from cocos.agent.outbox import CHUNK_BYTES, Outbox, Parcel, result_chunks
from cocos.agent.pieces import Pieces
from cocos.errors import TooLargeError
from cocos.wire._generated import cvms_pb2 as pb
from cocos.wire.manifest.computation import MAX_MANIFEST_BYTES
from cocos.wire.manifest.identity import Identity

IDENTITY = Identity("1", "ab" * 32)
OTHER = Identity("1", "cd" * 32)
KEPT = Kept(IDENTITY, b"r")


def event(name: str) -> pb.ClientStreamMessage:
    return pb.ClientStreamMessage(agent_event=pb.AgentEvent(event_type=name))


def log(text: str) -> pb.ClientStreamMessage:
    return pb.ClientStreamMessage(agent_log=pb.AgentLog(message=text))


def text(parcel: Parcel) -> str:
    message = next(iter(parcel.messages()))
    return message.agent_event.event_type or message.agent_log.message or "result"


async def drain(outbox: Outbox) -> list[str]:
    found = []
    while len(outbox):
        parcel = await outbox.next()
        found.append(text(parcel))
        outbox.done(parcel)
    return found


async def test_order_is_kept_and_what_was_not_taken_stays() -> None:
    outbox = Outbox()
    for name in "abc":
        outbox.put(event(name))
    assert text(await outbox.next()) == "a"
    assert text(await outbox.next()) == "a"
    assert await drain(outbox) == ["a", "b", "c"]


async def test_logs_give_way_first_oldest_first() -> None:
    outbox = Outbox(limit=4)
    outbox.put(event("a"))
    for name in "12":
        outbox.put(log(name), droppable=True)
    for name in "bcd":
        outbox.put(event(name))
    outbox.put(log("3"), droppable=True)
    assert outbox.dropped == 3
    assert await drain(outbox) == ["a", "b", "c", "d"]


async def test_a_full_box_never_gives_up_the_result() -> None:
    outbox = Outbox(limit=3)
    outbox.put(event("a"))
    outbox.put_result(KEPT)
    for name in "bcdef":
        outbox.put(event(name))
    assert await drain(outbox) == ["a", "result", "f"]


async def test_what_is_kept_is_sent_over_every_stream_until_forgotten() -> None:
    outbox = Outbox()
    outbox.put(event("a"), of=IDENTITY)
    outbox.put(log("1"), droppable=True)
    parcel = outbox.put_result(KEPT)
    outbox.reopen()
    assert await drain(outbox) == ["a", "1", "result"]
    assert not parcel.stored.is_set()
    outbox.put(event("b"), of=IDENTITY)
    outbox.reopen()
    assert await drain(outbox) == ["a", "result", "b"]
    outbox.reopen()
    outbox.forget()
    assert await drain(outbox) == ["a", "b"]
    outbox.forget()
    outbox.reopen()
    assert len(outbox) == 0


async def test_a_receipt_for_what_is_on_its_way() -> None:
    """The answer may be here before gRPC says that it has taken the last message."""
    outbox = Outbox()
    result = outbox.put_result(KEPT)
    on_its_way = await outbox.next()
    assert outbox.result_stored(IDENTITY, KEPT.digest())
    outbox.done(on_its_way)
    assert result.stored.is_set()
    outbox.put(event("Complete"), of=IDENTITY, is_ending=True)
    on_its_way = await outbox.next()
    assert outbox.ending_stored(IDENTITY)
    outbox.done(on_its_way)
    outbox.reopen()
    assert len(outbox) == 0


async def test_an_ending_takes_only_its_own_computation_along() -> None:
    outbox = Outbox()
    outbox.put(event("Interrupted"), of=OTHER, is_ending=True)
    outbox.put(event("a"), of=IDENTITY)
    assert await drain(outbox) == ["Interrupted", "a"]
    assert not outbox.ending_stored(IDENTITY)
    assert outbox.ending_stored(OTHER)
    assert not outbox.ending_stored(OTHER)
    outbox.reopen()
    assert await drain(outbox) == ["a"]


async def test_an_end_that_is_stored_is_no_receipt_for_the_result() -> None:
    outbox = Outbox()
    result = outbox.put_result(KEPT)
    outbox.put(event("Complete"), of=IDENTITY, is_ending=True)
    await drain(outbox)
    assert outbox.ending_stored(IDENTITY)
    outbox.reopen()
    assert await drain(outbox) == ["result"]
    assert not result.stored.is_set()


@given(st.integers(0, 3 * CHUNK_BYTES))
def test_chunks(size: int) -> None:
    data = bytes(size)
    chunks = [message.resultChunk for message in result_chunks(Kept(IDENTITY, data))]
    assert b"".join(chunk.data for chunk in chunks) == data
    assert [chunk.is_last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert all(len(chunk.data) <= CHUNK_BYTES for chunk in chunks)


def test_pieces_of_two_manifests_do_not_mix() -> None:
    collected = Pieces()
    assert collected.add("a", b"1", last=False) is None
    assert collected.add("b", b"x", last=False) is None
    assert collected.add("a", b"", last=True) == b"1"
    assert collected.add("b", b"y", last=True) == b"xy"
    assert collected.add("a", b"2", last=True) == b"2"


def test_pieces_are_bounded() -> None:
    collected = Pieces()
    collected.add("a", bytes(MAX_MANIFEST_BYTES), last=False)
    with pytest.raises(TooLargeError):
        collected.add("a", b"x", last=False)
    assert collected.add("a", b"1", last=True) == b"1"
    for name in "bcde":
        collected.add(name, b"", last=False)
    with pytest.raises(TooLargeError, match="begun and not ended"):
        collected.add("f", b"", last=False)
