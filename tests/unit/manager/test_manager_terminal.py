# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocos.manager.backends._qemu_vm import readable


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("plain [  OK  ] text", "plain [  OK  ] text"),
        ("\x1b[0;1;31mred\x1b[0m\r", "red"),
        ("\x1b]104\x07a\x1b]0;title\x1b\\b", "ab"),
        ("\x1b[2J\x1b[01;01H\x1b[=3h\x1b(B\x1b7\x1b8\x1b=", ""),
    ],
)
def test_a_line_of_a_terminal_as_text(line: str, text: str) -> None:
    assert readable(line) == text


@given(st.text(alphabet="\x1b[]\\;0m\x07aZ(=", max_size=50))
def test_nothing_is_added(line: str) -> None:
    assert len(readable(line)) <= len(line)
