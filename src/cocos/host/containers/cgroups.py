# SPDX-License-Identifier: Apache-2.0
"""Control groups of our own: made, handed to a sandbox, removed with all that was in them."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import structlog

ROOT = Path("/sys/fs/cgroup")
INSIDE = "cocos"  # the group that container runtimes of ours use

WAIT_SECONDS = 2.0

_PAUSE_SECONDS = 0.02
_CONTROLLERS = "+cpu +memory +pids"

_log = structlog.get_logger(__name__)


def hierarchies() -> list[Path]:
    """Return the mounted hierarchies: one with version 2, one per controller before."""
    if (ROOT / "cgroup.controllers").exists():
        return [ROOT]
    if not ROOT.is_dir():
        return []
    return sorted(
        path
        for path in ROOT.iterdir()
        if not path.is_symlink() and (path / "cgroup.procs").exists()
    )


def make(name: str) -> None:
    """Make a group of that name in every hierarchy; without root none can be made.

    Args:
        name: One path component.
    """
    if os.geteuid() == 0:
        for hierarchy in hierarchies():
            _make(hierarchy, name)


def remove(name: str) -> None:
    """Remove a group and those below it from every hierarchy; what still runs there is killed.

    Blocks up to :data:`WAIT_SECONDS`: the kernel needs a moment until processes are gone.

    Args:
        name: Path below a hierarchy's root.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    for hierarchy in hierarchies():
        for folder, _, _ in os.walk(hierarchy / name, topdown=False):
            while not _removed(Path(folder)):
                if time.monotonic() > deadline:
                    _log.warning("cgroup.left", path=folder)
                    break
                _kill(Path(folder))
                time.sleep(_PAUSE_SECONDS)


def _kill(folder: Path) -> None:
    """Kill what is in a group, and nothing that has left it meanwhile."""
    for pid in _processes(folder):
        with contextlib.suppress(OSError):
            pidfd = os.pidfd_open(pid)
            try:
                if pid in _processes(folder):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            finally:
                os.close(pidfd)


def _processes(folder: Path) -> Iterator[int]:
    with contextlib.suppress(OSError):  # the group is gone
        yield from map(int, (folder / "cgroup.procs").read_text().split())


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _make(hierarchy: Path, name: str) -> None:
    try:
        if hierarchy == ROOT:
            (ROOT / "cgroup.subtree_control").write_text(_CONTROLLERS)
    except OSError as error:
        _log.debug("cgroup.controllers", problem=error.strerror)
    try:
        (hierarchy / name).mkdir(exist_ok=True)
        # The parent sees the folder that the sandbox puts its group over.
        (hierarchy / INSIDE).mkdir(exist_ok=True)
    except OSError as error:
        _log.debug("cgroup.not-made", path=str(hierarchy / name), problem=error.strerror)
