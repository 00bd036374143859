# SPDX-License-Identifier: Apache-2.0
"""What a container may do: the OCI runtime configuration of a program that nobody trusts.

It gets no network but its own loopback, no capability, no new privileges, an allow list
of system calls (``seccomp.json``; no vsock, which network namespaces do not hold back),
a read-only root and only the folders that are named. There is no ``/sys``: what the
machine can attest is not the program's to ask for.
"""

import os
import platform
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from cocos._types import JsonObject
from cocos.wire.json import decode

MIB = 2**20

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
)
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_SECCOMP_MACHINES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a container may use.

    Attributes:
        memory_bytes: Memory, swap included.
        processes: Processes and threads.
        tmp_bytes: Size of ``/tmp`` and of ``/dev/shm``, each; counts as memory.
        file_bytes: Size of a file that it writes.
        output_bytes: Standard output and standard error, each; what is beyond is dropped.
        seconds: Time; None: any.
    """

    memory_bytes: int = 2048 * MIB
    processes: int = 1024
    tmp_bytes: int = 256 * MIB
    file_bytes: int = 1024 * MIB
    output_bytes: int = 16 * MIB
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder of ours inside a container; nothing in it can be executed."""

    source: Path
    target: str
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class User:
    """Who the program is inside."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Container:
    """A program and its surroundings.

    Attributes:
        name: Letters, digits, ``.``, ``_``, ``-``; unique on this machine.
        rootfs: Its root, shown read-only.
        argv: Program and arguments.
        env: ``NAME=value``.
        workdir: Absolute path inside.
        user: Who it is inside.
        mounts: Our folders.
        limits: What it may use.
    """

    name: str
    rootfs: Path
    argv: tuple[str, ...]
    env: tuple[str, ...] = ()
    workdir: str = "/"
    user: User = User()
    mounts: tuple[Mount, ...] = ()
    limits: Limits = Limits()


def configuration(container: Container, *, cgroups: bool, rootless: bool) -> JsonObject:
    """Return the OCI runtime configuration (``config.json``) of a container.

    Args:
        container: The container.
        cgroups: Hold the limits by control groups; else by the weaker resource limits.
        rootless: We are not root: use a user namespace in which we are.
    """
    # One id is all that we may map without help, and it must be 0.
    user = User() if rootless else container.user
    process: JsonObject = {
        "terminal": False,
        "user": {"uid": user.uid, "gid": user.gid},
        "args": list(container.argv),
        "env": list(_environment(container.env)),
        "cwd": container.workdir,
        "capabilities": {},
        "noNewPrivileges": True,
        "rlimits": list(_rlimits(container.limits, cgroups=cgroups)),
    }
    if user.groups:
        process["user"]["additionalGids"] = list(user.groups)
    namespaces = ["pid", "ipc", "uts", "mount", "network", "cgroup"]
    linux: JsonObject = {
        "maskedPaths": list(_MASKED),
        "readonlyPaths": list(_READ_ONLY),
        "seccomp": _seccomp(),
    }
    if cgroups:
        limits = container.limits
        linux["cgroupsPath"] = f"/cocos/{container.name}"
        linux["resources"] = {
            "devices": [{"allow": False, "access": "rwm"}],
            "memory": {"limit": limits.memory_bytes, "swap": limits.memory_bytes},
            "pids": {"limit": limits.processes},
        }
    if rootless:
        namespaces.append("user")
        linux["uidMappings"] = [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
        linux["gidMappings"] = [{"containerID": 0, "hostID": os.getegid(), "size": 1}]
    linux["namespaces"] = [{"type": name} for name in namespaces]
    return {
        "ociVersion": "1.0.2",
        "root": {"path": str(container.rootfs), "readonly": True},
        "hostname": "cocos",
        "process": process,
        "mounts": list(_mounts(container)),
        "linux": linux,
    }


def _environment(given: tuple[str, ...]) -> Iterator[str]:
    names = {each.partition("=")[0] for each in given}
    if "PATH" not in names:
        yield f"PATH={_DEFAULT_PATH}"
    if "HOME" not in names:
        yield "HOME=/tmp"  # the only place that can be written to besides the results
    yield from given


def _mounts(container: Container) -> Iterator[JsonObject]:
    size = container.limits.tmp_bytes
    plain = ["nosuid", "nodev"]
    yield _mount("proc", "/proc", "proc", [*plain, "noexec"])
    yield _mount("tmpfs", "/dev", "tmpfs", ["nosuid", "noexec", "mode=755", "size=64k"])
    yield _mount("tmpfs", "/dev/shm", "shm", [*plain, "noexec", "mode=1777", f"size={size}"])  # noqa: S108 - inside
    yield _mount("tmpfs", "/tmp", "tmpfs", [*plain, "mode=1777", f"size={size}"])  # noqa: S108 - inside
    for mount in container.mounts:
        options = ["bind", *plain, "noexec", "ro" if mount.read_only else "rw"]
        yield _mount("bind", mount.target, str(mount.source), options)


def _mount(kind: str, target: str, source: str, options: list[str]) -> JsonObject:
    return {"destination": target, "type": kind, "source": source, "options": options}


def _rlimits(limits: Limits, *, cgroups: bool) -> Iterator[JsonObject]:
    wanted = {"RLIMIT_CORE": 0, "RLIMIT_NOFILE": 65536, "RLIMIT_FSIZE": limits.file_bytes}
    if not cgroups:
        wanted |= {"RLIMIT_DATA": limits.memory_bytes, "RLIMIT_NPROC": limits.processes}
    for name, value in wanted.items():
        _, hard = resource.getrlimit(getattr(resource, name))
        # Raising a limit is a privilege that we may not have.
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        yield {"type": name, "soft": bound, "hard": bound}


def _seccomp() -> JsonObject:
    text = resources.files("cocos.host.containers").joinpath("seccomp.json").read_bytes()
    profile: JsonObject = decode(text, dict, "the list of system calls")
    machine = platform.machine()
    return {**profile, "architectures": [_SECCOMP_MACHINES.get(machine, machine)]}
