# SPDX-License-Identifier: Apache-2.0
"""What the guest's programs are told in the guest components' own ways."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from cocos.errors import FormatError
from cocos.host.files import read_file
from cocos.host.offline_fs import FILES
from cocos.host.tpm import COMMAND_LINE
from cocos.transport import rpc, ttrpc
from cocos.transport.local_callers import LocalCallers
from cocos.transport.rpc import Service
from cocos.wire.aa_kbc_params import of_command_line
from cocos.wire.init_data import InitDocument, from_disk
from cocos.wire.kbs.protocol import InitData

ConfigFile = Annotated[
    Path | None, typer.Option("-c", "--config-file", help="Settings, as TOML or .json.")
]
AllowUser = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-user",
        metavar="NAME|UID",
        help="Serve programs of this user, too; repeatable. [default: our own user's "
        "and root's only; a socket in the file system serves our own user's]",
    ),
]
LogLevel = Annotated[
    str | None,
    typer.Option(
        "--log-level",
        envvar="COCOS_LOG_LEVEL",
        help="debug, info, warning or error. [default: RUST_LOG's, the file's, or info]",
    ),
]


def serve(
    address: str, services: Sequence[Service], allow_users: Sequence[str]
) -> contextlib.AbstractAsyncContextManager[str]:
    """Serve as the guest components do, for some users: ttrpc at ``unix:///PATH``, else gRPC."""
    callers = LocalCallers.of(allow_users)
    if address.startswith("unix://"):  # a socket that only our user can open
        return ttrpc.serve(address, services)
    return rpc.serve(address, services, callers=callers)


def aa_kbc_params() -> str | None:
    """Return what ``AA_KBC_PARAMS`` and the kernel's command line say, else None.

    Raises:
        FormatError: they say different things.
    """
    told = os.environ.get("AA_KBC_PARAMS") or None
    kernel = of_command_line(command_line())
    if told and kernel and told != kernel:
        raise FormatError(
            "AA_KBC_PARAMS and the kernel's command line name different KBSs; leave one out"
        )
    return told or kernel


def command_line() -> str:
    """Return the kernel's command line; empty where it cannot be read."""
    try:
        return COMMAND_LINE.read_text("utf-8", "replace")
    except OSError:
        return ""


def offline_files() -> tuple[Path, ...]:
    """Return the files of ``offline_fs_kbc``: the usual ones, then those of the environment."""
    more = os.environ.get("OFFLINE_FS_KBC_EXTRA_FILE_PATH", "")
    return (*FILES, *(Path(name.strip()) for name in more.split(",") if name.strip()))


def members() -> dict[str, object]:
    """Return what the environment and the kernel's command line set, as ``load_settings`` wants.

    Raises:
        FormatError: they say different things.
    """
    return {"aa_kbc_params": aa_kbc_params(), "offline_files": offline_files()}


def read_init_data(path: Path) -> tuple[InitData, bytes]:
    """Read init data, TOML or JSON, from a file or a disk; returns it with its digest.

    Raises:
        ConfigError: it cannot be read.
        FormatError: it is no init data.
    """
    text = from_disk(read_file(path, "the init data", limit=2**20))
    form: Literal["toml", "json"] = "json" if text.lstrip().startswith(b"{") else "toml"
    digest = InitDocument.parse(text, form).digest
    return InitData(format=form, body=text.decode("utf-8")), digest
