# SPDX-License-Identifier: Apache-2.0
"""Two real key brokers on one PostgreSQL and one Redis."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from _databases import Postgres
from _programs import Running
from _replicas import Brokers, Guest, healthy

from cocos.crypto.admin_jwt import load_public_key
from cocos.host import process
from cocos.wire import audit
from cocos.wire.audit import Verification
from cocos.wire.kbs.protocol import ResourcePath

pytestmark = pytest.mark.integration

PATH = ResourcePath.parse("default/key/1")
SECRET = b"never-to-be-seen"
ROUNDS = 6


@pytest.mark.parametrize("sessions", ["postgres", "redis"])
async def test_one_handshake_goes_through_both(
    tmp_path: Path, postgres: Postgres, valkey: str, sessions: str
) -> None:
    brokers = Brokers(
        tmp_path, await postgres.new_database(), f"{valkey}/3" if sessions == "redis" else None
    )
    async with brokers.start() as one, brokers.start() as two, Guest() as guest:
        urls = [one.address, two.address]
        async with brokers.admin(two) as admin:
            await admin.set_resource(PATH, SECRET)
        for number in range(ROUNDS):
            here, there = urls[number % 2], urls[(number + 1) % 2]
            assert (await guest.auth(here)).status_code == 200
            assert (await guest.attest(there)).status_code == 200
            assert await guest.read(here, str(PATH)) == SECRET
            assert await guest.read(there, str(PATH)) == SECRET
        await one_of_many_attests(urls)
        await a_policy_reaches_the_other(brokers, one, two, guest)
        await one_chain(brokers, one, two)
        await both_learn_new_keys(brokers, urls)
        for program in (one, two):
            assert (await healthy(program)).status_code == 200
            assert SECRET.decode() not in program.text


async def one_of_many_attests(urls: list[str]) -> None:
    async with Guest() as guest:
        for _ in range(ROUNDS):
            assert (await guest.auth(urls[0])).status_code == 200
            answers = await asyncio.gather(*(guest.attest(url) for url in urls * 4))
            assert sorted(answer.status_code for answer in answers) == [200] + [401] * 7


async def a_policy_reaches_the_other(
    brokers: Brokers, one: Running, two: Running, guest: Guest
) -> None:
    async with brokers.admin(one) as admin:
        await admin.set_resource_policy("package policy\ndefault allow := false\n")
        assert (await guest.get(two.address, str(PATH))).status_code == 403


async def one_chain(brokers: Brokers, *programs: Running) -> None:
    """What both have written is one chain that holds."""
    counts = []
    for program in programs:
        async with brokers.admin(program) as admin:
            head = await admin.audit_head()
            key = load_public_key(head.public_key.encode())
            done = Verification(head.log, key, [audit.open_checkpoint(head.checkpoint, key)])
            for record in (await admin.audit_page(0)).records:
                done.add(record)
            done.end()
        assert not done.findings
        counts.append(done.seq)
    assert counts[0] == counts[1] > ROUNDS * 4


async def both_learn_new_keys(brokers: Brokers, urls: list[str]) -> None:
    """Rotations of both kinds of keys while guests come and go: nobody is refused."""
    done = asyncio.Event()

    async def visit(first: int) -> int:
        visits = 0
        async with Guest() as guest:
            while not done.is_set() or visits < 2:
                here, there = urls[first], urls[1 - first]
                assert (await guest.auth(here)).status_code == 200
                assert (await guest.attest(there)).status_code == 200
                assert (await guest.get(here, str(PATH))).status_code == 403
                visits += 1
        return visits

    visiting = [asyncio.create_task(visit(number % 2)) for number in range(4)]
    assert (await kbs_tool(brokers, "rekey"))["records"] > 3
    new = (await kbs_tool(brokers, "token-key", "rotate"))["kid"]
    for url in urls:
        await publishes(url, new)
    done.set()
    assert all(visits >= 2 for visits in await asyncio.gather(*visiting))


async def kbs_tool(brokers: Brokers, *command: str) -> Any:
    words = [*brokers.storage_flags, *command, "--json"]
    if brokers.sessions is not None:
        words[:0] = ["--session-storage", brokers.sessions]
    tool = Path(sys.executable).with_name("kbs")
    return json.loads((await process.run([tool, *words], timeout=300)).stdout)


async def publishes(url: str, kid: str) -> None:
    """Wait until relying parties can see a key beside the one that signs."""
    async with httpx.AsyncClient(timeout=120) as http, asyncio.timeout(60):
        kids: list[str] = []
        while kid not in kids:
            answer = await http.get(f"{url}/.well-known/jwks.json")
            kids = [key["kid"] for key in answer.json()["keys"]]
        assert len(kids) == 2


async def test_a_replica_makes_no_key_of_its_own(tmp_path: Path, postgres: Postgres) -> None:
    brokers = Brokers(tmp_path, await postgres.new_database())
    async with brokers.start():
        pass
    (tmp_path / "storage.key").unlink()
    with pytest.raises(AssertionError, match="there is no key at"):
        async with brokers.start():
            pass
