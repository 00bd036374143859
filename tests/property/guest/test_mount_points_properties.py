# SPDX-License-Identifier: Apache-2.0
"""Mount points and working folders in any image: inside of it, through no link, or refused."""

import contextlib
import os
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from cocos.errors import FormatError, IntegrityError
from cocos.host.containers.container import Container, Mount, configuration
from cocos.host.containers.mount_points import prepare, working_folder

PLACES = st.sampled_from(
    [
        "proc",
        "dev",
        "tmp",
        "cocos",
        "cocos/datasets",
        "cocos/results",
        "a",
        "a/b",
        "cocos/a",
        "link",
    ]
)
TARGETS = st.sampled_from(
    [
        "{out}",
        "..",
        "../..",
        "/",
        "a",
        "/a/b",
        ".",
        "../outside",
        "/proc/self/fd",
        "proc",
        "link",
        "/link",
    ]
)
IMAGES = st.lists(
    st.one_of(
        st.tuples(st.just("folder"), PLACES, st.none()),
        st.tuples(st.just("file"), PLACES, st.none()),
        st.tuples(st.just("link"), PLACES, TARGETS),
    ),
    max_size=8,
)
WORKDIRS = st.lists(
    st.sampled_from(
        ["a", "b", "link", "..", ".", "proc", "dev", "fd", "cocos", "datasets", "self"]
    ),
    max_size=6,
).map(lambda parts: "/" + "/".join(parts))


def build(rootfs: Path, image: list[tuple[str, str, str | None]], outside: Path) -> None:
    rootfs.mkdir()
    for kind, name, target in image:
        path = rootfs / name
        if not path.parent.resolve().is_relative_to(rootfs.resolve()):
            continue  # through a link that is there already
        with contextlib.suppress(OSError):
            if kind == "folder":
                path.mkdir(parents=True)
            elif kind == "file":
                path.touch()
            else:
                path.symlink_to((target or "").format(out=outside))


@given(IMAGES, WORKDIRS)
def test_inside_or_refused(image: list[tuple[str, str, str | None]], workdir: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for folder in ("outside", "data", "results"):
            (place / folder).mkdir()
        build(place / "rootfs", image, place / "outside")
        mounts = (
            Mount(place / "data", "/cocos/datasets"),
            Mount(place / "results", "/cocos/results", read_only=False),
        )
        container = Container("c", place / "rootfs", ("x",), mounts=mounts)
        settings = configuration(container, cgroups=False, rootless=False)
        points = [place / "rootfs" / each["destination"][1:] for each in settings["mounts"]]
        points = [each for each in points if each.name != "shm"]
        try:
            prepare(settings)
        except IntegrityError:
            assert any(is_odd(each, place / "rootfs") for each in points)
        else:
            assert not any(is_odd(each, place / "rootfs") for each in points)
            assert all(each.is_dir() for each in points)
        with contextlib.suppress(FormatError):
            found = working_folder(place / "rootfs", workdir)
            assert found == os.path.normpath(found)
            assert not (found + "/").startswith(("/proc/", "/dev/"))
            assert not is_odd(place / "rootfs" / found[1:], place / "rootfs", links_only=True)
        assert not list((place / "outside").iterdir())
        assert not list((place / "data").iterdir())
        assert {path.name for path in place.iterdir()} == {"outside", "data", "results", "rootfs"}


def is_odd(path: Path, root: Path, *, links_only: bool = False) -> bool:
    """Whether a way to a path has a link, or what is no folder."""
    way = [each for each in (path, *path.parents) if each.is_relative_to(root)]
    return any(
        each.is_symlink() or (not links_only and each.exists() and not each.is_dir())
        for each in way
    )
