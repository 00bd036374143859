# SPDX-License-Identifier: Apache-2.0
"""What images are made of, fetched once: Debian's packages, locked wheels, build tools."""

import asyncio
import contextlib
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path

import msgspec

from cocos.errors import ProcessError
from cocos.host.files import cache_folder, lock_file, write_atomic
from cocos.host.tools import image_tools
from cocos.host.tools.image_tools import Tools
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
        firmware: Folder with the packages of the firmware for encrypted memory, or None.
        firmware_versions: Package → version of these.
    """

    guest: Path
    packages: dict[str, str]
    wheels: Path
    tools: Tools
    tool_versions: dict[str, str]
    firmware: Path | None = None
    firmware_versions: dict[str, str] = field(default_factory=dict)


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
    fetch = _Fetch(cache, progress, refresh=settings.refresh)
    guest = await fetch.guest(debug=settings.debug)
    tools = await fetch.tools()
    firmware = await fetch.firmware() if settings.confidential else None
    wheels = await fetch.wheels()
    await asyncio.to_thread(_forget, cache)
    return Inputs(
        guest=guest,
        packages=await asyncio.to_thread(_packages, guest),
        wheels=wheels,
        tools=tools,
        tool_versions=image_tools.folder_versions(tools.folder),
        firmware=firmware,
        firmware_versions=image_tools.folder_versions(firmware) if firmware else {},
    )


class _Fetch:
    """Each input, from the cache or else from where it comes."""

    def __init__(self, cache: Path, progress: Progress, *, refresh: bool) -> None:
        self._cache = cache
        self._progress = progress
        self._refresh = refresh

    async def guest(self, *, debug: bool) -> Path:
        archive = _guest_archive(self._cache, debug=debug)
        if self._refresh or not archive.exists():
            async with self._fetching(Step.PACKAGES) as folder:
                new = folder / archive.name
                await image_tools.fetch_packages(spec.packages(debug=debug), spec.SUITE, new)
                _list_of(archive).unlink(missing_ok=True)
                new.replace(archive)
        return archive

    async def tools(self) -> Tools:
        tools = Tools(_tools(self._cache))
        if self._refresh or not tools.folder.is_dir():
            async with self._fetching(Step.TOOLS) as folder:
                archive, new = folder / "tools.tar", folder / "tools"
                await image_tools.fetch_packages(spec.TOOL_PACKAGES, spec.SUITE, archive)
                wanted = partial(_is_not_in, "var/")
                await asyncio.to_thread(image_tools.unpack_new, archive, new, wanted)
                await asyncio.to_thread(_replace, tools.folder, new)
        return tools

    async def firmware(self) -> Path:
        firmware = _firmware(self._cache)
        if self._refresh or not firmware.is_dir():
            packages, files = zip(*spec.FIRMWARE.values(), strict=True)
            async with self._fetching(Step.FIRMWARE) as folder:
                archive, new = folder / "firmware.tar", folder / "firmware"
                await _fetch_firmware(packages, archive)
                wanted = {*files, image_tools.PACKAGE_LIST}.__contains__
                await asyncio.to_thread(image_tools.unpack_new, archive, new, wanted)
                await asyncio.to_thread(_replace, firmware, new)
        return firmware

    async def wheels(self) -> Path:
        wheels = _wheels(self._cache)
        if self._refresh or not wheels.is_dir():
            version = spec.PYTHON.removeprefix("python")
            async with self._fetching(Step.WHEELS) as folder:
                new = folder / "wheels"
                await image_tools.fetch_wheels(REQUIREMENTS, new, python=version)
                await asyncio.to_thread(_replace, wheels, new)
        return wheels

    @contextlib.asynccontextmanager
    async def _fetching(self, step: Step) -> AsyncIterator[Path]:
        """Lend an empty folder, and tell meanwhile how much is in it."""
        folder = self._cache / _FETCHING
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        self._progress(step, "")
        telling = asyncio.create_task(_tell_size(folder, partial(self._progress, step)))
        try:
            yield folder
        finally:
            telling.cancel()
            await asyncio.wait({telling})
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def digest(settings: BuildSettings, inputs: Inputs) -> str:
    """Return a digest of all that decides the bytes of an image.

    Names and versions stand for packages, as Debian never gives a version to other bytes;
    wheels are in the lock file, which is among our own files.
    """
    decides = {
        "settings": settings.model_dump(mode="json", exclude={"output", "refresh"}),
        "packages": inputs.packages,
        "tools": inputs.tool_versions,
        "firmware": inputs.firmware_versions,
        "libraries": {name: metadata.version(name) for name in spec.LIBRARIES},
        "files": {
            name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in _own_files()
        },
    }
    return hashlib.sha256(msgspec.json.encode(decides, order="sorted")).hexdigest()


async def _fetch_firmware(packages: Sequence[str], archive: Path) -> None:
    try:
        await image_tools.fetch_packages(packages, spec.FIRMWARE_SUITE, archive, expired=True)
    except ProcessError as error:
        raise ProcessError(
            error.message,
            exit_status=error.exit_status,
            stderr=error.stderr,
            hint="--no-confidential builds an image without firmware for SEV-SNP and TDX",
        ) from error


def _own_files() -> Iterator[tuple[str, Path]]:
    yield from rootfs.own_files()
    for path in rootfs.GUEST.parent.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(rootfs.PACKAGE).as_posix(), path


def _guest_archive(cache: Path, *, debug: bool) -> Path:
    return cache / f"guest-{_key(spec.SUITE, *spec.packages(debug=debug))}.tar"


def _tools(cache: Path) -> Path:
    return cache / f"tools-{_key(spec.SUITE, *spec.TOOL_PACKAGES)}"


def _firmware(cache: Path) -> Path:
    packages = (package for package, _ in spec.FIRMWARE.values())
    return cache / f"firmware-{_key(spec.FIRMWARE_SUITE, *packages)}"


def _wheels(cache: Path) -> Path:
    return cache / f"wheels-{_key(REQUIREMENTS.read_text('utf-8'))}"


def _is_not_in(folder: str, path: str) -> bool:
    return not path.startswith(folder)


def _list_of(archive: Path) -> Path:
    return archive.with_suffix(".txt")


def _packages(archive: Path) -> dict[str, str]:
    """Return package → version; kept beside the archive, which takes a second to read."""
    path = _list_of(archive)
    if not path.exists():
        write_atomic(path, image_tools.package_list(archive).encode())
    return image_tools.versions(path.read_text("utf-8"))


def _forget(cache: Path) -> None:
    """Remove what earlier versions of this program made images of."""
    archives = [_guest_archive(cache, debug=debug) for debug in (False, True)]
    folders = [_tools(cache), _firmware(cache), _wheels(cache)]
    used = {*archives, *map(_list_of, archives), *folders}
    for path in cache.iterdir():
        if path not in used and path.name != _LOCK:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


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
