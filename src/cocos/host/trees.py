# SPDX-License-Identifier: Apache-2.0
"""Trees that programs of strangers wrote: what is in them, and how they go.

:func:`walk` has limits. :func:`remove_tree` has none: no path is ever built from what a
tree holds, and no depth costs us descriptors or memory, since a folder in a folder is
moved up to the top, where its turn comes. So it does not matter how deep a tree is, what
its names are, where its links point, or whether it still changes.
"""

import contextlib
import fcntl
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog

from cocos.errors import StorageError, TooLargeError
from cocos.host.disk import disk_error

MAX_ENTRIES = 200_000
"""Files and folders, together."""
MAX_DEPTH = 255
"""Folders in folders: less than recursive programs take."""
MAX_NAME = 3000
"""Bytes of a name with its folders: below the kernel's 4096 wherever it is unpacked."""
MAX_NAMES = 32 * 2**20
"""Bytes of all these names."""

ASIDE = ".left-"
"""Begins the name of what could not be removed."""

_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ROUNDS = 8  # for a tree that somebody still writes to
_STUCK = 1000  # entries that stay before the rest is not tried any more
_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602  # FS_IOC_GETFLAGS, FS_IOC_SETFLAGS
_HOLDING = 0x10 | 0x20  # FS_IMMUTABLE_FL, FS_APPEND_FL

_log = structlog.get_logger(__name__)


def walk(root: Path) -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    """Go through what is below a folder; links are shown, not followed.

    Yields:
        Name below ``root``, and what it is; in no order.

    Raises:
        TooLargeError: more, deeper or longer than the limits of this module.
        ConfigError: a folder cannot be read.
    """
    pending = [("", 0)]
    count = size = 0
    try:
        while pending:
            prefix, depth = pending.pop()
            with os.scandir(root / prefix) as items:
                for item in items:
                    name = f"{prefix}{item.name}"
                    count, size = count + 1, size + len(os.fsencode(name))
                    _check_limits(root, name, depth, count, size)
                    if item.is_dir(follow_symlinks=False):
                        pending.append((f"{name}/", depth + 1))
                    yield name, item
    except OSError as error:
        raise disk_error(error, f"cannot read {error.filename}") from error


def _check_limits(root: Path, name: str, depth: int, count: int, size: int) -> None:
    if count > MAX_ENTRIES:
        raise TooLargeError(f"{root} holds more than {MAX_ENTRIES} files and folders")
    if size > MAX_NAMES:
        raise TooLargeError(f"{root} holds names of more than {MAX_NAMES} bytes in total")
    check_name(name, depth, str(root))


def check_name(name: str, depth: int, where: str) -> None:
    """Refuse a name that common systems do not take.

    Raises:
        TooLargeError: too long, or below too many folders.
    """
    if depth > MAX_DEPTH:
        raise TooLargeError(f"{where} is deeper than {MAX_DEPTH} folders")
    if len(os.fsencode(name)) > MAX_NAME:
        raise TooLargeError(f"{where} holds a name that is longer than {MAX_NAME} bytes")


def discard(folder: Path) -> Path | None:
    """Remove a tree, or else put it aside where nobody can read it; the log says so.

    Returns:
        Where it is now, if it could not be removed.
    """
    try:
        remove_tree(folder)
    except StorageError as error:
        aside = _put_aside(folder)
        _log.error("tree.left", path=str(aside), problem=error.message)
        return aside
    return None


def left_in(folder: Path) -> list[Path]:
    """Return what :func:`discard` has put aside in a folder."""
    return sorted(folder.glob(f"{ASIDE}*"))


def remove_tree(folder: Path) -> None:
    """Remove a folder, or whatever has its name, with all that is in it; absent is fine.

    Raises:
        StorageError: something of it stays; everything else is gone.
    """
    try:
        with _opened(folder.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) as parent:
            _remove(folder.name, parent)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"cannot remove all of {folder}: {error.strerror}") from error


