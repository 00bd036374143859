# SPDX-License-Identifier: Apache-2.0
"""Mount points and working folders in a stranger's image, one case at a time."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cocos.errors import FormatError, IntegrityError
from cocos.host.containers.mount_points import prepare, working_folder


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "file").touch()
    open_files = len(list(Path("/proc/self/fd").iterdir()))
    old = os.umask(0o077)
    yield tmp_path / "root"
    os.umask(old)
    assert len(list(Path("/proc/self/fd").iterdir())) == open_files
    assert not list((tmp_path / "outside").iterdir()), "nothing is made outside"


def mount(root: Path, *targets: tuple[str, str, str]) -> None:
    """Prepare mounts: destination, type, source beside the root."""
    mounts: list[dict[str, Any]] = [
        {"destination": target, "type": kind, "source": str(root.parent / source)}
        for target, kind, source in targets
    ]
    prepare({"root": {"path": str(root)}, "mounts": mounts})


def test_missing_mount_points_are_made_for_everybody(root: Path) -> None:
    (root / "a").mkdir(mode=0o700)
    mount(root, ("/a/b/c", "bind", "data"), ("/a/f", "bind", "file"), ("/t", "tmpfs", "none"))
    for name in ("a/b", "a/b/c", "t"):
        assert (root / name).stat().st_mode & 0o7777 == 0o755
    assert (root / "a").stat().st_mode & 0o7777 == 0o700, "what the image has stays as it is"
    assert (root / "a/f").is_file()
    # What is there already is right as well.
    mount(root, ("/a/b/c", "bind", "data"), ("/a/f", "bind", "file"))


@pytest.mark.parametrize("target", ["/link", "/link/a", "/a/link", "/a/link/b"])
@pytest.mark.parametrize("source", ["data", "file"])
def test_links_are_not_followed(root: Path, target: str, source: str) -> None:
    (root / "a").mkdir()
    for place in (root / "link", root / "a/link"):
        place.symlink_to(root.parent / "outside")
    with pytest.raises(IntegrityError, match="link of the image is a symbolic link"):
        mount(root, (target, "bind", source))


def test_a_link_to_a_file_is_no_file(root: Path) -> None:
    (root / "link").symlink_to(root.parent / "file")
    with pytest.raises(IntegrityError, match="/link of the image is a symbolic link"):
        mount(root, ("/link", "bind", "file"))


def test_what_is_of_another_kind(root: Path) -> None:
    (root / "file").touch()
    (root / "folder").mkdir()
    with pytest.raises(IntegrityError, match="/file of the image is no folder"):
        mount(root, ("/file", "bind", "data"))
    with pytest.raises(IntegrityError, match="/file of the image is no folder"):
        mount(root, ("/file", "tmpfs", "file"))
    with pytest.raises(IntegrityError, match="/folder of the image is no regular file"):
        mount(root, ("/folder", "bind", "file"))


@pytest.mark.parametrize("target", ["a", "", "../a", "/a/../../outside/b", "/.."])
def test_names_that_are_no_mount_points(root: Path, target: str) -> None:
    with pytest.raises(FormatError, match="no mount point"):
        mount(root, (target, "bind", "data"))


def test_a_root_that_is_none(root: Path) -> None:
    link = root.parent / "link"
    link.symlink_to(root)
    for place, words in ((link, "a symbolic link"), (root.parent / "file", "no folder")):
        with pytest.raises(IntegrityError, match=words):
            mount(place, ("/a", "bind", "data"))


def test_a_mount_below_another_is_in_that_one(root: Path) -> None:
    data = root.parent / "data"
    mount(root, ("/d", "bind", "data"), ("/d/x", "bind", "outside"))
    assert (data / "x").is_dir()
    assert not (root / "d/x").exists()
    (data / "link").symlink_to(root.parent / "outside")
    with pytest.raises(IntegrityError, match="/d/link of the image is a symbolic link"):
        mount(root, ("/d", "bind", "data"), ("/d/link/x", "bind", "file"))
    # In a new file system of the kernel's there is nothing of the image's.
    (root / "t").mkdir()
    (root / "t/x").symlink_to(root.parent / "outside")
    mount(root, ("/t", "tmpfs", "none"), ("/t/x", "bind", "data"))


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/missing/too", "/missing/too"),
        ("/a/../b", "/b"),
        ("/../../a", "/a"),
        ("/a/./b//c", "/a/b/c"),
        ("/absolute/x", "/a/b/x"),
        ("/a/relative/x", "/a/b/x"),
        ("/a/up/x", "/c/x"),
        ("/a/elsewhere/x", "/c/x"),
        ("/absolute/..", "/a"),
        ("/40", "/end"),
    ],
)
def test_working_folders(root: Path, wanted: str, found: str) -> None:
    links(root)
    assert working_folder(root, wanted) == found


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("", "no absolute path"),
        ("a", "no absolute path"),
        ("../a", "no absolute path"),
        ("/proc", "is in /proc"),
        ("/proc/self/fd/3", "is in /proc"),
        ("/dev/fd/3", "is in /dev"),
        ("/a/../proc/self", "is in /proc"),
        ("/way/self", "is in /proc"),
        ("/loop", "leads nowhere"),
        ("/41", "leads nowhere"),
    ],
)
def test_working_folders_that_are_refused(root: Path, wanted: str, words: str) -> None:
    links(root)
    with pytest.raises(FormatError, match=words):
        working_folder(root, wanted)


def links(root: Path) -> None:
    """Make links of every kind, and chains that are as long as the kernel follows and longer."""
    (root / "a/b").mkdir(parents=True)
    for name, target in {
        "absolute": "/a/b",
        "a/relative": "b",
        "a/up": "../c",
        "a/elsewhere": "/c",
        "way": "/proc",
        "loop": "loop",
        "1": "end",
        **{f"{number}": f"{number - 1}" for number in range(2, 42)},
    }.items():
        (root / name).symlink_to(target)
