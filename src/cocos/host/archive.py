# SPDX-License-Identifier: Apache-2.0
"""Zips: the deterministic one of the original agent, and reading one without being tricked.

The same files with the same modes give the same bytes, those that Go's ``archive/zip``
writes for stored entries at the Unix epoch in UTC. The checksum of a folder is the
SHA3-256 of this zip, the checksum of a file that of its bytes.
"""

import contextlib
import hashlib
import os
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from cocos.errors import FormatError, StateError, TooLargeError
from cocos.host import trees
from cocos.host.disk import disk_error

MAX_BYTES = 4 * 2**30

_CHUNK = 2**20
_DOS_EPOCH = struct.pack("<HH", 0, 0xEC21)  # 1970 in a field that counts from 1980
_EXTRA = b"\x55\x54\x05\x00\x01\x00\x00\x00\x00"  # modified at 0, in Unix seconds
_MAX16 = 0xFFFF
_MAX32 = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Entry:
    """A file to put into a zip: its name there, and where it is."""

    name: str
    path: Path


@dataclass(slots=True)
class _Written:
    head: bytes
    extra: bytes
    name: bytes
    mode: int
    offset: int


def files_below(root: Path, *, follow_links: bool = False) -> list[Entry]:
    """List the regular files below a folder by name, bytewise sorted.

    Args:
        root: The folder.
        follow_links: Take the files that symbolic links point to. Never for a folder that
            somebody else wrote: a link may point anywhere.

    Raises:
        TooLargeError: more, deeper or longer than :mod:`cocos.host.trees` takes.
        ConfigError: a folder cannot be read.
    """
    found = [
        Entry(name, Path(item.path))
        for name, item in trees.walk(root)
        if item.is_file(follow_symlinks=follow_links)
    ]
    return sorted(found, key=lambda entry: os.fsencode(entry.name))


def write_zip(
    entries: Iterable[Entry], sink: Callable[[bytes], object], *, limit: int | None = None
) -> None:
    """Write the deterministic zip of these files, in this order.

    Args:
        entries: The files.
        sink: Gets the bytes, piece by piece.
        limit: Most bytes of content.

    Raises:
        TooLargeError: more content than ``limit``.
        ConfigError: a file cannot be read.
    """
    offset = 0
    content = 0
    directory: list[_Written] = []

    def put(data: bytes) -> None:
        nonlocal offset
        offset += len(data)
        sink(data)

    for entry in entries:
        name = os.fsencode(entry.name)
        flags = 0x0008 | (0x0800 if _needs_utf8_flag(name) else 0)
        start = offset
        put(struct.pack("<4s3H", b"PK\x03\x04", 20, flags, 0) + _DOS_EPOCH)
        put(struct.pack("<3L2H", 0, 0, 0, len(name), len(_EXTRA)) + name + _EXTRA)
        crc = size = 0
        with _open(entry.path) as file:
            mode = os.fstat(file.fileno()).st_mode
            while chunk := file.read(_CHUNK):
                crc = zlib.crc32(chunk, crc)
                size += len(chunk)
                if limit is not None and content + size > limit:
                    raise TooLargeError(f"the files are larger than {limit} bytes in total")
                put(chunk)
        content += size
        big = size >= _MAX32
        put(struct.pack("<4sL" + ("QQ" if big else "LL"), b"PK\x07\x08", crc, size, size))
        extra = _EXTRA
        shown, place = size, start
        if big or start >= _MAX32:
            extra += struct.pack("<HHQQQ", 1, 24, size, size, start)
            shown = place = _MAX32
        head = struct.pack("<4s4H", b"PK\x01\x02", 0x0314, 45 if big else 20, flags, 0)
        head += _DOS_EPOCH + struct.pack("<3L", crc, shown, shown)
        directory.append(_Written(head, extra, name, mode, place))
    _write_directory(directory, offset, put)


def _write_directory(directory: list[_Written], start: int, put: Callable[[bytes], None]) -> None:
    size = 0
    for each in directory:
        attributes = (0x8000 | stat.S_IMODE(each.mode)) << 16
        attributes |= 0 if each.mode & stat.S_IWUSR else 1
        record = each.head + struct.pack("<2H", len(each.name), len(each.extra))
        record += struct.pack("<3H2L", 0, 0, 0, attributes, each.offset) + each.name + each.extra
        size += len(record)
        put(record)
    count = len(directory)
    if count >= _MAX16 or size >= _MAX32 or start >= _MAX32:
        put(struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, start))
        put(struct.pack("<4sLQL", b"PK\x06\x07", 0, start + size, 1))
        count, size, start = _MAX16, _MAX32, _MAX32
    put(struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, size, start, 0))


