# SPDX-License-Identifier: Apache-2.0
"""Real containers: what an algorithm can do, and what it cannot although it tries."""

import asyncio
import contextlib
import errno
import os
import platform
import secrets
import signal
import socket
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from _images import BUSYBOX, algorithm, busybox_layer, tar, write_layout

from cocos.errors import ConfigError, FormatError, ProcessError
from cocos.host import process
from cocos.host.containers import cgroups, runtime
from cocos.host.containers.container import MIB, Container, Limits, Mount
from cocos.host.containers.runtime import Outcome, Runtime

pytestmark = pytest.mark.integration


@pytest.fixture
def tools(tmp_path: Path) -> Runtime:
    return Runtime.find(tmp_path / "state", insecure_without_cgroups=True)


class Box:
    """A busybox container whose script is ``/run.sh``."""

    def __init__(self, tools: Runtime, folder: Path) -> None:
        self.tools = tools
        self.folder = folder
        for name in ("datasets", "results", "logs"):
            (folder / name).mkdir()
        (folder / "datasets/data.csv").write_text("secret data\n")

    async def run(
        self, script: str, *arguments: str, limits: Limits | None = None, name: str = ""
    ) -> Outcome:
        number = sum(1 for _ in self.folder.glob("rootfs*"))
        rootfs = self.folder / f"rootfs{number}"
        algorithm(self.folder / "image", script)
        await self.tools.unpack(self.folder / "image", "latest", rootfs)
        container = Container(
            name or f"test-{secrets.token_hex(4)}",
            rootfs,
            ("/bin/busybox", "sh", "/run.sh", *arguments),
            env=("PATH=/bin",),
            mounts=(
                Mount(self.folder / "datasets", "/cocos/datasets"),
                Mount(self.folder / "results", "/cocos/results", read_only=False),
            ),
            limits=limits or Limits(),
        )
        return await self.tools.run(container, self.folder / "logs")

    def output(self, name: str = "stdout") -> str:
        return (self.folder / "logs" / f"{name}.log").read_text()


@pytest.fixture
def box(tools: Runtime, tmp_path: Path) -> Box:
    (tmp_path / "box").mkdir()
    return Box(tools, tmp_path / "box")


async def test_reads_data_and_writes_results(box: Box) -> None:
    outcome = await box.run(
        'read line < "$1"; echo "got $line"; echo more >&2; echo r > /cocos/results/out',
        "/cocos/datasets/data.csv",
    )
    assert outcome == Outcome(0, outcome.tail)
    assert box.output() == "got secret data\n"
    assert box.output("stderr") == "more\n"
    assert (box.folder / "results/out").read_text() == "r\n"
    assert not any((box.tools.state / "bundles").iterdir())


