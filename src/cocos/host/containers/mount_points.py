# SPDX-License-Identifier: Apache-2.0
"""What a runtime reaches in a stranger's image before the container holds anybody.

runc mounts and makes folders at names that the image can have made links of, and some of
what it does then happens outside of the image. So every name is walked here first, folder by
folder, through descriptors, and no link is followed. Nobody else is in the image yet: what
was found stays true.
"""

import os
import stat
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

from cocos._types import JsonObject
from cocos.errors import FormatError, IntegrityError

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ROOT = PurePosixPath("/")
_MAX_LINKS = 40  # as the kernel
_WAYS_OUT = frozenset({"proc", "dev"})  # runc links /dev/fd to /proc/self/fd


def prepare(settings: JsonObject) -> None:
    """Check every mount point of a container, and make those that are missing.

    Args:
        settings: The OCI runtime configuration, the very one that the runtime gets.

    Raises:
        IntegrityError: a link or something else stands where a folder must be; names it.
    """
    before: dict[PurePosixPath, JsonObject] = {}
    for mount in settings["mounts"]:
        target = PurePosixPath(mount["destination"])
        if not target.is_absolute() or ".." in target.parts:
            raise FormatError(f"{target} is no mount point")
        below = next((each for each in (target, *target.parents) if each in before), None)
        if below is None:
            _reach(Path(settings["root"]["path"]), _ROOT, target, mount)
        elif before[below]["type"] == "bind":
            _reach(Path(before[below]["source"]), below, target, mount)
        # else it is in a new file system of the kernel's, which hides what the image has
        before[target] = mount


def working_folder(rootfs: Path, wanted: str) -> str:
    """Return the folder that a program starts in, by a name without links.

    Raises:
        FormatError: not absolute, or a way through ``/proc`` or ``/dev``, which may lead out of the
            image.
    """
    if not wanted.startswith("/"):
        raise FormatError(f"the image's working folder {wanted[:200]!r} is no absolute path")
    found: list[str] = []
    ahead = list(reversed(PurePosixPath(wanted).parts[1:]))
    links = 0
    while ahead:
        part = ahead.pop()
        if part == "..":
            del found[-1:]
            continue
        found.append(part)
        if found[0] in _WAYS_OUT:
            raise FormatError(f"the image's working folder {wanted[:200]!r} is in /{found[0]}")
        place = rootfs.joinpath(*found)
        if place.is_symlink():
            links += 1
            if links > _MAX_LINKS:
                raise FormatError(f"the image's working folder {wanted[:200]!r} leads nowhere")
            to = PurePosixPath(place.readlink())
            found = [] if to.is_absolute() else found[:-1]
            ahead += reversed([each for each in to.parts if each != "/"])
    return str(_ROOT.joinpath(*found))


def _reach(root: Path, below: PurePosixPath, target: PurePosixPath, mount: JsonObject) -> None:
    """Walk from a folder of this machine, shown as ``below``, to a mount point in it."""
    is_file = mount["type"] == "bind" and not Path(mount["source"]).is_dir()
    parts = target.relative_to(below).parts
    with ExitStack() as stack:
        try:
            here = os.open(root, _FOLDER)
        except OSError as error:
            what = "a symbolic link" if root.is_symlink() else "no folder"
            raise IntegrityError(f"the container's root {root} is {what}") from error
        stack.callback(os.close, here)
        for number, part in enumerate(parts, 1):
            shown = below.joinpath(*parts[:number])
            if is_file and number == len(parts):
                _want_file(here, part, shown)
            else:
                here = _enter(here, part, shown)
                stack.callback(os.close, here)


def _enter(folder: int, name: str, shown: PurePosixPath) -> int:
    try:
        os.mkdir(name, dir_fd=folder)
    except FileExistsError:
        made = False
    else:
        made = True
    try:
        opened = os.open(name, _FOLDER, dir_fd=folder)
    except OSError as error:
        raise _odd(folder, name, shown, "no folder") from error
    if made:  # whatever our umask is, the program has to get through
        Path(f"/proc/self/fd/{opened}").chmod(0o755)
    return opened


def _want_file(folder: int, name: str, shown: PurePosixPath) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        os.close(os.open(name, flags, 0o644, dir_fd=folder))
    except FileExistsError as error:
        if not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise _odd(folder, name, shown, "no regular file") from error


def _odd(folder: int, name: str, shown: PurePosixPath, what: str) -> IntegrityError:
    mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    found = "a symbolic link" if stat.S_ISLNK(mode) else what
    return IntegrityError(
        f"{shown} of the image is {found}; something of ours is to be mounted there",
        hint="leave /proc, /dev, /tmp and /cocos out of the image, or make them plain folders",
    )
