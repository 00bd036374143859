# SPDX-License-Identifier: Apache-2.0
import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from cocos.manager.console import MAX_LINE, Console, pump


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Console]:
    made = Console(tmp_path / "console.log", limit=1000)
    made.open()
    yield made
    made.close()


async def everything(console: Console, *, follow: bool = False) -> bytes:
    return b"".join([chunk async for chunk in console.read(follow=follow)])


async def test_lines_carry_their_program_and_no_control_characters(console: Console) -> None:
    console.write("agent", "a\x1b[31mb\rc")
    assert await everything(console) == "agent: a�[31mb�c\n".encode()
    assert console.path.stat().st_mode & 0o777 == 0o600


async def test_a_follower_gets_what_comes_and_ends(console: Console) -> None:
    console.write("a", "one")
    reader = asyncio.create_task(everything(console, follow=True))
    await asyncio.sleep(0)
    console.write("a", "two")
    await asyncio.sleep(0)
    console.write("a", "three")
    console.close()
    assert await reader == b"a: one\na: two\na: three\n"
    assert await everything(console, follow=True) == b"a: one\na: two\na: three\n"


async def test_the_file_stays_small_and_a_follower_stays_in_place(console: Console) -> None:
    seen: list[bytes] = []

    async def follow() -> None:
        async for chunk in console.read(follow=True):
            seen.append(chunk)  # noqa: PERF401 - partial results matter

    reader = asyncio.create_task(follow())
    for number in range(500):
        console.write("a", f"line {number}")
        await asyncio.sleep(0)
    console.close()
    await reader
    assert console.path.stat().st_size <= 1000
    lines = b"".join(seen).decode().splitlines()
    assert lines == [f"a: line {number}" for number in range(500)]
    kept = (await everything(console)).decode().splitlines()
    assert kept == lines[-len(kept) :]
    assert len(kept) > 10


async def test_a_slow_follower_misses_only_what_was_dropped(console: Console) -> None:
    for number in range(500):
        console.write("a", f"line {number}")
    lines = (await everything(console)).decode().splitlines()
    assert lines[-1] == "a: line 499"
    assert all(line.startswith("a: line ") for line in lines)


async def test_an_old_console_can_be_read_after_a_restart(console: Console) -> None:
    console.write("a", "before")
    console.close()
    assert await everything(Console(console.path), follow=True) == b"a: before\n"


async def test_the_tail_is_per_program(console: Console) -> None:
    for program in ("a", "b"):
        for number in range(60):
            console.write(program, f"{program}{number}")
        console.write(program, "  ")
    assert console.tail("a", 2) == ["a58", "a59"]
    assert console.tail("c") == []


async def test_pump_splits_lines_and_bounds_them() -> None:
    stream = asyncio.StreamReader()
    stream.feed_data(b"one\ntw" + b"o\n" + b"x" * (MAX_LINE * 2) + b"\n\xff\nend")
    stream.feed_eof()
    lines: list[str] = []
    await pump(stream, lines.append)
    assert lines[:2] == ["one", "two"]
    assert "".join(lines[2:-2]) == "x" * (MAX_LINE * 2)
    assert lines[-2:] == ["�", "end"]
