# SPDX-License-Identifier: Apache-2.0
"""What images are made of, fetched once: Debian's packages, locked wheels, build tools."""

import asyncio
import hashlib
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cocos.host import image_tools
from cocos.host.files import cache_folder, lock_file
from cocos.host.image_tools import Tools
from cocos.image import rootfs, spec
from cocos.image.config import BuildSettings

REQUIREMENTS = rootfs.GUEST / "requirements.txt"

_LOCK = "lock"

Progress = Callable[[str], None]
"""Told, in a few words, what is done now."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What an image is made of: all of it in the cache.

    Attributes:
        guest: Archive of the guest's packages.
        wheels: Folder of Python modules.
        tools: Programs of the build.
        tool_versions: Package → version of these.
    """

    guest: Path
    wheels: Path
    tools: Tools
    tool_versions: dict[str, str]


async def gather(settings: BuildSettings, progress: Progress) -> Inputs:
    """Return the inputs of a build, fetching what is not in the cache."""
    cache = cache_folder("image") / ".inputs"
    cache.mkdir(exist_ok=True, mode=0o700)
    names = spec.packages(debug=settings.debug)
    refresh = settings.refresh
    with await asyncio.to_thread(lock_file, cache / _LOCK):
        guest = _guest_archive(cache, debug=settings.debug)
        if refresh or not guest.exists():
            progress("fetching Debian packages")
            await _fetched(guest, partial(image_tools.fetch_packages, names, spec.SUITE))
        tools_archive = cache / f"tools-{_key(spec.SUITE, *spec.TOOL_PACKAGES)}.tar"
        tools = Tools(tools_archive.with_suffix(""))
        if refresh or not tools_archive.exists() or not tools.folder.is_dir():
            progress("fetching build tools")
            fetch = partial(image_tools.fetch_packages, spec.TOOL_PACKAGES, spec.SUITE)
            await _fetched(tools_archive, fetch)
            await asyncio.to_thread(shutil.rmtree, tools.folder, ignore_errors=True)
            new = cache / ".tools"
            await asyncio.to_thread(shutil.rmtree, new, ignore_errors=True)
            await image_tools.unpack_tools(tools_archive, new)
            new.rename(tools.folder)
        wheels = cache / f"wheels-{_key(REQUIREMENTS.read_text('utf-8'))}"
        if refresh or not wheels.is_dir():
            progress("fetching Python wheels")
            new = cache / ".wheels"
            await asyncio.to_thread(shutil.rmtree, new, ignore_errors=True)
            version = spec.PYTHON.removeprefix("python")
            await image_tools.fetch_wheels(REQUIREMENTS, new, python=version)
            await asyncio.to_thread(shutil.rmtree, wheels, ignore_errors=True)
            new.rename(wheels)
        tool_versions = await asyncio.to_thread(image_tools.versions, tools_archive)
        used = {_guest_archive(cache, debug=debug) for debug in (False, True)}
        await asyncio.to_thread(_forget, cache, {*used, tools_archive, tools.folder, wheels})
    return Inputs(guest, wheels, tools, tool_versions)


def _guest_archive(cache: Path, *, debug: bool) -> Path:
    return cache / f"guest-{_key(spec.SUITE, *spec.packages(debug=debug))}.tar"


def _forget(cache: Path, used: set[Path]) -> None:
    """Remove what earlier versions of this program made images of."""
    for path in cache.iterdir():
        if path not in used and path.name != _LOCK:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


async def _fetched(path: Path, fetch: Callable[[Path], Awaitable[None]]) -> None:
    temporary = path.with_name(f".new-{path.name}")
    await fetch(temporary)
    temporary.rename(path)


def _key(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
