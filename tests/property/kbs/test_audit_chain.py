# SPDX-License-Identifier: Apache-2.0
"""Whatever is done to an audit log by somebody without its key is found."""

import datetime as dt

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cocos.crypto import jwt
from cocos.errors import AuthenticationError, FormatError, IntegrityError
from cocos.wire import audit
from cocos.wire.audit import Checkpoint, Entry, Record, Verification

NOW = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
OTHER = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(31) + b"1")
LOG = "0123456789abcdef"

names = st.text(max_size=10)
entries = st.builds(
    Entry, event=st.sampled_from(("released", "denied")), resource=names, reason=names
)
batches = st.lists(st.lists(entries, min_size=1, max_size=4), min_size=1, max_size=5)


def write(
    batches: list[list[Entry]],
    key: ed25519.Ed25519PrivateKey | None = KEY,
    *,
    seq: int = 0,
    digest: bytes = audit.first_hash(LOG),
) -> list[Record]:
    """What a key broker writes; without a key, what somebody else can."""
    found = []
    for batch in batches:
        for entry in batch:
            seq += 1
            text = audit.encode(msgspec.structs.replace(entry, seq=seq, time=NOW))
            digest = audit.next_hash(digest, text)
            found.append(Record(seq, text.decode(), digest.hex()))
        if key is not None:
            signed = audit.sign(Checkpoint(LOG, seq, digest.hex()), key, NOW)
            found[-1] = msgspec.structs.replace(found[-1], checkpoint=signed)
    return found


def verified(records: list[Record], *kept: Checkpoint) -> Verification:
    done = Verification(LOG, KEY.public_key(), kept)
    for record in records:
        done.add(record)
    done.end()
    return done


def head(records: list[Record]) -> Checkpoint:
    return Checkpoint(LOG, records[-1].seq, records[-1].hash)


@settings(deadline=None)
@given(batches)
def test_what_was_written_holds(written: list[list[Entry]]) -> None:
    records = write(written)
    done = verified(records, head(records), head(records[:1]))
    assert not done.findings
    assert done.seq == done.signed == len(records)
    done.raise_if_broken()


@settings(deadline=None)
@given(batches, st.data())
def test_a_removed_entry_is_found(written: list[list[Entry]], data: st.DataObject) -> None:
    records = write(written)
    kept = head(records)
    del records[data.draw(st.integers(0, len(records) - 1))]
    assert verified(records, kept).findings


@settings(deadline=None)
@given(batches, entries, st.data())
def test_an_edited_entry_is_found(
    written: list[list[Entry]], other: Entry, data: st.DataObject
) -> None:
    records = write(written)
    place = data.draw(st.integers(0, len(records) - 1))
    text = audit.encode(msgspec.structs.replace(other, seq=place + 1, time=NOW)).decode()
    assume(text != records[place].entry)
    records[place] = msgspec.structs.replace(records[place], entry=text)
    done = verified(records)
    assert done.findings
    with pytest.raises(IntegrityError):
        done.raise_if_broken()


@settings(deadline=None)
@given(batches, st.data())
def test_two_that_changed_places_are_found(written: list[list[Entry]], data: st.DataObject) -> None:
    records = write(written)
    assume(len(records) > 1)
    places = st.lists(st.integers(0, len(records) - 1), min_size=2, max_size=2, unique=True)
    one, two = data.draw(places)
    records[one], records[two] = records[two], records[one]
    assert verified(records).findings


@settings(deadline=None)
@given(batches, batches, st.data())
def test_an_end_written_anew_is_found(
    written: list[list[Entry]], forged: list[list[Entry]], data: st.DataObject
) -> None:
    """By somebody who computes all hashes anew, but has not the key."""
    records = write(written)
    begin = data.draw(st.integers(0, len(records) - 1))
    digest = bytes.fromhex(records[begin - 1].hash) if begin else audit.first_hash(LOG)
    for key in (None, OTHER):
        end = write(forged, key, seq=begin, digest=digest)
        assume([record.entry for record in end] != [record.entry for record in records[begin:]])
        assert verified([*records[:begin], *end]).findings
    # The old checkpoints put into it do not help.
    kept = {record.seq: record.checkpoint for record in records}
    dressed = [
        msgspec.structs.replace(record, checkpoint=kept.get(record.seq, ""))
        for record in write(forged, None, seq=begin, digest=digest)
    ]
    # A mere cut is another test.
    real = records[begin : begin + len(dressed)]
    assume([record.hash for record in dressed] != [record.hash for record in real])
    assert verified([*records[:begin], *dressed]).findings


@settings(deadline=None)
@given(batches, st.data())
def test_a_cut_is_found_by_a_checkpoint_that_was_kept(
    written: list[list[Entry]], data: st.DataObject
) -> None:
    records = write(written)
    cut = records[: data.draw(st.integers(0, len(records) - 1))]
    assert any(found.check == "audit.cut" for found in verified(cut, head(records)).findings)
    # Within what was written at once, it is found without one.
    if cut and not cut[-1].checkpoint:
        assert any(found.check == "audit.unsigned-end" for found in verified(cut).findings)


@settings(deadline=None)
@given(batches, batches)
def test_a_log_exchanged_as_a_whole_is_found(
    written: list[list[Entry]], other: list[list[Entry]]
) -> None:
    kept, records = head(write(written)), write(other)
    assume(len(records) >= kept.seq and records[kept.seq - 1].hash != kept.hash)
    assert any(found.check == "audit.kept-checkpoint" for found in verified(records, kept).findings)
    assert verified(records, Checkpoint("fedcba9876543210", 1, kept.hash)).findings


@settings(deadline=None)
@given(st.lists(st.builds(Record, st.integers(), st.text(), st.text(), st.text()), max_size=5))
def test_junk_never_holds_and_never_crashes(records: list[Record]) -> None:
    assume(records)
    assert verified(records).findings


def test_many_findings_are_bounded() -> None:
    records = [Record(number % 7, "x", "y") for number in range(1000)]
    assert len(verified(records).findings) == audit.MAX_FINDINGS


def test_other_tokens_are_no_checkpoints() -> None:
    said = Checkpoint(LOG, 1, "00")
    assert audit.open_checkpoint(audit.sign(said, KEY, NOW) + "\n", KEY.public_key()) == said
    with pytest.raises(AuthenticationError):
        audit.open_checkpoint(audit.sign(said, OTHER, NOW), KEY.public_key())
    claims = {"log": LOG, "seq": 1, "hash": "00"}
    for header, wrong in (({}, claims), ({"typ": "cocos-audit-checkpoint"}, {"log": LOG})):
        with pytest.raises(FormatError):
            audit.open_checkpoint(jwt.sign(dict(header), wrong, KEY), KEY.public_key())
