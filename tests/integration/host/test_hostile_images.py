# SPDX-License-Identifier: Apache-2.0
"""Images that aim at the machine that unpacks and runs them, with real umoci and runc."""

import io
import os
import secrets
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from _images import busybox_layer, write_layout

from cocos.errors import CocosError, FormatError, IntegrityError
from cocos.host.containers.container import Container, Mount, configuration
from cocos.host.containers.runtime import Outcome, Runtime

pytestmark = pytest.mark.integration

REG, LINK, HARD, FOLDER, FIFO = (
    tarfile.REGTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
)


def layer(*members: tuple[str, bytes, str]) -> bytes:
    """Return a layer of (name, kind, target of a link or content of a file)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind, text in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, 0o777
            if kind == REG:
                info.size = len(text)
                archive.addfile(info, io.BytesIO(text.encode()))
                continue
            if kind in {tarfile.BLKTYPE, tarfile.CHRTYPE}:
                info.devmajor, info.devminor = map(int, text.split(":"))
                info.mode = 0o666
            else:
                info.linkname = text
            archive.addfile(info)
    return buffer.getvalue()


class Ground:
    """Where an image is tried, and what of this machine it must not touch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.outside = folder / "outside"
        for path in (
            self.outside / "sub",
            folder / "datasets",
            folder / "results",
            folder / "logs",
        ):
            path.mkdir(parents=True)
        (folder / "datasets/data.csv").write_text("secret data\n")
        (self.outside / "passwd").write_text("root:x:0:0::/:\n")
        self.tools = Runtime.find(folder / "state", insecure_without_cgroups=True)
        self.before = self.seen()

    def seen(self) -> dict[str, tuple[int, ...]]:
        paths = [self.outside, *self.outside.rglob("*")]
        facts = {path: path.lstat() for path in paths}
        return {str(p): (f.st_mode, f.st_uid, f.st_size, f.st_mtime_ns) for p, f in facts.items()}

    async def unpack(self, *layers: bytes, script: str = "exit 0") -> Path:
        rootfs = self.folder / f"rootfs-{secrets.token_hex(4)}"
        write_layout(self.folder / "image", [busybox_layer(script), *layers])
        await self.tools.unpack(self.folder / "image", "latest", rootfs)
        return rootfs

    def container(self, rootfs: Path) -> Container:
        return Container(
            f"test-{secrets.token_hex(4)}",
            rootfs,
            ("/bin/busybox", "sh", "/run.sh"),
            env=("PATH=/bin",),
            mounts=(
                Mount(self.folder / "datasets", "/cocos/datasets"),
                Mount(self.folder / "results", "/cocos/results", read_only=False),
            ),
        )

    async def run(self, rootfs: Path, **changes: object) -> Outcome:
        container = replace(self.container(rootfs), **changes)  # type: ignore[arg-type]
        return await self.tools.run(container, self.folder / "logs")

    def output(self) -> str:
        return (self.folder / "logs/stdout.log").read_text()


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    made = Ground(tmp_path)
    yield made
    assert made.seen() == made.before, "the image reached what is outside of it"


ROOT_DISK = Path("/").stat().st_dev
POINTS = ["/proc", "/dev", "/tmp", "/cocos/datasets", "/cocos/results", "/cocos"]


def test_every_mount_point_is_attacked(ground: Ground) -> None:
    """A mount that somebody adds to the configuration has to be tried here."""
    config = configuration(ground.container(ground.folder), cgroups=False, rootless=False)
    targets = {mount["destination"] for mount in config["mounts"]}
    assert targets - {"/dev/shm"} == set(POINTS) - {"/cocos"}  # it is below another of ours


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("to", ["outside", "relative", "nowhere", "itself", "inside", "slash"])
async def test_mount_points_that_are_links(ground: Ground, point: str, to: str) -> None:
    target = {
        "outside": str(ground.outside),
        "relative": "../" * 30 + str(ground.outside).lstrip("/"),
        "nowhere": str(ground.outside / "new"),
        "itself": point,
        "inside": "/bin",
        "slash": "/",
    }[to]
    rootfs = await ground.unpack(layer((point.lstrip("/"), LINK, target)))
    with pytest.raises(IntegrityError, match=f"{point} .*is a symbolic link"):
        await ground.run(rootfs)


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("kind", [REG, FIFO, tarfile.CHRTYPE])
async def test_mount_points_that_are_no_folders(ground: Ground, point: str, kind: bytes) -> None:
    text = "1:3" if kind == tarfile.CHRTYPE else "x"
    rootfs = await ground.unpack(layer((point.lstrip("/"), kind, text)))
    with pytest.raises(IntegrityError, match=f"{point} .*is no folder"):
        await ground.run(rootfs)


async def test_links_behind_a_mount_of_the_kernels_are_nobodys_business(ground: Ground) -> None:
    """Old images of Debian have /dev/shm so; our /dev hides it."""
    rootfs = await ground.unpack(layer(("dev/shm", LINK, str(ground.outside))))
    assert (await ground.run(rootfs)).exit_status == 0


async def test_missing_mount_points_are_made(ground: Ground) -> None:
    rootfs = await ground.unpack(script="busybox cat /cocos/datasets/data.csv")
    assert not (rootfs / "cocos").exists()
    assert (await ground.run(rootfs)).exit_status == 0
    assert ground.output() == "secret data\n"
    assert stat.S_IMODE((rootfs / "cocos/datasets").stat().st_mode) == 0o755


async def test_a_nested_mount_point_in_data_of_a_stranger(ground: Ground) -> None:
    (ground.folder / "datasets/more").symlink_to(ground.outside)
    more = Mount(ground.folder / "results", "/cocos/datasets/more/deep")
    rootfs = await ground.unpack()
    with pytest.raises(IntegrityError, match=r"/cocos/datasets/more .*symbolic link"):
        await ground.run(rootfs, mounts=(*ground.container(rootfs).mounts, more))


