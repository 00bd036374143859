# SPDX-License-Identifier: Apache-2.0
"""One run of Skopeo with its progress, and its failure in our words.

It runs with its log at level debug: only there it says that a registry wants a pause, during
which it would be silent for minutes. Nothing of that log goes any further.
"""

import asyncio
import contextlib
import os
import re
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cocos.errors import InternalError, UnreachableError
from cocos.host import process
from cocos.host.images import registry_errors
from cocos.host.images.skopeo_errors import translate

OnProgress = Callable[[int, int], None]
"""Gets how many bytes are done, and of how many."""

STALL_SECONDS = 600.0
"""After which a copy that moves nothing has ended; a key provider may wait for its KBS."""

_POLL_SECONDS = 0.2
_LONG_PAUSE_SECONDS = 10.0
_CHUNK = 2**16
_KEPT_BYTES = 2**20
_NETWORK = (
    *("SSL_CERT_DIR", "SSL_CERT_FILE"),
    *("DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_CONFIG_HOME"),  # where credentials may be
)
_DEBUG = re.compile(rb"(?:time=\S+ )?level=debug |DEBU\[\d+\] ")
# From the line's beginning: further on Skopeo quotes what registries say.
_SAYS = r"(?:(?:time=\S+ )?level=debug msg=\"|DEBU\[\d+\] )"
_AFTER = re.compile(_SAYS + r"Detected 'Retry-After' header \\?\"([^\"\\]+)")
_PAUSE = re.compile(_SAYS + r"Too many requests to (\S+): sleeping for (\d{1,9}(?:\.\d+)?) seconds")


class Meter:
    """Adds up what was read; bytes that Skopeo reads are known from the kernel only."""

    def __init__(self, total: int, sink: OnProgress | None) -> None:
        self.total = total
        self._sink = sink
        self._done = 0
        self.stalled = False

    def add(self, count: int) -> None:
        self._set(self._done + count)

    def finish(self) -> None:
        self._set(self.total)

    def _set(self, done: int) -> None:
        self._done = max(self._done, min(done, self.total))
        if self._sink is not None:
            self._sink(self._done, self.total)

    async def watch(self, child: Process, share: int) -> None:
        """Follow a process's reads, up to ``share`` bytes; end it when it stalls."""
        clock = asyncio.get_running_loop().time
        before, since = (0, 0), clock()
        while (moved := _bytes_moved(child.pid)) is not None:
            if moved != before:
                before, since = moved, clock()
            elif clock() - since > STALL_SECONDS:
                self.stalled = True
                child.kill()
                return
            self._set(min(moved[0], share))
            await asyncio.sleep(_POLL_SECONDS)


@dataclass(slots=True)
class _Heard:
    """What Skopeo wrote to standard error, without its debug log.

    Attributes:
        text: Its other lines.
        pause: URL that a registry wants no more requests to, and until when; empty for none.
    """

    text: bytearray
    after: str = ""
    pause: tuple[str, str] = ("", "")

    def line(self, line: bytes) -> None:
        if not _DEBUG.match(line):
            self.text += line + b"\n"
            del self.text[:-_KEPT_BYTES]
            return
        words = line.decode(errors="replace")
        after, pause = _AFTER.match(words), _PAUSE.match(words)
        if after is not None:
            self.after = after[1]
        if pause is not None and float(pause[2]) >= _LONG_PAUSE_SECONDS:
            self.pause = (pause[1], self.after or str(int(float(pause[2]))))


async def _read(child: Process) -> tuple[bytes, _Heard]:
    """Read what a Skopeo writes, until its end or until a registry wants a long pause."""
    stdout, stderr = child.stdout, child.stderr
    if stdout is None or stderr is None:
        raise InternalError("Skopeo was started without pipes")
    output = asyncio.ensure_future(stdout.read())
    heard, rest = _Heard(bytearray()), b""
    try:
        while not heard.pause[0] and (data := await stderr.read(_CHUNK)):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                heard.line(line)
        if heard.pause[0]:
            return b"", heard
        heard.line(rest)
        return await output, heard
    finally:
        output.cancel()


def _bytes_moved(pid: int) -> tuple[int, int] | None:
    """Return how much a process has read and written; None where nobody tells."""
    try:
        lines = Path(f"/proc/{pid}/io").read_text("ascii").splitlines()
    except OSError:
        return None
    fields = dict(line.split(": ") for line in lines)
    return int(fields.get("rchar", "0")), int(fields.get("wchar", "0"))


async def run(
    argv: Sequence[str],
    subject: str,
    *,
    env: Mapping[str, str] | None = None,
    meter: Meter | None = None,
    share: int = 0,
    timeout: float | None = None,  # noqa: ASYNC109 - part of what the caller asks for
) -> bytes:
    """Run Skopeo to its end and return its standard output.

    Args:
        argv: All its words.
        subject: What is being done, for the message.
        env: Added to the environment.
        meter: Follows what it reads.
        share: How many bytes of the meter's total are this run's.
        timeout: Seconds after which it is stopped.

    Raises:
        CocosError: what its last words mean.
    """
    network = {name: os.environ[name] for name in _NETWORK if name in os.environ}
    pipe = asyncio.subprocess.PIPE
    try:
        async with (
            asyncio.timeout(timeout),
            process.spawn(argv, env={**network, **(env or {})}, stdout=pipe, stderr=pipe) as child,
        ):
            watcher = asyncio.ensure_future(meter.watch(child, share)) if meter else None
            try:
                stdout, heard = await _read(child)
                status = 0 if heard.pause[0] else await child.wait()
            finally:
                if watcher is not None:
                    watcher.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await watcher
    except TimeoutError as error:
        raise UnreachableError(f"{subject}: no end within {timeout:g} s") from error
    if heard.pause[0]:
        from cocos.host.images.registry_words import ask_again  # noqa: PLC0415 - imports a lot

        url, after = heard.pause
        words = await asyncio.to_thread(ask_again, url)
        raise registry_errors.too_many(subject, after=after, words=words)
    if meter is not None and meter.stalled:
        raise UnreachableError(f"{subject}: nothing has moved for {STALL_SECONDS:g} s")
    if status != 0:
        text = heard.text.decode(errors="replace")
        raise translate(text, exit_status=status, subject=subject)
    return stdout
