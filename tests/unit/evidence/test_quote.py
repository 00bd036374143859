# SPDX-License-Identifier: Apache-2.0
"""Quotes of Intel's quoting enclaves, as bytes."""

import contextlib
import json

import pytest
from _intel import Intel, enclave, td
from _vectors import vector
from hypothesis import given
from hypothesis import strategies as st

from cocos.errors import FormatError
from cocos.evidence.quote import MAX_QUOTE, Quote, TdReport, TdReport15

MAKER = Intel()
QUOTES = {
    "3": MAKER.quote(enclave(b"x"), version=3),
    "4": MAKER.quote(td(b"x")),
    "5 of 1.0": MAKER.quote(td(b"x"), version=5),
    "5 of 1.5": MAKER.quote(td(b"x", newer=True), version=5),
}


@pytest.mark.parametrize("name", QUOTES)
def test_every_length(name: str) -> None:
    quote = QUOTES[name]
    found = Quote.parse(quote)
    assert Quote.parse(quote + bytes(70)) == found
    assert len(found.chain) == 3
    assert found.raw == quote
    for length in range(len(quote)):
        with pytest.raises(FormatError):
            Quote.parse(quote[:length])
    with pytest.raises(FormatError):
        Quote.parse(quote + b"\0x")
    with pytest.raises(FormatError):
        Quote.parse(quote.ljust(MAX_QUOTE + 1, b"\0"))


def test_bodies() -> None:
    assert type(Quote.parse(QUOTES["5 of 1.0"]).body) is TdReport
    assert type(Quote.parse(QUOTES["5 of 1.5"]).body) is TdReport15
    for kind, size in ((1, 384), (2, 648), (3, 584), (4, 1024), (0, 0)):
        other = bytearray(QUOTES["5 of 1.5"])
        other[48:50], other[50:54] = kind.to_bytes(2, "little"), size.to_bytes(4, "little")
        with pytest.raises(FormatError):
            Quote.parse(bytes(other))


@pytest.mark.parametrize(("version", "tee"), [(3, 0x81), (4, 0), (5, 0), (2, 0), (6, 0x81), (4, 1)])
def test_versions_and_tees(version: int, tee: int) -> None:
    other = bytearray(QUOTES["4"])
    other[0], other[4] = version, tee
    with pytest.raises(FormatError):
        Quote.parse(bytes(other))


@given(st.binary(max_size=2000), st.sampled_from(sorted(QUOTES)), st.integers(0, 700))
def test_total(data: bytes, name: str, at: int) -> None:
    quote = QUOTES[name]
    for shown in (data, quote[:at] + data, quote[:at] + data + quote[at + len(data) :]):
        with contextlib.suppress(FormatError):
            Quote.parse(shown)


@pytest.mark.parametrize(
    "text",
    ["", "x", "-----BEGIN CERTIFICATE-----", "-----BEGIN CERTIFICATE-----\n" * 1000,
     "-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n", MAKER.chain + "x"],
)  # fmt: skip
def test_certificates(text: str) -> None:
    quote = MAKER.quote(td(b"x"), chain=text)
    if not text:
        assert Quote.parse(quote).chain == ()
    else:
        with pytest.raises(FormatError):
            Quote.parse(quote)


def test_a_real_quote() -> None:
    quote = Quote.parse(vector("tdx/quote-v4.bin"))
    assert quote.claims() == json.loads(vector("tdx/quote-v4-claims.json"))["quote"]
