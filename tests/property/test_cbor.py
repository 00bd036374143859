# SPDX-License-Identifier: Apache-2.0
"""CBOR and what is written in it, on bytes that nobody expected."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from _cbor import dumps
from hypothesis import given
from hypothesis import strategies as st

from cocos.errors import FormatError
from cocos.evidence import cbor, cca, corim
from cocos.evidence.cose import Sign1

NUMBERS = st.integers(-(2**64), 2**64 - 1)
KEYS = st.integers(0, 12) | st.text(max_size=2)
ITEMS: Any = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.binary(max_size=4) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.builds(cbor.Tagged, st.sampled_from([1, 18, 37, 399, 500, 501, 502, 506, 560]), inner)
    ),
    max_leaves=16,
)


def parse(data: bytes) -> Any:
    return cbor.loads(data, "it")


def sign1(data: bytes) -> Any:
    return Sign1.of(parse(data), "it")


PARSERS = [parse, sign1, corim.signed_part, corim.Corim.parse, cca.Token.parse]


@given(item=ITEMS)
def test_what_is_written_is_read(item: Any) -> None:
    assert parse(dumps(item)) == item


@pytest.mark.parametrize("read", PARSERS)
@given(data=st.binary(max_size=60) | ITEMS.map(dumps))
def test_parsers_are_total(read: Callable[[bytes], Any], data: bytes) -> None:
    with contextlib.suppress(FormatError):
        read(data)


@pytest.mark.parametrize(
    "data",
    [
        "9f00ff",  # indefinite
        "5f4100ff",
        "bf0000ff",
        "1c",
        "a20000" + "0000",  # a key twice
        "a1f500",  # a key that is none
        "a18000",
        "a1c10000",
        "f8ff",
        "ff",
        "61ff",
        "9affffffff",
        "bbffffffffffffffff",
        "5bffffffffffffffff",
        "0000",
        "",
        "81" * 30 + "00",
        "c1" * 5000,
    ],
)
def test_refused(data: str) -> None:
    with pytest.raises(FormatError):
        parse(bytes.fromhex(data))