ATTACKS = {
    "write to the root": "echo x > /evil",
    "write to the program": "echo x >> /run.sh",
    "write to the data": "echo x >> /cocos/datasets/data.csv",
    "remove the data": "busybox rm /cocos/datasets/data.csv",
    "remount": "busybox mount -o remount,rw /",
    "mount": "busybox mount -t tmpfs none /tmp",
    "new user namespace": "busybox unshare -U true",
    "new network namespace": "busybox unshare -n true",
    "make a device": "busybox mknod /tmp/disk b 254 0",
    "kernel setting": "echo 1 > /proc/sys/kernel/panic",
    "sysrq": "echo b > /proc/sysrq-trigger",
    "change owner": "busybox chown 1234 /cocos/results",
    "become another user": "busybox setuidgid 1234 true",
    "chroot": "busybox chroot /tmp true",
    "host name": "busybox hostname evil",
    "kernel memory": "busybox head -c 1 /proc/kcore | busybox grep -q .",
    "kill the host's first process": "[ $(busybox ps | busybox wc -l) -gt 9 ]",
    "execute a result": "busybox cp /bin/busybox /cocos/results/b && /cocos/results/b true",
    "connect out": "busybox nc -w 1 192.0.2.1 80 </dev/null",
    "route": "busybox ip route add default dev lo",
    "raw packets": "busybox ping -c 1 -W 1 192.0.2.1",
    "other interfaces": "busybox ip -o link | busybox grep -v ' lo:'",
    "attest as us": "[ -e /sys/kernel/config ] || [ -e /dev/tpm0 ] || [ -e /dev/sev-guest ]",
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_attacks_fail(box: Box, attack: str) -> None:
    outcome = await box.run(f"if {ATTACKS[attack]}; then exit 0; fi; exit 42")
    assert outcome.exit_status == 42, outcome.tail
    assert (box.folder / "datasets/data.csv").read_text() == "secret data\n"


async def test_has_no_privileges(box: Box) -> None:
    await box.run("busybox grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status")
    values = dict(line.split(":\t") for line in box.output().splitlines())
    assert {int(value, 16) for name, value in values.items() if name.startswith("Cap")} == {0}
    assert values["NoNewPrivs"] == "1"
    assert values["Seccomp"] == "2"


async def test_host_loopback_is_not_its_loopback(box: Box) -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"host\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        outcome = await box.run(f"busybox nc -w 2 127.0.0.1 {port} </dev/null")
    assert outcome.exit_status != 0
    assert "host" not in box.output()


def program(code: bytes) -> bytes:
    """Return an x86-64 program that is ``code``."""
    base, size = 0x400000, 120 + len(code)
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head += struct.pack("<HHLQQQLHHHHHH", 2, 62, 1, base + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return head + struct.pack("<LLQQQQQQ", 1, 5, 0, base, base, size, size, 4096) + code


SYSCALL, EXIT = b"\x0f\x05", b"\xf7\xd8\x89\xc7\xb8\x3c\x00\x00\x00\x0f\x05"  # exit(-result)


def socket_call(family: int) -> bytes:
    code = b"\xb8\x29\x00\x00\x00\xbf" + struct.pack("<L", family) + b"\xbe\x01\x00\x00\x00"
    return code + b"\x31\xd2" + SYSCALL


def socket_program(family: int) -> bytes:
    """Return a program: ``exit(-socket(family, SOCK_STREAM, 0))``."""
    return program(socket_call(family) + EXIT)


def connect_program(place: str) -> bytes:
    """Return a program that connects to a Unix socket: ``exit(-connect(…))``."""
    address = struct.pack("<H", socket.AF_UNIX) + place.encode()
    call = b"\x89\xc7\xb8\x2a\x00\x00\x00\xba" + struct.pack("<L", len(address))
    call += b"\x48\x8d\x35" + struct.pack("<l", len(SYSCALL + EXIT)) + SYSCALL + EXIT
    return program(socket_call(socket.AF_UNIX) + call + address)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the program is machine code")
@pytest.mark.parametrize("abstract", [False, True])
async def test_unix_sockets_of_the_host(tools: Runtime, tmp_path: Path, *, abstract: bool) -> None:
    """Such as the attestation agent's, which gives private keys to whoever connects."""
    place = f"\0cocos-{secrets.token_hex(4)}" if abstract else f"{tmp_path}/aa.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place)
        listener.listen()
        code = connect_program(place)
        (tmp_path / "p").write_bytes(code)
        (tmp_path / "p").chmod(0o700)
        assert (await process.run([tmp_path / "p"])).exit_status == 0  # it can, outside
        write_layout(tmp_path / "image", [tar({"p": code}, executable=["p"])])
        await tools.unpack(tmp_path / "image", "latest", tmp_path / "rootfs")
        (tmp_path / "logs").mkdir()
        container = Container("unix", tmp_path / "rootfs", ("/p",))
        outcome = await tools.run(container, tmp_path / "logs")
    assert outcome.exit_status == (errno.ECONNREFUSED if abstract else errno.ENOENT)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the program is machine code")
@pytest.mark.parametrize(
    ("family", "allowed"),
    [(1, True), (2, True), (10, True), (17, False), (38, False), (40, False)],
    ids=["unix", "inet", "inet6", "packet", "crypto", "vsock"],
)
async def test_ways_out_that_network_namespaces_do_not_close(
    tools: Runtime, tmp_path: Path, family: int, allowed: bool
) -> None:
    """Above all vsock, a VM's way to its host."""
    write_layout(tmp_path / "image", [tar({"p": socket_program(family)}, executable=["p"])])
    await tools.unpack(tmp_path / "image", "latest", tmp_path / "rootfs")
    (tmp_path / "logs").mkdir()
    outcome = await tools.run(Container("ways", tmp_path / "rootfs", ("/p",)), tmp_path / "logs")
    assert (outcome.exit_status == errno.ENOSYS) is not allowed
    assert outcome.exit_status == (256 - 3 if allowed else errno.ENOSYS)


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("exit 3", 3),
        ("busybox sh -c 'kill -SEGV $$'", 128 + 11),
        ("/bin/missing", 127),
        ("false", 1),
    ],
)
async def test_exit_status_and_last_lines(box: Box, script: str, status: int) -> None:
    lines = "for n in 1 2 3; do echo line $n; done; echo problem >&2; "
    outcome = await box.run(lines + script)
    assert outcome.exit_status == status
    assert {"line 3", "problem"} <= set(outcome.tail.splitlines())


