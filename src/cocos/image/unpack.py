# SPDX-License-Identifier: Apache-2.0
"""Runs in the guest, first of all services: unpack the init data of the host.

The disk is untrusted. Its members may only have names that the guest knows, become files
in one folder of memory, readable by root, and are measured by the attestation agent from
the text that stands beside them. Imports little: it is on the way of every boot.
"""

import os
import re
import sys
from pathlib import Path

from cocos.errors import CocosError, FormatError
from cocos.wire.init_data import InitDocument, from_disk

DISK = Path("/dev/disk/by-id/virtio-cocos-initdata")
FOLDER = Path("/run/cocos")
TEXT = "initdata.toml"
LIMIT = 2**20
MEMBERS = frozenset(
    {
        "aa.toml",
        "agent-ca.pem",
        "agent-cert.pem",
        "agent-key.pem",
        "agent.env",
        "authorized_keys",
        "cdh.toml",
        "registries.conf",
    }
)
ENVIRONMENT = "agent.env"
VARIABLES = frozenset(
    {
        "AA_KBC_PARAMS",
        "AGENT_CERTS_TOKEN",
        "AGENT_CVM_CA_URL",
        "AGENT_CVM_GRPC_CLIENT_CERT",
        "AGENT_CVM_GRPC_CLIENT_KEY",
        "AGENT_CVM_GRPC_SERVER_CA_CERTS",
        "AGENT_CVM_GRPC_URL",
        "AGENT_CVM_ID",
        "AGENT_LOG_LEVEL",
        "AWS_ACCESS_KEY_ID",
        "AWS_ENDPOINT_URL",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "COCOS_LOG_LEVEL",
        "CONTAINERS_REGISTRIES_CONF",
    }
)
"""What the host may tell the services; with LD_PRELOAD or PATH it could run its own code."""

_ASSIGNMENT = re.compile(r'([A-Z0-9_]+)="(?:[^"\\\n]|\\["\\$`])*"')


def unpack(content: bytes, folder: Path) -> None:
    """Write the members of an init data disk, and its exact text, into a folder.

    Args:
        content: The whole disk.
        folder: Made when absent; private.

    Raises:
        FormatError: no init data, or a member that no program here reads.
    """
    text = from_disk(content)
    document = InitDocument.parse(text)
    unknown = sorted(document.data.keys() - MEMBERS)
    if unknown:
        raise FormatError(f"the init data has members that this image does not know: {unknown}")
    _check_environment(document.data.get(ENVIRONMENT, ""))
    folder.mkdir(mode=0o700, exist_ok=True)
    _write(folder / TEXT, text)
    for name, value in document.data.items():
        _write(folder / name, value.encode())


def _check_environment(text: str) -> None:
    for line in text.split("\n"):
        if not line:
            continue
        match = _ASSIGNMENT.fullmatch(line)
        if match is None or match[1] not in VARIABLES:
            name = line.partition("=")[0][:64]
            raise FormatError(f"the init data may not set {name!r} for the agent")


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
        unpack(content, FOLDER)
    except OSError as error:
        sys.exit(f"cocos-initdata: cannot read {DISK}: {error.strerror}")
    except CocosError as error:
        sys.exit(f"cocos-initdata: {error.message}")
