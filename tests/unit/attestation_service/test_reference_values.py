# SPDX-License-Identifier: Apache-2.0
"""Reference values at their limits, and at the moment when they expire."""

import base64
import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from cocos._types import JsonObject
from cocos.attestation_service import reference_values
from cocos.attestation_service.reference_values import MAX_BYTES, MAX_COUNT, ReferenceValues
from cocos.errors import FormatError, NotFoundError, StateError, TooLargeError, UnsupportedError
from cocos.policy.documents import BaseDocuments
from cocos.stores.base import Store

START = dt.datetime(2026, 11, 23, 12, 0, 0, 999_999, tzinfo=dt.UTC)
END = dt.datetime(2027, 11, 23, 12, tzinfo=dt.UTC)
SECOND = dt.timedelta(seconds=1)


class Clock:
    now = START

    def __call__(self) -> dt.datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def values(store: Store, clock: Clock) -> ReferenceValues:
    return ReferenceValues(store, clock=clock, sample=True)


def message(values: JsonObject) -> JsonObject:
    return {"type": "sample", "payload": base64.b64encode(json.dumps(values).encode()).decode()}


@pytest.mark.parametrize(("late", "live"), [(-SECOND, True), (0 * SECOND, False), (SECOND, False)])
async def test_a_value_ends_a_year_later(
    store: Store, clock: Clock, late: dt.timedelta, *, live: bool
) -> None:
    given = message({"a": 1})
    assert await ReferenceValues(store, clock=clock, sample=True).register(given) == ("a",)
    clock.now = END + late
    after = ReferenceValues(store, clock=clock, sample=False)
    assert await after.all() == ({"a": 1} if live else {})
    assert after.lapsed == (frozenset() if live else {"a"})


async def test_each_ends_at_its_own_time(values: ReferenceValues, clock: Clock) -> None:
    """Also for who asks all the time; and as long as nothing ends it is the same object."""
    seen: list[Any] = []

    async def asked(now: dt.datetime) -> tuple[JsonObject, set[str]]:
        clock.now = now
        found = await values.all()
        assert await values.all() is found
        if all(found is not each for each in seen):
            seen.append(found)
        return found, set(values.lapsed)

    for name, days in (("a", 0), ("b", 2), ("c", 1)):
        clock.now = START + dt.timedelta(days=days)
        await values.register(message({name: days}))
    a, b, c = ({name: days} for name, days in (("a", 0), ("b", 2), ("c", 1)))
    day = dt.timedelta(days=1)
    assert await asked(END - SECOND) == (a | b | c, set())
    assert await asked(END) == (b | c, {"a"})
    assert await asked(END + day - SECOND) == (b | c, {"a"})
    assert await asked(END + day) == (b, {"a", "c"})
    assert await asked(END + 2 * day - SECOND) == (b, {"a", "c"})
    assert await asked(END + 2 * day) == ({}, {"a", "b", "c"})
    assert await asked(END + 99 * day) == ({}, {"a", "b", "c"})
    assert len(seen) == 4
    with pytest.raises(NotFoundError):
        await values.get("a")
    assert [each.name for each in await values.list()] == ["a", "b", "c"]


async def test_what_nobody_signs_can_be_switched_off(store: Store, clock: Clock) -> None:
    strict = ReferenceValues(store, clock=clock, sample=False)
    with pytest.raises(UnsupportedError, match="switched off"):
        await strict.register(message({"a": 1}))
    assert await strict.all() == {}


@pytest.mark.parametrize(("length", "taken"), [(0, False), (1, True), (512, True), (513, False)])
async def test_how_long_a_name_may_be(values: ReferenceValues, length: int, *, taken: bool) -> None:
    given = message({"a" * length: 1})
    if taken:
        await values.register(given)
    else:
        with pytest.raises(FormatError, match="1 to 512 printable"):
            await values.register(given)


def test_the_limits_are_those_that_operators_are_told() -> None:
    told = (Path(__file__).parents[3] / "docs" / "policies.md").read_text()
    assert f"There can be {MAX_COUNT:,}, and {MAX_BYTES / 2**20:g} MiB of them." in told