async def test_tail_is_bounded(box: Box) -> None:
    outcome = await box.run("n=0; while [ $n -lt 50 ]; do echo $n; n=$((n+1)); done; exit 1")
    assert outcome.tail.splitlines() == [str(number) for number in range(30, 50)]


async def test_output_is_bounded_and_exact(box: Box) -> None:
    await box.run("busybox printf 'a\\0b\\377'")
    assert (box.folder / "logs/stdout.log").read_bytes() == b"a\0b\xff"
    limits = Limits(output_bytes=1000)
    await box.run("busybox yes | busybox head -c 5000000", limits=limits)
    assert len(box.output()) < 1100
    assert "cut off" in box.output()


async def test_time_limit_kills_what_ignores_signals(box: Box) -> None:
    outcome = await box.run(
        "trap '' TERM INT HUP; busybox sleep 1000 & busybox sleep 1000",
        limits=Limits(seconds=1),
    )
    assert outcome.timed_out
    assert not list((box.tools.state / "runc").iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="control groups need root")
class TestLimits:
    async def test_memory(self, box: Box) -> None:
        assert box.tools.cgroups
        outcome = await box.run(
            "busybox head -c 200000000 /dev/zero | busybox tail -c 199999999 >/dev/null; exit $?",
            limits=Limits(memory_bytes=32 * MIB, tmp_bytes=MIB),
        )
        assert outcome.exit_status == 137

    async def test_tmp_is_bounded(self, box: Box) -> None:
        script = "busybox head -c 3000000 /dev/zero > /tmp/f; busybox wc -c < /tmp/f"
        await box.run(script, limits=Limits(tmp_bytes=MIB))
        assert box.output() == f"{MIB}\n"

    async def test_processes(self, box: Box) -> None:
        outcome = await box.run(
            "n=0; while [ $n -lt 40 ]; do busybox sleep 60 & n=$((n+1)); done; exit 0",
            limits=Limits(processes=16),
        )
        assert outcome.exit_status != 0

    async def test_file_size(self, box: Box) -> None:
        outcome = await box.run(
            "busybox head -c 5000000 /dev/zero > /cocos/results/f",
            limits=Limits(file_bytes=MIB),
        )
        assert outcome.exit_status != 0
        assert (box.folder / "results/f").stat().st_size <= MIB


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is awaited happens in a container
            await asyncio.sleep(0.01)


async def test_cancellation_leaves_nothing(box: Box) -> None:
    mark = box.folder / "results/started"
    script = "trap '' TERM; echo > /cocos/results/started; busybox sleep 1000"
    task = asyncio.create_task(box.run(script, name="cancelled"))
    await _until(mark.exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not list((box.tools.state / "runc").iterdir())
    assert not list((box.tools.state / "bundles").iterdir())


async def test_leftovers_of_a_killed_agent_are_swept(box: Box) -> None:
    mark = box.folder / "results/started"
    script = "echo > /cocos/results/started; busybox sleep 1000"
    task = asyncio.create_task(box.run(script, name="left"))
    await _until(mark.exists)
    # The same state folder, seen by the agent that starts after the first was killed.
    await replace(box.tools).sweep()
    outcome = await task
    assert outcome.exit_status == 137
    assert not list((box.tools.state / "runc").iterdir())


MARK = f"9876{secrets.randbelow(10**6):06}"  # of our own: tests run beside others
FOR_EVER = f"""
trap '' TERM INT HUP
busybox setsid busybox sleep {MARK} &
echo > /cocos/results/started
busybox sleep {MARK}
"""


def left_of(tools: Runtime, name: str) -> list[str]:
    """What there is of a container: processes, groups, files, mounts."""
    found = [line for line in _command_lines() if MARK in line or name in line]
    found += [str(path) for root in cgroups.hierarchies() for path in root.glob(f"cocos/{name}*")]
    found += [str(path) for path in tools.state.glob("*/*")]
    return found + [line for line in Path("/proc/mounts").read_text().split("\n") if name in line]


def _command_lines() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has just ended
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in found if line]


