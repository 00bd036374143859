# SPDX-License-Identifier: Apache-2.0
"""A VM's console: what its programs print, kept in a file of bounded size."""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import IO

from cocos.wire.manifest.agent_status import AgentStatus

MAX_BYTES = 8 * 2**20  # of the file; beyond it the older half goes
CHUNK_BYTES = 64 * 1024
MAX_LINE = 16 * 1024
AGENTS = frozenset({"cocos-agent", "guest"})
"""Whose lines an agent's words can be: its own, or those of the console of a whole machine."""

_REMEMBERED_LINES = 50  # per program


class Console:
    """Appends lines, gives the last ones, and lets readers follow.

    Positions count the bytes ever written, so that a reader stays in place when the
    older half of the file is dropped.

    Args:
        path: The file.
        limit: Its largest size, in bytes.
        on_status: Is told what the VM's agent says of itself there.
    """

    def __init__(
        self,
        path: Path,
        *,
        limit: int = MAX_BYTES,
        on_status: Callable[[AgentStatus], object] = lambda _: None,
    ) -> None:
        self.path = path
        self._limit = limit
        self._on_status = on_status
        self._file: IO[bytes] | None = None
        self._start = 0  # position of the file's first byte
        self._end = path.stat().st_size if path.exists() else 0
        self._tails: dict[str, deque[str]] = {}
        self._changed = asyncio.Event()
        self._closed = True

    def open(self) -> None:
        """Begin to write."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(descriptor, "r+b", buffering=0)
        self._closed = False

    def write(self, program: str, line: str) -> None:
        """Append one line of a program; control characters are shown, not obeyed."""
        text = "".join(char if char.isprintable() or char == "\t" else "�" for char in line)
        self._tails.setdefault(program, deque(maxlen=_REMEMBERED_LINES)).append(text)
        if self._file is None:
            return
        if program in AGENTS and (status := AgentStatus.of_line(text)) is not None:
            self._on_status(status)
        data = f"{program}: {text}\n".encode(errors="replace")
        if self._end - self._start + len(data) > self._limit:
            self._drop_older_half()
        self._file.write(data)
        self._end += len(data)
        self._wake()

    def tail(self, program: str, lines: int = 5) -> list[str]:
        """Return the last non-empty lines of one program."""
        return [line for line in self._tails.get(program, ()) if line.strip()][-lines:]

    def close(self) -> None:
        """Stop writing; followers reach the end."""
        self._closed = True
        if self._file is not None:
            self._file.close()
            self._file = None
        self._wake()

    async def read(self, *, follow: bool = False) -> AsyncIterator[bytes]:
        """Yield what is there, and with ``follow`` what comes until :meth:`close`."""
        position = self._start
        while True:
            changed = self._changed
            position = max(position, self._start)
            while chunk := self._chunk(position):
                position += len(chunk)
                yield chunk
                position = max(position, self._start)
            if not follow or self._closed:
                return
            await changed.wait()

    def _chunk(self, position: int) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(position - self._start)
                return file.read(CHUNK_BYTES)
        except FileNotFoundError:
            return b""

    def _drop_older_half(self) -> None:
        if self._file is None:
            return
        self._file.seek(0)
        data = self._file.read()
        cut = data.find(b"\n", len(data) - self._limit // 2) + 1
        self._file.truncate(0)
        self._file.write(data[cut:])
        self._start += cut

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


async def pump(stream: asyncio.StreamReader, sink: Callable[[str], None]) -> None:
    """Give a program's output to ``sink``, line by line, until it ends."""
    pending = b""
    # Not readline: a program may write a line longer than any limit.
    while chunk := await stream.read(CHUNK_BYTES):
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            sink(line.decode(errors="replace"))
        if len(pending) > MAX_LINE:
            sink(pending.decode(errors="replace"))
            pending = b""
    if pending:
        sink(pending.decode(errors="replace"))
