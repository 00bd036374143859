# SPDX-License-Identifier: Apache-2.0
"""Whether a storage can be read and written at the moment.

Reading is tried each time. Writing costs a flush of the disk, and anybody may ask: it is
tried once per second at most. So a full disk is noticed without traffic, and its end, too.
"""

import asyncio
from typing import Final

from cocos._clock import Clock
from cocos.errors import CocosError
from cocos.stores.base import Namespace, Store

SECONDS: Final = 1.0
_NAME: Final = "health"


class Health:
    """Tries a storage."""

    def __init__(self, store: Store, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._next = 0.0
        self._problem: CocosError | None = None
        self._lock = asyncio.Lock()

    async def check(self) -> None:
        """Return if everything works.

        Raises:
            CocosError: what does not.
        """
        await asyncio.gather(
            self._store.get(Namespace.RESOURCE, _NAME), self._store.get(Namespace.SESSION, _NAME)
        )
        async with self._lock:
            if asyncio.get_running_loop().time() >= self._next:
                await self._try_to_write()
            if self._problem is not None:
                raise self._problem

    async def _try_to_write(self) -> None:
        now = self._clock()
        try:
            # What has expired is absent for everybody, and swept.
            for namespace in (Namespace.DENIAL, Namespace.SESSION):
                await self._store.put(namespace, _NAME, b"", expires=now)
        except CocosError as error:
            self._problem = error
        else:
            self._problem = None
        self._next = asyncio.get_running_loop().time() + SECONDS
