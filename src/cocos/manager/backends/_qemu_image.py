# SPDX-License-Identifier: Apache-2.0
"""The image that VMs boot, and the firmware they boot with: files that must be there."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cocos.errors import ConfigError, FormatError, ProcessError, ToolMissingError
from cocos.host import process
from cocos.host.files import cache_folder
from cocos.host.machines import qemu
from cocos.manager.config import ManagerConfig
from cocos.wire import json
from cocos.wire.image_folder import DESCRIPTION, FIRMWARE, REFERENCE_VALUES, ROOT, UKI, Memory
from cocos.wire.pe import Image as Program

IMAGE_HINT = (
    "cocos-cli image build makes one; --image-folder names another; --backend local starts "
    "none, and proves nothing"
)
REBUILD_HINT = (
    "cocos-cli image build makes it anew; MANAGER_QEMU_OVMF_FILE names another firmware, "
    "MANAGER_QEMU_CONFIDENTIAL=none does without"
)


@dataclass(frozen=True, slots=True)
class Image:
    """A built image.

    Attributes:
        folder: Where its files are.
    """

    folder: Path

    @property
    def kernel(self) -> Path:
        """Unified kernel image: kernel, initrd and command line."""
        return self.folder / UKI

    @property
    def root(self) -> Path:
        """Disk of the root file system with its hash tree."""
        return self.folder / ROOT

    @property
    def reference_values(self) -> Path:
        """What it measures, as JSON."""
        return self.folder / REFERENCE_VALUES

    @classmethod
    def find(cls, config: ManagerConfig) -> "Image":
        """Return the configured image.

        Raises:
            ConfigError: a file of it is missing.
        """
        folder = (config.image_folder or cache_folder("image") / "cocos").absolute()
        image = cls(folder)
        for path in (image.kernel, image.root):
            if not path.is_file():
                raise ConfigError(f"there is no image for VMs: {path} is absent", hint=IMAGE_HINT)
        return image

    def kernel_command(self) -> str:
        """Return the kernel's command line, which is part of the image."""
        try:
            line = Program.parse(self.kernel.read_bytes()).section(".cmdline")
        except (OSError, FormatError):
            return ""
        return (line or b"").rstrip(b"\0\n").decode(errors="replace")

    def firmware(self, memory: Memory, cpus: int) -> Path:
        """Return the image's own firmware for encrypted memory, as it was built.

        Raises:
            ConfigError: there is none, it has changed, or the image's reference values do
                not cover VMs with that many processors.
        """
        path = self.folder / FIRMWARE[memory]
        wanted = _member(self.folder / DESCRIPTION, "files", path.name, "sha256")
        if not path.is_file() or wanted is None:
            raise ConfigError(f"the image has no firmware for {memory}", hint=REBUILD_HINT)
        if hashlib.sha256(path.read_bytes()).hexdigest() != wanted:
            raise ConfigError(f"{path} is not as it was built", hint=REBUILD_HINT)
        most = _member(self.reference_values, "inputs", "snp", "cpus")
        if memory == "snp" and isinstance(most, int) and cpus > most:
            raise ConfigError(
                f"the image's reference values are for VMs with up to {most} processors",
                hint=f"cocos-cli image build --max-cpus {cpus}",
            )
        return path


def _member(file: Path, *names: str) -> object:
    """Return a member of a JSON document, None if there is none."""
    try:
        found: object = json.decode(file.read_bytes(), dict[str, Any], str(file))
    except (OSError, FormatError):
        return None
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def check_firmware(config: ManagerConfig) -> None:
    """Make sure that there is OVMF.

    Raises:
        ToolMissingError: there is not.
    """
    for path in (config.ovmf_code, config.ovmf_variables):
        if not path.is_file():
            raise ToolMissingError(f"the firmware {path} is absent", hint=qemu.OVMF_HINT)


async def firmware_version() -> str:
    """Return the version of the system's package of OVMF, or empty if it has none."""
    try:
        query = process.find_tool("dpkg-query", hint="")
        answer = await process.run([query, "-W", "-f=${Version}", "ovmf"], timeout=30)
    except (ToolMissingError, ProcessError):
        return ""
    return answer.stdout.decode(errors="replace").strip()
