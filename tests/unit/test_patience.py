# SPDX-License-Identifier: Apache-2.0
"""What is asked again, when, and for how long."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocos import errors
from cocos._patience import LONGEST_SECONDS, Patience, Wait, may_pass
from cocos.errors import CocosError, TooManyRequestsError, UnreachableError


class Time(asyncio.SelectorEventLoop):
    """A loop whose time passes only where somebody waits."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def time(self) -> float:
        return self.now


def asked(
    patience_of: Callable[[Time, list[Wait]], Patience], *questions: Sequence[tuple[float, object]]
) -> tuple[list[object], list[Wait], float]:
    """Ask questions whose tries take so many seconds and have these outcomes, then a good one."""
    loop = Time()
    waits: list[Wait] = []
    patience = patience_of(loop, waits)

    def question(script: Sequence[tuple[float, object]]) -> Callable[[], Awaitable[object]]:
        rest = list(script)

        async def one() -> object:
            seconds, outcome = rest.pop(0) if rest else (0.0, "done")
            loop.now += seconds
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        return one

    async def all_of_them() -> list[object]:
        found: list[object] = []
        for script in questions:
            try:
                found.append(await patience.ask(question(script)))
            except CocosError as error:
                found.append(error)
        return found

    try:
        return loop.run_until_complete(all_of_them()), waits, loop.now
    finally:
        loop.close()


def patient(seconds: float, jitter: float = 1.0) -> Callable[[Time, list[Wait]], Patience]:
    def made(loop: Time, waits: list[Wait]) -> Patience:
        async def sleep(pause: float) -> None:
            loop.now += pause

        return Patience(seconds, tell=waits.append, sleep=sleep, jitter=lambda: jitter)

    return made


GONE = UnreachableError("gone")
KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, CocosError) and kind not in {errors.ProcessError, errors.ComputationError}
]


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_may_pass_is_asked_again(kind: type[CocosError]) -> None:
    passes = kind in {UnreachableError, TooManyRequestsError}
    error = kind("no")
    assert may_pass(error) is passes
    found, waits, _ = asked(patient(60), [(0, error)])
    assert found == (["done"] if passes else [error])
    assert bool(waits) is passes


def test_pauses_grow_to_a_limit() -> None:
    _, waits, _ = asked(patient(100), [(0, GONE)] * 9)
    assert [each.pause for each in waits] == [0.5, 1, 2, 4, 8, 8, 8, 8, 8]
    assert [each.first for each in waits] == [True] + [False] * 8


def test_no_patience_is_one_try() -> None:
    found, waits, _ = asked(patient(0, jitter=0), [(0, GONE)])
    assert (found, waits) == ([GONE], [])


@pytest.mark.parametrize("wait", [0.0, 5.0, 59.0])
def test_the_peers_word_is_a_lower_bound(wait: float) -> None:
    _, (said,), now = asked(patient(60), [(0, TooManyRequestsError("slow", retry_after=wait))])
    assert said.pause == now == max(wait, 0.5)


def test_a_peer_that_asks_for_more_than_there_is_fails_at_once() -> None:
    later = UnreachableError("later", retry_after=3600)
    assert asked(patient(60), [(0, later)]) == ([later], [], 0)


@given(
    seconds=st.floats(0, 1000),
    tries=st.lists(st.floats(0, 100), min_size=1, max_size=20),
    jitter=st.floats(0, 1),
)
def test_who_fails_for_ever_is_given_up(seconds: float, tries: list[float], jitter: float) -> None:
    """However long its failures take: nothing is begun after the limit."""
    for_ever = [(each, GONE) for each in tries] + [(1.0, GONE)] * 10_000
    found, waits, now = asked(patient(seconds, jitter), for_ever)
    assert found == [GONE]
    assert now <= tries[0] + seconds + max(*tries, 1.0) + 1e-6
    assert all(0 < each.pause < each.left for each in waits)
    assert all(each.pause <= LONGEST_SECONDS for each in waits)


def test_a_long_success_costs_no_patience_and_waits_of_one_computation_add_up() -> None:
    slow = [(0.0, GONE), (10_000.0, "late")]  # 0.5 s of waiting
    found, waits, _ = asked(patient(1.2), slow, slow, slow)
    assert found == ["late", "late", GONE]
    assert [round(each.left, 3) for each in waits] == [1.2, 0.7]
