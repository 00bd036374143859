# SPDX-License-Identifier: Apache-2.0
"""What strangers' programs and data leave behind goes even when we are killed.

A caretaker is a process in a session of its own. It waits for the end of its standard input,
a pipe whose other end is ours alone and which the kernel closes however we end, and then
removes what it was told to. Nothing else makes it end, and nothing is left to the next start.
"""

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from cocos.errors import StorageError, ToolMissingError
from cocos.host import process, trees
from cocos.host.containers import cgroups
from cocos.host.containers.runtime import Runtime

INSIST_SECONDS: Final = 60.0  # while somebody still writes to the folder
_PAUSE_SECONDS: Final = 0.1


@contextlib.asynccontextmanager
async def taken_care_of(
    folder: Path, *, cgroup: str = "", containers: Path | None = None
) -> AsyncIterator[None]:
    """Have a folder removed at the end of the block, or when this process ends before that.

    Args:
        folder: An absolute path; removed with all that is in it.
        cgroup: A control group of ours, removed with all that runs in it.
        containers: State folder of a runtime, whose containers end.

    Raises:
        ToolMissingError: this Python cannot be started.
    """
    words = [sys.executable, "-P", "-m", __name__, folder, cgroup, containers or ""]
    pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    try:
        child = await asyncio.create_subprocess_exec(
            *map(str, words),
            env=process.environment(),
            stdin=pipe,
            stdout=nothing,
            stderr=nothing,
            start_new_session=True,  # what ends our group is not meant for it
        )
    except OSError as error:
        raise ToolMissingError(f"cannot start {sys.executable}: {error.strerror}") from error
    try:
        yield
    finally:
        if child.stdin is not None:
            child.stdin.close()
        await asyncio.shield(child.wait())


def main() -> None:
    """Wait for the end of standard input, then remove what the arguments name."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    folder, cgroup, containers = sys.argv[1:]
    sys.stdin.buffer.read()
    if containers:
        runtime = Runtime.find(Path(containers), insecure_without_cgroups=True)
        asyncio.run(runtime.sweep())
    if cgroup:
        cgroups.remove(cgroup)
    _remove(Path(folder), time.monotonic() + INSIST_SECONDS)


def _remove(folder: Path, deadline: float) -> None:
    while time.monotonic() < deadline:
        try:
            trees.remove_tree(folder)
        except StorageError:
            time.sleep(_PAUSE_SECONDS)
        else:
            return
    trees.discard(folder)


if __name__ == "__main__":
    main()
