# SPDX-License-Identifier: Apache-2.0
"""Whether an agent is there, and for how long none has been."""

import asyncio
from collections.abc import Callable


class Presence:
    """Counts the agents that are connected.

    Attributes:
        seen: Whether there ever was one.
    """

    def __init__(self) -> None:
        self.seen = False
        self._count = 0
        self._changed = asyncio.Event()

    def came(self) -> None:
        """Note an agent that has connected."""
        self.seen = True
        self._change(+1)

    def went(self) -> None:
        """Note the end of an agent's connection."""
        self._change(-1)

    async def gone(self, seconds: float | None, on_loss: Callable[[], object]) -> None:
        """Return when agents have been here, and none has for a time.

        Args:
            seconds: How long; it begins anew with every connection that ends. None: never return.
            on_loss: Called whenever that time begins.
        """
        while True:
            await self._until(lambda: self.seen and not self._count)
            on_loss()
            try:
                async with asyncio.timeout(seconds):
                    await self._until(lambda: self._count > 0)
            except TimeoutError:
                if not self._count:  # else it came in the last moment
                    return

    def _change(self, by: int) -> None:
        self._count += by
        self._changed.set()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()
