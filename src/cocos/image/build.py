# SPDX-License-Identifier: Apache-2.0
"""Build an image: root file system with hash tree, initrd, unified kernel image, predictions."""

import asyncio
import re
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cocos._types import JsonObject
from cocos.errors import FormatError
from cocos.host.images import skopeo
from cocos.host.tools import image_tools
from cocos.host.tools.image_tools import WORK
from cocos.image import initrd, predict, rootfs, spec, tdx
from cocos.image.config import BuildSettings, Progress, Step
from cocos.image.describe import current, describe, encode, files
from cocos.image.inputs import Inputs, digest, gather, locked_cache
from cocos.wire.image_folder import DESCRIPTION, FIRMWARE, REFERENCE_VALUES, ROOT, UKI

BLOCK = 4096

_STAGING = ".build"
_STUB = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"
_ROOT_HASH = re.compile(r"Root hash:\s+([0-9a-f]{64})")
_LIBRARY = re.compile(r"(/\S+)\s+\(0x")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a build has led to.

    Attributes:
        description: The content of ``image.json``.
        up_to_date: It was all there already, whole and from the same inputs.
    """

    description: JsonObject
    up_to_date: bool


async def build(settings: BuildSettings, progress: Progress) -> Outcome:
    """Build an image, unless it is there already.

    Two builds from the same inputs give the same bytes. Files appear in the output folder
    only when all of them are finished.

    Args:
        settings: What to build.
        progress: Hears of each step.

    Raises:
        ToolMissingError: a program of this machine is missing.
        ProcessError: a step failed.
    """
    async with locked_cache(progress) as cache:
        inputs = await gather(cache, settings, progress)
        decides = await asyncio.to_thread(digest, settings, inputs)
        found = await asyncio.to_thread(current, settings.output, settings, inputs, decides)
        if found is not None:
            return Outcome(found, up_to_date=True)
        staging = cache / _STAGING
        await asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True)
        staging.mkdir(mode=0o700)
        try:
            description = await _Build(settings, inputs, decides, staging).run(progress)
            await asyncio.to_thread(_publish, staging / "out", settings)
        finally:
            await asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True)
    return Outcome(description, up_to_date=False)


class _Build:
    """One build, in a folder of its own."""

    def __init__(self, settings: BuildSettings, inputs: Inputs, decides: str, folder: Path) -> None:
        self._settings = settings
        self._inputs = inputs
        self._decides = decides
        self._folder = folder
        self._root = folder / "root"
        self._out = folder / "out"

    async def run(self, progress: Progress) -> JsonObject:
        self._root.mkdir()
        self._out.mkdir()
        progress(Step.ASSEMBLE, "")
        await asyncio.to_thread(self._assemble)
        release, kernel, modules = await asyncio.to_thread(self._kernel)
        ramdisk = await self._initrd(modules)
        progress(Step.COMPILE, "")
        await self._compile()
        await self._check()
        progress(Step.PACK, "")
        root_hash, blocks = await self._pack()
        progress(Step.LINK, "")
        line = spec.command_line(root_hash, blocks, debug=self._settings.debug)
        await self._link(release, kernel, ramdisk, line)
        progress(Step.PREDICT, "")
        return await asyncio.to_thread(self._describe)

    def _describe(self) -> JsonObject:
        if self._inputs.firmware is not None:
            self._add_firmware(self._inputs.firmware)
        values = predict.reference_values(
            self._out, cpus=self._settings.cpus, firmware=self._inputs.firmware_versions
        )
        (self._out / REFERENCE_VALUES).write_bytes(encode(values))
        description = describe(self._out, self._settings, self._inputs, self._decides)
        (self._out / DESCRIPTION).write_bytes(encode(description))
        return description

    def _unpack(self, folder: Path, name: str) -> None:
        """Unpack a part of the packages that is not in the root file system."""
        folder.mkdir()
        image_tools.unpack(self._inputs.guest, folder, lambda path: path.startswith(name))

    def _assemble(self) -> None:
        rootfs.assemble(
            self._root,
            debug=self._settings.debug,
            unpack=partial(image_tools.unpack, self._inputs.guest),
            wheels=self._inputs.wheels,
        )

    def _kernel(self) -> tuple[str, Path, Path]:
        boot = self._folder / "boot"
        self._unpack(boot, "boot/vmlinuz-")
        modules = self._folder / "modules"
        self._unpack(modules, "usr/lib/modules/")
        kernels = list(boot.glob("boot/vmlinuz-*"))
        if len(kernels) != 1:
            raise FormatError(f"the packages have {len(kernels)} kernels instead of one")
        release = kernels[0].name.removeprefix("vmlinuz-")
        return release, kernels[0], modules / "usr" / "lib" / "modules" / release

    async def _initrd(self, modules: Path) -> Path:
        files: dict[str, bytes | str] = {"init": (rootfs.GUEST / "init").read_bytes()}
        for applet in initrd.APPLETS:
            files[f"bin/{applet}"] = "busybox"
        for folder in ("dev", "proc", "root", "sys"):
            files[f"{folder}/.keep"] = b""
        busybox = self._folder / "busybox"
        await asyncio.to_thread(self._unpack, busybox, "usr/bin/busybox")
        files["bin/busybox"] = (busybox / "usr/bin/busybox").read_bytes()
        files |= await self._with_libraries("usr/sbin/dmsetup", "bin/dmsetup")
        await asyncio.to_thread(_add_modules, files, modules)
        path = self._folder / "initrd"
        await asyncio.to_thread(path.write_bytes, initrd.archive(files))
        await self._tool("zstd", "-q", "-19", "--no-check", "-o", "initrd.zst", "initrd")
        return path.with_suffix(".zst")

    async def _with_libraries(self, program: str, name: str) -> dict[str, bytes | str]:
        """Return a program of the guest and the libraries that it needs."""
        loader = "/lib64/ld-linux-x86-64.so.2"
        listing = await self._inputs.tools.run(
            [loader, "--list", f"/{program}"], work=self._folder, root=self._root
        )
        files: dict[str, bytes | str] = {name: (self._root / program).read_bytes()}
        for library in (loader, *_LIBRARY.findall(listing.stdout.decode())):
            files[library.lstrip("/")] = (self._root / library.lstrip("/")).read_bytes()
        return files

    async def _compile(self) -> None:
        # Unchecked: the time stamps of sources in the image say nothing. One process and a
        # fixed hash seed: the order of interned names shows in the output.
        folders = [f"usr/lib/{spec.PYTHON}", "usr/lib/python3/dist-packages", spec.SITE_PACKAGES]
        await self._tool(
            *("python3", "-I", "-m", "compileall", "-q", "-j1"),
            *("--invalidation-mode", "unchecked-hash", "-s", f"{WORK}/root", "-p", "/"),
            *(f"root/{folder}" for folder in folders),
        )

    async def _check(self) -> None:
        """Import what the guest will: nothing that trimming took away is missed."""
        programs = spec.programs(debug=self._settings.debug)
        modules = ", ".join((*programs.values(), "cocos.image.unpack", "tpm2_pytss"))
        await self._inputs.tools.run(
            ["python3", "-I", "-B", "-c", f"import {modules}"], work=self._folder, root=self._root
        )
        # The agent would do this at every start, and an emulated VM takes seconds for it.
        probe = "import asyncio; from cocos.host.images import skopeo; asyncio.run(skopeo.find())"
        await self._inputs.tools.run(
            ["python3", "-I", "-B", "-c", probe],
            work=self._folder,
            root=self._root,
            env={"HOME": "/tmp"},  # noqa: S108 - of the sandbox
        )
        marker = self._root / skopeo.CHECKED.relative_to("/")
        await asyncio.to_thread(marker.touch)

    async def _pack(self) -> tuple[str, int]:
        await asyncio.to_thread(rootfs.set_modes, self._root)
        epoch = str(self._settings.epoch)
        await self._tool(
            *("mksquashfs", "root", "out/root.img", "-quiet", "-no-progress", "-reproducible"),
            *("-all-root", "-no-xattrs", "-mkfs-time", epoch, "-all-time", epoch),
            *("-comp", "lz4", "-Xhc", "-no-fragments"),
        )
        path = self._out / ROOT
        blocks = path.stat().st_size // BLOCK  # mksquashfs pads to whole blocks
        done = await self._tool(
            *("veritysetup", "format", "--no-superblock", "--salt=-", "--hash=sha256"),
            *(f"--data-block-size={BLOCK}", f"--hash-block-size={BLOCK}"),
            *(f"--data-blocks={blocks}", f"--hash-offset={blocks * BLOCK}"),
            *(f"out/{ROOT}", f"out/{ROOT}"),
        )
        found = _ROOT_HASH.search(done)
        if found is None:
            raise FormatError("veritysetup printed no root hash")
        return found[1], blocks

    async def _link(self, release: str, kernel: Path, ramdisk: Path, line: str) -> None:
        (self._folder / "os-release").write_bytes((self._root / "usr/lib/os-release").read_bytes())
        (self._folder / "cmdline").write_text(line, "ascii")
        await self._tool(
            *("python3", "/usr/lib/systemd/ukify", "build", f"--stub={_STUB}"),
            *(f"--linux=boot/boot/{kernel.name}", f"--initrd={ramdisk.name}"),
            *("--cmdline=@cmdline", "--os-release=@os-release", f"--uname={release}"),
            f"--output=out/{UKI}",
        )

    def _add_firmware(self, source: Path) -> None:
        for memory, (_, name) in spec.FIRMWARE.items():
            content = (source / name).read_bytes()
            if memory == "tdx":
                content = tdx.without_variables(content)
            (self._out / FIRMWARE[memory]).write_bytes(content)

    async def _tool(self, *argv: str) -> str:
        environment = {
            "LC_ALL": "C.UTF-8",
            "PYTHONHASHSEED": "0",
            "SOURCE_DATE_EPOCH": str(self._settings.epoch),
            "TZ": "UTC",
        }
        if "-all-time" in argv:
            del environment["SOURCE_DATE_EPOCH"]  # mksquashfs wants it said once
        done = await self._inputs.tools.run(argv, work=self._folder, env=environment)
        return done.stdout.decode()


def _add_modules(files: dict[str, bytes | str], folder: Path) -> None:
    """Add the modules, and per moment of loading a list of names in the order of loading."""
    modules = initrd.Modules(folder)
    groups = {"root": spec.ROOT_MODULES, "hash": spec.HASH_MODULES, "later": spec.LATER_MODULES}
    before: set[str] = set()
    for group, wanted in groups.items():
        names = []
        for name, content in modules.closure((*sorted(before), *wanted)):
            if name not in before:
                files[f"modules/{name}.ko"] = content
                names.append(name)
        before |= set(names)
        files[f"modules/{group}"] = "".join(f"{name}\n" for name in names).encode()


def _publish(source: Path, settings: BuildSettings) -> None:
    """Move finished files to where they are wanted; the description goes last."""
    target = settings.output
    target.mkdir(parents=True, exist_ok=True)
    for name in (*files(settings), DESCRIPTION):
        new = target / f".{name}.new"
        shutil.copyfile(source / name, new)
        new.replace(target / name)
    for name in FIRMWARE.values():
        if name not in files(settings):
            (target / name).unlink(missing_ok=True)