def _needs_utf8_flag(name: bytes) -> bool:
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return False
    return any(not " " <= character <= "}" or character == "\\" for character in text)


@contextlib.contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise disk_error(error, f"cannot read {path}") from error


def checksum(path: Path) -> bytes:
    """Return the SHA3-256 of a file, or of the deterministic zip of a folder.

    Raises:
        ConfigError: absent or unreadable.
    """
    digest = hashlib.sha3_256()
    if path.is_dir():
        write_zip(files_below(path, follow_links=True), digest.update)
        return digest.digest()
    with _open(path) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.digest()


def unzip(archive: BinaryIO, target: Path, *, limit: int = MAX_BYTES) -> list[str]:
    """Unpack a zip that nobody vouches for into a folder; all of it or nothing.

    Only files are made, none outside of the folder, none over another, all with mode 0600.

    Args:
        archive: The zip, seekable.
        target: Folder; made when absent, must be empty otherwise.
        limit: Most bytes of content, counted as they come out.

    Returns:
        The names of the files, sorted.

    Raises:
        FormatError: not a zip, damaged, or with a name that leads out of the folder, twice
            the same name, or an entry that is no file.
        TooLargeError: more content than ``limit`` or too many entries.
        StateError: the folder holds something already.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise StateError(f"{target} is there already", hint="name a new or an empty folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".unzip-") as scratch:
        folder = Path(scratch) / "files"
        folder.mkdir()
        try:
            with zipfile.ZipFile(archive) as opened:
                names = _extract(opened, folder, limit)
        except (
            zipfile.BadZipFile,
            NotImplementedError,
            RuntimeError,
            EOFError,
            ValueError,
            zlib.error,
            struct.error,
            OverflowError,
        ) as error:
            raise FormatError(f"this is no sound zip: {error}") from error
        except OSError as error:
            raise disk_error(error, f"cannot write to {target}") from error
        folder.rename(target)
    return names


def _extract(opened: zipfile.ZipFile, folder: Path, limit: int) -> list[str]:
    if len(opened.infolist()) > trees.MAX_ENTRIES:
        raise TooLargeError(f"the zip has more than {trees.MAX_ENTRIES} entries")
    total = size = 0
    names = []
    made: set[int] = set()
    for info in opened.infolist():
        size += len(info.orig_filename)
        if size > trees.MAX_NAMES:
            raise TooLargeError(f"the zip has names of more than {trees.MAX_NAMES} bytes in total")
        name = _safe_name(info)
        descriptor = _make(folder, name, info, made)
        if descriptor is None:
            continue
        with os.fdopen(descriptor, "wb") as file, opened.open(info) as content:
            while chunk := content.read(_CHUNK):
                total += len(chunk)
                if total > limit:
                    raise TooLargeError(f"the zip unpacks to more than {limit} bytes")
                file.write(chunk)
            if file.tell() != info.file_size:
                raise FormatError(f"this is no sound zip: {info.filename!r} is cut short")
        names.append(info.filename)
    return sorted(names)


def _make(folder: Path, name: PurePosixPath, info: zipfile.ZipInfo, made: set[int]) -> int | None:
    """Make an entry's folders and open its file, if it is one; ``made``: hashes of folders."""
    new = below = name if info.is_dir() else name.parent
    while new.parts and hash(new) not in made:
        made.add(hash(new))
        new = new.parent
    if len(made) > trees.MAX_ENTRIES:
        raise TooLargeError(f"the zip has more than {trees.MAX_ENTRIES} folders")
    try:
        (folder / below).mkdir(parents=True, exist_ok=True)
        if info.is_dir():
            return None
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        return os.open(folder / name, flags, 0o600)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise FormatError(f"the zip has two entries for {info.filename[:200]!r}") from error
    except OSError as error:
        raise disk_error(error, f"cannot make {info.filename[:200]!r}", FormatError) from error


def _safe_name(info: zipfile.ZipInfo) -> PurePosixPath:
    # What zipfile has cut off or replaced in the name is in orig_filename.
    name = info.orig_filename
    kind = stat.S_IFMT(info.external_attr >> 16)
    parts = name.removesuffix("/").split("/")
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise FormatError(f"the zip's entry {name[:200]!r} is no regular file")
    if any(part in {"", ".", ".."} for part in parts) or "\\" in name or "\0" in name:
        raise FormatError(f"the zip's entry {name[:200]!r} leads out of its folder")
    trees.check_name(name, len(parts) - 1, "the zip")
    return PurePosixPath(*parts)
