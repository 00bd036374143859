# SPDX-License-Identifier: Apache-2.0
"""Unix sockets under paths of any length.

The kernel takes 107 bytes. A path through the folder's descriptor is always short.
"""

import os
import socket
from pathlib import Path


def listen(path: Path) -> socket.socket:
    """Return a socket that listens at ``path``; only our user may connect."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        with _Folder(path.parent) as folder:
            listener.bind(f"{folder}/{path.name}")
            Path(folder, path.name).chmod(0o600)
        listener.listen()
    except BaseException:
        listener.close()
        raise
    return listener


def connect(path: Path) -> socket.socket:
    """Return a socket, not blocking, that is connected to the one at ``path``.

    Raises:
        OSError: nobody listens there.
    """
    client = socket.socket(socket.AF_UNIX)
    try:
        with _Folder(path.parent) as folder:
            client.connect(f"{folder}/{path.name}")
        client.setblocking(False)
    except BaseException:
        client.close()
        raise
    return client


class _Folder:
    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> str:
        return f"/proc/self/fd/{self._descriptor}"

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
