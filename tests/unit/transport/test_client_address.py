# SPDX-License-Identifier: Apache-2.0
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocos.transport.client_address import ClientAddresses, _parsed

PROXY = "203.0.113.7"
FINDER = ClientAddresses([ipaddress.ip_network("203.0.113.0/24")])


def find(peer: str | None, *forwarded: str) -> str | None:
    headers = [(b"x-forwarded-for", text.encode("latin-1")) for text in forwarded]
    client = None if peer is None else (peer, 1)
    found = FINDER.find({"type": "http", "client": client, "headers": headers})
    return None if found is None else str(found)


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["198.51.100.1"], "192.0.2.1"),
        ("::ffff:192.0.2.1", [], "192.0.2.1"),
        ("2001:db8::1", [], "2001:db8::1"),
        (PROXY, [], PROXY),
        (PROXY, ["198.51.100.1"], "198.51.100.1"),
        (PROXY, ["10.0.0.1, 198.51.100.1"], "198.51.100.1"),
        (PROXY, ["10.0.0.1", "198.51.100.1"], "198.51.100.1"),
        (PROXY, ["198.51.100.1,203.0.113.1 , 203.0.113.2"], "198.51.100.1"),
        (PROXY, ["[2001:db8::1]:443"], "2001:db8::1"),
        (PROXY, ["198.51.100.1:443"], "198.51.100.1"),
        (PROXY, ["198.51.100.1, unknown"], PROXY),
        (PROXY, ["203.0.113.1"], "203.0.113.1"),
        (PROXY, [""], PROXY),
        ("127.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("127.0.0.1", [], None),
        ("127.0.0.1", ["127.0.0.2"], None),
        ("::1", [], None),
        (None, [], None),
        ("", ["198.51.100.1"], None),
    ],
)
def test_whom_a_request_comes_from(peer: str | None, forwarded: list[str], found: str) -> None:
    assert find(peer, *forwarded) == found


def test_nothing_long_is_remembered() -> None:
    before = _parsed.cache_info().misses
    assert find(PROXY, f"198.51.100.1, {'x' * 300_000}") == PROXY
    assert find(PROXY, "fe80::1%" + "z" * 300_000) == PROXY
    assert _parsed.cache_info().misses <= before + 1  # the proxy's own


@given(st.text(st.characters(max_codepoint=255), max_size=100))
def test_any_header_of_a_stranger(text: str) -> None:
    assert find("192.0.2.1", text) == "192.0.2.1"
    assert find(PROXY, f"{text}, 198.51.100.1") == "198.51.100.1"
    assert find(PROXY, text) is not None
