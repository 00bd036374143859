# SPDX-License-Identifier: Apache-2.0
"""Every daemon of ours on loopback that hands out secrets, asked by another user."""

import os
from pathlib import Path

import pytest
from _programs import running
from _users import NOBODY, calls_as, http_as

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else"),
]

LOCAL = "127.0.0.1:0"
PROGRAMS: dict[str, tuple[str, ...]] = {
    "coco-keyprovider": ("--socket", LOCAL),
    "attestation-agent": ("--insecure-sample", "--attestation_sock", LOCAL),
    "confidential-data-hub": ("--socket", LOCAL),
    "cocos-manager": ("--backend", "local", "--grpc-port", "0", "--http-port", "0"),
}


@pytest.mark.parametrize("program", PROGRAMS)
async def test_others_are_refused_unless_named(program: str, tmp_path: Path) -> None:
    flags = PROGRAMS[program]
    if program == "coco-keyprovider":
        flags = (*flags, "--keys", str(tmp_path))
    if program == "cocos-manager":
        flags = (*flags, "--state-folder", str(tmp_path))
    async with running(program, *flags) as daemon:
        refused = await calls_as(NOBODY, daemon.address)
        served = await calls_as(0, daemon.address)
    # A method that there is not is refused to everybody.
    assert {status for status, _ in refused.values()} <= {"PERMISSION_DENIED", "UNIMPLEMENTED"}
    for name in ("health", "watch", "reflection"):
        assert "--allow-user nobody" in refused[name][1]
    assert "PERMISSION_DENIED" not in {status for status, _ in served.values()}
    assert served["reflection"][0] == "OK"
    async with running(program, *flags, "--allow-user", "nobody") as daemon:
        assert (await calls_as(NOBODY, daemon.address))["reflection"][0] == "OK"


async def test_the_http_server_too() -> None:
    flags = ("--bind", LOCAL, "--features", "resource")
    async with running("api-server-rest", *flags) as daemon:
        status, body = await http_as(NOBODY, daemon.address)
        assert status == 403
        assert "--allow-user nobody" in body
        assert (await http_as(0, daemon.address))[0] == 200
    async with running("api-server-rest", *flags, "--allow-user", f"{NOBODY}") as daemon:
        assert (await http_as(NOBODY, daemon.address))[0] == 200


async def test_a_user_whom_nobody_knows_stops_the_start() -> None:
    with pytest.raises(AssertionError, match="no user 'who-is-it'"):
        async with running("coco-keyprovider", "--socket", LOCAL, "--allow-user", "who-is-it"):
            pass


async def test_a_socket_in_the_file_system_is_its_owners(tmp_path: Path) -> None:
    async with running("coco-keyprovider", "--socket", f"unix:{tmp_path}/s"):
        assert (tmp_path / "s").stat().st_mode & 0o777 in {0o700, 0o600}
