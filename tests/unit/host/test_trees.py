# SPDX-License-Identifier: Apache-2.0
"""Trees of strangers: whatever they built, it goes, and if something stays nobody reads it."""

import contextlib
import fcntl
import os
import stat
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import _trees
import pytest
from _trees import dig
from hypothesis import given
from hypothesis import strategies as st

from cocos.errors import StorageError
from cocos.host import trees
from cocos.host.trees import discard, remove_tree

DEPTH = 1300  # more than the descriptors and the recursion that a process has
NOBODY = 65534


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    folder = tmp_path / "victim"
    folder.mkdir()
    return folder


def test_nothing_there(tmp_path: Path) -> None:
    remove_tree(tmp_path / "nothing")
    assert discard(tmp_path / "nothing") is None


@pytest.mark.parametrize(("name", "depth"), [("d", DEPTH), ("n" * 255, 40), ("\udcff" * 50, 90)])
def test_deep(victim: Path, name: str, depth: int) -> None:
    dig(victim, depth, name)
    remove_tree(victim)
    assert not os.path.lexists(victim)


def test_deep_and_wide(victim: Path) -> None:
    for number in range(20):
        (victim / f"{number}").mkdir()
        dig(victim / f"{number}", 20)
    remove_tree(victim)
    assert not os.path.lexists(victim)


def test_many_entries(victim: Path) -> None:
    for number in range(5000):
        (victim / f"{number}").touch()
    (victim / "below").mkdir()
    for number in range(300):
        (victim / "below" / f"{number}").mkdir()
    remove_tree(victim)
    assert not os.path.lexists(victim)


def test_links_are_not_followed(victim: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o500)
    (outside / "kept").mkdir(mode=0o500)
    (victim / "loop").symlink_to("loop")
    (victim / "out").symlink_to(outside)
    (victim / "up").symlink_to("..")
    (victim / "nowhere").symlink_to("x" * 4000)
    os.mkfifo(victim / "pipe")
    os.link(victim / "pipe", victim / "hard")
    remove_tree(victim)
    assert not os.path.lexists(victim)
    for folder in (outside, outside / "kept"):
        assert folder.stat().st_mode & 0o777 == 0o500


def test_the_folder_is_itself_a_link(victim: Path, tmp_path: Path) -> None:
    (victim / "kept").touch()
    (tmp_path / "link").symlink_to(victim)
    remove_tree(tmp_path / "link")
    assert not os.path.lexists(tmp_path / "link")
    assert (victim / "kept").exists()


