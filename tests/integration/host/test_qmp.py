# SPDX-License-Identifier: Apache-2.0
"""Ends of VMs that no real QEMU brings about on demand, told by a peer that speaks its protocol."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cocos.errors import ProtocolError, UnreachableError
from cocos.host import unix_socket
from cocos.host.machines.qmp import Monitor

pytestmark = pytest.mark.integration

GREETING = {"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}}, "capabilities": []}}
TIME = {"seconds": 1, "microseconds": 0}


@contextlib.asynccontextmanager
async def peer(
    folder: Path, answers: dict[str, Any], events: list[dict[str, Any]]
) -> AsyncIterator[Path]:
    """Listen like QEMU: send the events after the handshake, answer commands, else refuse."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def send(message: dict[str, Any]) -> None:
            writer.write(json.dumps(message).encode() + b"\r\n")

        send(GREETING)
        pending = ""
        while True:
            try:  # no newline comes after a command
                command, end = json.JSONDecoder().raw_decode(pending)
            except json.JSONDecodeError:
                if not (more := await reader.read(4096)):
                    break
                pending += more.decode()
                continue
            pending = pending[end:].lstrip()
            name = command["execute"]
            about = {"id": command["id"]} if "id" in command else {}
            if name == "hang up":
                break
            if name == "qmp_capabilities":
                send({"return": {}, **about})
                for event in events:
                    send({**event, "timestamp": TIME})
            elif name in answers:
                send({"return": answers[name], **about})
            else:
                error = {"class": "CommandNotFound", "desc": f"no {name}"}
                send({"error": error, **about})
        writer.close()

    path = folder / "monitor.sock"
    server = await asyncio.start_unix_server(serve, sock=unix_socket.listen(path))
    async with server:
        yield path


@pytest.mark.parametrize(
    ("status", "reason"),
    [("internal-error", "accelerator"), ("io-error", "disk"), ("guest-panicked", "panicked")],
)
async def test_a_guest_that_stands_still_for_good(tmp_path: Path, status: str, reason: str) -> None:
    answers = {"query-status": {"status": status, "running": False}}
    async with (
        peer(tmp_path, answers, [{"event": "STOP"}]) as path,
        Monitor(path) as monitor,
        asyncio.timeout(30),
    ):
        assert reason in await monitor.until_stopped()


async def test_a_pause_is_no_end(tmp_path: Path) -> None:
    answers = {"query-status": {"status": "paused", "running": False}}
    async with peer(tmp_path, answers, [{"event": "STOP"}]) as path, Monitor(path) as monitor:
        waiting = asyncio.create_task(monitor.until_stopped())
        # Its question comes before ours on the same connection.
        await monitor.execute("query-status")
        await monitor.execute("query-status")
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait({waiting})


@pytest.mark.parametrize(
    ("events", "failed", "reason"),
    [
        ([("SHUTDOWN", {"guest": True, "reason": "guest-shutdown"})], False, "shut itself down"),
        ([("SHUTDOWN", {"guest": True, "reason": "guest-reset"})], True, "reset"),
        ([("SHUTDOWN", {"guest": False, "reason": "host-signal"})], True, "signal"),
        ([("SHUTDOWN", {"guest": False, "reason": "of the future"})], True, "error"),
        (
            [
                ("GUEST_PANICKED", {"action": "poweroff"}),
                ("SHUTDOWN", {"guest": True, "reason": "guest-panic"}),
            ],
            True,
            "kernel panicked",
        ),
    ],
)
async def test_how_it_ended(
    tmp_path: Path, events: list[tuple[str, dict[str, Any]]], failed: bool, reason: str
) -> None:
    sent = [{"event": name, "data": data} for name, data in events]
    async with peer(tmp_path, {"query-status": {}}, sent) as path, Monitor(path) as monitor:
        await monitor.execute("query-status")
        told = monitor.ending()
        assert told is not None
        assert (reason in told[0], told[1]) == (True, failed)
        assert monitor.ending() is None


async def test_refusals_and_hanging_up(tmp_path: Path) -> None:
    async with peer(tmp_path, {}, []) as path, Monitor(path) as monitor:
        with pytest.raises(ProtocolError, match="refused nothing"):
            await monitor.execute("nothing")
        with pytest.raises(UnreachableError, match="ended during hang up"):
            await monitor.execute("hang up")
        async with asyncio.timeout(30):
            await monitor.until_closed()


@pytest.mark.parametrize("text", ["", "TCP[HOST_FORWARD]  3  0.0.0.0 1  10.0.2.15 7002"])
async def test_no_forwarded_port(tmp_path: Path, text: str) -> None:
    answers = {"human-monitor-command": text}
    async with peer(tmp_path, answers, []) as path, Monitor(path) as monitor:
        with pytest.raises(ProtocolError, match="no port"):
            await monitor.forwarded_port()


async def test_nobody_there_and_nothing_of_the_protocol(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match=r"monitor\.sock"):
        async with Monitor(tmp_path / "monitor.sock"):
            pass

    async def rude(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"go away\r\n")
        writer.close()

    path = tmp_path / "rude.sock"
    async with await asyncio.start_unix_server(rude, sock=unix_socket.listen(path)):
        with pytest.raises(UnreachableError):
            async with Monitor(path):
                pass


def test_a_path_longer_than_a_sockets_address(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 200)
    folder.mkdir()
    with unix_socket.listen(folder / "s") as listener, unix_socket.connect(folder / "s") as client:
        accepted, _ = listener.accept()
        accepted.sendall(b"hello")
        accepted.close()
        client.setblocking(True)
        assert client.recv(10) == b"hello"
    assert (folder / "s").stat().st_mode & 0o777 == 0o600
