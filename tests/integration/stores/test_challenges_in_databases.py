# SPDX-License-Identifier: Apache-2.0
"""Challenges of replicas that share PostgreSQL, or keep sessions in Redis: each opens once."""

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from _databases import Postgres

from cocos.attestation_service.challenges import Challenges
from cocos.errors import EvidenceError
from cocos.host.root_keys.file import FileRootKey
from cocos.stores.opening import open_storage
from cocos.wire.kbs.protocol import Tee

pytestmark = pytest.mark.integration

LIFETIME = dt.timedelta(minutes=5)
STATE = {"ak": "digest"}
NONCES = [f"bm9uY2U{number}" for number in range(4)]


class Clock:
    """The replicas' one clock, which is the databases' at the beginning."""

    def __init__(self) -> None:
        self.now = dt.datetime.now(dt.UTC)

    def __call__(self) -> dt.datetime:
        return self.now


@contextlib.asynccontextmanager
async def replicas(
    folder: Path, url: str, sessions: str | None, clock: Clock
) -> AsyncIterator[list[Challenges]]:
    """Three services on one storage, each with connections of its own."""
    async with contextlib.AsyncExitStack() as stack:
        made = []
        for _ in range(3):
            storage = await stack.enter_async_context(
                open_storage(url, [FileRootKey(folder / "key")], clock=clock, sessions_url=sessions)
            )
            made.append(Challenges(storage.store, clock=clock, lifetime=LIFETIME))
        yield made


async def redeemed(challenges: Challenges, nonce: str, state: str) -> str:
    try:
        kept = await challenges.redeem(Tee.TPM, nonce, state)
    except EvidenceError as error:
        return error.findings[0].problem
    assert kept.state == STATE
    return ""


@pytest.mark.parametrize("sessions", ["postgres", "redis"])
async def test_a_challenge_opens_once_among_all(
    tmp_path: Path, postgres: Postgres, valkey: str, sessions: str
) -> None:
    clock = Clock()
    where = f"{valkey}/5" if sessions == "redis" else None
    async with replicas(tmp_path, await postgres.new_database(), where, clock) as all_of_them:
        # All begin at once: there is one key, whoever made it.
        begun = await asyncio.gather(
            *(each.begin(Tee.TPM, nonce) for nonce in NONCES for each in all_of_them)
        )
        states = [(each.nonce, each.asked({}, STATE).state) for each in begun]
        assert len({each.secret for each in begun}) == len(NONCES)
        # Every state of every nonce, at every replica, at once: each nonce opens once.
        said = await asyncio.gather(
            *(redeemed(each, nonce, state) for nonce, state in states for each in all_of_them)
        )
        assert said.count("") == len(NONCES)
        assert all("has been used" in each for each in said if each)


@pytest.mark.parametrize("sessions", ["postgres", "redis"])
async def test_a_challenge_ends(
    tmp_path: Path, postgres: Postgres, valkey: str, sessions: str
) -> None:
    clock = Clock()
    where = f"{valkey}/6" if sessions == "redis" else None
    async with replicas(tmp_path, await postgres.new_database(), where, clock) as (
        first,
        second,
        _,
    ):
        challenge = await first.begin(Tee.TPM, NONCES[0])
        state = challenge.asked({}, STATE).state
        assert await redeemed(second, NONCES[1], state)  # of another challenge
        clock.now += LIFETIME
        assert "has expired" in await redeemed(second, NONCES[0], state)
