# SPDX-License-Identifier: Apache-2.0
"""A way to a server that holds answers back, so that tests choose the moment."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Gate:
    """A way to a server that, while it is armed, holds back the answers to some requests.

    It knows requests by ``mark`` in them. What was held back goes on when it is opened.
    """

    def __init__(self, mark: bytes) -> None:
        self.mark = mark
        self._open = asyncio.Event()
        self._open.set()
        self.armed = False
        self.reached = asyncio.Event()

    def open(self) -> None:
        self.armed = False
        self._open.set()

    @contextlib.asynccontextmanager
    async def before(self, address: str) -> AsyncIterator[str]:
        """Yield the gate's own address, by the same name."""
        host, _, port = address.rpartition(":")
        tasks: set[asyncio.Task[None]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            with contextlib.suppress(OSError, asyncio.CancelledError), contextlib.closing(writer):
                answers, requests = await asyncio.open_connection(host, int(port))
                held: list[bool] = []
                up = asyncio.create_task(self._up(reader, requests, held))
                try:
                    while data := await answers.read(2**16):
                        if held:
                            await self._open.wait()
                        writer.write(data)
                finally:
                    up.cancel()
                    requests.close()

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        try:
            yield f"{host}:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _up(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, held: list[bool]
    ) -> None:
        while data := await reader.read(2**16):
            if self.armed and self.mark in data:
                self.armed = False
                self._open.clear()
                held.append(True)
                self.reached.set()
            writer.write(data)
