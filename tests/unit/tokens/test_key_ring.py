# SPDX-License-Identifier: Apache-2.0
"""Which of an issuer's keys signs, and whose tokens hold, at every moment of a rotation."""

import datetime as dt

import pytest

from cocos.errors import NotFoundError, StateError
from cocos.tokens.key_ring import KeyRing, RingKey

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
LIFETIME = dt.timedelta(minutes=5)


def key(kid: str, active: float, expires: float | None = None) -> RingKey:
    """A key; times in hours from now."""
    until = None if expires is None else NOW + expires * HOUR
    return RingKey(kid, f"secret of {kid}", NOW + active * HOUR, until)


def ring(*keys: RingKey) -> KeyRing:
    return KeyRing(keys)


def kids(keys: tuple[RingKey, ...]) -> str:
    return "".join(each.kid for each in keys)


def test_whose_tokens_hold() -> None:
    keys = ring(key("a", -3, -1), key("b", -2, 0), key("c", -1, 1), key("d", 1))
    assert kids(keys.believed(NOW)) == "cd"
    assert kids(keys.believed(NOW - 2 * HOUR)) == "abcd"


@pytest.mark.parametrize(
    ("keys", "signs"),
    [
        ((key("a", -1),), "a"),
        ((key("a", 0),), "a"),
        ((key("a", -2, 1), key("b", -1)), "b"),
        ((key("b", -1), key("a", -2, 1)), "b"),
        ((key("a", -2), key("b", 1)), "a"),
        # One whose tokens nobody believes any more does not sign, however new.
        ((key("a", -2), key("b", -1, 0)), "a"),
        # Clocks: far ahead, or set back behind them all.
        ((key("a", -3, -2), key("b", -2, -1)), "b"),
        ((key("b", 2), key("a", 1)), "a"),
        ((key("a", 1),), "a"),
    ],
)
def test_who_signs(keys: tuple[RingKey, ...], signs: str) -> None:
    assert KeyRing(keys).signing(NOW).kid == signs


def test_a_new_key_takes_over() -> None:
    """Who has been replaced is believed for its last token, and clocks that differ."""
    before = ring(key("a", -3, -1), key("b", -2, 0.1), key("c", -1))
    after = before.rotated(key("d", 1), now=NOW, token_lifetime=LIFETIME)
    until = NOW + HOUR + LIFETIME + dt.timedelta(minutes=10)
    assert [(each.kid, each.expires) for each in after.keys] == [
        ("b", NOW + 0.1 * HOUR),
        ("c", until),
        ("d", None),
    ]
    assert [after.signing(NOW + hours * HOUR).kid for hours in (0, 0.9, 1, 2)] == [
        "c",
        "c",
        "d",
        "d",
    ]


@pytest.mark.parametrize(("active", "possible"), [(-1, True), (0, True), (0.001, False)])
def test_one_takes_over_at_a_time(active: float, *, possible: bool) -> None:
    before = ring(key("a", -2, 1), key("b", active))
    if possible:
        assert len(before.rotated(key("c", 1), now=NOW, token_lifetime=LIFETIME).keys) == 3
    else:
        with pytest.raises(StateError, match="the key b takes over at 2026-11-23 12:00:03 UTC"):
            before.rotated(key("c", 1), now=NOW, token_lifetime=LIFETIME)


SPARE = key("s", 0)


@pytest.mark.parametrize(
    ("keys", "kid", "left"),
    [
        # The one that signs: the spare takes over, and not an older one.
        ((key("a", -1),), "a", (SPARE,)),
        ((key("a", -2, 1), key("b", -1)), "b", (key("a", -2, 1), SPARE)),
        ((key("a", -1, 2), key("b", 1)), "a", (key("b", 1), SPARE)),
        # One that signs no longer, or not yet: the one that signs goes on.
        ((key("a", -2, 1), key("b", -1)), "a", (key("b", -1),)),
        ((key("a", -1, 2), key("b", 1)), "b", (key("a", -1),)),
        (
            (key("a", -2, 1), key("b", -1, 2), key("c", 1)),
            "c",
            (key("a", -2, 1), key("b", -1)),
        ),
        (
            (key("a", -2, 1), key("b", -1, 2), key("c", 1)),
            "a",
            (key("b", -1, 2), key("c", 1)),
        ),
    ],
)
def test_a_key_is_revoked(keys: tuple[RingKey, ...], kid: str, left: tuple[RingKey, ...]) -> None:
    assert KeyRing(keys).revoked(kid, now=NOW, spare=SPARE).keys == left


def test_a_key_that_is_none_is_not_revoked() -> None:
    with pytest.raises(NotFoundError, match="'x'"):
        ring(key("a", -1)).revoked("x", now=NOW, spare=SPARE)


def test_no_secret_in_words() -> None:
    assert "secret" not in repr(key("a", 1))
    assert "kid='a'" in repr(key("a", 1))
