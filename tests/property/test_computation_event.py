# SPDX-License-Identifier: Apache-2.0
"""The event of a computation: one spelling for each, and no text crashes its reader."""

import contextlib
import json

from hypothesis import given
from hypothesis import strategies as st

from cocos.errors import FormatError
from cocos.wire.manifest.event import ComputationEvent

DIGESTS = st.binary(min_size=32, max_size=32).map(bytes.hex)
KBS = ("", "http://10.0.2.2:8080", f"http://kbs#token-key={'A' * 43}", "https://kbs.example")
EVENTS = st.builds(
    ComputationEvent,
    algorithm=DIGESTS,
    arguments=DIGESTS,
    consumers=DIGESTS,
    datasets=st.lists(DIGESTS, max_size=4).map(tuple),
    environment=DIGESTS,
    kbs=st.sets(st.sampled_from(KBS)).map(sorted).map(tuple),
    manifest=DIGESTS,
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | DIGESTS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


@given(EVENTS)
def test_what_was_written_is_read(event: ComputationEvent) -> None:
    content = event.content()
    assert ComputationEvent.parse(content) == event
    assert content.isascii()
    assert content.isprintable()


@given(EVENTS, st.integers(0, 600), st.integers(0, 3), st.text(max_size=3))
def test_another_text_is_refused_or_another_event(
    event: ComputationEvent, at: int, dropped: int, put: str
) -> None:
    content = event.content()
    other = content[:at] + put + content[at + dropped :]
    with contextlib.suppress(FormatError):
        assert (ComputationEvent.parse(other) == event) == (other == content)


@given(st.dictionaries(st.sampled_from(ComputationEvent.__struct_fields__), VALUES))
def test_no_object_crashes_the_reader(document: dict[str, object]) -> None:
    with contextlib.suppress(FormatError):
        ComputationEvent.parse(json.dumps(document, sort_keys=True, separators=(",", ":")))


@given(st.text(st.characters(), max_size=60))
def test_no_text_crashes_the_reader(content: str) -> None:
    with contextlib.suppress(FormatError):
        ComputationEvent.parse(content)
