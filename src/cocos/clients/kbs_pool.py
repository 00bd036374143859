# SPDX-License-Identifier: Apache-2.0
"""Clients of several KBSs, one for each, so that callers share its session."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, Self

import structlog

from cocos.clients.kbs import KbsClient

MAX_CLIENTS: Final = 64
"""Who asks for more loses the one that was used longest ago, and with it only time."""


_MEANING: Final = "whoever answers there is believed; name its #token-key=, or use https"

_log = structlog.get_logger(__name__)


class KbsClients:
    """Opens clients as they are asked for; an async context manager.

    Args:
        open_client: Makes a client for a KBS's URL.
    """

    def __init__(self, open_client: Callable[[str], KbsClient]) -> None:
        self._open_client = open_client
        self._clients: dict[str, KbsClient] = {}
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        async with contextlib.AsyncExitStack() as stack:
            for client in self._clients.values():
                stack.push_async_exit(client)

    async def get(self, url: str) -> KbsClient:
        """Return the client of a KBS.

        Raises:
            ConfigError: not the URL of a KBS.
        """
        async with self._lock:
            client = self._clients.pop(url, None)
            if client is None:
                client = await self._open_client(url).__aenter__()
                if not client.authenticated:
                    _log.warning("kbs.unauthenticated", url=client.url, meaning=_MEANING)
            self._clients[url] = client
            if len(self._clients) > MAX_CLIENTS:
                oldest = next(iter(self._clients))
                await self._clients.pop(oldest).__aexit__(None, None, None)
            return client
