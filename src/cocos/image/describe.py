# SPDX-License-Identifier: Apache-2.0
"""The files of a finished image, and what ``image.json`` says of them."""

import hashlib
import re
from pathlib import Path

import msgspec

from cocos._types import JsonObject
from cocos.errors import FormatError
from cocos.image.config import BuildSettings
from cocos.image.inputs import REQUIREMENTS, Inputs
from cocos.wire.image_folder import DESCRIPTION, FIRMWARE, REFERENCE_VALUES, ROOT, UKI
from cocos.wire.pe import Image

_ROOT_HASH = re.compile(r"(?:^| )roothash=([0-9a-f]{64})(?: |$)")


def files(settings: BuildSettings) -> tuple[str, ...]:
    """Return the names of an image's files, without that of the description itself."""
    firmware = FIRMWARE.values() if settings.confidential else ()
    return (UKI, ROOT, *firmware, REFERENCE_VALUES)


def describe(folder: Path, settings: BuildSettings, inputs: Inputs, decides: str) -> JsonObject:
    """Return the description of the files in a folder, as built from these inputs.

    Args:
        folder: Holds the files.
        settings: What was to be built.
        inputs: And from what.
        decides: Digest of all that decides their bytes, from before they were made: our own
            files may have changed since.

    Raises:
        FormatError: the kernel image is none of ours.
        OSError: a file is missing.
    """
    uki = Image.parse((folder / UKI).read_bytes())
    line = _text(uki, ".cmdline")
    found = _ROOT_HASH.search(line)
    if found is None:
        raise FormatError("the kernel's command line has no root hash")
    return {
        "inputs": decides,
        "debug": settings.debug,
        "kernel": _text(uki, ".uname"),
        "cmdline": line,
        "roothash": found[1],
        "epoch": settings.epoch,
        "files": {name: _file(folder / name) for name in files(settings)},
        "packages": inputs.packages,
        "firmware": inputs.firmware_versions,
        "tools": inputs.tool_versions,
        "wheels": _locked_versions(),
    }


def current(
    folder: Path, settings: BuildSettings, inputs: Inputs, decides: str
) -> JsonObject | None:
    """Return the description of an image that is as a build would leave it; else None."""
    try:
        description = describe(folder, settings, inputs, decides)
        written = (folder / DESCRIPTION).read_bytes()
    except (OSError, FormatError):
        return None
    return description if written == encode(description) else None


def encode(value: object) -> bytes:
    """Return a value as JSON for people."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def _text(uki: Image, section: str) -> str:
    content = uki.section(section)
    if content is None:
        raise FormatError(f"the kernel image has no section {section}")
    return content.decode(errors="replace")


def _file(path: Path) -> JsonObject:
    with path.open("rb") as file:
        return {
            "bytes": path.stat().st_size,
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
        }


def _locked_versions() -> dict[str, str]:
    lines = REQUIREMENTS.read_text("utf-8").splitlines()
    pairs = [
        line.split("\\")[0].split(";")[0].strip().split("==") for line in lines if "==" in line
    ]
    return dict(pairs)
