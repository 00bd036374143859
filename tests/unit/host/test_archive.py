# SPDX-License-Identifier: Apache-2.0
"""The deterministic zip, byte for byte, and zips that try to trick who unpacks them."""

import io
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from _trees import dig

from cocos.errors import ConfigError, FormatError, StateError, TooLargeError
from cocos.host import trees
from cocos.host.archive import Entry, checksum, files_below, unzip, write_zip
from cocos.host.trees import MAX_DEPTH, MAX_NAME, remove_tree


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    for name, text in (("a.txt", "hello\n"), ("sub/b.txt", "world\n")):
        (root / name).write_text(text)
        (root / name).chmod(0o644)
    return root


def zipped(root: Path) -> bytes:
    buffer = io.BytesIO()
    write_zip(files_below(root), buffer.write)
    return buffer.getvalue()


def test_golden_vectors(tree: Path) -> None:
    assert len(zipped(tree)) == 282
    assert (
        checksum(tree).hex() == "da284f7c33485c93917be0e5d603320369c8e18b164ee951ad8c0226bfe44a1e"
    )
    assert (
        checksum(tree / "a.txt").hex()
        == "b314e28493eae9dab57ac4f0c6d887bddbbeb810e900d818395ace558e96516d"
    )


def test_time_zone_and_mtime_do_not_matter(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = zipped(tree)
    monkeypatch.setenv("TZ", "UTC+3")
    os.utime(tree / "a.txt", (1, 1))
    assert zipped(tree) == before


def test_round_trip(tree: Path, tmp_path: Path) -> None:
    (tree / "häßlich ~.txt").write_bytes(os.urandom(3 * 2**20))
    (tree / "empty").touch()
    names = unzip(io.BytesIO(zipped(tree)), tmp_path / "out")
    assert names == sorted(["a.txt", "sub/b.txt", "häßlich ~.txt", "empty"])
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (tree / name).read_bytes()


def test_more_files_than_the_old_format_counts(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("x")
    buffer = io.BytesIO()
    write_zip([Entry(f"n{number:05}", file) for number in range(65_536)], buffer.write)
    with zipfile.ZipFile(buffer) as opened:
        assert len(opened.infolist()) == 65_536
        assert opened.testzip() is None


def test_links_of_somebody_elses_folder_are_not_followed(tree: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("key")
    (tree / "link").symlink_to(secret)
    (tree / "folder-link").symlink_to(tmp_path)
    (tree / "dangling").symlink_to(tmp_path / "nothing")
    os.mkfifo(tree / "pipe")
    assert [entry.name for entry in files_below(tree)] == ["a.txt", "sub/b.txt"]
    names = [entry.name for entry in files_below(tree, follow_links=True)]
    assert names == ["a.txt", "link", "sub/b.txt"]


def test_limits(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TooLargeError, match="11 bytes"):
        write_zip(files_below(tree), lambda _: None, limit=11)
    write_zip(files_below(tree), lambda _: None, limit=12)
    monkeypatch.setattr(trees, "MAX_ENTRIES", 1)
    with pytest.raises(TooLargeError, match="more than 1 files"):
        files_below(tree)


def test_checksum_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing"):
        checksum(tmp_path / "nothing")


def attack(name: str, mode: int = 0o100644) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        info = zipfile.ZipInfo("placeholder")
        info.filename = info.orig_filename = name
        info.external_attr = mode << 16
        opened.writestr(info, b"evil")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "a/../../evil",
        "/etc/evil",
        "a//b",
        "./evil",
        "..",
        "a\\..\\..\\evil",
        "..\\evil",
        "",
        "a/./b",
    ],
)
def test_names_that_lead_out(name: str, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    with pytest.raises(FormatError, match="leads out"):
        unzip(io.BytesIO(attack(name)), target)
    assert not target.exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["deep"]


@pytest.mark.parametrize("kind", [0o120777, 0o010644, 0o060644, 0o020644, 0o140644])
def test_only_files(kind: int, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no regular file"):
        unzip(io.BytesIO(attack("name", kind)), tmp_path / "out")


def test_modes_are_not_taken_over(tmp_path: Path) -> None:
    unzip(io.BytesIO(attack("name", 0o104777)), tmp_path / "out")
    assert (tmp_path / "out" / "name").stat().st_mode & 0o7777 == 0o600


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("names", [["a", "a"], ["a", "a/b"], ["a/b", "a"]])
def test_no_entry_replaces_another(names: list[str], tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for number, name in enumerate(names):
            info = zipfile.ZipInfo(f"{number}")
            info.filename = info.orig_filename = name
            opened.writestr(info, b"x")
    with pytest.raises(FormatError, match="two entries"):
        unzip(buffer, tmp_path / "out")


def test_bomb(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("zeros", bytes(50 * 2**20))
    assert len(buffer.getvalue()) < 2**20
    with pytest.raises(TooLargeError):
        unzip(buffer, tmp_path / "out", limit=2**20)
    assert list(tmp_path.iterdir()) == []


def flip(data: bytes) -> bytes:
    return data[:45] + bytes([data[45] ^ 1]) + data[46:]


def lie_about_size(data: bytes) -> bytes:
    # Uncompressed size in the central header of an entry that stores 4 bytes.
    at = data.index(b"PK\x01\x02") + 24
    return data[:at] + struct.pack("<L", 2**31) + data[at + 4 :]


@pytest.mark.parametrize(
    "spoil",
    [lambda _: b"", lambda _: b"not a zip", lambda data: data[:-1], flip, lie_about_size],
)
def test_damaged(spoil: Callable[[bytes], bytes], tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no sound zip"):
        unzip(io.BytesIO(spoil(attack("some-name"))), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tree: Path) -> None:
    data = zipped(tree)
    with pytest.raises(StateError, match="is there already"):
        unzip(io.BytesIO(data), tree)
    assert (tree / "a.txt").read_text() == "hello\n"


@pytest.mark.parametrize(("name", "depth"), [("d", 1300), ("d", MAX_DEPTH + 1), ("n" * 250, 20)])
def test_results_that_no_path_reaches(tmp_path: Path, name: str, depth: int) -> None:
    dig(tmp_path, depth, name)
    try:
        with pytest.raises(TooLargeError, match=f"deeper than {MAX_DEPTH}|longer than {MAX_NAME}"):
            files_below(tmp_path)
    finally:
        remove_tree(tmp_path)


def test_as_deep_and_long_as_it_may_be(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    dig(tmp_path / "in", MAX_DEPTH - 1)
    long = "/".join(["n" * 250] * 11)
    (tmp_path / "in" / long).mkdir(parents=True)
    (tmp_path / "in" / long / ("x" * (MAX_NAME - len(long) - 1))).touch()
    names = unzip(io.BytesIO(zipped(tmp_path / "in")), tmp_path / "out")
    assert [len(name) for name in names] == [2 * (MAX_DEPTH - 1) + len("data.csv"), MAX_NAME]


def test_names_take_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10):
        (tmp_path / f"{number}").touch()
    monkeypatch.setattr(trees, "MAX_NAMES", 10)
    files_below(tmp_path)
    monkeypatch.setattr(trees, "MAX_NAMES", 9)
    with pytest.raises(TooLargeError, match="names of more than 9 bytes"):
        files_below(tmp_path)


def test_folders_count_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10):
        (tmp_path / f"{number}").mkdir()
    monkeypatch.setattr(trees, "MAX_ENTRIES", 9)
    with pytest.raises(TooLargeError, match="more than 9 files"):
        files_below(tmp_path)
    data = attack("/".join("abcdefghijk"))
    with pytest.raises(TooLargeError, match="more than 9"):
        unzip(io.BytesIO(data), tmp_path / "out")


@pytest.mark.parametrize(
    "name",
    [
        "a/" * (MAX_DEPTH + 1) + "b",
        "d/" * 1300,
        "n" * 256,
        "n" * 256 + "/",
        "n" * (MAX_NAME + 1),
        "x/" * 30000,
    ],
)
def test_zips_with_names_that_no_system_takes(name: str, tmp_path: Path) -> None:
    with pytest.raises((FormatError, TooLargeError)):
        unzip(io.BytesIO(attack(name)), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("names", [["a", "a/"], ["a", "a/b/"]])
def test_no_folder_where_a_file_is(names: list[str], tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name in names:
            opened.writestr(name, b"" if name.endswith("/") else b"x")
    with pytest.raises(FormatError, match="two entries"):
        unzip(buffer, tmp_path / "out")
