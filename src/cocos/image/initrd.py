# SPDX-License-Identifier: Apache-2.0
"""The first file system of the guest: busybox, dmsetup, kernel modules, one script.

It opens the root disk under the hash of the command line and hands over to systemd. A
systemd initrd would take several times as long in an emulated VM.
"""

import lzma
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from cocos.errors import FormatError

APPLETS = (
    *("cat", "ifconfig", "insmod", "ln", "mkdir", "mount", "route", "sh", "switch_root"),
    *("usleep",),
)

_MAGIC = b"070701"
_END = "TRAILER!!!"


def archive(files: Mapping[str, bytes | str]) -> bytes:
    """Return a cpio archive ("newc"): the same files give the same bytes.

    Args:
        files: Path → content of a program, or, as text, the target of a link. Folders are
            made as needed.
    """
    names: dict[str, bytes | str | None] = {}
    for name in sorted(files):
        for folder in reversed(PurePosixPath(name).parents[:-1]):
            names.setdefault(str(folder), None)
        names[name] = files[name]
    parts = [_member(number, name, names[name]) for number, name in enumerate(sorted(names), 1)]
    return b"".join([*parts, _entry(0, _END, 0, b"")])


def _member(number: int, name: str, content: bytes | str | None) -> bytes:
    match content:
        case None:
            return _entry(number, name, stat.S_IFDIR | 0o755, b"")
        case str():
            return _entry(number, name, stat.S_IFLNK | 0o777, content.encode())
        case _:
            return _entry(number, name, stat.S_IFREG | 0o755, content)


def _entry(number: int, name: str, mode: int, data: bytes) -> bytes:
    encoded = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
    head = _MAGIC + b"".join(b"%08x" % field for field in fields) + encoded
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def stub_archive(name: str, content: bytes) -> bytes:
    """Return the archive that systemd's stub makes of a section, byte for byte."""
    # It writes the length of the last name, 11, with a capital letter.
    end = _entry(0, _END, 0, b"").replace(b"0000000b", b"0000000B")
    folder = _entry(1, ".extra", stat.S_IFDIR | 0o555, b"")
    return folder + _entry(2, f".extra/{name}", stat.S_IFREG | 0o444, content) + end


class Modules:
    """The kernel modules of a release, in ``usr/lib/modules/RELEASE``."""

    def __init__(self, folder: Path) -> None:
        self._paths = {
            _module_name(path): path for path in sorted(folder.rglob("*.ko.xz")) if path.is_file()
        }
        builtin = (folder / "modules.builtin").read_text("utf-8").split()
        self._builtin = {_module_name(Path(line)) for line in builtin}

    def closure(self, wanted: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Yield each module once, after those that it needs, uncompressed.

        Raises:
            FormatError: there is no such module.
        """
        done: set[str] = set(self._builtin)
        for name in wanted:
            yield from self._visit(name, done)

    def _visit(self, name: str, done: set[str]) -> Iterator[tuple[str, bytes]]:
        if name in done:
            return
        done.add(name)
        if name not in self._paths:
            raise FormatError(f"the kernel package has no module {name}")
        content = lzma.decompress(self._paths[name].read_bytes())
        for other in _needs(content):
            yield from self._visit(other, done)
        yield name, content


def _module_name(path: Path) -> str:
    return path.name.split(".")[0].replace("-", "_")


def _needs(module: bytes) -> list[str]:
    """Return what a module's own information says it depends on."""
    found = re.findall(rb"\0depends=([^\0]*)", module)
    return [name.decode().replace("-", "_") for name in b",".join(found).split(b",") if name]