@pytest.mark.parametrize("link", [True, False])
async def test_a_file_mounted_over_a_file(ground: Ground, link: bool) -> None:
    (ground.folder / "hosts").write_text("192.0.2.1 here\n")
    evil = ("etc/hosts", LINK, str(ground.outside / "passwd"))
    rootfs = await ground.unpack(
        layer(evil if link else ("etc/other", REG, "")), script="busybox cat /etc/hosts"
    )
    mounts = (*ground.container(rootfs).mounts, Mount(ground.folder / "hosts", "/etc/hosts"))
    if link:
        with pytest.raises(IntegrityError, match=r"/etc/hosts .*symbolic link"):
            await ground.run(rootfs, mounts=mounts)
    else:
        assert (await ground.run(rootfs, mounts=mounts)).exit_status == 0
        assert ground.output() == "192.0.2.1 here\n"


async def test_a_root_that_is_a_link(ground: Ground) -> None:
    real = await ground.unpack()
    (ground.folder / "root").symlink_to(real)
    with pytest.raises(IntegrityError, match=r"root .*symbolic link"):
        await ground.run(ground.folder / "root")


@pytest.mark.parametrize("name", [".", "./", "/", ""])
@pytest.mark.parametrize("kind", [LINK, REG, HARD])
async def test_a_layer_whose_root_is_no_folder(ground: Ground, name: str, kind: bytes) -> None:
    try:
        rootfs = await ground.unpack(layer((name, kind, str(ground.outside))))
    except (FormatError, IntegrityError):
        return
    assert stat.S_ISDIR(rootfs.lstat().st_mode)
    assert {path.name for path in rootfs.iterdir()} >= {"bin", "run.sh"}


LAYERS = {
    "file through a link": [("a", LINK, "{out}"), ("a/evil", REG, "x")],
    "over a linked file": [("a", LINK, "{out}/passwd"), ("a", REG, "x")],
    "folder through a link": [("a", LINK, "{out}"), ("a/sub", FOLDER, "")],
    "hard link to a file": [("a", HARD, "{out}/passwd"), ("a", REG, "x")],
    "hard link up": [("a", HARD, "../../../../../../../../{rel}/passwd"), ("a", REG, "x")],
    "hard link through a link": [("a", LINK, "{out}"), ("b", HARD, "a/passwd"), ("b", REG, "x")],
    "name that leads up": [("../../../../../../../../{rel}/evil", REG, "x")],
    "absolute name": [("{out}/evil", REG, "x")],
    "whiteout through a link": [("a", LINK, "{out}"), ("a/.wh.passwd", REG, "")],
    "opaque through a link": [("a", LINK, "{out}"), ("a/.wh..wh..opq", REG, "")],
    "whiteout that leads up": [(".wh...", REG, "")],
    "whiteout of the root": [(".wh..", REG, "")],
    "device over a link": [("a", LINK, "{out}/sub"), ("a/d", tarfile.CHRTYPE, "1:3")],
    "mode through a link": [("a", LINK, "{out}/sub"), ("a", FOLDER, "")],
}


@pytest.mark.parametrize("attack", LAYERS)
@pytest.mark.parametrize("apart", [True, False], ids=["layers", "one layer"])
async def test_layers_stay_inside(ground: Ground, attack: str, apart: bool) -> None:
    values = {"out": str(ground.outside), "rel": str(ground.outside).lstrip("/")}
    members = [
        (name.format(**values), kind, text.format(**values)) for name, kind, text in LAYERS[attack]
    ]
    layers = [layer(each) for each in members] if apart else [layer(*members)]
    try:
        rootfs = await ground.unpack(*layers)
        await ground.run(rootfs)
    except CocosError:
        pass
    assert "secret" not in ground.output() if (ground.folder / "logs/stdout.log").exists() else True


async def test_devices_in_an_image_cannot_be_used(ground: Ground) -> None:
    if not ground.tools.cgroups:
        pytest.skip("control groups hold devices")
    disk = ROOT_DISK
    nodes = {
        "disk": (tarfile.BLKTYPE, f"{os.major(disk)}:{os.minor(disk)}"),
        "memory": (tarfile.CHRTYPE, "1:1"),
        "messages": (tarfile.CHRTYPE, "1:11"),
        "fuse": (tarfile.CHRTYPE, "10:229"),
    }
    rootfs = await ground.unpack(
        layer(*((name, kind, numbers) for name, (kind, numbers) in nodes.items())),
        script="for d in disk memory messages fuse; do (: < /$d) && echo opened $d; done; exit 0",
    )
    assert all((rootfs / name).exists() for name in nodes)
    await ground.run(rootfs)
    assert "opened" not in ground.output()


@pytest.mark.parametrize(
    "workdir",
    [
        *("/proc/self/fd/{n}", "/dev/fd/{n}", "/link/{n}", "/devices/fd/{n}"),
        *("/proc/1/cwd", "relative", "../../../{out}", ""),
    ],
)
async def test_working_folders_stay_inside(ground: Ground, workdir: str) -> None:
    rootfs = await ground.unpack(
        layer(("link", LINK, "/proc/self/fd"), ("devices", LINK, "dev"), ("x", FOLDER, "")),
        script="busybox pwd; busybox ls ../../../../..; busybox ls -d ./.. ; exit 0",
    )
    for number in range(3, 12) if "{n}" in workdir else (0,):
        where = workdir.format(n=number, out=str(ground.outside))
        try:
            await ground.run(rootfs, workdir=where)
        except CocosError:
            continue
        names = set(ground.output().split())
        assert not names & {"work", "home", "root", "state", "outside"}, where
