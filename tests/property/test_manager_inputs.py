# SPDX-License-Identifier: Apache-2.0
import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from cocos.errors import FormatError
from cocos.manager.plan import parse_ttl
from cocos.wire.address import parse_address
from cocos.wire.duration import LONGEST


@given(st.text(alphabet="0123456789.hmsnuµ -+e", max_size=30) | st.text(max_size=10))
def test_a_ttl_is_positive_and_bounded_or_refused(text: str) -> None:
    try:
        ttl = parse_ttl(text)
    except FormatError:
        return
    assert ttl is None if not text else ttl is not None and dt.timedelta(0) < ttl <= LONGEST


@given(
    st.integers(0, 10_000),
    st.integers(0, 59),
    st.integers(1, 59),
    st.integers(0, 999),
)
def test_a_written_ttl_comes_back(hours: int, minutes: int, seconds: int, millis: int) -> None:
    expected = dt.timedelta(hours=hours, minutes=minutes, seconds=seconds, milliseconds=millis)
    assert parse_ttl(f"{hours}h{minutes}m{seconds}.{millis:03}s") == expected
    assert parse_ttl(f"{millis}ms{seconds}s{minutes}m{hours}h") == expected


@given(st.text(max_size=60))
def test_an_address_is_one_line_without_surprises_or_refused(text: str) -> None:
    try:
        address = parse_address(text, what="it", default_port=7001)
    except FormatError:
        return
    assert 1 <= address.port <= 65535
    assert str(address).isascii()
    assert str(address).isprintable()
    assert not set(address.host) & set("/?#@ []")
    again = parse_address(str(address), what="it", default_port=1)
    assert (again.host, again.port) == (address.host, address.port)
