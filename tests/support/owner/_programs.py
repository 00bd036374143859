# SPDX-License-Identifier: Apache-2.0
"""Our programs as children: started, awaited by the line they announce, stopped."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cocos.host import process

SECONDS = 60


@dataclass
class Running:
    """A program that answers at ``address``; ``log`` grows as it writes."""

    address: str
    log: list[str] = field(default_factory=list)
    pid: int = 0

    def kill(self) -> None:
        """End it and its children without a chance to clean up."""
        os.killpg(self.pid, signal.SIGKILL)

    @property
    def text(self) -> str:
        return "\n".join(self.log)


@contextlib.asynccontextmanager
async def running(
    name: str, *arguments: str | Path, env: dict[str, str] | None = None
) -> AsyncIterator[Running]:
    """Have one of our programs run, with ``--json``."""
    argv = [Path(sys.executable).parent / name, *arguments, "--json"]
    async with started(name, argv, env=env) as program:
        yield program


@contextlib.asynccontextmanager
async def started(
    name: str,
    argv: Sequence[str | Path],
    *,
    env: dict[str, str] | None = None,
    stdin: int | None = None,
) -> AsyncIterator[Running]:
    """Have a server run that announces in JSON where it listens."""
    pipe = asyncio.subprocess.PIPE
    async with process.spawn(argv, env=env, stdin=stdin, stdout=pipe, stderr=pipe) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        program = Running("", pid=child.pid)
        reading = asyncio.create_task(_read(child.stderr, program.log))
        async with asyncio.timeout(SECONDS):
            line = await child.stdout.readline()
        if not line:
            await reading
            raise AssertionError(f"{name} did not start:\n{program.text}")
        program.address = json.loads(line)["listening"]
        try:
            yield program
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading


async def _read(stream: asyncio.StreamReader, log: list[str]) -> None:
    while line := await stream.readline():
        log.append(line.decode(errors="replace").rstrip("\n"))


@contextlib.asynccontextmanager
async def docker_registry(argv: Sequence[str], folder: Path, port: str = "0") -> AsyncIterator[str]:
    """Have a registry run on a port, by default a free one; yields ``localhost:PORT``."""
    config = folder / "registry.yml"
    config.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    pipe = asyncio.subprocess.PIPE
    log: list[str] = []
    async with process.spawn([*argv, "serve", config], stdout=pipe, stderr=pipe) as child:
        assert child.stderr is not None
        async with asyncio.timeout(SECONDS):
            while line := (await child.stderr.readline()).decode():
                log.append(line)
                if "listening on 127.0.0.1:" in line:
                    break
        assert log, "no registry"
        port = log[-1].partition("listening on 127.0.0.1:")[2].split('"')[0]
        assert port, log
        reading = asyncio.create_task(_read(child.stderr, log))
        assert child.stdout is not None
        ignoring = asyncio.create_task(_read(child.stdout, log))
        try:
            yield f"localhost:{port}"
        finally:
            for job in (reading, ignoring):
                job.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await job
