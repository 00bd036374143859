# SPDX-License-Identifier: Apache-2.0
"""What a container's configuration allows, and whom an image asks to run as."""

import os
from pathlib import Path
from typing import Any

import pytest

from cocos.errors import FormatError, NotFoundError
from cocos.host.containers.container import Container, Limits, Mount, User, configuration
from cocos.host.images.image_config import find_user, program
from cocos.wire.oci import ContainerConfig

CONTAINER = Container(
    "c",
    Path("/rootfs"),
    ("/bin/x",),
    user=User(5, 6, (7,)),
    mounts=(Mount(Path("/d"), "/cocos/datasets"), Mount(Path("/r"), "/cocos/results", False)),
)


def settings(**options: bool) -> dict[str, Any]:
    return configuration(CONTAINER, **{"cgroups": True, "rootless": False, **options})


def test_nothing_is_allowed() -> None:
    config = settings()
    process, linux = config["process"], config["linux"]
    assert config["root"] == {"path": "/rootfs", "readonly": True}
    assert process["capabilities"] == {}
    assert process["noNewPrivileges"] is True
    assert process["terminal"] is False
    assert process["user"] == {"uid": 5, "gid": 6, "additionalGids": [7]}
    kinds = {each["type"] for each in linux["namespaces"]}
    assert kinds == {"pid", "ipc", "uts", "mount", "network", "cgroup"}
    assert all("path" not in each for each in linux["namespaces"])
    assert linux["cgroupsPath"] == "/cocos/c", "one of its own, whose limits are its own"
    assert linux["resources"]["devices"] == [{"allow": False, "access": "rwm"}]
    assert linux["resources"]["memory"]["limit"] == Limits().memory_bytes
    assert linux["resources"]["pids"]["limit"] == Limits().processes


def test_system_calls_are_listed() -> None:
    profile = settings()["linux"]["seccomp"]
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    allowed = {name for rule in profile["syscalls"] if "args" not in rule for name in rule["names"]}
    forbidden = {
        *("mount", "umount2", "unshare", "setns", "clone3", "pivot_root", "chroot", "ptrace"),
        *("bpf", "perf_event_open", "io_uring_setup", "keyctl", "add_key", "userfaultfd"),
        *("init_module", "finit_module", "kexec_load", "reboot", "process_vm_readv", "socket"),
        *("open_by_handle_at", "swapon", "acct", "iopl", "personality", "clone", "vmsplice"),
    }
    assert not allowed & forbidden
    # A network namespace does not hold AF_VSOCK (40) back: it leads to the host.
    families = [
        rule["args"][0]["value"] for rule in profile["syscalls"] if rule["names"] == ["socket"]
    ]
    assert families == [1, 2, 10, 16]


def test_mounts_cannot_be_executed_from() -> None:
    mounts = {each["destination"]: each for each in settings()["mounts"]}
    assert {"ro", "noexec", "nosuid", "nodev"} <= set(mounts["/cocos/datasets"]["options"])
    assert {"rw", "noexec", "nosuid", "nodev"} <= set(mounts["/cocos/results"]["options"])
    assert "/sys" not in mounts


def test_without_root() -> None:
    config = settings(rootless=True, cgroups=False)
    assert {"type": "user"} in config["linux"]["namespaces"]
    assert config["process"]["user"] == {"uid": 0, "gid": 0}
    assert "resources" not in config["linux"]
    for kind, own in (("uid", os.geteuid()), ("gid", os.getegid())):
        # Nobody but us is anybody inside.
        mapped = [{"containerID": 0, "hostID": own, "size": 1}]
        assert config["linux"][f"{kind}Mappings"] == mapped
        assert f"{kind}Mappings" not in settings()["linux"]
    limits = {each["type"] for each in config["process"]["rlimits"]}
    assert {"RLIMIT_DATA", "RLIMIT_NPROC"} <= limits


def test_environment_of_the_image_wins() -> None:
    image = Container("c", Path("/r"), ("x",), env=("PATH=/mine", "A=b=c"))
    env = configuration(image, cgroups=True, rootless=False)["process"]["env"]
    assert env == ["HOME=/tmp", "PATH=/mine", "A=b=c"]
    image = Container("c", Path("/r"), ("x",), env=("HOME=/mine",))
    path, home = configuration(image, cgroups=True, rootless=False)["process"]["env"]
    assert path.startswith("PATH=/usr/")
    assert home == "HOME=/mine"


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "args", "expected"),
    [
        (("python", "a.py"), None, ("d.csv",), ("python", "a.py", "d.csv")),
        (("python", "a.py"), ("default",), ("d.csv",), ("python", "a.py", "d.csv")),
        (("python", "a.py"), ("default",), (), ("python", "a.py", "default")),
        (None, ("python", "a.py"), ("d.csv",), ("python", "a.py", "d.csv")),
        (("", "x"), None, (), None),
        (None, None, ("d.csv",), ("d.csv",)),
        (None, None, (), None),
    ],
)
def test_program(
    entrypoint: tuple[str, ...] | None,
    cmd: tuple[str, ...] | None,
    args: tuple[str, ...],
    expected: tuple[str, ...] | None,
) -> None:
    config = ContainerConfig(entrypoint=entrypoint, cmd=cmd)
    if expected is None:
        with pytest.raises(FormatError, match="names no program"):
            program(config, args)
    else:
        assert program(config, args) == expected


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(
        "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/:/bin/sh\nbroken\nbig:x:99999999999:0::/:x\n"
    )
    (tmp_path / "etc/group").write_text("root:x:0:\napp:x:1001:\nextra:x:44:app,root\n")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("", User()),
        ("app", User(1000, 1001, (44,))),
        ("1000", User(1000, 1001, (44,))),
        ("app:extra", User(1000, 44)),
        ("app:7", User(1000, 7)),
        ("4711", User(4711, 0)),
        ("4711:4712", User(4711, 4712)),
        (":44", User(0, 44)),
    ],
)
def test_user(rootfs: Path, text: str, user: User) -> None:
    assert find_user(rootfs, text) == user


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("nobody", NotFoundError),
        ("app:nogroup", NotFoundError),
        ("٣", NotFoundError),
        ("-1", NotFoundError),
        ("big", FormatError),
        ("4294967295", FormatError),
        ("9" * 5000, FormatError),  # Python converts no number of so many digits
    ],
)
def test_no_such_user(rootfs: Path, text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        find_user(rootfs, text)


def test_accounts_behind_a_link_are_not_read(rootfs: Path, tmp_path: Path) -> None:
    (rootfs / "etc/passwd").rename(tmp_path / "elsewhere")
    (rootfs / "etc/passwd").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotFoundError):
        find_user(rootfs, "app")
