# SPDX-License-Identifier: Apache-2.0
"""Runs in the guest, first of all services: unpack the init data of the host.

The disk is untrusted. Its members may only have names that the guest knows, say each fact
once (:mod:`cocos.wire.vm_init_data`), become files in one folder of memory, readable by root,
and are measured by the attestation agent from the text that stands beside them. Imports
little: it is on the way of every boot.
"""

import os
import sys
from pathlib import Path

from cocos.errors import CocosError, FormatError
from cocos.wire import env_file, vm_init_data
from cocos.wire.init_data import InitDocument, from_disk

DISK = Path("/dev/disk/by-id/virtio-cocos-initdata")
FOLDER = Path(vm_init_data.FOLDER)
COMMAND_LINE = Path("/proc/cmdline")
TEXT = "initdata.toml"
LIMIT = 2**20
ENVIRONMENTS = {"agent": "cocos-agent.env", "keyprovider": "coco-keyprovider.env"}
"""Program → file that its unit reads. Made here, of members that a policy sees."""


def unpack(content: bytes, folder: Path, *, command_line: str = "") -> None:
    """Write the members of an init data disk, and its exact text, into a folder.

    Args:
        content: The whole disk.
        folder: Made when absent; private.
        command_line: The kernel's, which must not say what init data says.

    Raises:
        FormatError: no init data, a member that no program here reads, or a fact that is said
            twice.
    """
    text = from_disk(content)
    document = InitDocument.parse(text)
    environments = vm_init_data.programs(document.data, command_line=command_line)
    folder.mkdir(mode=0o700, exist_ok=True)
    _write(folder / TEXT, text)
    for name, value in document.data.items():
        _write(folder / name, value.encode())
    for program, variables in environments.items():
        _write(folder / ENVIRONMENTS[program], env_file.dumps(variables).encode())


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def main() -> None:
    """Run the program."""
    try:
        with DISK.open("rb") as disk:
            content = disk.read(LIMIT + 1)
        if len(content) > LIMIT:
            raise FormatError(f"the init data disk is larger than {LIMIT} bytes")
        unpack(content, FOLDER, command_line=COMMAND_LINE.read_text("utf-8", "replace"))
    except OSError as error:
        sys.exit(f"cocos-initdata: cannot read {error.filename or DISK}: {error.strerror}")
    except CocosError as error:
        sys.exit(f"cocos-initdata: {error.message}")
