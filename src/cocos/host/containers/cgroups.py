# SPDX-License-Identifier: Apache-2.0
"""Control groups of our own: made, handed to a sandbox, removed with all that was in them."""

import os
import time
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
    """Remove a group and those below it from every hierarchy; blocks up to :data:`WAIT_SECONDS`.

    The processes in it must have been killed; the kernel needs a moment until they are gone.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    for hierarchy in hierarchies():
        for folder, _, _ in os.walk(hierarchy / name, topdown=False):
            while not _removed(Path(folder)):
                if time.monotonic() > deadline:
                    _log.warning("cgroup.left", path=folder)
                    break
                time.sleep(_PAUSE_SECONDS)


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
