# SPDX-License-Identifier: Apache-2.0
"""How much work a request makes, counted: calls of functions, Python's and C's.

Never time: a machine under load must not fail a test, nor a fast one pass it.
"""

import asyncio
import contextlib
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Self

from starlette.types import ASGIApp, Message


@dataclass
class Meter:
    """Counts while it is entered.

    Attributes:
        on_loop: Calls in the thread that entered it, which is the event loop's.
        elsewhere: Calls in threads that were started meanwhile.
    """

    on_loop: int = 0
    elsewhere: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def total(self) -> int:
        return self.on_loop + self.elsewhere

    def __enter__(self) -> Self:
        with contextlib.suppress(RuntimeError):
            # Threads that exist already would not be counted.
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(4))
        threading.setprofile(self._count_elsewhere)
        sys.setprofile(self._count_here)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _count_here(self, _frame: FrameType, event: str, _argument: Any) -> None:
        if event in {"call", "c_call"}:
            self.on_loop += 1

    def _count_elsewhere(self, _frame: FrameType, event: str, _argument: Any) -> None:
        if event in {"call", "c_call"}:
            with self._lock:
                self.elsewhere += 1


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


async def call(  # noqa: PLR0917 - as on a command line
    app: ASGIApp,
    method: str,
    path: str,
    headers: dict[str, str] | None = None,
    body: bytes = b"",
    query: str = "",
) -> tuple[Answer, Meter]:
    """Send a request without any client's work; return the answer and what it cost."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    fields = {"host": "kbs.test", "content-length": str(len(body)), **(headers or {})}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in fields.items()],
        "server": ("kbs.test", 8080),
        "client": None,
    }
    with Meter() as meter:
        await app(scope, receive, send)
    start, *rest = sent
    shown = {name.decode(): value.decode() for name, value in start["headers"]}
    return Answer(start["status"], shown, b"".join(part.get("body", b"") for part in rest)), meter