def _kill_runc(name: str) -> bool:
    """Kill the runc that runs a container, nothing else; whether there was one."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().decode(errors="replace").split("\0")
            if words[0].endswith("runc") and "run" in words and name in words:
                os.kill(int(path.parent.name), signal.SIGKILL)
                return True
    return False


async def test_nothing_runs_on_when_runc_is_killed(box: Box) -> None:
    name = f"killed-{secrets.token_hex(4)}"
    task = asyncio.create_task(box.run(FOR_EVER, name=name))
    await _until((box.folder / "results/started").exists)
    assert left_of(box.tools, name)
    assert _kill_runc(name)
    with pytest.raises(ProcessError, match=r"runc .*signal SIGKILL"):
        await task
    await _until(lambda: not left_of(box.tools, name))


@pytest.mark.parametrize("sign", ["spawned", "bundle", "runc/{}", "runc/{}/state.json", "group"])
async def test_runc_killed_while_it_makes_a_container(box: Box, sign: str) -> None:
    """At every point where it leaves something new behind."""
    name = f"young-{secrets.token_hex(4)}"
    task = asyncio.create_task(box.run(FOR_EVER, name=name))
    signs: dict[str, Callable[[], bool]] = {
        "spawned": lambda: True,
        "bundle": (box.tools.state / "bundles" / name / "runc.log").exists,
        "group": lambda: any(root.glob(f"cocos/{name}") for root in cgroups.hierarchies()),
    }
    there = signs.get(sign, (box.tools.state / sign.format(name)).exists)
    await _until(lambda: task.done() or (there() and _kill_runc(name)))
    with pytest.raises(ProcessError, match=r"runc .*signal SIGKILL"):
        await task
    await _until(lambda: not left_of(box.tools, name))


async def test_a_group_without_a_container_is_swept(box: Box) -> None:
    """The agent and runc were killed before runc had written down what it had made."""
    name = f"aborted-{secrets.token_hex(4)}"
    (box.tools.state / "bundles" / name).mkdir(parents=True)
    if box.tools.cgroups:
        for root in cgroups.hierarchies():
            (root / "cocos" / name / "below").mkdir(parents=True)
    async with process.spawn(["/bin/sleep", MARK]) as child:
        for root in cgroups.hierarchies() if box.tools.cgroups else []:
            if root.name != "cpuset":  # which takes nobody before it has processors
                (root / "cocos" / name / "below/cgroup.procs").write_text(str(child.pid))
        await replace(box.tools).sweep()
        if box.tools.cgroups:
            assert await child.wait() == -signal.SIGKILL
    assert left_of(box.tools, name) == []


async def test_a_program_that_is_not_there(box: Box) -> None:
    rootfs = box.folder / "empty"
    rootfs.mkdir()
    with pytest.raises(ProcessError, match=r"could not be run.*no such file"):
        await box.tools.run(Container("none", rootfs, ("/nope",)), box.folder / "logs")


async def test_a_program_whose_files_only_root_s_rights_could_read(box: Box) -> None:
    """Root has none of them here: the bits of the files decide, and the message says so."""
    rootfs = box.folder / "closed"
    (rootfs / "bin").mkdir(parents=True)
    (rootfs / "bin/busybox").write_bytes(BUSYBOX.read_bytes())
    (rootfs / "bin/busybox").chmod(0o644)
    with pytest.raises(ProcessError, match=r"could not be run.*permission denied") as caught:
        await box.tools.run(Container("closed", rootfs, ("/bin/busybox",)), box.folder / "logs")
    assert "chmod -R a+rX" in str(caught.value.hint)


async def test_a_name_that_is_a_path(box: Box) -> None:
    with pytest.raises(FormatError, match="no name"):
        await box.tools.run(Container("../x", box.folder, ("/x",)), box.folder / "logs")


async def test_no_control_groups_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "_CGROUPS", tmp_path)
    with pytest.raises(ConfigError, match="could not be limited") as caught:
        Runtime.find(tmp_path / "state")
    assert "--insecure-without-cgroups" in (caught.value.hint or "")
    weak = Runtime.find(tmp_path / "state", insecure_without_cgroups=True)
    assert not weak.cgroups


async def test_runs_without_control_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_CGROUPS", tmp_path)
    weak = Runtime.find(tmp_path / "state", insecure_without_cgroups=True)
    (tmp_path / "box").mkdir()
    outcome = await Box(weak, tmp_path / "box").run("echo weak")
    assert outcome == Outcome(0, "weak")


async def test_unpacking_stays_inside(tools: Runtime, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    layers = [
        tar({"../../../../outside/evil": b"x", "/abs": b"x"}),
        busybox_layer("true"),
    ]
    write_layout(tmp_path / "image", layers)
    (tmp_path / "deep").mkdir()
    await tools.unpack(tmp_path / "image", "latest", tmp_path / "deep/rootfs")
    assert not list(outside.iterdir())
    assert (tmp_path / "deep/rootfs/bin/busybox").stat().st_size == BUSYBOX.stat().st_size


async def test_unpacking_garbage(tools: Runtime, tmp_path: Path) -> None:
    write_layout(tmp_path / "image", [b"this is no tar" * 100])
    with pytest.raises(FormatError, match="cannot be unpacked"):
        await tools.unpack(tmp_path / "image", "latest", tmp_path / "rootfs")
