# SPDX-License-Identifier: Apache-2.0
"""``make demo`` gets its result beside programs that hold its ports, and leaves nothing."""

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest

from cocos.host import process

ROOT = Path(__file__).resolve().parent.parent.parent
LIMIT_SECONDS = 1800  # a VM may have to be emulated on a busy machine

pytestmark = [
    pytest.mark.guide,
    pytest.mark.usefixtures("guide_ports"),
    pytest.mark.xdist_group("guide"),
    pytest.mark.timeout(2 * LIMIT_SECONDS),  # another run may have to end first
]


@asynccontextmanager
async def demo(tmp_path: Path, *flags: str) -> AsyncIterator[asyncio.subprocess.Process]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("PIP_", "SSL_", "XDG_CACHE"))
    }
    async with process.spawn(
        # A test run in the background ignores SIGINT, and so would its children.
        ["env", "--default-signal=INT", sys.executable, ROOT / "tools" / "demo.py", *flags],
        env={**kept, "TMPDIR": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    ) as child:
        yield child


def left_in(folder: Path) -> list[str]:
    """Files in a folder, and command lines of processes that work in it."""
    found = [str(path) for path in folder.iterdir()]
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").readlink().is_relative_to(folder):
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


async def output(child: asyncio.subprocess.Process) -> str:
    assert child.stdout is not None
    async with asyncio.timeout(LIMIT_SECONDS):
        text = (await child.stdout.read()).decode()
        await child.wait()
    return text


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        pytest.param("qemu", "a VM whose TPM", marks=pytest.mark.vm),
        ("local", "proves nothing"),
    ],
)
async def test_demo_takes_free_ports_and_leaves_nothing(
    tmp_path: Path, backend: str, said: str
) -> None:
    with ExitStack() as held:
        for port in (5000, 8080):
            busy = held.enter_context(socket.socket())
            busy.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            busy.bind(("127.0.0.1", port))
            busy.listen()
        async with demo(tmp_path, "--backend", backend, "--explain") as child:
            text = await output(child)
    assert child.returncode == 0, text
    assert "port 5000 is in use" in text
    assert "port 8080 is in use" in text
    assert "[ 0.92383344 -0.49696589]" in text
    assert "Intercept: -3.0014" in text
    assert re.search(r"\d\.\d s$", text, re.MULTILINE), "no step shows its time"
    assert "$ skopeo copy --encryption-key provider:attestation-agent:cc_kbc::kbs:///" in text
    assert said in text
    assert left_in(tmp_path) == []


async def test_ctrl_c_stops_everything(tmp_path: Path) -> None:
    async with demo(tmp_path, "--backend", "local") as child:
        assert child.stdout is not None
        seen = b""
        async with asyncio.timeout(LIMIT_SECONDS):
            while b"manager and CVMS start" not in seen:  # then most servers run
                line = await child.stdout.readline()
                assert line, f"it ended before it got there: {seen.decode()}"
                seen += line
        assert left_in(tmp_path)
        os.kill(child.pid, signal.SIGINT)
        text = await output(child)
    assert child.returncode == 130, text
    assert left_in(tmp_path) == []
