# SPDX-License-Identifier: Apache-2.0
import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from _manager import eventually

from cocos.errors import ToolMissingError
from cocos.host import process
from cocos.host.containers import cgroups, sandbox
from cocos.host.containers.sandbox import View

pytestmark = pytest.mark.integration

PYTHON = sys.executable


async def output(view: View, *argv: str) -> tuple[int, str]:
    async with sandbox.run(view, argv) as child:
        text = await child.output.read()
        return await child.wait(), text.decode()


async def test_the_machine_is_hidden(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hush")
    places = f"/home /root/.ssh /etc/shadow /etc/cocos {secret} /var/lib /boot"
    status, text = await output(View(), "/bin/sh", "-c", f"cat {places}; ls -A {places}; ps ax")
    assert status == 0
    assert "hush" not in text
    assert "root:" not in text
    assert text.count("No such file or directory") >= 10
    assert sys.executable not in text  # of the process list


async def test_only_named_folders_can_be_written(tmp_path: Path) -> None:
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    view = View(
        readable={Path("/in"): tmp_path / "in", Path("/absent"): tmp_path / "absent"},
        writable={Path("/out"): tmp_path / "out"},
        workdir=Path("/out"),
    )
    script = (
        "pwd; touch x; for d in /in /usr /etc/ssl /proc/sys; do touch $d/x && echo BAD $d; done"
    )
    _, text = await output(view, "/bin/sh", "-c", script)
    assert text.startswith("/out\n")
    assert "BAD" not in text
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x"]
    assert not any((tmp_path / "in").iterdir())


async def test_no_privileges_are_left() -> None:
    # The second exec must not win back what the first has lost.
    _, text = await output(View(), "/bin/sh", "-c", "cat /proc/self/status; exit 0")
    fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0
    assert fields["NoNewPrivs"] == "1"


async def test_our_own_programs_run_inside() -> None:
    status, text = await output(View(), PYTHON, "-c", "import cocos.manager.service; print('ok')")
    assert (status, text) == (0, "ok\n")


async def test_secrets_travel_by_environment_only() -> None:
    async with sandbox.run(
        View(), ["/bin/sh", "-c", "echo $TOKEN; cat"], env={"TOKEN": "hush"}
    ) as child:
        assert await child.output.readline() == b"hush\n"
        assert not any(b"hush" in line for line in _command_lines())


def _command_lines() -> list[bytes]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has just ended
            found.append(path.read_bytes())
    return found


async def test_a_program_is_asked_before_it_is_killed() -> None:
    script = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('bye'), sys.exit(3)))\n"
        "print('up', flush=True)\n"
        "time.sleep(1000)\n"
    )
    async with sandbox.run(View(), [PYTHON, "-c", script]) as child:
        assert await child.output.readline() == b"up\n"
        await child.stop()
        assert await child.wait() == 3
        assert await child.output.read() == b"bye\n"


async def test_one_that_does_not_listen_is_killed_with_its_descendants(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sandbox, "GRACE_SECONDS", 0.2)
    script = "trap '' TERM; setsid sleep 98761 & setsid -f sleep 98761; echo up; wait; wait"
    async with sandbox.run(View(), ["/bin/sh", "-c", script]) as child:
        assert await child.output.readline() == b"up\n"
        await eventually(lambda: len(_running("98761")) == 2)
    await eventually(lambda: not _running("98761"))


async def test_everything_dies_with_a_killed_starter() -> None:
    script = (
        "import asyncio\n"
        "from cocos.host.containers import sandbox\n"
        "async def main():\n"
        "    argv = ['/bin/sh', '-c', 'setsid -f sleep 98762; echo up; sleep 98762']\n"
        "    async with sandbox.run(sandbox.View(), argv) as child:\n"
        "        print(await child.output.readline(), flush=True)\n"
        "        await child.wait()\n"
        "asyncio.run(main())\n"
    )
    async with process.spawn([PYTHON, "-c", script], stdout=asyncio.subprocess.PIPE) as starter:
        assert starter.stdout is not None
        while b"up" not in (line := await starter.stdout.readline()):
            assert line
        await eventually(lambda: len(_running("98762")) == 2)
        # Not the group: only the starter itself gets the signal.
        os.kill(starter.pid, signal.SIGKILL)
        await starter.wait()
        await eventually(lambda: not _running("98762"))


async def test_an_exit_by_signal_is_told_like_a_shell_does() -> None:
    status, _ = await output(View(), "/bin/sh", "-c", "kill -KILL $$")
    assert status == 128 + signal.SIGKILL


async def test_missing_bubblewrap_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(ToolMissingError, match="bwrap") as caught:
        sandbox.command(View(), ["true"])
    assert "bubblewrap" in (caught.value.hint or "")


async def test_containers_run_inside_and_leave_no_group(tmp_path: Path) -> None:
    """A real runc, in the control group that the sandbox was given."""
    bundle = tmp_path / "bundle"
    (bundle / "rootfs").mkdir(parents=True)
    rootless = ["--rootless"] if os.geteuid() else []
    subprocess.run(["runc", "spec", *rootless], cwd=bundle, check=True)  # noqa: ASYNC221 - a test
    config = json.loads((bundle / "config.json").read_text())
    config["process"] |= {"terminal": False, "args": ["/usr/bin/cat", "/proc/self/cgroup"]}
    config["linux"]["cgroupsPath"] = f"/{cgroups.INSIDE}/one"
    config["linux"]["namespaces"] = [
        each for each in config["linux"]["namespaces"] if each["type"] != "cgroup"
    ]
    config["linux"]["resources"]["pids"] = {"limit": 20}
    for name in ("usr", "lib", "lib64"):
        (bundle / "rootfs" / name).mkdir()
        source = {"usr": "/usr", "lib": "/usr/lib", "lib64": "/usr/lib64"}[name]
        mount = {"destination": f"/{name}", "type": "none", "source": source}
        config["mounts"].append({**mount, "options": ["rbind", "ro"]})
    (bundle / "config.json").write_text(json.dumps(config))
    view = View(writable={Path("/work"): tmp_path}, workdir=Path("/work"), cgroup="cocos-test-run")
    status, text = await output(
        view, "runc", "--root", "/run/runc", "run", "--bundle", "bundle", "one"
    )
    assert status == 0, text
    if os.geteuid() == 0:
        assert "/cocos-test-run/one" in text
    left = [path for root in cgroups.hierarchies() for path in root.glob("cocos-test-run*")]
    assert not left


def _running(marker: str) -> list[bytes]:
    start = b"sleep\0" + marker.encode()
    return [line for line in _command_lines() if line.startswith(start)]
