# SPDX-License-Identifier: Apache-2.0
import lzma
import subprocess
from pathlib import Path

import pytest

from cocos.errors import FormatError
from cocos.image import initrd


def test_archive_is_what_cpio_reads(tmp_path: Path) -> None:
    content = initrd.archive(
        {"init": b"#!/bin/sh\n", "bin/busybox": b"\x7fELF", "bin/sh": "busybox"}
    )
    subprocess.run(
        ["busybox", "cpio", "-idm"], input=content, cwd=tmp_path, check=True, capture_output=True
    )
    assert (tmp_path / "init").read_bytes() == b"#!/bin/sh\n"
    assert (tmp_path / "init").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "bin" / "sh").readlink() == Path("busybox")


def test_archive_does_not_depend_on_the_order_of_files() -> None:
    files: dict[str, bytes | str] = {"a": b"1", "b/c": b"2", "b/d": "c"}
    assert initrd.archive(files) == initrd.archive(dict(reversed(files.items())))


def module(needs: str) -> bytes:
    return lzma.compress(b"\x7fELF\0license=GPL\0depends=" + needs.encode() + b"\0name=x\0")


@pytest.fixture
def modules(tmp_path: Path) -> initrd.Modules:
    folder = tmp_path / "kernel" / "drivers"
    folder.mkdir(parents=True)
    (tmp_path / "modules.builtin").write_text("kernel/crypto/built-in-one.ko\n")
    for name, needs in (
        ("dm-verity", "dm-mod,dm-bufio,built-in-one"),
        ("dm-mod", ""),
        ("dm-bufio", "dm-mod"),
        ("orphan", "absent"),
    ):
        (folder / f"{name}.ko.xz").write_bytes(module(needs))
    return initrd.Modules(tmp_path)


def test_modules_come_after_those_that_they_need(modules: initrd.Modules) -> None:
    assert [name for name, _ in modules.closure(["dm_verity", "dm_mod"])] == [
        "dm_mod",
        "dm_bufio",
        "dm_verity",
    ]


def test_a_missing_module_is_named(modules: initrd.Modules) -> None:
    with pytest.raises(FormatError, match="absent"):
        list(modules.closure(["orphan"]))
