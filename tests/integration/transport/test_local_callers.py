# SPDX-License-Identifier: Apache-2.0
"""Ports on loopback serve their own user and root; a second, real user is refused."""

import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from _users import NOBODY, calls_as
from grpc import aio
from hypothesis import given
from hypothesis import strategies as st

from cocos.errors import AccessDeniedError, ConfigError
from cocos.host import peers
from cocos.host.peers import Endpoint
from cocos.transport import rpc
from cocos.transport.local_callers import LocalCallers
from cocos.wire._generated import keyprovider_pb2, keyprovider_pb2_grpc

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else"),
]


class Servicer(keyprovider_pb2_grpc.KeyProviderServiceServicer):
    """Counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def WrapKey(self, _request: Any, _context: Any) -> Any:  # noqa: N802 - protobuf's name
        self.asked.append("wrap")
        return keyprovider_pb2.KeyProviderKeyWrapProtocolOutput()

    async def UnWrapKey(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        self.asked.append("unwrap")
        return keyprovider_pb2.KeyProviderKeyWrapProtocolOutput()


@asynccontextmanager
async def served(
    callers: LocalCallers | None, address: str = "127.0.0.1:0"
) -> AsyncIterator[tuple[str, Servicer]]:
    servicer = Servicer()
    register: Callable[[aio.Server], None] = lambda server: (  # noqa: E731
        keyprovider_pb2_grpc.add_KeyProviderServiceServicer_to_server(servicer, server)
    )
    service = rpc.Service("keyprovider.KeyProviderService", register)
    async with rpc.serve(address, [service], callers=callers) as bound:
        yield bound, servicer


async def test_another_user_is_refused_whatever_he_asks() -> None:
    async with served(LocalCallers.of()) as (address, servicer):
        found = await calls_as(NOBODY, address)
    assert {status for status, _ in found.values()} == {"PERMISSION_DENIED"}, found
    assert found["wrap"][1] == (
        "this program serves root only, not nobody "
        "(start it with --allow-user nobody, or start one of your own)"
    )
    assert servicer.asked == []


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.0.0.2:0", "localhost:0", "[::1]:0"])
async def test_our_own_user_is_served(address: str) -> None:
    async with served(LocalCallers.of(), address) as (bound, servicer):
        assert {status for status, _ in (await calls_as(0, bound)).values()} == {"OK"}
    assert servicer.asked == ["wrap", "unwrap"]


@pytest.mark.parametrize("name", ["nobody", "65534"])
async def test_a_user_who_is_named_is_served(name: str) -> None:
    async with served(LocalCallers.of([name])) as (address, servicer):
        assert {status for status, _ in (await calls_as(NOBODY, address)).values()} == {"OK"}
        assert {status for status, _ in (await calls_as(1, address)).values()} == {
            "PERMISSION_DENIED"
        }
    assert servicer.asked == ["wrap", "unwrap"]


async def test_an_ipv6_socket_that_speaks_ipv4() -> None:
    async with served(LocalCallers.of()) as (address, _):
        mapped = f"[::ffff:127.0.0.1]:{address.rpartition(':')[2]}"
        assert (await calls_as(NOBODY, mapped))["wrap"][0] == "PERMISSION_DENIED"
        assert (await calls_as(0, mapped))["wrap"][0] == "OK"


async def test_a_socket_in_the_file_system_has_its_mode(tmp_path: Path) -> None:
    async with served(LocalCallers.of(), f"unix:{tmp_path}/socket") as (bound, servicer):
        assert {status for status, _ in (await calls_as(0, bound)).values()} == {"OK"}
    assert servicer.asked == ["wrap", "unwrap"]


def test_who_asks_by_http(listener: socket.socket) -> None:
    with listener, socket.create_connection(listener.getsockname()) as client:
        ends = {"client": client.getsockname(), "server": client.getpeername()}
        LocalCallers.of().admit(ends)
        with pytest.raises(AccessDeniedError, match="serves nobody only, not root"):
            LocalCallers(frozenset({NOBODY})).admit(ends)
        for unknown in ("client", "server"):
            for nothing in ({}, {unknown: None}):
                told = {name: end for name, end in ends.items() if name != unknown}
                with pytest.raises(AccessDeniedError, match="nobody can tell"):
                    LocalCallers.of().admit({**told, **nothing})


async def test_without_a_limit_anybody_is_served() -> None:
    """Services for other machines have TLS for this."""
    async with served(None) as (address, servicer):
        assert (await calls_as(NOBODY, address))["wrap"][0] == "OK"
    assert servicer.asked


@pytest.mark.parametrize("user", ["who?", "\uff16\uff15", "-1", ""])
def test_a_user_whom_nobody_knows(user: str) -> None:
    with pytest.raises(ConfigError, match="has no user"):
        LocalCallers.of([user])


def ends(client: socket.socket) -> tuple[Endpoint, Endpoint]:
    return Endpoint.of(*client.getsockname()[:2]), Endpoint.of(*client.getpeername()[:2])


@pytest.fixture
def listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def test_owner_of_a_connection(listener: socket.socket) -> None:
    with listener, socket.create_connection(listener.getsockname()) as client:
        mine, other = ends(client)
        assert peers.owners(mine, other) == {os.geteuid()}
        # The server's own row has the ends the other way round, and belongs to nobody yet.
        assert peers.owners(other, mine) == set()
        assert peers.owners(mine, Endpoint(other.address, other.port ^ 1)) == set()


CONNECT = """
import os, socket, sys
os.setresuid(65534, 65534, 65534)
client = socket.socket()
client.connect(("127.0.0.1", int(sys.argv[1])))
client.sendall(b"request")
how = sys.argv[2]
if how == "close":
    print(client.getsockname()[1], flush=True)
    client.close()
