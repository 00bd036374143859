# SPDX-License-Identifier: Apache-2.0
"""Reference values at their limits, and at the moment when they expire."""

import base64
import datetime as dt
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cocos._types import JsonObject
from cocos.attestation_service import reference_values
from cocos.attestation_service.reference_values import MAX_BYTES, MAX_COUNT, ReferenceValues
from cocos.errors import FormatError, NotFoundError, TooLargeError, UnsupportedError
from cocos.policy.documents import BaseDocuments
from cocos.stores.base import Store
from cocos.stores.sql import SqlStore

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
async def store(tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
    opened = await SqlStore.open(f"sqlite:///{tmp_path}/store.sqlite3", clock=clock)
    yield opened
    await opened.close()


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
