# SPDX-License-Identifier: Apache-2.0
"""The image that VMs boot, and the firmware they boot with: files that must be there."""

from dataclasses import dataclass
from pathlib import Path

from cocos.errors import ConfigError, FormatError, ProcessError, ToolMissingError
from cocos.host import process, qemu
from cocos.host.files import cache_folder
from cocos.manager.config import ManagerConfig
from cocos.wire.pe import Image as Program

IMAGE_HINT = (
    "cocos-cli image build makes one; --image-folder names another; --backend local starts "
    "none, and proves nothing"
)


@dataclass(frozen=True, slots=True)
class Image:
    """A built image.

    Attributes:
        kernel: Unified kernel image: kernel, initrd and command line.
        root: Disk of the root file system with its hash tree.
        reference_values: What it measures, as JSON.
    """

    kernel: Path
    root: Path
    reference_values: Path

    @classmethod
    def find(cls, config: ManagerConfig) -> "Image":
        """Return the configured image.

        Raises:
            ConfigError: a file of it is missing.
        """
        folder = (config.image_folder or cache_folder("image") / "cocos").absolute()
        image = cls(folder / "cocos.efi", folder / "root.img", folder / "reference-values.json")
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
