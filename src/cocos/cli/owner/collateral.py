# SPDX-License-Identifier: Apache-2.0
"""``cocos-cli collateral``: what makers of processors publish, kept for verifiers."""

import datetime as dt
import functools
import io
import tarfile
from pathlib import Path
from typing import Annotated, Final

import typer

from cocos._clock import system_clock
from cocos._patience import Patience
from cocos.cli import _common as common
from cocos.clients.makers.amd import AMD_URL, AmdService, path_of
from cocos.clients.makers.intel import INTEL_URL, IntelService, check_name
from cocos.errors import FormatError, NotFoundError
from cocos.host.collateral import MAX_BYTES, CollateralFolder, decode, default_folder, encode
from cocos.host.files import read_input, write_atomic
from cocos.verifiers.collateral import NAME, Item

_MOST_BYTES: Final = 256 * 2**20
_ROOM: Final = 1024
_PATIENCE_SECONDS: Final = 120.0
_INTEL: Final = "intel/"

app = common.make_app("Keep what makers of processors publish, for verifiers that ask no network.")

Folder = Annotated[
    Path | None, typer.Option("--collateral", help="Folder that it is in; by default yours.")
]
Names = Annotated[list[str], typer.Argument(help="As a refusal names it, or list.")]


@app.command("fetch")
def fetch(
    names: Names,
    *,
    collateral: Folder = None,
    amd_url: Annotated[
        str, typer.Option(help="AMD's key distribution service, or a mirror of it.")
    ] = AMD_URL,
    intel_url: Annotated[
        str, typer.Option(help="Intel's certification service, or a cache of it.")
    ] = INTEL_URL,
    as_json: common.JsonFlag = False,
) -> None:
    """Fetch things by name, and store them."""
    for name in names:
        # All are judged before anything begins.
        check_name(name) if name.startswith(_INTEL) else path_of(name)
    folder = _folder(collateral)

    async def run() -> list[tuple[str, Item]]:
        amd = AmdService(clock=system_clock, url=amd_url)
        patience = Patience(
            _PATIENCE_SECONDS,
            tell=lambda wait: common.stderr.print(f"{wait.error}; {wait}", markup=False),
        )
        async with IntelService(clock=system_clock, url=intel_url) as intel:
            found: dict[str, Item] = {}
            for name in names:
                if name in found:  # named twice, or it came along with another
                    continue
                if name.startswith(_INTEL):
                    items = await patience.ask(functools.partial(intel.fetch, name))
                else:
                    items = {name: await amd.fetch(name)}
                for each, item in items.items():
                    folder.put(each, item)
                found |= items
        return list(found.items())

    _print(common.run_async(run()), as_json=as_json)


@app.command("list")
def show(*, collateral: Folder = None, as_json: common.JsonFlag = False) -> None:
    """Print what is stored, how old it is, and how long it may be used."""
    folder = _folder(collateral)
    items = ((name, folder.item(name)) for name in folder.names())
    _print([(name, item) for name, item in items if item is not None], as_json=as_json)


@app.command("export")
def export(
    file: Annotated[Path, typer.Argument(help="Archive to write, tar.")],
    *,
    collateral: Folder = None,
    as_json: common.JsonFlag = False,
) -> None:
    """Write all that is stored to one file, to be carried to a machine without a network."""
    folder = _folder(collateral)
    made = io.BytesIO()
    found = []
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name in folder.names():
            item = folder.item(name)
            if item is None:
                continue
            data = encode(item)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
            found.append((name, item))
    if not found:
        raise NotFoundError("nothing is stored", hint="cocos-cli collateral fetch NAME")
    write_atomic(file, made.getvalue(), mode=0o644)
    _print(found, as_json=as_json)


@app.command("import")
def take(
    file: Annotated[Path, typer.Argument(help="Archive that export wrote.")],
    *,
    collateral: Folder = None,
    as_json: common.JsonFlag = False,
) -> None:
    """Store what an archive has; what is stored already and younger stays."""
    folder = _folder(collateral)
    found = _read(read_input(file, "the archive", limit=_MOST_BYTES))
    for name, item in found:
        stored = folder.item(name)
        if stored is None or stored.fetched < item.fetched:
            folder.put(name, item)
    _print(found, as_json=as_json)


def _read(data: bytes) -> list[tuple[str, Item]]:
    found = []
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is None or not NAME.fullmatch(member.name):
                    raise FormatError(f"the archive has {member.name[:200]!r}, no collateral")
                if member.size > MAX_BYTES + _ROOM:
                    raise FormatError(f"{member.name} has {member.size} bytes in the archive")
                found.append((member.name, decode(content.read())))
    except (tarfile.TarError, EOFError, OSError) as error:
        raise FormatError(f"the archive does not parse: {error}") from error
    return found


def _folder(path: Path | None) -> CollateralFolder:
    return CollateralFolder(path or default_folder())


def _print(items: list[tuple[str, Item]], *, as_json: bool) -> None:
    now = system_clock()
    rows = [
        {
            "name": name,
            "bytes": len(item.data),
            "fetched": _shown(item.fetched),
            "not_after": _shown(item.not_after),
            "usable": now < item.not_after,
        }
        for name, item in items
    ]

    def human() -> None:
        for row in rows:
            until = "until" if row["usable"] else "PAST ITS TIME since"
            print(f"{row['name']}  {row['bytes']} bytes  {until} {row['not_after']}")  # noqa: T201

    common.emit(rows, human, as_json=as_json)


def _shown(time: dt.datetime) -> str:
    return time.isoformat(timespec="seconds")
