# SPDX-License-Identifier: Apache-2.0
"""Asking again, where that may help: what is worth it, how often, and for how long.

Only those use it who know what an answer is worth to them: the agent for a computation, the
data hub for a program that waits, a command for its user. What lies between fails at once
and says so, so that waits do not add up and who waits can tell (ADR 0037).

The whole question is asked again, never a part of it: a handshake begins with a nonce of its
own, and what has been measured, or may have been done, is no question.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from cocos.errors import CocosError, TooManyRequestsError, UnreachableError, UntrustedError

FIRST_SECONDS: Final = 0.5
LONGEST_SECONDS: Final = 8.0

T = TypeVar("T")


def may_pass(error: CocosError) -> bool:
    """Tell whether the same question may get an answer a little later.

    A refusal, a peer that cannot show who it is, and an answer that is malformed stay so.
    """
    if isinstance(error, UntrustedError):
        return False
    return isinstance(error, UnreachableError | TooManyRequestsError)


def back_off(failures: int, longest: float, jitter: Callable[[], float]) -> float:
    """Return the seconds until the next try, after so many that failed before the last one.

    Half of the pause is random, so that many do not come back all at once.
    """
    pause = min(FIRST_SECONDS * float(2 ** min(failures, 16)), longest)
    return pause * (1 + jitter()) / 2


@dataclass(frozen=True, slots=True)
class Wait:
    """Why and how long somebody waits.

    Attributes:
        error: What came of the last try.
        first: Whether this is the first wait for this answer.
        pause: Seconds until the next try.
        left: Seconds after which there is no other one.
    """

    error: CocosError
    first: bool
    pause: float
    left: float

    def __str__(self) -> str:
        return f"trying again in {self.pause:.1f} s, for {self.left:.0f} s at most"


class Patience:
    """So many seconds of waiting, for all questions together.

    Args:
        seconds: How long; 0: fail at once. They count from the first failure of a question
            to the beginning of the try that succeeds, so that a peer that fails for ever is
            given up, however it does so.
        tell: Is told of every wait before it begins.
        worth: What errors are worth a wait.
        sleep: Waits that many seconds.
        jitter: Returns a number from 0 to 1: many do not come back all at once.
    """

    def __init__(
        self,
        seconds: float,
        *,
        tell: Callable[[Wait], object],
        worth: Callable[[CocosError], bool] = may_pass,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._left = seconds
        self._tell = tell
        self._worth = worth
        self._sleep = sleep
        self._jitter = jitter

    async def ask(self, question: Callable[[], Awaitable[T]]) -> T:
        """Return the answer to a question, asked as often as it takes and patience lasts.

        Raises:
            CocosError: of the last try.
        """
        clock = asyncio.get_running_loop().time
        failures = 0
        first_failure = None
        while True:
            began = clock()
            try:
                answer = await question()
            except CocosError as error:
                failed = clock()
                if first_failure is None:
                    first_failure = failed
                left = self._left - (failed - first_failure)
                pause = self._pause(failures, error)
                if not self._worth(error) or pause >= left:
                    self._left = max(0.0, left)
                    raise
                self._tell(Wait(error, failures == 0, pause, left))
            else:
                if first_failure is not None:
                    self._left = max(0.0, self._left - (began - first_failure))
                return answer
            failures += 1
            await self._sleep(pause)

    def _pause(self, failures: int, error: CocosError) -> float:
        # The peer's own word is a lower bound.
        asked = getattr(error, "retry_after", None) or 0.0
        return max(back_off(failures, LONGEST_SECONDS, self._jitter), asked)
