# SPDX-License-Identifier: Apache-2.0
"""Children are started cleanly, reported clearly and never left behind."""

import asyncio
import signal
import time
from pathlib import Path

import pytest

from cocos.errors import ProcessError, ToolMissingError, UnreachableError
from cocos.host import process

pytestmark = pytest.mark.integration


def alive(pid: int) -> bool:
    """Whether a process runs; one that waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


async def gone(pid: int) -> None:
    async with asyncio.timeout(10):
        while alive(pid):  # noqa: ASYNC110 - the kernel offers no event for a foreign process
            await asyncio.sleep(0.01)


async def test_output_and_input() -> None:
    done = await process.run(["cat"], stdin=b"in and out")
    assert (done.exit_status, done.stdout, done.stderr) == (0, b"in and out", b"")


async def test_nothing_is_inherited_that_was_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COCOS_TEST_SECRET", "s3cret")
    done = await process.run(["env"], env={"GIVEN": "1"})
    assert b"GIVEN=1" in done.stdout
    assert b"s3cret" not in done.stdout


async def test_failure_names_program_status_and_last_words() -> None:
    with pytest.raises(
        ProcessError, match=r"sh failed with exit code 3: first \| second \| third"
    ) as caught:
        await process.run(["sh", "-c", "echo first >&2; echo second >&2; echo third >&2; exit 3"])
    assert caught.value.exit_status == 3


async def test_signal_is_named() -> None:
    with pytest.raises(ProcessError, match="signal SIGKILL"):
        await process.run(["sh", "-c", "kill -9 $$"])


async def test_missing_program() -> None:
    with pytest.raises(ToolMissingError, match="no-such-program"):
        await process.run(["no-such-program"])
    with pytest.raises(ToolMissingError) as caught:
        process.find_tool("no-such-program", hint="install it")
    assert caught.value.hint == "install it"


async def test_timeout_kills_the_whole_group(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"trap '' TERM; sleep 600 & echo $! $$ > {pids}; wait"
    process_grace, process.GRACE_SECONDS = process.GRACE_SECONDS, 0.1
    try:
        with pytest.raises(UnreachableError, match=r"sh did not finish within 3 s"):
            await process.run(["sh", "-c", script], timeout=3)
    finally:
        process.GRACE_SECONDS = process_grace
    for pid in pids.read_text().split():
        await gone(int(pid))


async def test_cancellation_reaps(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    task = asyncio.create_task(
        process.run(
            ["sh", "-c", f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; sleep 600"]
        )
    )
    async with asyncio.timeout(10):
        while not pid_file.exists():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not alive(int(pid_file.read_text()))


@pytest.mark.parametrize("steps", range(1, 10))
async def test_cancellation_while_it_is_made(tmp_path: Path, steps: int) -> None:
    """The child may run, with children of its own, before the loop has heard of it."""
    pid_file = tmp_path / "pid"
    words = f"sleep 600 & echo $! > {pid_file}.new; mv {pid_file}.new {pid_file}; wait"
    task = asyncio.create_task(process.run(["sh", "-c", words]))
    for _ in range(steps):
        await asyncio.sleep(0)
    deadline = time.monotonic() + 2
    while not pid_file.exists() and time.monotonic() < deadline:
        pass  # the loop, too, stands still
    task.cancel()
    async with asyncio.timeout(60):
        with pytest.raises(asyncio.CancelledError):
            await task
    if pid_file.exists():
        await gone(int(pid_file.read_text()))


async def test_lines_are_handed_on_and_only_the_tail_is_kept() -> None:
    lines: list[bytes] = []
    done = await process.run(["sh", "-c", "seq 1 20000; printf last"], on_stdout=lines.append)
    assert lines[:2] == [b"1", b"2"]
    assert lines[-1] == b"last"
    assert len(lines) == 20001
    assert len(done.stdout) == process.TAIL_BYTES


async def test_a_line_without_end_does_not_fill_the_memory() -> None:
    longest = 0

    def sink(line: bytes) -> None:
        nonlocal longest
        longest = max(longest, len(line))

    await process.run(["sh", "-c", "head -c 3000000 /dev/zero"], on_stdout=sink)
    assert longest <= process.TAIL_BYTES + 2**16


async def test_spawned_child_ends_with_its_block() -> None:
    async with process.spawn(["sleep", "600"]) as child:
        assert alive(child.pid)
    assert child.returncode == -signal.SIGTERM
