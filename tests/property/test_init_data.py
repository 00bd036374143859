# SPDX-License-Identifier: Apache-2.0
"""Init data that we build is TOML that says exactly what went in, whatever went in."""

from hypothesis import example, given
from hypothesis import strategies as st

from cocos.wire import init_data
from cocos.wire.init_data import InitDocument

TEXT = st.text(st.characters(codec="utf-8"))


@given(st.dictionaries(TEXT, TEXT))
@example({"a": "\n'"})
@example({"a": "\n''"})
@example({"a": "\n\n"})
@example({"a": "\n\r\n"})
@example({"a": "\n\x7f"})
def test_round_trip(data: dict[str, str]) -> None:
    text = init_data.build(data)
    assert InitDocument.parse(text).data == data
    assert b"\0" not in text
    assert init_data.from_disk(init_data.to_disk(text)) == text
