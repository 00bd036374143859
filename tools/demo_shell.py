# SPDX-License-Identifier: Apache-2.0
"""Plain commands for the demo: run to the end, or as servers until the demo ends."""

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Coroutine, Mapping
from pathlib import Path
from typing import Any

import httpx

from cocos.errors import CocosError, ProcessError, UnreachableError
from cocos.host import process

START_SECONDS = 60.0
COMMAND_SECONDS = 600.0
BIN = Path(sys.executable).parent
_READY = b": listening on "


def free_ports(wanted: Mapping[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    """Return a port for each name, the wanted one where it is free, and which ones moved."""
    ports, moved = dict(wanted), {}
    with contextlib.ExitStack() as held:
        for name, port in wanted.items():
            for candidate in (port, 0):
                probe = held.enter_context(socket.socket())
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                with contextlib.suppress(OSError):
                    # All addresses: a server on any of them would be in the way.
                    probe.bind(("", candidate))
                    ports[name] = probe.getsockname()[1]
                    break
            if ports[name] != port:
                moved[name] = ports[name]
    return ports, moved


class Server:
    """A command that runs beside the demo, its output in a log file."""

    def __init__(self, child: asyncio.subprocess.Process, name: str, log: Path) -> None:
        self._child = child
        self._name = name
        self._log = log
        self._output = b""
        self._marks: dict[bytes, asyncio.Event] = {}

    async def follow(self) -> None:
        """Write its output to the log; note what somebody waits for."""
        assert self._child.stdout is not None
        with self._log.open("wb") as file:
            while chunk := await self._child.stdout.read(2**16):
                file.write(chunk)
                file.flush()
                self._output += chunk
                for mark, seen in self._marks.items():
                    if mark in self._output:
                        seen.set()

    def failure(self, what: str) -> ProcessError:
        """Return an error that shows the end of the log."""
        lines = self._log.read_text(errors="replace").splitlines()[-12:]
        text = "".join(f"\n  {self._name} | {line}" for line in lines)
        return ProcessError(f"{self._name} {what}{text}", exit_status=self._child.returncode or 0)

    async def until_ready(self, url: str | None) -> None:
        """Wait until it listens: by its own words, or until ``url`` answers.

        Raises:
            ProcessError: it ended instead, or did not answer in time.
        """
        answers = self._printed(_READY) if url is None else _answers(url)
        if not await self._before_end(answers, START_SECONDS):
            raise self.failure(f"did not answer within {START_SECONDS:g} s")

    async def prints(self, text: str) -> None:
        """Wait until it has printed ``text``.

        Raises:
            ProcessError: it ended without.
        """
        await self._before_end(self._printed(text.encode()), None)

    async def _printed(self, mark: bytes) -> None:
        seen = self._marks.setdefault(mark, asyncio.Event())
        if mark not in self._output:
            await seen.wait()

    async def _before_end(self, what: Coroutine[Any, Any, None], seconds: float | None) -> bool:
        """Wait for something, at most so long; tell whether it came."""
        comes = asyncio.create_task(what)
        ends = asyncio.create_task(self._child.wait())
        try:
            await asyncio.wait({comes, ends}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if ends.done() and not comes.done():
                raise self.failure(f"ended with {process.describe_status(ends.result())}")
            return comes.done()
        finally:
            comes.cancel()
            ends.cancel()

    async def ends_well(self) -> None:
        """Wait for its end.

        Raises:
            ProcessError: its exit code is not zero.
        """
        if await self._child.wait() != 0:
            raise self.failure("failed")


async def _answers(url: str) -> None:
    async with httpx.AsyncClient() as client:
        while True:
            with contextlib.suppress(httpx.TransportError):
                await client.get(url)
                return
            await asyncio.sleep(0.05)


class Shell:
    """Runs commands in one folder, with our programs and a good Skopeo on PATH."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self._folder = folder
        self._env = dict(env)
        self._commands: list[str] = []

    @classmethod
    async def make(cls, folder: Path, env: Mapping[str, str]) -> "Shell":
        """Take the environment that ``cocos-cli env`` gives to people."""
        path = f"{BIN}:{os.environ['PATH']}"
        script = 'eval "$(cocos-cli env)"; env -0'
        done = await process.run(
            ["bash", "-euc", script], env={**os.environ, **env, "PATH": path}, cwd=folder
        )
        lines = done.stdout.decode().rstrip("\0").split("\0")
        return cls(folder, dict(line.split("=", 1) for line in lines))

    def use_key_provider(self, port: int) -> None:
        """Have Skopeo ask the demo's key provider, by a file of ours: the user's stays as it is."""
        provider = {"grpc": f"127.0.0.1:{port}"}
        config = self._folder / "ocicrypt.json"
        config.write_text(json.dumps({"key-providers": {"attestation-agent": provider}}))
        self._env["OCICRYPT_KEYPROVIDER_CONFIG"] = str(config)

    def take_commands(self) -> list[str]:
        """Return the commands run since the last call."""
        commands, self._commands = self._commands, []
        return commands

    async def run(self, *commands: str) -> str:
        """Run commands one after the other, and return what the last one wrote.

        Raises:
            ProcessError: one failed; the message shows it and its last words.
        """
        output = b""
        for command in commands:
            self._commands.append(command)
            try:
                done = await process.run(
                    ["bash", "-euo", "pipefail", "-c", command],
                    env=self._env,
                    cwd=self._folder,
                    timeout=COMMAND_SECONDS,
                )
            except CocosError as error:
                raise UnreachableError(f"{error.message}\n  $ {command}") from error
            output = done.stdout
        return output.decode()

    @contextlib.asynccontextmanager
    async def server(self, command: str, *, url: str | None = None) -> AsyncIterator[Server]:
        """Have a command run beside us; enter the block once it answers.

        Args:
            command: Its command line.
            url: What to ask when it does not say itself that it listens.

        Raises:
            ProcessError: it ended, or did not answer in time.
        """
        self._commands.append(f"{command} &")
        words = command.split()
        name = next(word for word in words if "=" not in word)
        # `exec env`: the command may begin with assignments, and must itself get signals.
        async with process.spawn(
            ["bash", "-euc", f"exec env {command}"],
            env=self._env,
            cwd=self._folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        ) as child:
            server = Server(child, name, self._folder / f"{name}.log")
            following = asyncio.create_task(server.follow())
            try:
                await server.until_ready(url)
                yield server
            finally:
                following.cancel()