@pytest.mark.parametrize("limit", ["MAX_COUNT", "MAX_BYTES"])
async def test_as_many_as_the_limit_and_not_one_more(
    values: ReferenceValues, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    whole = {"a": "x" * 100, "b": 1}
    size = {"MAX_COUNT": 2, "MAX_BYTES": len(BaseDocuments.of(whole).text)}[limit]
    monkeypatch.setattr(reference_values, limit, size - 1)
    with pytest.raises(TooLargeError):
        await values.register(message(whole))
    monkeypatch.setattr(reference_values, limit, size)
    await values.register(message(whole))
    assert await values.all() == whole


# --- one value, under a condition ---------------------------------------------------------


async def test_a_value_that_is_set_over_another(values: ReferenceValues) -> None:
    for value in (1, [2], None):
        await values.set("a", value)
        assert await values.all() == {"a": value}
    found, tag = await values.find("a")
    assert found is None
    assert len(tag) == 32
    await values.set("a", 3, tag=tag)
    assert await values.find("a") != (None, tag)
    with pytest.raises(StateError, match="changed meanwhile"):
        await values.set("a", 4, tag=tag)
    assert await values.get("a") == 3


async def test_what_is_there_is_kept(values: ReferenceValues, clock: Clock) -> None:
    await values.set("a", 1, new=True)
    with pytest.raises(StateError, match="already"):
        await values.set("a", 2, new=True)
    clock.now = END - SECOND
    with pytest.raises(StateError, match="already"):
        await values.set("a", 2, new=True)
    assert await values.all() == {"a": 1}
    # What has expired is not there, also at that very moment.
    clock.now = END
    await values.set("a", 2, new=True)
    assert await values.all() == {"a": 2}


async def test_a_tag_is_of_what_is_there(values: ReferenceValues) -> None:
    with pytest.raises(StateError, match="changed meanwhile"):
        await values.set("a", 1, tag="0" * 32)
    assert await values.all() == {}
    await values.set("a", 1)
    _, tag = await values.find("a")
    await values.delete("a")
    with pytest.raises(StateError, match="changed meanwhile"):
        await values.set("a", 2, tag=tag)
    assert await values.all() == {}
    with pytest.raises(NotFoundError):
        await values.delete("a")


@pytest.mark.parametrize("there", [True, False])
async def test_of_two_who_change_a_value_one_does(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch, *, there: bool
) -> None:
    """The other one's change came between the look and the writing."""
    one, other = (ReferenceValues(store, clock=clock, sample=True) for _ in range(2))
    if there:
        await one.set("a", 0)
    tag = (await one.find("a"))[1] if there else None
    seen = await one._view.read()
    await other.set("a", 1)

    async def before() -> Any:
        return seen

    with monkeypatch.context() as patched:
        patched.setattr(one._view, "read", before)
        with pytest.raises(StateError, match="changed meanwhile"):
            await one.set("a", 2, new=not there, tag=tag)
        # Without a condition what was there, or was not, does not matter.
        await one.set("b", 2)
        await one.set("a", 2 if there else 1)
    assert await one.all() == await other.all() == {"a": 2 if there else 1, "b": 2}


async def test_a_value_may_end_at_another_time(values: ReferenceValues, clock: Clock) -> None:
    await values.set("a", 1, expires=START + 2 * SECOND)
    clock.now = START + SECOND
    assert (await values.find("a"))[0] == 1
    clock.now = START.replace(microsecond=0) + 2 * SECOND
    for look in (values.find("a"), values.get("a"), values.find("b")):
        with pytest.raises(NotFoundError):
            await look
    assert await values.all() == {}


async def test_one_value_meets_the_same_conditions(
    store: Store, values: ReferenceValues, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnsupportedError, match="switched off"):
        await ReferenceValues(store, clock=clock, sample=False).set("a", 1)
    for name in ("", "a\n", "a" * 513):
        with pytest.raises(FormatError):
            await values.set(name, 1)
    await values.set("a", 1)
    monkeypatch.setattr(reference_values, "MAX_COUNT", 1)
    with pytest.raises(TooLargeError):
        await values.set("b", 1)
    with pytest.raises(TooLargeError):  # also for one that has looked at nothing before
        await ReferenceValues(store, clock=clock, sample=True).set("b", 1)
    assert [each.name for each in await values.list()] == ["a"]
    fresh = ReferenceValues(store, clock=clock, sample=True)
    assert [each.name for each in await fresh.list()] == ["a"]


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"type": "sample"},
        {"type": "corim", "payload": message({"a": 1})["payload"]},
        {"type": "sample", "payload": "!"},
        {"type": "sample", "payload": "W10="},
        {**message({"a": 1}), "version": "0.2.0"},
        message({"a\n": 1}),
    ],
)
async def test_messages_that_are_none(values: ReferenceValues, bad: JsonObject) -> None:
    with pytest.raises(FormatError):
        await values.register(bad)
    assert await values.all() == {}


async def test_a_leap_day_has_no_anniversary(values: ReferenceValues, clock: Clock) -> None:
    clock.now = dt.datetime(2028, 2, 29, 1, 2, 3, tzinfo=dt.UTC)
    await values.register(message({"a": 1}))
    assert [each.expiration for each in await values.list()] == ["2029-02-28T01:02:03Z"]
