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
async def docker_registry(
    argv: Sequence[str],
    folder: Path,
    port: str = "0",
    *,
    host: str = "127.0.0.1",
    more: str = "",
) -> AsyncIterator[str]:
    """Have a registry run; yields its address, ``localhost:PORT`` where nothing else is said.

    Args:
        argv: The words that start it.
        folder: For its data.
        port: By default a free one.
        host: Where it listens.
        more: Of its configuration: members of ``http``, and behind a line break others.
    """
    config = folder / "registry.yml"
    config.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
        f"http:\n  addr: '{host}:{port}'\n{more}"
    )
    pipe = asyncio.subprocess.PIPE
    log: list[str] = []
    async with process.spawn([*argv, "serve", config], stdout=pipe, stderr=pipe) as child:
        assert child.stderr is not None
        async with asyncio.timeout(SECONDS):
            while line := (await child.stderr.readline()).decode():
                log.append(line)
                if f"listening on {host}:" in line:
                    break
        assert log, "no registry"
        port = log[-1].partition(f"listening on {host}:")[2].split('"')[0].split(",")[0]
        assert port, log
        reading = asyncio.create_task(_read(child.stderr, log))
        assert child.stdout is not None
        ignoring = asyncio.create_task(_read(child.stdout, log))
        try:
            yield f"localhost:{port}" if host == "127.0.0.1" else f"{host}:{port}"
        finally:
            for job in (reading, ignoring):
                job.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await job
