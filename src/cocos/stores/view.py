# SPDX-License-Identifier: Apache-2.0
"""A namespace held in memory, and read again when somebody has changed it.

Policies and reference values are needed whole by every request and seldom change. Every
change through a view ends with a new *revision*, a value beside the others; a reader
compares it with the one it knows. So what was acknowledged on one replica holds on all of
them with their next request. A change that broke off before its revision, which nobody
acknowledged, is seen after :data:`MAX_AGE_SECONDS`.
"""

import asyncio
import math
import secrets
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from cocos.stores.base import Namespace, Store

MAX_AGE_SECONDS: Final = 300.0
REVISION: Final = "\x01revision"
"""Its key: nothing that an operator names contains a control character."""


class View:
    """Reads and changes a namespace as a whole."""

    def __init__(self, store: Store, namespace: Namespace) -> None:
        self._store = store
        self._namespace = namespace
        self._values: Mapping[str, bytes] = MappingProxyType({})
        self._revision: bytes | None = None
        self._read_at = -math.inf
        self._reading = asyncio.Lock()

    async def read(self) -> Mapping[str, bytes]:
        """Return all values by key; the same object as long as nothing has changed."""
        revision = await self._store.get(self._namespace, REVISION)
        if not self._is_current(revision):
            async with self._reading:  # the others wait for the first
                if not self._is_current(revision):
                    await self._load(revision)
        return self._values

    async def put(self, values: Mapping[str, bytes]) -> None:
        """Write values over those of the same keys; one after the other, not as one."""
        try:
            for key, value in values.items():
                await self._store.put(self._namespace, key, value)
        finally:
            await self._renew()

    async def put_new(self, key: str, value: bytes) -> bool:
        """Write a value unless there is one; return whether it was written."""
        written = await self._store.put_new(self._namespace, key, value)
        if written:
            await self._renew()
        return written

    async def replace(self, key: str, old: bytes, new: bytes) -> bool:
        """Write a value if it is still ``old``; return whether it was."""
        written = await self._store.replace(self._namespace, key, old, new)
        await self._renew()  # also if not: what we know of it is not what is there
        return written

    async def delete(self, key: str) -> bool:
        """Delete a value; return whether there was one."""
        if key == REVISION:
            return False
        existed = await self._store.delete(self._namespace, key)
        await self._renew()
        return existed

    def _is_current(self, revision: bytes | None) -> bool:
        age = asyncio.get_running_loop().time() - self._read_at
        return revision == self._revision and age < MAX_AGE_SECONDS

    async def _load(self, revision: bytes | None) -> None:
        now = asyncio.get_running_loop().time()
        found: dict[str, bytes] = {}
        for key in await self._store.keys(self._namespace):
            value = None if key == REVISION else await self._store.get(self._namespace, key)
            if value is not None:
                found[key] = value
        if found != self._values:
            self._values = MappingProxyType(found)
        self._revision, self._read_at = revision, now

    async def _renew(self) -> None:
        await self._store.put(self._namespace, REVISION, secrets.token_bytes(16))
