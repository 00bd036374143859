# SPDX-License-Identifier: Apache-2.0
"""What an image's config asks for: which program, as which user.

The image is somebody else's: its account files are read without following its links.
"""

import os
import stat
from pathlib import Path

from cocos.errors import FormatError, NotFoundError
from cocos.host.containers.container import User
from cocos.wire.oci import ContainerConfig

_ACCOUNTS_BYTES = 2**20
_ID_DIGITS = 10


def program(config: ContainerConfig | None, args: tuple[str, ...]) -> tuple[str, ...]:
    """Return program and arguments of an image: entry point, then ``args`` or its command.

    Raises:
        FormatError: the image names no program.
    """
    entrypoint = (config.entrypoint or ()) if config else ()
    command = (config.cmd or ()) if config else ()
    # Without an entry point the command is the program, and arguments come after it.
    words = (*entrypoint, *(args or command)) if entrypoint else (*command, *args)
    if not words or not words[0]:
        raise FormatError(
            "the image names no program", hint="give it an ENTRYPOINT or a CMD in its Dockerfile"
        )
    return words


def find_user(rootfs: Path, text: str) -> User:
    """Resolve an image's ``User`` (``name``, ``uid``, with ``:group`` or ``:gid``).

    Raises:
        NotFoundError: no such name in the image's accounts.
        FormatError: a number that is out of range.
    """
    name, _, group = text.partition(":")
    uid, gid = 0, 0
    groups: tuple[int, ...] = ()
    if name:
        entry = _account(rootfs, "passwd", name)
        if entry is None and not (name.isascii() and name.isdigit()):
            raise NotFoundError(f"the image has no user {name!r}")
        uid = _number(entry[2] if entry else name)
        gid = _number(entry[3]) if entry else 0
        if entry is not None and not group:
            groups = _groups_of(rootfs, entry[0])
    if group:
        found = _account(rootfs, "group", group)
        if found is None and not (group.isascii() and group.isdigit()):
            raise NotFoundError(f"the image has no group {group!r}")
        gid = _number(found[2] if found else group)
    return User(uid, gid, groups)


def _groups_of(rootfs: Path, name: str) -> tuple[int, ...]:
    rows = _accounts(rootfs, "group")
    return tuple(sorted({_number(row[2]) for row in rows if name in row[-1].split(",")}))


def _account(rootfs: Path, table: str, key: str) -> list[str] | None:
    """The first row whose name or number is ``key``."""
    return next((row for row in _accounts(rootfs, table) if key in {row[0], row[2]}), None)


def _accounts(rootfs: Path, table: str) -> list[list[str]]:
    """Rows of ``/etc/passwd`` or ``/etc/group`` of an image; no link of it is followed."""
    columns = {"passwd": 7, "group": 4}[table]
    try:
        folder = os.open(rootfs / "etc", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return []
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        with os.fdopen(os.open(table, flags, dir_fd=folder), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return []
            text = file.read(_ACCOUNTS_BYTES).decode(errors="replace")
    except OSError:
        return []
    finally:
        os.close(folder)
    rows = [line.split(":") for line in text.splitlines()]
    return [row for row in rows if len(row) == columns]


def _number(text: str) -> int:
    digits = text.isascii() and text.isdigit() and len(text) <= _ID_DIGITS
    if not digits or int(text) >= 2**31:
        raise FormatError(f"{text[:50]!r} is no user or group number")
    return int(text)