def _remove(name: str, parent: int) -> None:
    if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=parent)
        return
    with _opened_up(name, parent) as top:
        for rounds_left in reversed(range(_ROUNDS)):
            problem = _empty(top)
            try:
                os.rmdir(name, dir_fd=parent)
            except OSError as error:
                if not rounds_left:
                    raise problem or error from None
            else:
                return


def _empty(top: int) -> OSError | None:
    """Remove what is in a folder, level by level; return why something stays."""
    stuck: dict[str, OSError] = {}
    again = True
    while again and len(stuck) < _STUCK:
        again = False
        for name, is_folder in _entries(top):
            if name in stuck:
                continue
            try:
                if is_folder:
                    _remove_folder(name, top)
                else:
                    _insist(os.unlink, name, top)
            except OSError as error:
                stuck[name] = error
            again = True
    return next(iter(stuck.values()), None)


def _remove_folder(name: str, top: int) -> None:
    """Remove a folder at the top; the folders in it come to the top."""
    problem = None
    with _opened_up(name, top) as below:
        for each, is_folder in _entries(below):
            try:
                if is_folder:
                    _insist(_Up(top), each, below)
                else:
                    _insist(os.unlink, each, below)
            except OSError as error:
                problem = problem or error
    if problem is not None:
        raise problem
    _insist(os.rmdir, name, top)


class _Up:
    """Moves a folder to the top, under a name that nobody guessed."""

    def __init__(self, top: int) -> None:
        self._top = top

    def __call__(self, name: str, *, dir_fd: int) -> None:
        os.rename(name, secrets.token_hex(16), src_dir_fd=dir_fd, dst_dir_fd=self._top)


def _insist(act: Callable[..., None], name: str, folder: int) -> None:
    """Do something with an entry of a folder, despite modes and flags; absent is fine."""
    with contextlib.suppress(FileNotFoundError):
        try:
            act(name, dir_fd=folder)
        except PermissionError:
            _clear_flags(folder)
            mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                with _opened_up(name, folder):
                    pass
            elif stat.S_ISREG(mode):  # to open a device does something
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                with _opened(name, flags, folder) as file:
                    _clear_flags(file)
            act(name, dir_fd=folder)


def _entries(folder: int) -> Iterator[tuple[str, bool]]:
    """Names in a folder, and whether they are folders themselves."""
    with _opened(".", os.O_RDONLY | _FOLDER, folder) as fresh, os.scandir(fresh) as items:
        for item in items:
            yield item.name, item.is_dir(follow_symlinks=False)


@contextlib.contextmanager
def _opened(name: str | Path, flags: int, folder: int | None = None) -> Iterator[int]:
    descriptor = os.open(name, flags, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _opened_up(name: str, parent: int) -> Iterator[int]:
    """Open a folder for whatever we want to do in it."""
    with _opened(name, os.O_PATH | _FOLDER, parent) as place:
        with contextlib.suppress(OSError):
            # What may not even be opened can be reached so, and no link is followed.
            Path(f"/proc/self/fd/{place}").chmod(stat.S_IRWXU)
        with _opened(".", os.O_RDONLY | _FOLDER, place) as folder:
            _clear_flags(folder)
            with contextlib.suppress(OSError):
                os.fchmod(folder, stat.S_IRWXU)
            yield folder


def _clear_flags(descriptor: int) -> None:
    """Take off the flags that forbid changes, where the file system has any."""
    with contextlib.suppress(OSError):
        flags = int.from_bytes(fcntl.ioctl(descriptor, _GET_FLAGS, bytes(8))[:4], "little")
        if flags & _HOLDING:
            cleared = (flags & ~_HOLDING).to_bytes(8, "little")
            fcntl.ioctl(descriptor, _SET_FLAGS, cleared)


def _put_aside(folder: Path) -> Path:
    aside = folder.with_name(f"{ASIDE}{secrets.token_hex(8)}")
    try:
        folder.rename(aside)
    except OSError:
        aside = folder
    with contextlib.suppress(OSError):
        aside.chmod(0)
    return aside
