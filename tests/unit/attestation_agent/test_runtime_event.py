# SPDX-License-Identifier: Apache-2.0
import hashlib

import pytest

from cocos.attestation_agent.event import tagged_event
from cocos.errors import FormatError


def test_the_guest_components_vectors() -> None:
    event = tagged_event("domain", "operation", "content")
    assert event.hex() == "4c45414118000000646f6d61696e206f7065726174696f6e20636f6e74656e74"
    assert hashlib.sha256(event).hexdigest() == (
        "46df8dacf00a07d34a83cdf56d7978697790787cf2ba1432ef7c38f22cd96351"
    )
    assert hashlib.sha384(event).hexdigest() == (
        "dad5f0e226318ffa9839b75a472c6aa7fdb5834949d0a0a22990cf04d5692440"
        "fb00f3aa0609db7e49cd8d793f670d02"
    )


@pytest.mark.parametrize(
    ("domain", "operation", "content"),
    [
        ("", "operation", "content"),
        ("domain", "", "content"),
        ("do main", "operation", "content"),
        ("domain", "opera tion", "content"),
        ("domain", "operation\u00a0x", "content"),
        ("domain\n", "operation", "content"),
        ("domain", "operation", "content\nother operation forged"),
        ("domain", "operation", "content\r"),
        ("domain", "operation", "content\0"),
        ("domain", "operation", "\ud800"),
    ],
)
def test_what_would_read_as_another_event_is_refused(
    domain: str, operation: str, content: str
) -> None:
    with pytest.raises(FormatError):
        tagged_event(domain, operation, content)
