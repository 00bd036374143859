# SPDX-License-Identifier: Apache-2.0
import contextlib

from hypothesis import example, given
from hypothesis import strategies as st

from cocos.attestation_agent.event import tagged_event
from cocos.errors import FormatError

ANY = st.text(st.characters(codec=None), max_size=20)


@given(ANY, ANY, ANY)
@example("a", "b", " c  d ")
def test_what_is_accepted_reads_back_as_it_was(domain: str, operation: str, content: str) -> None:
    with contextlib.suppress(FormatError):
        event = tagged_event(domain, operation, content)
        assert int.from_bytes(event[4:8], "little") == len(event) - 8
        text = event[8:].decode()
        assert text.split(" ", 2) == [domain, operation, content]
        assert "\n" not in text
