# SPDX-License-Identifier: Apache-2.0
"""One run of Skopeo with its progress, and its failure in our words."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cocos.errors import UnreachableError
from cocos.host import process
from cocos.host.images.skopeo_errors import translate

OnProgress = Callable[[int, int], None]
"""Gets how many bytes are done, and of how many."""

_POLL_SECONDS = 0.2
_NETWORK = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_DIR", "SSL_CERT_FILE")


class Meter:
    """Adds up what was read; bytes that Skopeo reads are known from the kernel only."""

    def __init__(self, total: int, sink: OnProgress | None) -> None:
        self.total = total
        self._sink = sink
        self._done = 0

    def add(self, count: int) -> None:
        self._set(self._done + count)

    def finish(self) -> None:
        self._set(self.total)

    def _set(self, done: int) -> None:
        self._done = max(self._done, min(done, self.total))
        if self._sink is not None:
            self._sink(self._done, self.total)

    async def watch(self, pid: int, share: int) -> None:
        """Follow a process's reads, up to ``share`` bytes, until cancelled."""
        while (done := _bytes_read(pid)) is not None:
            self._set(min(done, share))
            await asyncio.sleep(_POLL_SECONDS)


def _bytes_read(pid: int) -> int | None:
    """Return how much a process has read from files and sockets; None where nobody tells."""
    try:
        lines = Path(f"/proc/{pid}/io").read_text("ascii").splitlines()
    except OSError:
        return None
    fields = dict(line.split(": ") for line in lines)
    return int(fields.get("rchar", "0"))


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
            watcher = asyncio.ensure_future(meter.watch(child.pid, share)) if meter else None
            try:
                stdout, stderr = await child.communicate()
            finally:
                if watcher is not None:
                    watcher.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await watcher
            status = child.returncode or 0
    except TimeoutError as error:
        raise UnreachableError(f"{subject}: no end within {timeout:g} s") from error
    if status != 0:
        raise translate(stderr.decode(errors="replace"), exit_status=status, subject=subject)
    return stdout