elif how == "shutdown":
    client.shutdown(socket.SHUT_WR)
    print(client.getsockname()[1], flush=True)
else:
    print(client.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("how", "expected"), [("stay", {NOBODY}), ("close", set()), ("shutdown", set())]
)
def test_a_socket_that_was_closed_is_not_roots(
    listener: socket.socket, how: str, expected: set[int]
) -> None:
    """The kernel lists it with user 0: who sends a request and closes would be root."""
    port = listener.getsockname()[1]
    argv = [sys.executable, "-c", CONNECT, str(port), how]
    with (
        listener,
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child,
    ):
        assert child.stdout is not None
        theirs = int(child.stdout.readline())
        server, _ = listener.accept()
        with server:
            assert server.recv(7) == b"request"
            if how != "stay":
                assert server.recv(1) == b""  # the kernel has done it
            client = Endpoint.of("127.0.0.1", theirs)
            assert peers.owners(client, Endpoint.of("127.0.0.1", port)) == expected
        child.communicate()


ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))


@given(st.text(max_size=60), st.sampled_from(["127.0.0.1:1", "localhost:1", "[::1]:1"]))
def test_odd_names_of_peers_are_refused(peer: str, bound: str) -> None:
    for name in (peer, f"ipv4:{peer}", f"ipv6:{peer}", f"unix:{peer}", f"ipv4:127.0.0.1:{peer}"):
        with pytest.raises(AccessDeniedError):
            LocalCallers.of().check(name, bound)


ENDS = st.builds(
    lambda address, port: Endpoint.of(str(address), port), ADDRESSES, st.integers(0, 65535)
)


@given(st.integers(0, 2**32 - 1), ENDS, ENDS)
def test_tables_are_read_as_the_kernel_writes_them(
    tmp_path_factory: pytest.TempPathFactory, uid: int, client: Endpoint, server: Endpoint
) -> None:
    if client.address.version != server.address.version:
        assert peers.owners(client, server) == set()
        return

    def words(end: Endpoint) -> str:
        raw = end.address.packed
        shown = [
            raw[at : at + 4][::-1] if sys.byteorder == "little" else raw[at : at + 4]
            for at in range(0, len(raw), 4)
        ]
        return b"".join(shown).hex().upper() + f":{end.port:04X}"

    rows = [
        f"   0: {words(client)} {words(server)} 01 00000000:00000000 00:00000000 00000000 {uid:5} 0 77 1 0 20",
        f"   1: {words(client)} {words(server)} 06 00000000:00000000 00:00000000 00000000     0 0 0 3 0",
        f"   2: {words(client)} {words(server)} 01 00000000:00000000 00:00000000 00000000     0 0 0 3 0",
    ]
    table = Path(tmp_path_factory.mktemp("net")) / "tcp"
    table.write_text("  sl  local_address\n" + "\n".join(rows) + "\n")
    assert peers._look(table, [words(client), words(server)]) == {uid}
