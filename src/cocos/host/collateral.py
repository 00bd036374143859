# SPDX-License-Identifier: Apache-2.0
"""Collateral in a folder: one file each, written at once or not at all.

A file is a line of JSON with the times, and the bytes after it.
"""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from cocos.errors import ConfigError, FormatError
from cocos.host.disk import disk_error
from cocos.host.files import data_folder, read_file, write_atomic
from cocos.verifiers.collateral import NAME, Item, missing, valid
from cocos.wire import json

MAX_BYTES: Final = 4 * 2**20
"""Of one item; a list of revoked certificates is the largest."""

_ENDING: Final = ".item"


class _Head(msgspec.Struct, frozen=True):
    fetched: dt.datetime
    not_after: dt.datetime


def default_folder() -> Path:
    """Return where a user's collateral is; the machine's for a user without a home."""
    try:
        return data_folder("collateral")
    except RuntimeError:
        return Path("/var/lib/cocos/collateral")


class CollateralFolder:
    """A folder of collateral; see :class:`cocos.verifiers.collateral.Collateral`.

    Args:
        folder: Made when something is stored.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, name: str, now: dt.datetime) -> bytes:
        """Return the stored bytes.

        Raises:
            EvidenceError: not stored, not readable, or past their time.
        """
        try:
            item = self.item(name)
        except (ConfigError, FormatError) as error:
            raise missing(name) from error
        if item is None:
            raise missing(name)
        return valid(name, item, now)

    def item(self, name: str) -> Item | None:
        """Return what is stored under a name, also past its time; None if nothing is.

        Raises:
            ConfigError: the file cannot be read.
            FormatError: it is none of ours.
        """
        path = self._path(name)
        if not path.is_file():
            return None
        return decode(read_file(path, "collateral", limit=MAX_BYTES + 1024))

    def put(self, name: str, item: Item) -> None:
        """Store an item.

        Raises:
            FormatError: no name, or too large.
            ConfigError: the folder cannot be written.
        """
        if len(item.data) > MAX_BYTES:
            raise FormatError(f"{name} has {len(item.data)} bytes; {MAX_BYTES} are allowed")
        path = self._path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, encode(item), mode=0o644)
        except OSError as error:
            raise disk_error(error, f"cannot store {name} in {self._folder}") from error

    def names(self) -> Iterator[str]:
        """Yield the names of everything stored, in order."""
        for path in sorted(self._folder.rglob(f"*{_ENDING}")):
            name = path.relative_to(self._folder).as_posix().removesuffix(_ENDING)
            if NAME.fullmatch(name):
                yield name

    def _path(self, name: str) -> Path:
        if not NAME.fullmatch(name):
            raise FormatError(f"{name!r} is no name of collateral")
        return self._folder / f"{name}{_ENDING}"


def encode(item: Item) -> bytes:
    """Return an item as the bytes of a file."""
    return msgspec.json.encode(_Head(item.fetched, item.not_after)) + b"\n" + item.data


def decode(data: bytes) -> Item:
    """Return the item in a file.

    Raises:
        FormatError: another form.
    """
    head, found, rest = data.partition(b"\n")
    times: _Head = json.decode(head, _Head, "the collateral's first line")
    if not found or times.fetched.tzinfo is None or times.not_after.tzinfo is None:
        raise FormatError("the collateral has no times")
    return Item(rest, times.fetched, times.not_after)
