# SPDX-License-Identifier: Apache-2.0
"""Agents that come and go: when the last one has gone for good."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from cocos.cvms.presence import Presence


async def settle() -> None:
    """Let every task that can go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)


@given(st.lists(st.booleans()))
def test_gone_means_that_there_was_one_and_is_none(coming: list[bool]) -> None:
    async def check() -> None:
        presence = Presence()
        count, losses = 0, [0]
        for comes in coming:
            if not comes and not count:
                continue
            gone = asyncio.create_task(presence.gone(0, lambda: losses.append(1)))
            await settle()
            assert gone.done() is (presence.seen and count == 0)
            gone.cancel()
            presence.came() if comes else presence.went()
            count += 1 if comes else -1

    asyncio.run(check())


async def test_who_comes_back_in_time_stays() -> None:
    presence = Presence()
    losses: list[int] = []
    gone = asyncio.create_task(presence.gone(3600, lambda: losses.append(1)))
    await settle()
    assert losses == []  # nobody has been here yet
    for number in range(3):
        presence.came()
        await settle()
        presence.went()
        await settle()
        assert len(losses) == number + 1
    assert not gone.done()
    gone.cancel()


async def test_without_a_limit_nobody_is_given_up() -> None:
    presence = Presence()
    losses: list[int] = []
    gone = asyncio.create_task(presence.gone(None, lambda: losses.append(1)))
    presence.came()
    await settle()
    presence.went()
    await settle()
    assert losses == [1]
    assert not gone.done()
    gone.cancel()
