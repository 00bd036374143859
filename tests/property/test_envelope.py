# SPDX-License-Identifier: Apache-2.0
"""A record opens where it was sealed for, as it was sealed, and nowhere else."""

import asyncio

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cocos.crypto import envelope
from cocos.crypto.envelope import DataKey, LocalRootKey
from cocos.errors import FormatError, IntegrityError

names = st.text(max_size=40)
contents = st.binary(max_size=200)
secrets = st.binary(min_size=32, max_size=32)
ids = st.binary(min_size=8, max_size=8)
data_keys = st.builds(DataKey, ids, secrets)


@settings(deadline=None)
@given(data_keys, names, names, contents)
def test_what_was_sealed_comes_back(
    key: DataKey, namespace: str, name: str, content: bytes
) -> None:
    record = envelope.seal(key, namespace, name, content)
    assert envelope.key_id(record) == key.id
    assert envelope.unseal(key, namespace, name, record) == content
    assert len(content) < 8 or content not in record[21:]


@settings(deadline=None)
@given(data_keys, st.tuples(names, names), st.tuples(names, names), contents)
def test_a_record_opens_in_its_place_only(
    key: DataKey, place: tuple[str, str], other: tuple[str, str], content: bytes
) -> None:
    assume(place != other)
    record = envelope.seal(key, *place, content)
    with pytest.raises(IntegrityError):
        envelope.unseal(key, *other, record)


@settings(deadline=None)
@given(data_keys, st.text(min_size=1, max_size=9), contents, st.data())
def test_the_border_between_namespace_and_name_counts(
    key: DataKey, text: str, content: bytes, data: st.DataObject
) -> None:
    one, two = data.draw(st.lists(st.integers(0, len(text)), min_size=2, max_size=2, unique=True))
    record = envelope.seal(key, text[:one], text[one:], content)
    with pytest.raises(IntegrityError):
        envelope.unseal(key, text[:two], text[two:], record)


@settings(deadline=None)
@given(data_keys, names, contents, st.data())
def test_every_bit_counts(key: DataKey, name: str, content: bytes, data: st.DataObject) -> None:
    record = bytearray(envelope.seal(key, "resource", name, content))
    bit = data.draw(st.integers(0, len(record) * 8 - 1))
    record[bit // 8] ^= 1 << bit % 8
    with pytest.raises((IntegrityError, FormatError)):
        envelope.unseal(key, "resource", name, bytes(record))


@settings(deadline=None)
@given(data_keys, names, contents, st.data())
def test_nothing_can_be_cut_or_added(
    key: DataKey, name: str, content: bytes, data: st.DataObject
) -> None:
    record = envelope.seal(key, "resource", name, content)
    end = data.draw(st.integers(0, len(record) - 1))
    more = data.draw(st.binary(min_size=1, max_size=20))
    for changed in (record[:end], record + more):
        with pytest.raises((IntegrityError, FormatError)):
            envelope.unseal(key, "resource", name, changed)


@settings(deadline=None)
@given(data_keys, secrets, ids, names, contents)
def test_another_key_opens_nothing(
    key: DataKey, secret: bytes, key_id: bytes, name: str, content: bytes
) -> None:
    assume(secret != key.secret)
    record = envelope.seal(key, "resource", name, content)
    for other in (DataKey(key.id, secret), DataKey(key_id, secret)):
        with pytest.raises(IntegrityError):
            envelope.unseal(other, "resource", name, record)
    assume(key_id != key.id)
    # The id is authenticated, not only looked at.
    renamed = record[:1] + key_id + record[9:]
    with pytest.raises(IntegrityError):
        envelope.unseal(DataKey(key_id, key.secret), "resource", name, renamed)


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_junk_is_no_record(junk: bytes) -> None:
    with pytest.raises((FormatError, IntegrityError)):
        envelope.unseal(DataKey(bytes(8), bytes(32)), "resource", "a", junk)


def test_the_form_in_the_database_stays() -> None:
    """What is written today is read by the program of tomorrow: its layout, once more."""
    key = DataKey(b"8 bytes.", bytes(range(32)))
    header, nonce = b"\x01" + key.id, bytes(12)
    context = b"cocos record\0" + header + b"\0\x08" + b"resource" + b"a/b/c"
    record = header + nonce + AESGCMSIV(key.secret).encrypt(nonce, b"", context)
    assert envelope.unseal(key, "resource", "a/b/c", record) == b""


@pytest.mark.parametrize("version", [0, 2, 255])
def test_a_record_of_another_version_is_no_record(version: int) -> None:
    record = bytes([version]) + envelope.seal(DataKey.generate(), "resource", "a", b"x")[1:]
    with pytest.raises(FormatError, match="version"):
        envelope.key_id(record)


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_a_root_key_of_another_length(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        LocalRootKey(bytes(length))


@pytest.mark.parametrize("junk", [b"", bytes(36), bytes(37), b"\x01" + bytes(80)])
async def test_what_no_root_key_wrapped(junk: bytes) -> None:
    """A data key's record that is none is a changed one: whoever opens a storage expects that."""
    with pytest.raises(IntegrityError):
        await LocalRootKey(bytes(32)).unwrap(bytes(8), junk)


def test_a_data_key_shows_no_secret() -> None:
    assert "hush" not in repr(DataKey(bytes(8), b"hush" * 8))


@settings(deadline=None)
@given(data_keys, secrets, secrets, ids)
def test_a_data_key_opens_with_its_root_key_and_id(
    key: DataKey, root: bytes, other_root: bytes, other_id: bytes
) -> None:
    async def check() -> None:
        wrapped = await LocalRootKey(root).wrap(key)
        assert await LocalRootKey(root).unwrap(key.id, wrapped) == key
        assert key.secret not in wrapped
        if other_root != root:
            with pytest.raises(IntegrityError):
                await LocalRootKey(other_root).unwrap(key.id, wrapped)
        if other_id != key.id:
            with pytest.raises(IntegrityError):
                await LocalRootKey(root).unwrap(other_id, wrapped)

    asyncio.run(check())
