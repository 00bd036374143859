# SPDX-License-Identifier: Apache-2.0
"""What was used longest ago is forgotten first."""

from cocos._recent import Recent


def test_a_use_is_a_look_or_a_change() -> None:
    recent: Recent[str, int] = Recent(2)
    recent.put("a", 1)
    recent.put("b", 2)
    assert recent.get("a") == 1
    recent.put("c", 3)
    assert recent.get("b") is None
    recent.put("a", 4)
    recent.put("d", 5)
    assert (recent.get("a"), recent.get("c"), len(recent)) == (4, None, 2)
