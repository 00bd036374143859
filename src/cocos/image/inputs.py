# SPDX-License-Identifier: Apache-2.0
"""What images are made of, fetched once: Debian's packages, locked wheels, build tools."""

import asyncio
import contextlib
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

import msgspec

from cocos.host import image_tools
from cocos.host.files import cache_folder, lock_file, write_atomic
from cocos.host.image_tools import Tools
from cocos.image import rootfs, spec
from cocos.image.config import BuildSettings, Progress, Step

REQUIREMENTS = rootfs.GUEST / "requirements.txt"

_LOCK = "lock"
_FETCHING = ".fetching"
_PATIENCE = 1.0  # seconds after which a user wants to know what we wait for


@dataclass(frozen=True, slots=True)
class Inputs:
    """What an image is made of: all of it in the cache.

    Attributes:
        guest: Archive of the guest's packages.
        packages: Package → version of these.
        wheels: Folder of Python modules.
        tools: Programs of the build.
        tool_versions: Package → version of these.
    """

    guest: Path
    packages: dict[str, str]
    wheels: Path
    tools: Tools
    tool_versions: dict[str, str]


@contextlib.asynccontextmanager
async def locked_cache(progress: Progress) -> AsyncIterator[Path]:
    """Lend the folder of the inputs, to one build at a time."""
    cache = cache_folder("image") / ".inputs"
    cache.mkdir(exist_ok=True, mode=0o700)
    taking = asyncio.create_task(asyncio.to_thread(lock_file, cache / _LOCK))
    if not (await asyncio.wait({taking}, timeout=_PATIENCE))[0]:
        progress(Step.WAIT, "")
    with await taking:
        yield cache


async def gather(cache: Path, settings: BuildSettings, progress: Progress) -> Inputs:
    """Return the inputs of a build, fetching what is not in the cache."""
    refresh = settings.refresh
    guest = _guest_archive(cache, debug=settings.debug)
    if refresh or not guest.exists():
        names = spec.packages(debug=settings.debug)
        async with _fetching(cache, Step.PACKAGES, progress) as folder:
            await image_tools.fetch_packages(names, spec.SUITE, folder / guest.name)
            _list_of(guest).unlink(missing_ok=True)
            (folder / guest.name).replace(guest)
    tools = Tools(cache / f"tools-{_key(spec.SUITE, *spec.TOOL_PACKAGES)}")
    if refresh or not tools.folder.is_dir():
        async with _fetching(cache, Step.TOOLS, progress) as folder:
            archive = folder / "tools.tar"
            await image_tools.fetch_packages(spec.TOOL_PACKAGES, spec.SUITE, archive)
            await asyncio.to_thread(image_tools.unpack_tools, archive, folder / "tools")
            await asyncio.to_thread(_replace, tools.folder, folder / "tools")
    wheels = cache / f"wheels-{_key(REQUIREMENTS.read_text('utf-8'))}"
    if refresh or not wheels.is_dir():
        version = spec.PYTHON.removeprefix("python")
        async with _fetching(cache, Step.WHEELS, progress) as folder:
            await image_tools.fetch_wheels(REQUIREMENTS, folder / "wheels", python=version)
            await asyncio.to_thread(_replace, wheels, folder / "wheels")
    archives = [_guest_archive(cache, debug=debug) for debug in (False, True)]
    used = {*archives, *map(_list_of, archives), tools.folder, wheels}
    await asyncio.to_thread(_forget, cache, used)
    return Inputs(guest, await asyncio.to_thread(_packages, guest), wheels, tools, tools.versions())


def digest(settings: BuildSettings, inputs: Inputs) -> str:
    """Return a digest of all that decides the bytes of an image.

    Names and versions stand for packages, as Debian never gives a version to other bytes;
    wheels are in the lock file, which is among our own files.
    """
    decides = {
        "settings": settings.model_dump(mode="json", exclude={"output", "refresh"}),
        "packages": inputs.packages,
        "tools": inputs.tool_versions,
        "libraries": {name: metadata.version(name) for name in spec.LIBRARIES},
        "files": {
            name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in _own_files()
        },
    }
    return hashlib.sha256(msgspec.json.encode(decides, order="sorted")).hexdigest()


def _own_files() -> Iterator[tuple[str, Path]]:
    yield from rootfs.own_files()
    for path in rootfs.GUEST.parent.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(rootfs.PACKAGE).as_posix(), path


def _guest_archive(cache: Path, *, debug: bool) -> Path:
    return cache / f"guest-{_key(spec.SUITE, *spec.packages(debug=debug))}.tar"


def _list_of(archive: Path) -> Path:
    return archive.with_suffix(".txt")


def _packages(archive: Path) -> dict[str, str]:
    """Return package → version; kept beside the archive, which takes a second to read."""
    path = _list_of(archive)
    if not path.exists():
        write_atomic(path, image_tools.package_list(archive).encode())
    return image_tools.versions(path.read_text("utf-8"))


def _forget(cache: Path, used: set[Path]) -> None:
    """Remove what earlier versions of this program made images of."""
    for path in cache.iterdir():
        if path not in used and path.name != _LOCK:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


@contextlib.asynccontextmanager
async def _fetching(cache: Path, step: Step, progress: Progress) -> AsyncIterator[Path]:
    """Lend an empty folder, and tell meanwhile how much is in it."""
    folder = cache / _FETCHING
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    progress(step, "")
    telling = asyncio.create_task(_tell_size(folder, partial(progress, step)))
    try:
        yield folder
    finally:
        telling.cancel()
        await asyncio.wait({telling})
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def _tell_size(folder: Path, tell: Callable[[str], None]) -> None:
    while True:
        await asyncio.sleep(1)
        size = await asyncio.to_thread(_size, folder)
        tell(f"{size / 2**20:.0f} MiB")


def _size(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # temporary files come and go
                total += (Path(place) / name).lstat().st_size
    return total


def _replace(old: Path, new: Path) -> None:
    shutil.rmtree(old, ignore_errors=True)
    new.rename(old)


def _key(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