def test_a_file_goes_too(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    remove_tree(tmp_path / "file")
    assert not list(tmp_path.iterdir())


UNPRIVILEGED = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from _trees import dig
from cocos.host.trees import remove_tree
victim = Path(sys.argv[1])
if os.geteuid() == 0:  # not before: this Python may be root's own
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
for name in ("a", "b", "c"):
    (victim / name / "below").mkdir(parents=True)
    (victim / name / "below" / "file").touch()
    (victim / name / "below").chmod(0)
    (victim / name).chmod({"a": 0, "b": 0o200, "c": 0o500}[name])
dig(victim, 1300, mode=0o500)
victim.chmod(0)
assert os.geteuid() != 0
remove_tree(victim)
"""


def test_without_privileges(tmp_path: Path) -> None:
    """Root passes over modes; others meet them."""
    home = Path(tempfile.mkdtemp())  # a folder that another user can reach
    try:
        home.chmod(0o755)
        victim = home / "there" / "victim"
        victim.mkdir(parents=True)
        for each in (victim, victim.parent):
            os.chown(each, NOBODY, NOBODY)
        argv = [sys.executable, "-c", UNPRIVILEGED, str(victim), _trees.__file__.rpartition("/")[0]]
        result = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        assert not list(victim.parent.iterdir())
    finally:
        subprocess.run(["rm", "-rf", home], check=True)


def flag(path: Path, value: int) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, 0x40086602, struct.pack("l", value))  # FS_IOC_SETFLAGS
    except OSError as error:
        pytest.skip(f"this file system has no immutable files, or we may not make any: {error}")
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("value", [0x10, 0x20, 0x30], ids=["immutable", "append", "both"])
def test_what_must_not_change_goes_too(victim: Path, value: int) -> None:
    (victim / "a" / "b").mkdir(parents=True)
    (victim / "a" / "b" / "file").touch()
    (victim / "file").touch()
    for path in (
        victim / "a" / "b" / "file",
        victim / "file",
        victim / "a/b",
        victim / "a",
        victim,
    ):
        flag(path, 0x80000 | value)  # with the flag of extents, as they have it
    remove_tree(victim)
    assert not os.path.lexists(victim)


def test_while_somebody_writes(victim: Path) -> None:
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set() and number < 3000:
            number += 1
            with contextlib.suppress(OSError):
                folder = victim / f"{number % 7}" / f"{number % 3}"
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{number}").touch()
                folder.rename(victim / f"moved{number}")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with contextlib.suppress(StorageError):  # it may win; then it is said
            remove_tree(victim)
    finally:
        stop.set()
        writer.join()
    remove_tree(victim)
    assert not os.path.lexists(victim)


def test_what_stays_is_said_and_the_rest_goes(victim: Path) -> None:
    with mounted(victim / "a" / "mounted"):
        (victim / "a" / "secret").write_text("x")
        (victim / "z").write_text("x")
        dig(victim, 30)
        with pytest.raises(StorageError, match=r"cannot remove all of .*: Device or resource busy"):
            remove_tree(victim)
        assert [path.name for path in victim.iterdir()] == ["a"]
        assert [path.name for path in (victim / "a").iterdir()] == ["mounted"]
    remove_tree(victim)
    assert not os.path.lexists(victim)


def test_what_stays_is_put_aside(victim: Path) -> None:
    with mounted(victim / "a" / "mounted") as move:
        aside = discard(victim)
        assert aside is not None
        assert aside.name.startswith(trees.ASIDE)
        assert not os.path.lexists(victim)
        assert aside.stat().st_mode & 0o777 == 0
        assert trees.left_in(victim.parent) == [aside]
        move(aside / "a" / "mounted")
    assert discard(aside) is None
    assert not list(victim.parent.glob("*"))


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[Callable[[Path], None]]:
    """Have a file system at a folder, which nobody can remove then; it may move with it."""
    folder.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=False).returncode:
        pytest.skip("we may not mount anything here")
    place = [folder]
    try:
        yield lambda path: place.__setitem__(0, path)
    finally:
        subprocess.run(["umount", place[0]], check=True)


NAMES = st.one_of(
    st.sampled_from(["a", "b", "-rf", " ", "\n", "\udcff", "n" * 255, ".left-x", "*", "\\"]),
    st.text(
        st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]),
        min_size=1,
        max_size=60,
    ).filter(lambda name: name not in {".", ".."} and len(os.fsencode(name)) < 256),
)
ACTS = st.lists(
    st.tuples(
        st.sampled_from(["down", "down", "up", "file", "link", "pipe", "hard", "mode", "socket"]),
        NAMES,
        st.sampled_from([0, 0o100, 0o200, 0o400, 0o500, 0o7777]),
    ),
    max_size=60,
)


def build(top: int, acts: list[tuple[str, str, int]]) -> None:
    at = [os.dup(top)]
    try:
        for kind, name, mode in acts:
            with contextlib.suppress(OSError):
                _build(at, kind, name, mode)
    finally:
        for each in at:
            os.close(each)


def _build(at: list[int], kind: str, name: str, mode: int) -> None:
    here = at[-1]
    if kind == "down":
        os.mkdir(name, dir_fd=here)
        at.append(os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here))
    elif kind == "up" and len(at) > 1:
        os.close(at.pop())
    elif kind == "file":
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode, dir_fd=here))
    elif kind == "link":
        os.symlink("../" * (mode % 5) + "outside", name, dir_fd=here)
    elif kind == "pipe":
        os.mkfifo(name, mode, dir_fd=here)
    elif kind == "hard":
        os.link(name, f"{name[:50]}+", src_dir_fd=here, dst_dir_fd=here, follow_symlinks=False)
    elif kind == "mode":
        os.fchmod(here, mode)
    elif kind == "socket":
        os.mknod(name, stat.S_IFSOCK | 0o600, dir_fd=here)


@given(ACTS)
def test_any_tree_goes_and_nothing_else(acts: list[tuple[str, str, int]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        outside = place / "outside"
        outside.mkdir(mode=0o500)
        (place / "victim").mkdir()
        top = os.open(place / "victim", os.O_RDONLY | os.O_DIRECTORY)
        build(top, acts)
        os.close(top)
        before = len(list(Path("/proc/self/fd").iterdir()))
        remove_tree(place / "victim")
        assert [path.name for path in place.iterdir()] == ["outside"]
        assert outside.stat().st_mode & 0o777 == 0o500
        assert len(list(Path("/proc/self/fd").iterdir())) == before
