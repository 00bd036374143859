# SPDX-License-Identifier: Apache-2.0
"""Going into the background, for flags of old; a service manager does this better."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from cocos.errors import UnreachableError
from cocos.host.disk import disk_error
from cocos.host.files import write_atomic


def runtime_folder() -> Path:
    """Return where process ids go: systemd's choice, or the guest components' folder."""
    return Path(os.environ.get("RUNTIME_DIRECTORY") or "/run/confidential-containers")


def daemonize(folder: Path, stem: str) -> Callable[[], None]:
    """Go on in a child of its own session; the caller's process waits and ends.

    To be called before any thread or event loop exists. Standard output and error go to
    ``STEM.out`` and ``STEM.err`` in ``folder``, the process id to ``STEM.pid``.

    Returns:
        In the child: what to call once it answers. The first process ends with success
        then, and with an error if the child dies before.

    Raises:
        ConfigError: the folder cannot be written.
        UnreachableError: in the first process: the child did not get that far.
    """
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        mode, flags = 0o600, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        output = [os.open(folder / f"{stem}.{kind}", flags, mode) for kind in ("out", "err")]
        reader, writer = os.pipe()
    except OSError as error:
        raise disk_error(error, f"cannot write to {folder}") from error
    sys.stdout.flush()
    sys.stderr.flush()
    if os.fork():
        os.close(writer)
        if os.read(reader, 1):
            os._exit(0)
        raise UnreachableError(f"it did not start: {folder}/{stem}.err says why")
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    for number, descriptor in enumerate([null, *output]):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.close(reader)
    write_atomic(folder / f"{stem}.pid", f"{os.getpid()}\n".encode(), mode=0o644)

    def ready() -> None:
        os.write(writer, b"1")
        os.close(writer)

    return ready
