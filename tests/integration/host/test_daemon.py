# SPDX-License-Identifier: Apache-2.0
"""Programs that outlive us."""

import asyncio
import json
import os
import signal
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from _manager import eventually

from cocos.errors import ToolMissingError
from cocos.host.daemon import Daemon, kill_marked

pytestmark = pytest.mark.integration


@pytest.fixture
def mark() -> Iterator[str]:
    name = f"test-{uuid.uuid4()}"
    yield name
    kill_marked(name)


def start(folder: Path, mark: str, script: str, *inherited: int) -> Daemon:
    return Daemon.start(
        ["/bin/bash", "-c", script],
        mark=mark,
        pid_file=folder / "pid",
        log=folder / "log",
        inherited=inherited,
    )


async def test_it_is_found_by_its_file_and_ends_when_told(tmp_path: Path, mark: str) -> None:
    daemon = start(tmp_path, mark, "exec sleep 1000")
    found = Daemon.find(tmp_path / "pid")
    assert found is not None
    assert (found.pid, found.alive) == (daemon.pid, True)
    assert os.getsid(daemon.pid) == daemon.pid
    await found.stop(grace=30)
    assert not daemon.alive
    assert Daemon.find(tmp_path / "pid") is None
    for each in (daemon, found):
        each.close()


@pytest.mark.parametrize(
    ("script", "ending"),
    [
        ("exit 0", " with exit code 0"),
        ("exit 3", " with exit code 3"),
        ("kill -9 $$", " with signal SIGKILL"),
    ],
)
async def test_its_end_is_told(tmp_path: Path, mark: str, script: str, ending: str) -> None:
    daemon = start(tmp_path, mark, f"echo last words; {script}")
    await daemon.wait()
    assert daemon.ending == ending
    assert (tmp_path / "log").read_text() == "last words\n"
    with pytest.raises(ProcessLookupError):  # not even a zombie
        os.kill(daemon.pid, 0)
    await daemon.stop(grace=1)
    daemon.close()


async def test_one_that_does_not_listen_is_killed(tmp_path: Path, mark: str) -> None:
    daemon = start(tmp_path, mark, "trap '' TERM; echo up; while :; do sleep 1; done")
    await eventually((tmp_path / "log").read_bytes)
    await daemon.stop(grace=0.01)
    assert daemon.ending == " with signal SIGKILL"
    daemon.close()


async def test_an_id_that_another_process_has_by_now_is_not_taken_for_ours(
    tmp_path: Path, mark: str
) -> None:
    daemon = start(tmp_path, mark, "exec sleep 1000")
    about = json.loads((tmp_path / "pid").read_bytes())
    about["start_time"] += 1
    (tmp_path / "pid").write_text(json.dumps(about))
    assert Daemon.find(tmp_path / "pid") is None
    await daemon.kill()
    daemon.close()


@pytest.mark.parametrize(
    "text", ["", "{", '{"pid":1}', '{"pid":-1,"start_time":1}', '{"pid":9999999999,"start_time":1}']
)
def test_a_file_that_tells_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "pid").write_text(text)
    assert Daemon.find(tmp_path / "pid") is None
    assert Daemon.find(tmp_path / "absent") is None


async def test_the_mark_finds_what_no_file_tells_of(tmp_path: Path, mark: str) -> None:
    daemon = start(tmp_path, mark, "sleep 1000 & echo up; wait")
    await eventually((tmp_path / "log").read_bytes)
    (tmp_path / "pid").unlink()
    kill_marked("another")
    assert daemon.alive
    kill_marked(mark)
    assert not daemon.alive
    daemon.close()


async def test_descriptors_and_signals(tmp_path: Path, mark: str) -> None:
    ours, theirs = socket.socketpair()
    daemon = start(
        tmp_path,
        mark,
        f"echo hello >&{theirs.fileno()}; ls /proc/self/fd; grep SigIgn /proc/self/status",
        theirs.fileno(),
    )
    theirs.close()
    await daemon.wait()
    assert ours.recv(100) == b"hello\n"
    assert ours.recv(100) == b""
    *numbers, _, ignored = (tmp_path / "log").read_text().split()
    assert len(numbers) == 5  # three, the socket, and what ls opens
    assert not int(ignored, 16) & 1 << signal.SIGPIPE - 1
    ours.close()
    daemon.close()


async def test_waiting_can_be_given_up(tmp_path: Path, mark: str) -> None:
    daemon = start(tmp_path, mark, "exec sleep 1000")
    waiting = asyncio.create_task(daemon.wait())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    await daemon.kill()
    daemon.close()


def test_no_such_program(tmp_path: Path) -> None:
    with pytest.raises(ToolMissingError, match="no-such"):
        Daemon.start(["/no-such"], mark="m", pid_file=tmp_path / "pid", log=tmp_path / "log")


def test_one_that_cannot_be_noted_does_not_run(tmp_path: Path, mark: str) -> None:
    with pytest.raises(FileNotFoundError):
        Daemon.start(
            ["/bin/sleep", "1000"],
            mark=mark,
            pid_file=tmp_path / "no" / "pid",
            log=tmp_path / "log",
        )
    marks = [path for path in Path("/proc").glob("[0-9]*/environ") if _has(path, mark)]
    assert marks == []


def _has(path: Path, mark: str) -> bool:
    try:
        return mark.encode() in path.read_bytes()
    except OSError:
        return False
